"""Exports that are not one table: GWAS-SSF files, pictures, the report."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import OutputError
from kron2sum_cli.pipeline.export_settings import ExportSettings
from kron2sum_cli.pipeline.linkage import open_linkage
from kron2sum_cli.reports.clumping import Clumping
from kron2sum_cli.reports.genome import measure_genome
from kron2sum_cli.reports.lead_variants import clump_candidates, find_candidates
from kron2sum_cli.reports.plots import PlotSettings, picture_format, plot_architecture, plot_scan
from kron2sum_cli.reports.report import check_null_of, scan_report
from kron2sum_cli.reports.scan_view import ScanView
from kron2sum_cli.reports.ssf import ssf_metadata, ssf_paths, write_ssf
from kron2sum_cli.tables.columns import choose_columns
from kron2sum_cli.tables.null_file import NullFile, read_null
from kron2sum_cli.tables.outputs import atomic_output, guard_inputs
from kron2sum_cli.tables.scan_file import ScanFile

LOGGER = logging.getLogger("kron2sum.export")


def scan_view(tables: Sequence[ScanFile], metadata: Mapping[str, Any], settings: ExportSettings) -> ScanView:
    """The tables of a scan as one, for reports.

    Raises
    ------
    InputError
        Where a trait of ``--trait`` is not there.
    """

    def rows(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for table in tables:
            yield from table.iter_batches(columns)

    traits = list(metadata["traits"])
    chosen = (
        choose_columns(settings.traits, traits, "--trait", tables[0].name) if settings.traits else range(len(traits))
    )
    return ScanView(tables[0].name, tuple(tables[0].schema.names), metadata, rows, tuple(traits[k] for k in chosen))


def write_view(view: ScanView, settings: ExportSettings) -> None:
    """Write what the settings ask for: a picture, a report, or GWAS-SSF files.

    Raises
    ------
    InputError
        If the null model is not that of the scan, or genotypes are not those that were scanned.
    """
    if settings.to == "ssf" and settings.plot is None and settings.report is None:
        _write_ssf(view, settings)
        return
    null = _null_of(view, settings)
    out = settings.out if settings.report is None else settings.report
    plot = PlotSettings(settings.significance, _clumping(settings, out, null))
    if settings.plot is not None:
        _write(out, plot_scan(settings.plot, view, picture_format(out), plot))
    else:
        _write(out, scan_report(view, plot, null).encode())


def _null_of(view: ScanView, settings: ExportSettings) -> NullFile | None:
    """The null model that was named, if it is the scan's."""
    null = read_null(settings.null) if settings.null is not None else None
    if null is not None:
        check_null_of(view, null)
    return null


def _clumping(settings: ExportSettings, out: str, null: NullFile | None) -> Clumping:
    """How lead variants are told from those near them."""
    linkage = open_linkage(settings.geno, out, null) if settings.geno else None
    return Clumping(round(1000 * settings.clump_kb), settings.least_r2, linkage)


def lead_rows(view: ScanView, settings: ExportSettings) -> NDArray[np.intp]:
    """Which rows of the table are lead variants, in order: the strongest of their locus in any test.

    Raises
    ------
    InputError
        As `write_view`.
    """
    tests = [*view.main_tests, *view.further_tests]
    clumping = _clumping(settings, settings.out, _null_of(view, settings))
    threshold = PlotSettings(settings.significance).threshold
    found = find_candidates(view, measure_genome(view), tests, [], threshold)
    (loci,) = clump_candidates(found, [found.scores], threshold, clumping)
    LOGGER.info("%d lead variant%s", len(loci.leads), "s" * (len(loci.leads) != 1))
    return np.asarray(np.sort(found.numbers[loci.leads]))


def write_architecture(null: NullFile, settings: ExportSettings) -> None:
    """Draw the genetic architecture of a null model."""
    _write(settings.out, plot_architecture(null.traits, null.whole.estimates, picture_format(settings.out)))


def _write(path: str, content: bytes) -> None:
    with atomic_output(path) as file:
        file.write(content)
    LOGGER.info("%s written", path)


def _write_ssf(view: ScanView, settings: ExportSettings) -> None:
    if os.path.isdir(settings.out):
        raise OutputError(f"{settings.out}: is a folder; name a file in it")
    paths = ssf_paths(settings.out, view.traits)
    for path in paths.values():
        guard_inputs(path, settings.input_paths)
    with ExitStack() as stack:
        files = {
            trait: (os.path.basename(path), stack.enter_context(atomic_output(path))) for trait, path in paths.items()
        }
        written = write_ssf(view, files)
    for reason, number in written.left_out.items():
        LOGGER.info("%d %s: left out", number, reason)
    today = datetime.now(UTC).date()
    for trait, path in paths.items():
        _write(f"{path}-meta.yaml", ssf_metadata(view, trait, written.files[trait], today).encode())
        LOGGER.info("%s written: %d variants", path, written.files[trait].rows)
