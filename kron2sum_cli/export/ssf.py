"""Results in the format of the GWAS Catalog, GWAS-SSF v1.0: a table a trait, each with its metadata.

The standard: https://github.com/EBISPOT/gwas-summary-statistics-standard, gwas-ssf_v1.0.0. Its eight mandatory columns
come first and in its order; the joint tests follow the encouraged ones. Chromosomes are numbers from 1 to 25 (X is 23,
Y is 24, MT is 25; a pseudo-autosomal variant, XY, lies on X), alleles are of A, C, G and T, missing values `#NA`.
"""

import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.errors import UsageError
from kron2sum_cli.export.genome import bare_code
from kron2sum_cli.export.results import ScanResults
from kron2sum_cli.files.scan_metadata import TestOptions
from kron2sum_cli.files.table_writers import delimited_header, delimited_rows

MANDATORY = (
    "chromosome",
    "base_pair_location",
    "effect_allele",
    "other_allele",
    "beta",
    "standard_error",
    "effect_allele_frequency",
    "neg_log_10_p_value",
)
ENCOURAGED = ("variant_id", "rsid", "n")
NAME_IN_FILE = "name_in_genotype_file"

SSF_MISSING = "#NA"
SSF_SUFFIXES = (".tsv.gz", ".tsv")
METADATA_SUFFIX = "-meta.yaml"
UNKNOWN_ASSEMBLY = "unknown"

_LETTERS = {"X": 23, "XY": 23, "PAR1": 23, "PAR2": 23, "Y": 24, "MT": 25, "M": 25}
_PLINK_NUMBERS = {25: 23, 26: 25}
_GREATEST = 25
_ALLELE = "^[ACGT]+$"
_RSID = "^rs[0-9]+$"
_VARIANT_ID = "^([1-9]|1[0-9]|2[0-5])_[0-9]+_([ACGT]+_[ACGT]+|LONG_STRING)$"
_P_OF_ONE = 1e-17
"""-log10 of a p-value that is 1 in double precision: the validator of the GWAS Catalog refuses 0."""

_COMPRESSION_LEVEL = 4
_TEXT_ROWS = 1 << 13

WITHOUT_STATISTICS = "variants without statistics"
WITHOUT_CHROMOSOME = "variants on another chromosome than 1 to 22, X, Y and MT"
WITHOUT_POSITION = "variants without a position"
OTHER_ALLELES = "variants with other alleles than of A, C, G and T"


@dataclass(frozen=True)
class SsfFile:
    """One table that was written.

    Attributes
    ----------
    name : str
        The file, without its folder.
    rows : int
        How many variants it has.
    md5 : str
        Of its bytes.
    is_sorted : bool
        Whether its variants are in the order of chromosome and position.
    """

    name: str
    rows: int
    md5: str
    is_sorted: bool


@dataclass(frozen=True)
class SsfTables:
    """What was written: the file of every trait, and how many variants of the scan were left out, by reason."""

    files: Mapping[str, SsfFile]
    left_out: Mapping[str, int]

    @property
    def rows(self) -> int:
        """How many variants each file has."""
        return max(file.rows for file in self.files.values())


def ssf_paths(out: str, traits: Sequence[str]) -> dict[str, str]:
    """The table of every trait: ``OUT.TRAIT.tsv.gz``, or ``.tsv`` where OUT ends like that.

    Letters of a trait that are not safe in a file name become ``_``.

    Raises
    ------
    UsageError
        If OUT is standard output, or two traits would have one file.

    Examples
    --------
    >>> ssf_paths("results.tsv", ["height", "HDL/LDL"])
    {'height': 'results.height.tsv', 'HDL/LDL': 'results.HDL_LDL.tsv'}
    """
    if out == "-":
        raise UsageError("--to ssf writes a table and its metadata a trait: name them with --out")
    suffix = next((suffix for suffix in SSF_SUFFIXES if out.endswith(suffix)), "")
    stem, suffix = out[: len(out) - len(suffix)], suffix or SSF_SUFFIXES[0]
    paths: dict[str, str] = {}
    for trait in traits:
        path = f"{stem}.{re.sub('[^A-Za-z0-9._-]', '_', trait)}{suffix}"
        other = next((name for name, taken in paths.items() if taken.casefold() == path.casefold()), None)
        if other is not None:
            raise UsageError(f"--to ssf: the traits {other} and {trait} would both be written to {path}; rename one")
        paths[trait] = path
    return paths


def write_ssf(scan: ScanResults, outputs: Mapping[str, tuple[str, BinaryIO]]) -> SsfTables:
    """Write the table of every trait in one pass, in bounded memory.

    Parameters
    ----------
    scan : ScanResults
        The results of the scan.
    outputs : Mapping of str to (str, BinaryIO)
        For each trait the name of its file, which is compressed if it ends in ``.gz``, and the open file.

    Raises
    ------
    InputError
        If the table lacks a column, or is damaged.
    """
    extra = _further_columns(scan)
    left_out: Counter[str] = Counter()
    order = _Order()
    with ExitStack() as stack:
        writers = {
            trait: stack.enter_context(_Writer(name, file, [*MANDATORY, *ENCOURAGED, NAME_IN_FILE, *extra.values()]))
            for trait, (name, file) in outputs.items()
        }
        for batch in scan.read(_columns_to_read(scan, outputs, extra)):
            chromosomes = _chromosome_numbers(batch.column("CHR"))
            kept = _fit_to_write(batch, chromosomes, list(outputs), left_out)
            rows, chromosomes = batch.take(kept), chromosomes[kept]
            order.add(chromosomes, np.asarray(rows.column("POS")))
            common = _common_columns(rows, chromosomes)
            further = {name: _text(rows.column(column)) for column, name in extra.items()}
            for trait, writer in writers.items():
                writer.write(common | _trait_columns(rows, trait) | further)
    files = {trait: SsfFile(writer.name, writer.rows, writer.md5, order.is_sorted) for trait, writer in writers.items()}
    return SsfTables(files, {reason: number for reason, number in left_out.items() if number})


def ssf_metadata(scan: ScanResults, trait: str, file: SsfFile, modified: date) -> str:
    """The YAML that goes beside a table, with what the scan knows and nothing else.

    Parameters
    ----------
    scan : ScanResults
        The results of the scan.
    trait : str
        Whose table it is.
    file : SsfFile
        The table.
    modified : date
        The day of writing, which the standard's schema demands.
    """
    null = scan.metadata.null
    covariates = [name for name in null.covariates if name != "intercept"]
    lines = [
        "# GWAS-SSF metadata. Add before a submission what a scan cannot know: genome_assembly,",
        "# genotyping_technology, and of the samples sample_ancestry_category.",
        f"author_notes: {_quoted(_notes(scan, trait))}",
        f"date_metadata_last_modified: {modified.isoformat()}",
        *_list("trait_description", [trait]),
        f"genome_assembly: {UNKNOWN_ASSEMBLY}",
        "coordinate_system: 1-based",
        "samples:",
        f"  - sample_size: {null.observed.get(trait, null.samples)}",
        f"data_file_name: {_quoted(file.name)}",
        "file_type: GWAS-SSF v1.0",
        f"data_file_md5sum: {file.md5}",
        f"analysis_software: {_quoted('kron2sum ' + scan.metadata.version)}",
        *(_list("adjusted_covariates", covariates) if covariates else []),
        "is_harmonised: false",
        f"is_sorted: {str(file.is_sorted).lower()}",
    ]
    return "\n".join(lines) + "\n"


class _Writer:
    """A table as text, compressed without a name and a time, so that the same rows are the same bytes."""

    def __init__(self, name: str, file: BinaryIO, columns: Sequence[str]) -> None:
        self.name, self.rows = name, 0
        self._columns = columns
        self._hashed = _Hashed(file)
        self._file: Any = self._hashed
        if name.endswith(".gz"):
            self._file = gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, self._hashed, mtime=0)
        self._file.write(delimited_header(columns, "\t"))

    @property
    def md5(self) -> str:
        return self._hashed.digest.hexdigest()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._hashed.abandoned = kind is not None  # a compressed file writes its end whenever it is closed
        self._file.close()

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        batch = pa.RecordBatch.from_arrays([columns[name] for name in self._columns], names=list(self._columns))
        for start in range(0, len(batch), _TEXT_ROWS):
            self._file.write(delimited_rows(batch.slice(start, _TEXT_ROWS), "\t"))
        self.rows += len(batch)


class _Hashed(io.RawIOBase):
    """A file whose bytes are hashed on their way; closing it closes nothing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.abandoned = False
        self.digest = hashlib.md5(usedforsecurity=False)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        if not self.abandoned:
            self._file.write(data)
        return len(data)


@dataclass
class _Order:
    """Whether variants came in the order of chromosome and position so far."""

    is_sorted: bool = True
    _last: tuple[int, int] = field(default=(0, 0))

    def add(self, chromosomes: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        if not len(chromosomes):
            return
        first = (int(chromosomes[0]), int(positions[0]))
        step, advance = np.diff(chromosomes), np.diff(positions)
        within = not np.any((step < 0) | ((step == 0) & (advance < 0)))
        self.is_sorted = self.is_sorted and self._last <= first and bool(within)
        self._last = (int(chromosomes[-1]), int(positions[-1]))


def _columns_to_read(scan: ScanResults, traits: Mapping[str, Any], extra: Mapping[str, str]) -> list[str]:
    of_traits = [f"{kind}.{trait}" for trait in traits for kind in ("BETA", "SE", "MLOG10P")]
    own = [name for trait in traits if (name := f"N.{trait}") in scan.columns]
    return ["CHR", "POS", "SNPID", "EA", "NEA", "EAF", "N", "MLOG10P", *own, *of_traits, *extra]


def _further_columns(scan: ScanResults) -> dict[str, str]:
    """Columns of the scan that are about all traits, and what they are called here."""
    kinds = {
        "CHISQ": "chi_square",
        "DF": "degrees_of_freedom",
        "MLOG10P": "neg_log_10_p_value",
        "CHISQ_REFIT": "refit_chi_square",
        "MLOG10P_REFIT": "refit_neg_log_10_p_value",
    }
    tests = {"": "joint"} | {f".{test.label}": f"test_{test.label}" for test in scan.further_tests}
    found = {kind + ending: f"{test}_{name}" for ending, test in tests.items() for kind, name in kinds.items()}
    return {column: name for column, name in found.items() if column in scan.columns}


def _chromosome_numbers(column: pa.Array) -> NDArray[np.int64]:
    """The numbers of the standard, 0 where it has none."""
    encoded = column.dictionary_encode()
    numbers = np.array([ssf_chromosome(code) for code in encoded.dictionary.to_pylist()], dtype=np.int64)
    return np.asarray(numbers[np.asarray(encoded.indices)])


def ssf_chromosome(code: str) -> int:
    """The standard's number of a chromosome, 0 for those that it has none for.

    Numbers are read as plink's: 25 is XY, 26 is MT.

    Examples
    --------
    >>> [ssf_chromosome(code) for code in ("chr1", "X", "XY", "PAR1", "MT", "26", "0", "scaffold_1")]
    [1, 23, 23, 23, 25, 25, 0, 0]
    """
    bare = bare_code(code)
    if not bare.isdecimal():
        return _LETTERS.get(bare.upper(), 0)
    number = _PLINK_NUMBERS.get(int(bare), int(bare))
    return number if number <= _GREATEST else 0


def _fit_to_write(
    batch: pa.RecordBatch, chromosomes: NDArray[np.int64], traits: Sequence[str], left_out: Counter[str]
) -> NDArray[np.intp]:
    """Which rows GWAS-SSF can hold; every other row is counted under the first reason that applies."""
    needed = ["EAF", "MLOG10P", *(f"{kind}.{trait}" for trait in traits for kind in ("BETA", "SE", "MLOG10P"))]
    checks = {
        WITHOUT_STATISTICS: np.logical_and.reduce([_mask(batch.column(name).is_valid()) for name in needed]),
        WITHOUT_CHROMOSOME: chromosomes > 0,
        WITHOUT_POSITION: np.asarray(batch.column("POS")) > 0,
        OTHER_ALLELES: _is_sequence(batch.column("EA")) & _is_sequence(batch.column("NEA")),
    }
    kept = np.ones(len(batch), dtype=np.bool_)
    for reason, passes in checks.items():
        left_out[reason] += int(np.count_nonzero(kept & ~passes))
        kept &= passes
    return np.flatnonzero(kept)


def _is_sequence(alleles: pa.Array) -> NDArray[np.bool_]:
    return _mask(pc.match_substring_regex(pc.ascii_upper(alleles), _ALLELE).fill_null(False))


def _mask(values: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _common_columns(rows: pa.RecordBatch, chromosomes: NDArray[np.int64]) -> dict[str, pa.Array]:
    name = rows.column("SNPID")
    return {
        "chromosome": pa.array(chromosomes),
        "base_pair_location": rows.column("POS"),
        "effect_allele": pc.ascii_upper(rows.column("EA")),
        "other_allele": pc.ascii_upper(rows.column("NEA")),
        "effect_allele_frequency": rows.column("EAF"),
        "variant_id": _where_matching(name, _VARIANT_ID),
        "rsid": _where_matching(name, _RSID),
        "n": rows.column("N"),
        NAME_IN_FILE: name,
    }


def _where_matching(names: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(names, pattern), names, SSF_MISSING)


def _trait_columns(rows: pa.RecordBatch, trait: str) -> dict[str, pa.Array]:
    own = {"n": rows.column(f"N.{trait}")} if f"N.{trait}" in rows.schema.names else {}
    return own | {
        "beta": rows.column(f"BETA.{trait}"),
        "standard_error": rows.column(f"SE.{trait}"),
        "neg_log_10_p_value": pc.max_element_wise(rows.column(f"MLOG10P.{trait}"), _P_OF_ONE),
    }


def _text(column: pa.Array) -> pa.Array:
    """Cells that may be empty, with the standard's word for that."""
    return column.cast(pa.string()).fill_null(SSF_MISSING)


_CODED = {
    "dominant": " Genotypes are coded dominant: beta is the effect of carrying effect_allele.",
    "recessive": " Genotypes are coded recessive: beta is the effect of carrying no other allele than effect_allele.",
    "genotypic": " beta is the additive effect; the dominance deviations of the scan are not in this file.",
}
"""What the metadata say of a coding that is not additive."""


def _coded(options: TestOptions) -> str:
    """What beta is the effect of, where that is not plain."""
    if options.interaction is None:
        return _CODED.get(options.coding, "")
    name = options.interaction
    coded = _CODED.get(options.coding, "")
    return f"{coded} beta is the effect in a model without interactions; those with {name} are not in this file."


def _notes(scan: ScanResults, trait: str) -> str:
    traits, coded = scan.metadata.traits, _coded(scan.metadata.settings)
    if len(traits) == 1:
        return f"Linear mixed model of {trait}: neg_log_10_p_value is of the likelihood ratio test of beta.{coded}"
    others = f"{len(traits)} traits" if len(traits) > 10 else ", ".join(traits)
    return (
        f"Multivariate linear mixed model of {others}. beta is the effect of effect_allele on {trait} in the joint"
        " model, and neg_log_10_p_value tests it while the effects on the other traits are free. Columns joint_*"
        f" are the test of any effect on any of the traits.{coded}"
    )


def _list(key: str, values: Sequence[str]) -> Iterator[str]:
    yield f"{key}:"
    yield from (f"  - {_quoted(value)}" for value in values)


def _quoted(text: str) -> str:
    """A YAML double-quoted scalar: a JSON string, with what YAML does not let stand as it is escaped too."""
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)
