"""Exports that are not one table: GWAS-SSF files, pictures, the report."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from kron2sum_cli.pipeline.settings import ExportSettings
from kron2sum_cli.reports.plots import PlotSettings, picture_format, plot_architecture, plot_scan
from kron2sum_cli.reports.report import scan_report
from kron2sum_cli.reports.scan_view import ScanView
from kron2sum_cli.reports.ssf import ssf_metadata, ssf_paths, write_ssf
from kron2sum_cli.tables.columns import choose_columns
from kron2sum_cli.tables.null_file import NullFile, read_null
from kron2sum_cli.tables.outputs import atomic_output
from kron2sum_cli.tables.scan_table import ScanFile

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
    """Write what the settings ask for: a picture, a report, or GWAS-SSF files."""
    plot = PlotSettings(window=settings.window, significance=settings.significance)
    if settings.plot is not None:
        _write(settings.out, plot_scan(settings.plot, view, picture_format(settings.out), plot))
    elif settings.report is not None:
        null = read_null(settings.null) if settings.null is not None else None
        _write(settings.report, scan_report(view, plot, null).encode())
    else:
        _write_ssf(view, settings.out)


def write_architecture(null: NullFile, settings: ExportSettings) -> None:
    """Draw the genetic architecture of a null model."""
    _write(settings.out, plot_architecture(null.traits, null.whole.estimates, picture_format(settings.out)))


def _write(path: str, content: bytes) -> None:
    with atomic_output(path) as file:
        file.write(content)
    LOGGER.info("%s written", path)


def _write_ssf(view: ScanView, out: str) -> None:
    paths = ssf_paths(out, view.traits)
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
