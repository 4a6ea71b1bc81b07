"""Genotypes in tables of text: HapMap, BIMBAM mean genotypes, and tables with samples or variants in rows.

A table is told from its first line:

- ``rs# alleles chrom pos ...``: HapMap. Genotypes are two letters (``AG``) or one (``R``, IUPAC's code for A and G);
  EA is the second allele of the column ``alleles``.
- a variant, two alleles and numbers, without a header: BIMBAM's mean genotypes as GEMMA reads them. EA is the first
  allele. The samples are in a file of their own.
- ``SNPID`` (or ``SNP``, ``ID``, ``marker`` ...) first, perhaps with ``CHR``, ``POS`` and alleles behind it, then
  samples: variants in rows.
- ``FID IID``, ``IID`` (or ``taxa``, ``sample``, ``line``, nothing as R names its row names) first, then variants:
  samples in rows. So is a table of R/qtl2, whose first column is ``id``, if a map knows the names in its header.

plink's ``.raw`` and ``.traw`` are such tables.

Numbers are copies of EA, 0 to 2, or -1, 0 and 1 as rrBLUP has them; chromosomes and positions that are not in the table
come from a map.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError, counted
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.files.text import AMBIGUOUS_NAMES, Row, id_columns, is_number, plain_name, stream_rows
from kron2sum_cli.genotypes.sample_files import read_sample_list
from kron2sum_cli.genotypes.source import SourceOfOneFile, Variants, require_positions
from kron2sum_cli.genotypes.variants import with_two_alleles

logger = logging.getLogger("kron2sum.genotypes")

LARGEST_OF_MINUS_ONE = -0.5
"""Genotypes of -1 to 1 have some below this."""

Layout = Literal["HapMap", "BIMBAM", "variants in rows", "samples in rows"]

RAW_COLUMNS = ("PAT", "MAT", "SEX", "PHENOTYPE")
"""What stands between the names of a sample and its genotypes in plink's ``.raw``, whose variants are ``NAME_EA``."""

HAPMAP_COLUMNS = 11
"""Columns of HapMap before the samples."""

NO_GENOTYPE = frozenset({"", "NA", "nan", "NaN", ".", "-", "NN", "N"})
"""Cells without a genotype."""

COLUMN_NAMES: Mapping[str, frozenset[str]] = {
    "SNPID": frozenset(
        {"snpid", "snp", "id", "rsid", "rs", "marker", "markers", "markerid", "variant", "name", "locus", "gene"}
    ),
    "CHR": frozenset({"chr", "chrom", "chromosome"}),
    "POS": frozenset({"pos", "position", "bp", "basepair", "physicalposition", "mb", "posmb"}),
    "EA": frozenset({"ea", "effectallele", "a1", "allele1", "alt", "counted"}),
    "NEA": frozenset({"nea", "otherallele", "a2", "allele2", "ref"}),
    "CM": frozenset({"cm", "(c)m", "poscm", "geneticposition"}),
}
"""What columns that describe a variant may be called; without ``_``, ``#`` and capitals."""

REMEDY_OF_WIDTH = "write NA for a missing genotype, and no delimiter behind the last field"

CENTIMORGAN = 1_000_000
"""Base pairs that stand for a centimorgan where only a genetic map is known."""

UNPLACED = "0"
UNNAMED_ALLELE = "."
"""What stands for a chromosome and for alleles that are not known."""

MEGABASE = 1_000_000
"""Base pairs that one unit of a map with decimals stands for."""

IUPAC = {"R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC"}
"""The two alleles of a heterozygous genotype in one letter."""

NO_ALLELE = frozenset("-0X.")
"""What stands for no genotype in HapMap, as GAPIT reads it, where the column of alleles does not have it."""


@dataclass(frozen=True)
class MapEntry:
    """Where a variant lies and which alleles it has; ``0``, 0 and ``.`` stand for what is not known."""

    chromosome: str = UNPLACED
    position: int = 0
    ea: str = UNNAMED_ALLELE
    nea: str = UNNAMED_ALLELE


@dataclass(frozen=True)
class TableSource(SourceOfOneFile):
    """The genotypes of a table (a `GenotypeSource`), in memory.

    ``dosages`` (M, n) are copies of the effect allele, 0 to 2, NaN where missing.
    """

    has_dosages: ClassVar[bool] = True  # cells may be any number

    dosages: NDArray[np.float32] = field(repr=False, compare=False)

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele; see `GenotypeSource.read`."""
        require_positions(self, variants, rows)
        return self.dosages[variants].take(rows, axis=1).T


@dataclass(frozen=True)
class _Content:
    """What a table holds: names of n samples and M variants, what is known of these, and (M, n) dosages."""

    samples: Samples
    names: list[str]
    entries: list[MapEntry]
    dosages: NDArray[np.float32]


def table_layout(path: str) -> Layout | None:
    """How the genotypes of a table lie, told from its first line; None where it is no table of genotypes."""
    try:
        first = next(stream_rows(path), None)
    except InputError:
        return None
    fields = first.fields if first is not None else ()
    if len(fields) < 2:
        return None
    if plain_name(fields[0]) == "rs" and plain_name(fields[1]).startswith("allele"):
        return "HapMap"
    if id_columns(fields) or not plain_name(fields[0]):
        return "samples in rows"
    if variant_column(fields[0]) in ("SNPID", "CHR"):
        return "variants in rows"
    alleles = len(fields) > 3 and not any(is_number(allele) for allele in fields[1:3])
    return "BIMBAM" if alleles and all(is_number(cell) or cell.strip() in NO_GENOTYPE for cell in fields[3:]) else None


def is_no_matrix(path: str) -> bool:
    """Whether a file is a table of genotypes that can be no relationship matrix, nor a table of G."""
    layout = table_layout(path)
    if layout == "variants in rows":
        rows = stream_rows(path)
        header, first = next(rows).fields, next(rows, None)
        is_square = first is not None and first.fields[0] in header
        return variant_column(header[1]) is not None or not is_square
    return layout in ("HapMap", "BIMBAM")


def open_table(path: str, sample: str | None = None, map_path: str | None = None, ploidy: int = 2) -> TableSource:
    """Read a table of genotypes.

    - ``path``: the table, compressed or not; with tabs, commas, semicolons or white space between columns.
    - ``sample``: the samples of BIMBAM's mean genotypes: a ``.fam``, or a list with ``FID IID`` or ``IID`` in each
      line.
    - ``map_path``: chromosomes and positions of its variants (see `read_map`); those of the table itself come first.
    - ``ploidy``: the largest number in its cells.

    Raises InputError where the table or the map cannot be read, a genotype is not one, or a sample is there twice;
    UsageError where ``sample`` is needed and not given, or given and not needed.
    """
    layout = table_layout(path)
    known = {} if map_path is None else read_map(map_path)
    if layout == "variants in rows" and _header_has_variants(path, known):
        layout = "samples in rows"
    if layout is None:
        raise InputError(
            f"{path}: its first line is not that of a table of genotypes; call its first column IID (samples in rows) "
            "or SNPID (variants in rows)"
        )
    if layout == "BIMBAM" and sample is None:
        raise UsageError(
            f"{path} has no names of samples: give them with --sample FILE (--grm-id for --grm), a .fam or a list"
        )
    if layout != "BIMBAM" and sample is not None:
        raise UsageError(f"{path} has names of samples of its own: leave out --sample {sample}")
    if layout == "samples in rows":
        content = _read_samples_in_rows(path, ploidy)
    else:
        content = _read_variants_in_rows(path, layout, sample, ploidy)
    rows = [_row(name, entry, known.get(name)) for name, entry in zip(content.names, content.entries, strict=True)]
    unplaced = sum(row[0] == UNPLACED for row in rows)
    if unplaced:
        logger.warning(
            "%s: %d of %d variants have no chromosome and position; give them with --map FILE",
            path,
            unplaced,
            len(rows),
        )
    n_alleles = np.array([2 + row[3].count("/") for row in rows])
    variants = with_two_alleles(Variants.of_rows(rows, path), n_alleles, "by hand, into a line for each allele")
    files = (path, *(name for name in (sample, map_path) if name is not None))
    return TableSource(
        path, files, content.samples, variants, _counted_from_zero(content.dosages, path)[n_alleles == 2]
    )


def _header_has_variants(path: str, known: Collection[str]) -> bool:
    """Whether a table whose first column may name samples or variants (R/qtl2's ``id``) has those of a map on top."""
    rows = stream_rows(path)
    header, first = next(rows).fields, next(rows, None)
    if plain_name(header[0]) not in AMBIGUOUS_NAMES or (first is not None and first.fields[0].strip() in known):
        return False
    return any(name.strip() in known for name in header[1:])


def read_map(path: str) -> Mapping[str, MapEntry]:
    """Read where variants lie.

    From a table with a header that names the variant, the chromosome and the position in base pairs or, where there is
    none, in centimorgans (`CENTIMORGAN` base pairs each), perhaps the alleles (see `COLUMN_NAMES`); or a PLINK ``.map``
    or ``.bim``; or GEMMA's annotation (name, position, chromosome). Positions with decimals, as in the ``pmap`` and
    ``gmap`` of R/qtl2, are megabases or centimorgans. Raises InputError where it is none of these, or a position is no
    number.
    """
    rows: Sequence[Row] = list(stream_rows(path))
    first = rows[0] if rows else None
    if first is None:
        raise InputError(f"{path} is empty; check the command that wrote it")
    columns = [variant_column(name) for name in first.fields]
    by_width = {
        6: ["CHR", "SNPID", "CM", "POS", "EA", "NEA"],
        4: ["CHR", "SNPID", "CM", "POS"],
        3: ["SNPID", "POS", "CHR"],
    }
    if not ({"SNPID", "CHR"} <= set(columns) and {"POS", "CM"} & set(columns)):
        if len(columns) not in by_width:
            raise InputError(
                f"{path}, line 1: {' '.join(first.fields[:6])!r} does not name the columns SNPID, CHR and POS (or "
                "cM); add such a header, or give a PLINK .map or .bim"
            )
        columns = list(by_width[len(columns)])
    else:
        rows = rows[1:]
    unit = 1
    if "POS" in columns:
        at = columns.index("POS")
        positions = [row.fields[at] for row in rows if at < len(row.fields)]
        if any("." in cell and is_number(cell) and not float(cell).is_integer() for cell in positions):
            logger.info(
                "%s: positions have decimals: one is taken for 1,000,000 base pairs (megabases, centimorgans)", path
            )
            unit = MEGABASE
    return _without_contradictions([described(row, columns, path, unit) for row in rows], path)


def _without_contradictions(described_variants: Sequence[tuple[str, MapEntry]], path: str) -> Mapping[str, MapEntry]:
    """The entries of a map by name, without those that are at two places; a warning counts them."""
    entries, wrong = dict[str, MapEntry](), dict[str, str]()
    for name, entry in described_variants:
        other = entries.setdefault(name, entry)
        if (other.chromosome, other.position) != (entry.chromosome, entry.position):
            wrong[name] = f"{other.chromosome}:{other.position} and {entry.chromosome}:{entry.position}"
    if wrong:
        name, places = next(iter(wrong.items()))
        logger.warning(
            "%s: %s there twice, at different places, first %s (%s): where they lie is taken for unknown",
            path,
            counted(len(wrong), "variants"),
            name,
            places,
        )
    return {name: entry for name, entry in entries.items() if name not in wrong}


def described(row: Row, columns: Sequence[str | None], path: str, unit: int = 1) -> tuple[str, MapEntry]:
    """The name of a variant and what is known of it, from its own columns; its position counts ``unit`` base pairs."""
    if len(row.fields) < len(columns):
        raise InputError(
            f"{path}, line {row.line}: {len(row.fields)} columns where {len(columns)} are expected; write NA for what "
            "is missing"
        )
    cells = {column: cell.strip() for column, cell in zip(columns, row.fields, strict=False) if column is not None}
    chromosome, position = cells.get("CHR", UNPLACED), cells.get("POS", "0")
    if position in NO_GENOTYPE or chromosome in NO_GENOTYPE:
        chromosome, position, unit = UNPLACED, "0", 1
    if "POS" not in cells and chromosome != UNPLACED and cells.get("CM", "") not in NO_GENOTYPE:
        position, unit = cells["CM"], CENTIMORGAN
    bp = float(position) * unit if is_number(position) else np.nan
    if unit != 1:
        bp = max(np.rint(bp), 1.0)  # a map begins at 0, which is no position in base pairs
    if not np.isfinite(bp) or not bp.is_integer():
        wrong = f"{path}, line {row.line}: position {position!r} is not a"
        if unit != 1:
            raise InputError(f"{wrong} number; correct it, or write NA where it is not known")
        raise InputError(f"{wrong} whole number; correct it, or call the column cM where it has centimorgans")
    alleles = (cells.get(allele, UNNAMED_ALLELE) for allele in ("EA", "NEA"))
    name = cells.get("SNPID") or f"{chromosome}:{position}"
    return name, MapEntry(chromosome, int(bp), *alleles)


def _row(name: str, own: MapEntry, mapped: MapEntry | None) -> tuple[str, int, str, str, str]:
    """A row of the table of variants."""
    entry = own if mapped is None or own.chromosome != UNPLACED else mapped
    ea, nea = (own.ea, own.nea) if mapped is None or own.ea != UNNAMED_ALLELE else (mapped.ea, mapped.nea)
    if mapped is not None and nea == UNNAMED_ALLELE and ea in (mapped.ea, mapped.nea):
        nea = mapped.nea if ea == mapped.ea else mapped.ea
    return entry.chromosome, entry.position, name, ea, nea


def _read_samples_in_rows(path: str, ploidy: int) -> _Content:
    rows = stream_rows(path)
    header = next(rows).fields
    n_ids = id_columns(header) or 1
    is_raw = header[n_ids : n_ids + len(RAW_COLUMNS)] == RAW_COLUMNS
    skipped = n_ids + (len(RAW_COLUMNS) if is_raw else 0)
    ids, lines, cells = [], [], []
    for row in rows:
        require_width(row, header, path)
        ids.append(row.fields[:n_ids])
        lines.append(row.line)
        cells.append(copies_in_row(row, skipped, path, ploidy))
    samples = Samples.of_names(ids, path)
    _require_some(len(header) - skipped, len(samples), path)
    refuse_duplicates(samples, lines)
    parts = [name.rpartition("_") if is_raw else (name, "", "") for name in header[skipped:]]
    entries = [MapEntry(ea=allele or UNNAMED_ALLELE) for _, _, allele in parts]
    return _Content(samples, [name for name, _, _ in parts], entries, np.array(cells).T)


def _read_variants_in_rows(path: str, layout: Layout, sample: str | None, ploidy: int) -> _Content:
    rows = stream_rows(path)
    if layout == "BIMBAM":
        columns: list[str | None] = ["SNPID", "EA", "NEA"]
        samples = read_sample_list(str(sample))
    else:
        header = next(rows).fields
        if layout == "HapMap":
            columns = ["SNPID", None, "CHR", "POS", *[None] * (HAPMAP_COLUMNS - 4)]
        else:
            columns = [variant_column(name) for name in header]
            if columns.count("EA") == 2:  # plink's .traw: COUNTED and ALT
                columns[columns.index("EA", columns.index("EA") + 1)] = "NEA"
            columns = columns[: next((i for i, column in enumerate(columns) if column is None), len(columns))]
        samples = Samples(None, tuple(header[len(columns) :]), path)
        refuse_duplicates(samples)
    names, entries, dosages = [], [], []
    for row in rows:
        if len(row.fields) != len(columns) + len(samples):
            raise InputError(
                f"{path}, line {row.line}: {len(row.fields)} fields where {len(columns)} columns and {len(samples)} "
                f"samples of {samples.source} make {len(columns) + len(samples)}; {REMEDY_OF_WIDTH}"
            )
        name, entry = described(row, columns, path)
        if layout == "HapMap":
            entry, copies = _hapmap(row, entry, path)
        else:
            copies = copies_in_row(row, len(columns), path, ploidy)
        names.append(name)
        entries.append(entry)
        dosages.append(copies)
    _require_some(len(names), len(samples), path)
    return _Content(samples, names, entries, np.array(dosages))


def _hapmap(row: Row, entry: MapEntry, path: str) -> tuple[MapEntry, NDArray[np.float32]]:
    """The alleles of a variant, and the copies of the second in every genotype."""
    calls, call_of_sample = np.unique([cell.upper() for cell in row.fields[HAPMAP_COLUMNS:]], return_inverse=True)
    listed = row.fields[1].upper().split("/")
    given = [allele for allele in listed if allele not in NO_GENOTYPE or (allele == "-" and len(listed) > 1)]
    one_letter = IUPAC | ({"0": "+-"} if {"+", "-"} <= set(given) else {})
    pairs = [call if len(call) == 2 else one_letter.get(call, 2 * call) for call in calls.tolist()]
    for call, pair in zip(calls.tolist(), pairs, strict=True):
        if len(pair) > 2:
            raise InputError(f"{path}, line {row.line}: {call!r} is no genotype of one or two letters, such as AG or R")
    no_alleles = {"N", *NO_ALLELE.difference(given)}
    found = sorted({allele for pair in pairs if pair not in NO_GENOTYPE for allele in pair} - no_alleles)
    alleles = given + [allele for allele in found if allele not in given]
    nea, ea = (alleles + [UNNAMED_ALLELE] * 2)[:2]
    copies = [np.nan if pair in NO_GENOTYPE or no_alleles & {*pair} else pair.count(ea) for pair in pairs]
    named = MapEntry(entry.chromosome, entry.position, "/".join(alleles[1:]) or ea, nea)
    return named, np.array(copies, np.float32)[call_of_sample]


def require_width(row: Row, header: Sequence[str], path: str) -> None:
    """Refuse a row with another number of fields than the header."""
    if len(row.fields) != len(header):
        raise InputError(
            f"{path}, line {row.line}: {len(row.fields)} fields where the header has {len(header)}; {REMEDY_OF_WIDTH}"
        )


def copies_in_row(row: Row, skipped: int, path: str, ploidy: int) -> NDArray[np.float32]:
    """The genotypes of a line as dosages of 0 to 2, NaN where missing."""
    cells = row.fields[skipped:]
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        cells = tuple("nan" if cell.strip() in NO_GENOTYPE else cell for cell in cells)
        wrong = next((i for i, cell in enumerate(cells) if not is_number(cell)), None)
        if wrong is not None:
            raise InputError(
                f"{path}, line {row.line}, column {skipped + wrong + 1}: {cells[wrong]!r} is not a number of copies "
                f"(0 to {ploidy}) and not NA"
            ) from None
        values = np.array(cells, dtype=np.float64)
    outside = np.flatnonzero((values < (-1 if ploidy == 2 else 0)) | (values > ploidy))
    if len(outside):
        i = int(outside[0])
        raise InputError(
            f"{path}, line {row.line}, column {skipped + i + 1}: {values[i]:g} is not a number of copies (0 to "
            f"{ploidy}); write NA for a missing genotype, and say with --ploidy how many copies a sample has"
        )
    return (values * (2 / ploidy)).astype(np.float32)


def _counted_from_zero(dosages: NDArray[np.float32], path: str) -> NDArray[np.float32]:
    """Copies of EA, 0 to 2, also where they were written as -1, 0 and 1."""
    if not (dosages < 0).any():
        return dosages
    if (dosages > 1).any():
        raise InputError(
            f"{path} has genotypes below 0 ({np.nanmin(dosages):g}) and above 1 ({np.nanmax(dosages):g}); count copies"
            " as 0 to 2, or as -1 to 1 (NA: missing)"
        )
    if np.nanmin(dosages) > LARGEST_OF_MINUS_ONE:
        raise InputError(
            f"{path} has genotypes below 0 (the least is {np.nanmin(dosages):g}), and none near -1, as genotypes of -1"
            " to 1 would have; write 0 where rounding made less than 0 of it"
        )
    logger.warning("%s: genotypes are -1 to 1, which is taken for 0 to 2 copies", path)
    return dosages + np.float32(1)


def _require_some(n_variants: int, n_samples: int, path: str) -> None:
    if not n_variants or not n_samples:
        raise InputError(f"{path} has {n_samples} samples and {n_variants} variants; check the file")


def variant_column(name: str) -> str | None:
    """What a column that describes a variant is called here; None for another column."""
    return next((column for column, names in COLUMN_NAMES.items() if plain_name(name) in names), None)
