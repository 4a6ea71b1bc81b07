"""The arrays of one fit in a null model's file: what they are called, and the model that they make."""

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.npz_archive import ArchiveReader
from kron2sum_cli.files.null_checks import check_rotation, check_summary
from kron2sum_cli.files.null_description import NullDescription
from kron2sum_cli.files.null_hash import HASHED_ARRAYS, PRIOR
from kron2sum_cli.model.climbing import Certificate
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.families.null_model import FAMILIES, restored_families
from kron2sum_cli.model.null_model import FitSummary, NullModel, restored_null_model
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import Estimates

AXES_ARRAYS = ("T", "Tinv", "c0", "c1")
ESTIMATES = tuple(field.name for field in fields(Estimates))

Array = NDArray[np.float64]


def prefix_of(chromosome: str | None) -> str:
    """Where the arrays of a fit lie: that without a chromosome, or (None) the whole one."""
    return "whole/" if chromosome is None else f"loco/{chromosome}/"


def model_arrays(prefix: str, model: NullModel) -> Iterator[tuple[str, NDArray[Any]]]:
    """All arrays of a fit, by name."""
    summary = model.summary
    scalars = model.scalars() | {
        "reml": summary.reml,
        "rank": summary.rank,
        "lml": summary.lml,
        "mean_diagonal": summary.mean_diagonal,
        "quadratic": summary.quadratic,
        "certificate": asdict(summary.certificate),
    }
    yield prefix + "scalars", np.array(json.dumps(scalars, sort_keys=True))
    for name in AXES_ARRAYS:
        yield prefix + name, getattr(summary.axes, name)
    for name in ESTIMATES:
        yield f"{prefix}estimates/{name}", getattr(summary.estimates, name)
    for name, array in model.arrays().items():
        yield prefix + name, array


def hashed_arrays(model: NullModel) -> dict[str, Array]:
    """Those of the arrays of a fit that its hash is of."""
    arrays = model.arrays()
    return {name: arrays[name] for name in HASHED_ARRAYS if name in arrays}


def read_hashed_arrays(archive: ArchiveReader, prefix: str) -> dict[str, Array]:
    """`hashed_arrays` of a fit in a file."""
    return {name: archive.array(prefix + name) for name in HASHED_ARRAYS if prefix + name in archive}


def read_summary(archive: ArchiveReader, prefix: str, description: NullDescription) -> FitSummary:
    """What a fit says.

    Raises
    ------
    KeyError, TypeError, ValueError, OverflowError
        Where it is no fit of the description's traits.
    """
    scalars = archive.json(prefix + "scalars")
    summary = FitSummary(
        axes=TraitAxes(**{key: archive.array(prefix + key) for key in AXES_ARRAYS}),
        reml=bool(scalars["reml"]),
        rank=int(scalars["rank"]),
        lml=float(scalars["lml"]),
        mean_diagonal=float(scalars["mean_diagonal"]),
        quadratic=float(scalars["quadratic"]),
        certificate=Certificate(**scalars["certificate"]),
        estimates=Estimates(**{key: archive.array(f"{prefix}estimates/{key}") for key in ESTIMATES}),
    )
    check_summary(summary, len(description.traits), len(description.covariates), description.A.shape[1])
    return summary


def read_model(
    archive: ArchiveReader, prefix: str, description: NullDescription, dtype: type[np.floating]
) -> NullModel:
    """One fit with its arrays, the rotation in the precision of a scan (double for that of observed cells).

    Raises
    ------
    InputError
        Where they do not make a null model of the description's traits.
    """
    try:
        summary = read_summary(archive, prefix, description)
        of_families = archive.names(prefix + FAMILIES)
        if of_families:
            arrays = {name.removeprefix(prefix + FAMILIES): archive.array(name) for name in of_families}
            return restored_families(summary, arrays)
        data, Qx, rows = _contrasts(archive, prefix, description, description.rotation_type(dtype))
        shape = (len(description.covariates),) * 2
        prior = archive.array(prefix + PRIOR, shape=shape) if prefix + PRIOR in archive else None
        check_rotation(data, Qx, prior, summary.reml, description)
        return restored_null_model(summary, data, Qx, description, prior, rows)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise archive.damaged(error) from error


def _contrasts(
    archive: ArchiveReader, prefix: str, description: NullDescription, dtype: type[np.floating]
) -> tuple[Contrasts, Array, NDArray[np.floating]]:
    """The rotated traits, the basis of the projected covariates, and the `CompleteNullModel.rows`."""
    n, p = description.Y.shape
    scalars = archive.json(prefix + "scalars")
    s = archive.array(prefix + "s", shape=(None,))
    m = s.size
    Qx = archive.array(prefix + "Qx", shape=(n, None))
    c = Qx.shape[1]
    shapes: dict[str, tuple[int | None, ...]] = {
        "Z": (m, p), "Yx": (c, p), "Kxx": (c, c), "Kxm": (c, m), "Rx": (c, c)
    }  # fmt: skip
    arrays = {key: archive.array(prefix + key, shape=shape) for key, shape in shapes.items()}
    design = None
    if description.coupled:
        X = archive.array(prefix + "design_X", shape=(m, len(description.covariates)))
        design = CoupledDesign(description.A, X, float(scalars["logdet_MtM"]))
    rows = archive.matrix(prefix + "V", (n, m), dtype, spare=p)
    return Contrasts(s=s, noutside=int(scalars["noutside"]), V=rows[:m].T, design=design, **arrays), Qx, rows
