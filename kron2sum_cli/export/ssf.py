"""Results in the format of the GWAS Catalog, GWAS-SSF v1.0: a table a trait, each with its metadata.

The standard: https://github.com/EBISPOT/gwas-summary-statistics-standard, gwas-ssf_v1.0.0. Its eight mandatory columns
come first and in its order; the joint tests follow the encouraged ones. Chromosomes are numbers from 1 to 25 (X is 23,
Y is 24, MT is 25; a pseudo-autosomal variant, XY, lies on X), alleles are of A, C, G and T, missing values `#NA`.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.errors import UsageError
from kron2sum_cli.export.results import ScanResults
from kron2sum_cli.files.scan_columns import (
    BETA,
    CHR,
    EA,
    EAF,
    NEA,
    POS,
    SE,
    TEST_COLUMNS,
    TEST_REFIT_COLUMNS,
    TRAIT_COLUMNS,
    TRAIT_MLOG10P,
    TRAIT_N,
    N,
)
from kron2sum_cli.files.scan_metadata import TestOptions
from kron2sum_cli.files.table_writers import DelimitedWriter
from kron2sum_cli.genotypes.chromosomes import bare_code

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
_POSITION_BITS = 40
"""Room for a position in base pairs beside the number of a chromosome."""

_P_OF_ONE = 1e-17
"""-log10 of a p-value that is 1 in double precision: the validator of the GWAS Catalog refuses 0."""

GZIP_LEVEL = 4
"""Compression of the files, which are large."""

WITHOUT_STATISTICS = "variants without statistics"
WITHOUT_CHROMOSOME = "variants on another chromosome than 1 to 22, X, Y and MT"
WITHOUT_POSITION = "variants without a position"
OTHER_ALLELES = "variants with other alleles than of A, C, G and T"


@dataclass(frozen=True)
class SsfTables:
    """What was written for every trait.

    ``rows`` is how many variants each file has, ``left_out`` how many of the scan the files do not have, by reason.
    """

    rows: int
    is_sorted: bool
    left_out: Mapping[str, int]


def ssf_paths(out: str, traits: Sequence[str]) -> dict[str, str]:
    """The table of every trait: ``OUT.TRAIT.tsv.gz``, or ``.tsv`` where OUT ends like that.

    Letters of a trait that are not safe in a file name become ``_``. Raises UsageError if OUT is standard output, or
    two traits would have one file.

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
            raise UsageError(
                f"--to ssf: the traits {other} and {trait} would both be written to {path};"
                " export them one by one (--trait), or rename one"
            )
        paths[trait] = path
    return paths


def write_ssf(scan: ScanResults, outputs: Mapping[str, BinaryIO]) -> SsfTables:
    """Write the table of every trait to an open file, all in one pass and in bounded memory.

    Raises InputError if the table lacks a column, or is damaged.
    """
    extra = _further_columns(scan)
    names = [*MANDATORY, *ENCOURAGED, NAME_IN_FILE, *extra.values()]
    writers = {trait: DelimitedWriter(file, names, "\t") for trait, file in outputs.items()}
    left_out: Counter[str] = Counter()
    nrows, is_sorted, last = 0, True, np.zeros(1, dtype=np.int64)
    for batch in scan.read(_columns_to_read(scan, outputs, extra)):
        chromosomes = _chromosome_numbers(batch.column("CHR"))
        kept = _fit_to_write(batch, chromosomes, outputs, left_out)
        rows, chromosomes = batch.take(kept), chromosomes[kept]
        places = np.concatenate([last, (chromosomes << _POSITION_BITS) + np.asarray(rows.column("POS"))])
        is_sorted, last = is_sorted and bool(np.all(np.diff(places) >= 0)), places[-1:]
        common = _common_columns(rows, chromosomes)
        further = {name: _text(rows.column(column)) for column, name in extra.items()}
        for trait, writer in writers.items():
            columns = common | _trait_columns(rows, trait) | further
            writer.write(pa.RecordBatch.from_arrays([columns[name] for name in names], names=names))
        nrows += len(rows)
    return SsfTables(nrows, is_sorted, {reason: number for reason, number in left_out.items() if number})


def ssf_metadata(scan: ScanResults, trait: str, path: str, is_sorted: bool, modified: date) -> str:
    """The YAML that goes beside the table of a trait, with what the scan knows and nothing else.

    The table is complete; the standard's schema demands the day of writing.
    """
    with open(path, "rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
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
        f"data_file_name: {_quoted(os.path.basename(path))}",
        "file_type: GWAS-SSF v1.0",
        f"data_file_md5sum: {md5}",
        f"analysis_software: {_quoted('kron2sum ' + scan.metadata.version)}",
        *(_list("adjusted_covariates", covariates) if covariates else []),
        "is_harmonised: false",
        f"is_sorted: {str(is_sorted).lower()}",
    ]
    return "\n".join(lines) + "\n"


def _columns_to_read(scan: ScanResults, traits: Iterable[str], extra: Iterable[str]) -> list[str]:
    own = [name for trait in traits if (name := TRAIT_N.named(trait)) in scan.columns]
    return ["CHR", "POS", "SNPID", "EA", "NEA", "EAF", "N", "MLOG10P", *own, *_statistics(traits), *extra]


def _statistics(traits: Iterable[str]) -> list[str]:
    return [column.named(trait) for trait in traits for column in TRAIT_COLUMNS]


def _further_columns(scan: ScanResults) -> dict[str, str]:
    """Columns of the scan that are about all traits, and what they are called here."""
    tests = {"any": "joint"} | {test.label: f"test_{test.label}" for test in scan.further_tests}
    columns = (*TEST_COLUMNS, *TEST_REFIT_COLUMNS)
    found = {column.named(test): f"{name}_{column.ssf}" for test, name in tests.items() for column in columns}
    return {column: name for column, name in found.items() if column in scan.columns}


def _chromosome_numbers(column: pa.Array) -> NDArray[np.int64]:
    """The numbers of the standard, 0 where it has none."""
    encoded = column.dictionary_encode()
    numbers = np.array([ssf_chromosome(code) for code in encoded.dictionary.to_pylist()], dtype=np.int64)
    return np.asarray(numbers[np.asarray(encoded.indices)])


def ssf_chromosome(code: str) -> int:
    """The standard's number of a chromosome, 0 for those that it has none for.

    Numbers are read as plink's: 25 is XY, 26 is MT.

    >>> [ssf_chromosome(code) for code in ("chr1", "X", "XY", "PAR1", "MT", "26", "0", "scaffold_1")]
    [1, 23, 23, 23, 25, 25, 0, 0]
    """
    bare = bare_code(code)
    if not bare.isdecimal():
        return _LETTERS.get(bare.upper(), 0)
    number = _PLINK_NUMBERS.get(int(bare), int(bare))
    return number if number <= _GREATEST else 0


def _fit_to_write(
    batch: pa.RecordBatch, chromosomes: NDArray[np.int64], traits: Iterable[str], left_out: Counter[str]
) -> NDArray[np.intp]:
    """Which rows GWAS-SSF can hold; every other row is counted under the first reason that applies."""
    needed = ["EAF", "MLOG10P", *_statistics(traits)]
    checks = {
        WITHOUT_STATISTICS: np.logical_and.reduce([np.asarray(batch.column(name).is_valid()) for name in needed]),
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
    return np.asarray(pc.match_substring_regex(pc.ascii_upper(alleles), _ALLELE).fill_null(False))


def _common_columns(rows: pa.RecordBatch, chromosomes: NDArray[np.int64]) -> dict[str, pa.Array]:
    name = rows.column("SNPID")
    return {
        CHR.ssf: pa.array(chromosomes),
        **{column.ssf: rows.column(column.name) for column in (POS, EAF, N)},
        **{column.ssf: pc.ascii_upper(rows.column(column.name)) for column in (EA, NEA)},
        "variant_id": _where_matching(name, _VARIANT_ID),
        "rsid": _where_matching(name, _RSID),
        NAME_IN_FILE: name,
    }


def _where_matching(names: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(names, pattern), names, SSF_MISSING)


def _trait_columns(rows: pa.RecordBatch, trait: str) -> dict[str, pa.Array]:
    own = {column.ssf: rows.column(column.named(trait)) for column in (BETA, SE)}
    if TRAIT_N.named(trait) in rows.schema.names:
        own[TRAIT_N.ssf] = rows.column(TRAIT_N.named(trait))
    return own | {TRAIT_MLOG10P.ssf: pc.max_element_wise(rows.column(TRAIT_MLOG10P.named(trait)), _P_OF_ONE)}


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
    coded, name = _CODED.get(options.coding, ""), options.interaction
    if name is None:
        return coded
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
