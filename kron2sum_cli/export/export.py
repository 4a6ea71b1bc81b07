"""`kron2sum export`: reads results or a null model, writes a table, a picture, a page or GWAS-SSF files."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, OutputError, UsageError
from kron2sum_cli.export.computed_columns import (
    COVARIANCES,
    EXPLAINED,
    ComputedColumns,
    computed_columns,
    false_discovery_rates,
    type_of,
)
from kron2sum_cli.export.estimates import estimates_json, estimates_table, predictions_table
from kron2sum_cli.export.genome import read_genome
from kron2sum_cli.export.loci import Clumping, find_loci, locus_intervals, open_linkage
from kron2sum_cli.export.results import ScanResults, column_values, sets_as_variants, stored_columns_of_sets
from kron2sum_cli.export.rows import (
    RowKeys,
    below,
    numbered_rows,
    rounded,
    sort_columns,
    sorted_rows,
    top_rows,
    with_columns,
)
from kron2sum_cli.export.ssf import GZIP_LEVEL, METADATA_SUFFIX, ssf_metadata, ssf_paths, write_ssf
from kron2sum_cli.files.inputs import (
    HEAD_BYTES,
    compression_of,
    copy_decompressed,
    display_name,
    open_input,
    unreadable,
)
from kron2sum_cli.files.null_file import NullFile, read_null
from kron2sum_cli.files.outputs import atomic_output, guard_inputs
from kron2sum_cli.files.sample_table import choose_columns
from kron2sum_cli.files.scan_columns import (
    ANY,
    COLUMNS,
    COV,
    FDR,
    IDENTITY_COLUMNS,
    LEAD_COLUMNS,
    MLOG10P,
    MLOG10P_SET,
    PVE,
    SET,
    P,
    axis_columns,
)
from kron2sum_cli.files.scan_metadata import ScanMetadata, join_parts
from kron2sum_cli.files.scan_table import ScanFile, ScanWriter, open_scan
from kron2sum_cli.files.table_writers import compressed_output
from kron2sum_cli.files.trait_design import asked_hypotheses
from kron2sum_cli.option_values import (
    STDIO,
    TESTS_OF_SCAN,
    GenomeWide,
    Significance,
    format_of,
    raise_all,
    without_folders,
)
from kron2sum_cli.progress import Progress
from kron2sum_cli.settings import DEFAULT_SIGNIFICANCE, FAMILY_WISE, NULL_PLOTS, ExportSettings

logger = logging.getLogger("kron2sum.export")

MANY_LEFT_OUT = 0.1
"""Share of the variants that a GWAS-SSF file may lack without a warning."""

_ZIP = b"PK"
_NULL_FORMATS = ("tsv", "csv", "json", "blup")


def export(settings: ExportSettings, progress: Progress) -> None:
    """Write what `settings` ask for: tables of scans as one, or the estimates of a null model; or check the files.

    Raises InputError if a file is neither, is damaged, or tables do not belong together; UsageError if a column or
    trait is not there, or an option does not apply; OutputError if the output cannot be written.
    """
    with ExitStack() as stack:
        files = [_open(path, stack) for path in settings.inputs]
        nulls = [file for file in files if file.is_null]
        if settings.check:
            for file in files:
                check_null(file.path, file.name) if file.is_null else check_scan(file.handle, file.name)
        elif nulls and len(files) > 1:
            raise UsageError(f"{nulls[0].name}: is a null model; export it alone")
        elif nulls:
            _export_null(nulls[0], settings)
        else:
            _export_scans([open_scan(file.handle, file.name) for file in files], settings, progress)


@dataclass(frozen=True)
class _Input:
    """An input: a seekable file, its name for messages, and the path to read a null model from."""

    handle: BinaryIO
    name: str
    path: str
    is_null: bool


def _open(path: str, stack: ExitStack) -> _Input:
    """Open an input; of pipes and compressed files a copy, since both kinds are read from their end."""
    command = "fit" if path.endswith(".npz") else "scan"
    handle = stack.enter_context(open_input(path, f"make it with kron2sum {command}"))
    path_again = path if path != STDIO else f"/dev/fd/{handle.fileno()}"
    try:
        if not handle.seekable():
            copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            shutil.copyfileobj(handle, copy)
            handle, path_again = copy, f"/dev/fd/{copy.fileno()}"
            handle.seek(0)
        head = handle.read(HEAD_BYTES)
        if compression_of(head) is not None:
            content = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            copy_decompressed(handle, content, display_name(path))
            handle, path_again = content, f"/dev/fd/{content.fileno()}"
            head = handle.read(HEAD_BYTES)
        handle.seek(0)
    except OSError as error:
        raise unreadable(display_name(path), error) from error
    return _Input(handle, display_name(path), path_again, head.startswith(_ZIP))


def check_null(path: str, name: str) -> None:
    """Read a null model with all its fits; a damaged one is refused."""
    null = read_null(path)
    for chromosome in (None, *null.chromosomes):
        null.load(chromosome)
    left_out = f", {len(null.chromosomes)} chromosomes left out in turn" if null.chromosomes else ""
    logger.info(
        "%s: sound: a null model of %d samples and %d traits%s, hash %s",
        name,
        len(null.samples),
        len(null.traits),
        left_out,
        null.metadata.hash,
    )


def check_scan(handle: BinaryIO, name: str) -> None:
    """Read a result table to its last byte.

    Raises InputError if it is damaged, or was changed after it was written; NumericalError if a cell is NaN or
    infinite.
    """
    table = open_scan(handle, name)
    table.check()
    hash_of_null = table.metadata.null.hash
    logger.info("%s: sound: %d rows, %d columns, null model %s", name, table.num_rows, len(table.schema), hash_of_null)


def _export_null(file: _Input, settings: ExportSettings) -> None:
    """Write the estimates or predictions of a null model, or draw them."""
    used = [
        name
        for name in ("top", "p_below", "sort", "leads", "fdr", "columns", "traits", "tests", "report")
        if getattr(settings, name)
    ]
    if settings.plot is not None and settings.plot not in NULL_PLOTS:
        used.append(f"plot {settings.plot}")
    if used:
        options = ", ".join(
            f"--{name[:-1]}" if name in ("traits", "tests") else f"--{name.replace('_', '-')}" for name in used
        )
        raise UsageError(f"{file.name}: is a null model, to which {options} does not apply")
    if settings.plot is not None:
        _require_plot_extra()
        from kron2sum_cli.export.architecture import draw_architecture
        from kron2sum_cli.export.figure import render
        from kron2sum_cli.export.plots import picture_format

        null, to = read_null(file.path), picture_format(settings.out)
        _write(settings.out, render(lambda: draw_architecture(null.traits, null.whole.estimates), to))
        return
    if settings.to == "json" and settings.digits:
        raise UsageError(f"{file.name}: --digits is for tables; leave it out with --to json")
    if settings.to not in _NULL_FORMATS:
        raise UsageError(f"{file.name}: is a null model; it is written as {', '.join(_NULL_FORMATS)} (--to)")
    null, is_csv = read_null(file.path), "csv" in (settings.to, format_of(settings.out, ("csv",), ""))
    if settings.to == "json":
        content = estimates_json(null)
    else:
        table = predictions_table if settings.to == "blup" else estimates_table
        content = table(null, "," if is_csv else "\t", settings.digits)
    with compressed_output(settings.out) as out:
        out.write(content)


def _require_plot_extra() -> None:
    """Refuse pictures and pages where what draws them is not installed."""
    for package in ("matplotlib", "jinja2"):
        if find_spec(package) is None:
            raise UsageError(f"pictures need {package}, which is not installed: pip install 'kron2sum-cli[plot]'")


def _export_scans(tables: Sequence[ScanFile], settings: ExportSettings, progress: Progress) -> None:
    """Join the tables of a scan, and write what is asked for."""
    if settings.to == "blup":
        raise UsageError(f"{tables[0].name}: is a table of a scan; --to blup is for a null model of fit --predict")
    if settings.plot in NULL_PLOTS:
        raise UsageError(f"{tables[0].name}: is a table of a scan; --plot {settings.plot} is for a null model")
    tables, metadata = _join(tables, settings)
    computed = computed_columns(settings, metadata, tables[0].schema.names)
    scan = scan_results(tables, metadata, computed, settings)
    if scan.is_of_sets:
        settings = _for_sets(settings, scan)
    if settings.is_view:
        _write_view(scan, settings)
        return
    rates = false_discovery_columns(scan) if settings.fdr else {}
    leads, of_leads = lead_variants(scan, settings) if settings.leads else (None, {})
    added = [*computed.names, *rates, *of_leads]
    names = _chosen_columns(tables[0], metadata, added, settings)
    total = sum(table.num_rows for table in tables)
    for table in tables:
        logger.debug("%s: %d %ss", table.name, table.num_rows, scan.noun)
    with progress.task("Exporting", total, f"{scan.noun}s") as advance:
        read = _columns_to_read(tables[0], [*names, *computed.needed], added, settings)
        batches = with_columns(_rows(tables, read, advance), rates)
        if leads is not None:
            batches = with_columns(numbered_rows(batches, leads), of_leads)
        batches = map(computed.add_to, batches)
        fields = (pa.field(name, type_of(name)) for name in added)
        schema = pa.schema([*tables[0].schema, *fields])
        keys = RowKeys.of(tables[0].schema.names)
        if settings.goes_by_p and len(scan.main_tests) > 1 and scan.is_of_sets:
            logger.info("sets go by %s, the first of %d tests", keys.mlog10p, len(scan.main_tests))
        written = _write_table(_chosen_rows(batches, keys, settings), schema, names, metadata, settings)
    log = logger.debug if settings.out == STDIO else logger.info
    log("%d of %d %ss written to %s", written, total, scan.noun, settings.out)


def _join(tables: Sequence[ScanFile], settings: ExportSettings) -> tuple[list[ScanFile], ScanMetadata]:
    """The tables in the order of their variants, and the metadata of all."""
    joined = join_parts([table.name for table in tables], [table.metadata for table in tables])
    _check_same_columns(tables)
    if joined.missing and not settings.allow_gaps:
        names = ", ".join(table.name for table in tables)
        raise InputError(
            f"{', '.join(joined.missing)} are missing from {names}; add the tables that have them, "
            "or export what is there with --allow-gaps"
        )
    for gap in joined.missing:
        logger.warning("%s are missing", gap)
    largest = joined.metadata.largest if len(tables) > 1 else {}  # of one table the columns are what they must be
    ordered = [replace(tables[index], largest=largest) for index in joined.order]
    _check_different_variants(ordered)
    return ordered, joined.metadata


def _check_different_variants(tables: Sequence[ScanFile]) -> None:
    """Refuse to join scans of two versions of a genotype file, which begin with the same variant."""
    seen: dict[Any, tuple[str, Any]] = {}
    identity = ["CHR", "POS", "EA", "NEA"]
    for table in tables if len(tables) > 1 else ():
        geno = table.metadata.inputs.get("geno")
        first = next(table.iter_batches(identity, 1), None) if set(identity) <= set(table.schema.names) else None
        if first is None or not len(first):
            continue
        variant = tuple(first.to_pylist()[0].values())
        other, of = seen.setdefault(variant, (table.name, geno))
        if of != geno:
            raise InputError(
                f"{table.name} and {other} are scans of different genotype files that both begin with the variant at"
                f" {variant[0]}:{variant[1]}; leave one out, or scan all parts of one file"
            )


def _check_same_columns(tables: Sequence[ScanFile]) -> None:
    for table in tables[1:]:
        if not table.schema.equals(tables[0].schema):
            odd = [name for name in table.schema.names if name not in tables[0].schema.names]
            odd += [name for name in tables[0].schema.names if name not in table.schema.names]
            what = f" ({odd[0]} is in one only)" if odd else ""
            raise InputError(f"{table.name}: has other columns than {tables[0].name}{what}; scan both alike")


def scan_results(
    tables: Sequence[ScanFile], metadata: ScanMetadata, computed: ComputedColumns, settings: ExportSettings
) -> ScanResults:
    """The tables of a scan as one, for pictures, reports and lead variants.

    Raises InputError where a trait of ``--trait`` is not there.
    """
    is_of_sets = SET.name in tables[0].schema.names

    def rows(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if is_of_sets:
            for batch in (batch for table in tables for batch in table.iter_batches(stored_columns_of_sets(columns))):
                yield sets_as_variants(batch, columns)
            return
        further = set(columns) & set(computed.names)
        stored = [name for name in columns if name not in further]
        read = list(dict.fromkeys([*stored, *computed.needed])) if further else stored
        for batch in (batch for table in tables for batch in table.iter_batches(read)):
            yield computed.add_to(batch).select(list(columns)) if further else batch

    name, traits = tables[0].name, list(metadata.traits)
    chosen = (
        choose_columns(settings.traits, traits, "--trait", name, "trait") if settings.traits else range(len(traits))
    )
    tests: list[str] = []
    if settings.plot is not None and settings.tests:
        Tinv = np.asarray(np.linalg.inv(metadata.nulls[0].axes))
        for test in settings.tests:
            is_named = test == "any" or test in TESTS_OF_SCAN
            tests += [test] if is_named else [one.name for one in asked_hypotheses([test], traits, Tinv)]
    if is_of_sets:
        _check_tests_of_sets(name, tests, tables[0].schema.names)
    of_variants = [column.name for column in IDENTITY_COLUMNS if column.name not in tables[0].schema.names]
    columns = (*tables[0].schema.names, *(of_variants if is_of_sets else ()), *computed.names)
    return ScanResults(name, columns, metadata, rows, tuple(traits[k] for k in chosen), tuple(tests))


def _check_tests_of_sets(name: str, tests: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse to draw a test that a table of sets lacks: none can be computed from it."""
    for test in tests:
        if test != ANY and not any(
            column == MLOG10P.named(test) or (column.startswith(f"{MLOG10P_SET.name}.") and column.endswith(f".{test}"))
            for column in columns
        ):
            raise UsageError(f"--test {test}: {name} is a table of sets without it; give it to kron2sum scan --sets")


def _write_view(scan: ScanResults, settings: ExportSettings) -> None:
    """Write what the settings ask for: a picture, a report, or GWAS-SSF files."""
    some = _only_some_rows(scan)
    if some is not None and (settings.report is not None or settings.plot == "qq"):
        logger.warning("%s: λ, QQ plots and counts are of these rows alone; export the table of the scan", some)
    if settings.plot is None and settings.report is None:
        _write_ssf(scan, settings)
        return
    _require_plot_extra()
    from kron2sum_cli.export.plots import PictureSettings, picture_format, plot_scan
    from kron2sum_cli.export.report import scan_report

    null = null_of(scan, settings)
    out = settings.out if settings.report is None else settings.report
    pictures = PictureSettings(_clumping(settings, out, null), by_frequency=settings.maf_classes)
    if settings.plot is not None:
        _write(out, plot_scan(settings.plot, scan, picture_format(out), pictures))
    else:
        _write(out, scan_report(scan, pictures, null).encode())


def null_of(scan: ScanResults, settings: ExportSettings) -> NullFile | None:
    """The null model that was named; another than the scan's is refused, naming the hashes of both."""
    null = read_null(settings.null) if settings.null is not None else None
    scanned_with = scan.metadata.null.hash
    if null is not None and null.metadata.hash != scanned_with:
        raise InputError(
            f"{scan.name}: was scanned with another null model (hash {scanned_with[:12]}) than the one given"
            f" ({null.metadata.hash[:12]}); give that of the scan"
        )
    return null


def _clumping(settings: ExportSettings, out: str, null: NullFile | None) -> Clumping:
    """How lead variants are told from those near them."""
    linkage = open_linkage(settings.geno, out, null, settings.files_of_genotypes) if settings.geno else None
    return Clumping(_significance(settings), round(1000 * settings.clump_kb), settings.least_r2, linkage)


def _significance(settings: ExportSettings) -> Significance:
    return DEFAULT_SIGNIFICANCE if settings.significance is None else settings.significance


def _for_sets(settings: ExportSettings, scan: ScanResults) -> ExportSettings:
    """The settings as they apply to a table of sets; options that ask for what sets do not have are refused."""
    not_there = {
        "--geno": ("linkage disequilibrium", bool(settings.geno)),
        "--maf-classes": ("allele frequencies", settings.maf_classes),
        "--trait": ("columns of traits", bool(settings.traits)),
        "--to ssf": ("alleles and effects", settings.to == "ssf"),
        "--plot effects": ("effects", settings.plot == "effects"),
    }
    raise_all(
        f"{option}: {scan.name} is a table of sets, which have no {what}"
        for option, (what, asked) in not_there.items()
        if asked
    )
    if settings.significance is not None or not (settings.leads or settings.is_view):
        return settings
    return replace(settings, significance=significance_of_sets(scan))


def significance_of_sets(scan: ScanResults) -> float:
    """`FAMILY_WISE` over the number of sets tested: there are as many of them as the user makes."""
    columns = [test.column for test in scan.main_tests]
    tested = np.zeros(len(columns), dtype=np.int64)
    for batch in scan.read(columns):
        tested += [np.count_nonzero(~np.isnan(column_values(batch, column))) for column in columns]
    return FAMILY_WISE / max(int(tested.max(initial=0)), 1)


def lead_variants(scan: ScanResults, settings: ExportSettings) -> tuple[NDArray[np.intp], dict[str, pa.Array]]:
    """The lead variants in the order of the table: the strongest of their locus in any test.

    Returns which rows of the table they are, and their `LEAD_COLUMNS` (of sets, whose tests have no common LOD score,
    the test alone). Raises InputError if the null model is not that of the scan, or genotypes are not those that were
    scanned.
    """
    clumping = _clumping(settings, settings.out, null_of(scan, settings))
    genome = read_genome(scan)
    loci = find_loci(scan, genome, scan.all_tests, [], clumping)
    rows = loci.candidates.row_numbers[loci.together.leads]
    logger.info("%d lead %s%s", len(rows), scan.noun, "s" * (len(rows) != 1))
    order = np.argsort(rows)
    cells: list[list[Any]] = [[test.label for test in loci.strongest_tests()]]
    if not scan.is_of_sets:
        intervals = locus_intervals(scan, genome, loci, clumping.window)
        ends = [(found.lod or (None, None)) + (found.bayes or (None, None)) for found in intervals]
        cells += [[end[k] for end in ends] for k in range(4)]
    columns = {column.name: pa.array(found, column.type) for column, found in zip(LEAD_COLUMNS, cells, strict=False)}
    return rows[order], {name: column.take(order) for name, column in columns.items()}


def _only_some_rows(scan: ScanResults) -> str | None:
    """That a table has only some rows of a scan, by its metadata; None if it has all."""
    chosen = [name for name in ("top", "p_below", "leads") if (scan.metadata.export or {}).get(name) is not None]
    return f"{scan.name}: has only some rows of a scan (--{chosen[0].replace('_', '-')})" if chosen else None


def false_discovery_columns(scan: ScanResults) -> dict[str, pa.Array]:
    """``FDR`` and ``FDR.NAME`` of every test, over all rows of the table; one of some rows of a scan is refused."""
    some = _only_some_rows(scan)
    if some is not None:
        raise InputError(f"{some}, and rates are over all; export the table of the scan")
    columns = {}
    one_trait = len(scan.metadata.traits) == 1 and not scan.is_of_sets
    for test in [scan.joint, *scan.all_tests] if one_trait else scan.all_tests:
        parts = [column_values(batch, test.column) for batch in scan.read([test.column])]
        rates = false_discovery_rates(np.concatenate([np.empty(0), *parts]))
        columns[test.column.replace("MLOG10P", FDR.name, 1)] = pa.array(rates, mask=np.isnan(rates))
    return columns


def _write(path: str, content: bytes) -> None:
    with atomic_output(path) as file:
        file.write(content)
    logger.info("%s written", path)


def _write_ssf(scan: ScanResults, settings: ExportSettings) -> None:
    """Write a GWAS-SSF file and its metadata for every trait; a scan of which no variant can be written is refused."""
    if os.path.isdir(settings.out):
        raise OutputError(f"{settings.out}: is a folder; name a file in it")
    paths = ssf_paths(settings.out, scan.traits)
    for path in paths.values():
        guard_inputs(path, settings.input_paths)
    with ExitStack() as stack:
        outputs = {trait: stack.enter_context(compressed_output(path, GZIP_LEVEL)) for trait, path in paths.items()}
        written = write_ssf(scan, outputs)
        reasons = [f"{number:,} {reason}" for reason, number in written.left_out.items()]
        if not written.rows:
            raise InputError(
                f"{scan.name}: has no variant that GWAS-SSF has room for ({'; '.join(reasons) or 'it has no rows'});"
                " give variants chromosomes, positions and alleles in the genotype file and scan again, or export"
                " --to tsv"
            )
    for reason in reasons:
        logger.info("%s: left out", reason)
    left_out = sum(written.left_out.values())
    if left_out > MANY_LEFT_OUT * (written.rows + left_out):
        logger.warning("%d of %d variants are not in the files", left_out, written.rows + left_out)
    today = datetime.now(UTC).date()
    for trait, path in paths.items():
        _write(f"{path}{METADATA_SUFFIX}", ssf_metadata(scan, trait, path, written.is_sorted, today).encode())
        logger.info("%s written: %d variants", path, written.rows)


def _chosen_columns(
    table: ScanFile, metadata: ScanMetadata, added: Sequence[str], settings: ExportSettings
) -> list[str]:
    """Names of the columns to write, in order."""
    dropped = _columns_of_others(table, metadata.traits, settings.traits) if settings.traits else set()
    names = [name for name in table.schema.names if name not in dropped]
    names = [*names, *(name for name in added if name not in dropped)]
    if not settings.columns:
        return names
    chosen: dict[str, None] = {}
    for pattern in settings.columns:
        if pattern == COVARIANCES:
            chosen |= dict.fromkeys(name for name in names if name.startswith(f"{COV.name}."))
            continue
        if pattern == EXPLAINED:
            chosen |= dict.fromkeys(name for name in names if name.partition(".")[0] == PVE.name)
            continue
        fitting = [name for name in names if fnmatchcase(name, pattern)] if pattern not in names else [pattern]
        if not fitting:
            fitting = [names[i] for i in choose_columns([pattern], names, "--columns", table.name)]
        chosen |= dict.fromkeys(fitting)
    return list(chosen)


def _columns_of_others(table: ScanFile, traits: Sequence[str], wanted: Sequence[str]) -> set[str]:
    """The columns of other traits, and of the axes, which say nothing about a trait alone."""
    kept = {traits[i] for i in choose_columns(wanted, traits, "--trait", table.name, "trait")}
    of_trait = (*(column for column in COLUMNS if column.of == "trait"), FDR)
    dropped = {column.named(trait) for trait in traits if trait not in kept for column in of_trait}
    dropped |= {f"{P.name}.{trait}" for trait in traits if trait not in kept}
    return dropped | {*axis_columns(len(traits)), *axis_columns(len(traits), coupled=True)}


def _columns_to_read(
    table: ScanFile, wanted: Sequence[str], added: Sequence[str], settings: ExportSettings
) -> list[str]:
    """The wanted columns that are stored, not ``added``, and those that choose and sort the rows."""
    needed: dict[str, Sequence[str]] = {}
    keys = RowKeys.of(table.schema.names)
    if settings.p_below is not None:
        needed["--p-below"] = [keys.p]
    if settings.top is not None:
        needed["--top"] = [keys.mlog10p]
    if settings.sort is not None:
        needed["--sort"] = sort_columns(settings.sort, keys)
    read = dict.fromkeys(wanted)
    available = [*table.schema.names, *added]
    for option, columns in needed.items():
        found = choose_columns(columns, available, option, table.name)
        read |= dict.fromkeys(available[i] for i in found)
    return [name for name in read if name not in added]


def _rows(tables: Iterable[ScanFile], columns: Sequence[str], advance: Any) -> Iterator[pa.RecordBatch]:
    for table in tables:
        for batch in table.iter_batches(columns):
            yield batch
            advance(len(batch))


def _chosen_rows(
    batches: Iterable[pa.RecordBatch], keys: RowKeys, settings: ExportSettings
) -> Iterable[pa.RecordBatch]:
    """The rows to write, in order; in memory all at once only where they have to be sorted."""
    if settings.p_below is not None:
        batches = below(batches, settings.p_below, keys)
    if settings.top is not None:
        batches = top_rows(batches, settings.top, keys)
    return batches if settings.sort is None else sorted_rows(batches, settings.sort, keys)


def _clumping_record(settings: ExportSettings) -> dict[str, Any]:
    """What made the rows of a table lead variants."""
    significance = _significance(settings)
    as_typed = str(significance) if isinstance(significance, GenomeWide) else significance
    by_distance = {"significance": as_typed, "clump_kb": settings.clump_kb}
    if not settings.geno:
        return by_distance
    genotypes = [os.path.basename(path) for path in settings.geno]
    return {**by_distance, "clump_r2": settings.least_r2, "geno": genotypes}


def _write_table(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    names: Sequence[str],
    metadata: ScanMetadata,
    settings: ExportSettings,
) -> int:
    """Write the chosen columns; returns the number of rows."""
    chosen = pa.schema([schema.field(name) for name in names])
    change = {name: getattr(settings, name) for name in ("top", "p_below", "sort")}
    if settings.digits is not None:
        change["digits"] = settings.digits
    if settings.leads:
        change["leads"] = _clumping_record(settings)
    if settings.tests:
        change["tests"] = [without_folders(test) for test in settings.tests]
    change["columns"] = None if chosen.names == schema.names else list(names)
    if any(value is not None for value in change.values()):
        metadata = replace(metadata, export=change)
    rows = 0
    with compressed_output(settings.out) as out, ScanWriter(out, chosen, settings.to, metadata) as writer:
        for batch in batches:
            writer.write(rounded(batch.select(list(names)), settings.digits))
            rows += len(batch)
    return rows
