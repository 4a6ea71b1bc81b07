"""What a result table says of its making."""

from typing import Any

import numpy as np

from kron2sum_cli._version import __version__
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.null_record import null_record
from kron2sum_cli.files.provenance import file_records
from kron2sum_cli.files.scan_parts import Span
from kron2sum_cli.genotypes.chromosomes import normalise_chromosome
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.scan.inputs import ScanInputs
from kron2sum_cli.settings import ScanSettings, contrast_files, without_folders


def scan_metadata(settings: ScanSettings, inputs: ScanInputs, span: Span) -> dict[str, Any]:
    """The metadata of a result table, without its counts."""
    null, source = inputs.null, inputs.source
    axes = null.whole.axes
    return {
        "version": __version__,
        "null": {
            "hash": null.hash,
            "method": null.method,
            "lml": null.whole.lml,
            "C0": null.whole.estimates.C0.tolist(),
            "C1": null.whole.estimates.C1.tolist(),
            "samples": len(null.samples),
            "covariates": list(null.covariates),
            **_observed(null),
        },
        "nulls": [null_record(null, chromosome) for chromosome in (None, *null.chromosomes)],
        "null_of_chr": _null_of_chromosomes(null, source),
        "traits": list(null.traits),
        "axes": axes.T.tolist(),
        "filters": _filter_record(settings),
        "settings": {
            "tests": [without_folders(test) for test in settings.tests],
            "precision": settings.precision,
            "stat": settings.stat,
            "refit": settings.refit,
        },
        "inputs": {"geno": inputs.records, **_contrast_records(settings)},
        "span": span.to_metadata(),
    }


def _observed(null: NullFile) -> dict[str, Any]:
    """How many samples have each trait, where some lack one."""
    if not null.description.has_missing:
        return {}
    return {"observed": dict(zip(null.traits, np.isfinite(null.description.Y).sum(axis=0).tolist(), strict=True))}


def _contrast_records(settings: ScanSettings) -> dict[str, Any]:
    """The files of contrasts, where a test has some."""
    paths = [path for test in settings.tests for path in contrast_files(test)]
    return {"tests": file_records(paths)} if paths else {}


def _null_of_chromosomes(null: NullFile, source: GenotypeSource) -> dict[str, str]:
    """With LOCO: which chromosome's null model the variants of a chromosome, as the file spells it, are tested with."""
    if not null.chromosomes:
        return {}
    spelled = source.variants.table["CHR"].unique().to_pylist()
    return {name: code for name in spelled if (code := normalise_chromosome(name)) in null.chromosomes}


def _filter_record(settings: ScanSettings) -> dict[str, Any]:
    record: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("maf", "mac", "max_missing", "hwe")
        if getattr(settings, name) is not None
    }
    for name in ("extract", "exclude"):
        path = getattr(settings, name)
        if path is not None:
            record[name] = file_records([path])
    return record
