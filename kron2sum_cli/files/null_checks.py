"""Whether what a null model's file holds is a null model: shapes, finite numbers, and the equations that it satisfies.

The checksums of the archive find damage; these checks find files that somebody made or changed. Products are tested
on one vector, so that even the largest model is checked in the time of reading it.
"""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.null_model import FitSummary, TraitData
from kron2sum_cli.model.uncertainty import Estimates

TOLERANCE = 1e-6
"""How far, relative to their size, two sides of an equation may be apart."""

Array = NDArray[np.float64]


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused
def check_summary(summary: FitSummary, p: int, c: int, a: int) -> None:
    """Check the axes, the scalars and the estimates of one fit, for p traits, c covariates and a columns of A."""
    axes, estimates = summary.axes, summary.estimates
    shapes = {"T": (p, p), "Tinv": (p, p), "c0": (p,), "c1": (p,)}
    for name, shape in shapes.items():
        _check_array(name, getattr(axes, name), shape)
    for field in fields(Estimates):
        _check_shape(field.name, getattr(estimates, field.name), _estimate_shape(field.name, p, c, a))
    for name in ("C0", "C1", "B"):
        _check_array(name, getattr(estimates, name), getattr(estimates, name).shape)
    scalars = ("lml", "mean_diagonal", "quadratic")
    if not all(np.isfinite(getattr(summary, name)) for name in scalars) or summary.quadratic <= 0:
        raise ValueError(f"{', '.join(scalars)} are not finite, or not positive")
    if not 0 <= summary.rank <= p:
        raise ValueError(f"rank is {summary.rank}")
    if min(axes.c0.min(), axes.c1.min()) < 0:
        raise ValueError("c0 or c1 is negative")
    _check_equal("T Tinv is not 1", axes.T @ axes.Tinv, np.eye(p))
    _check_equal("C0 is not that of the trait axes", estimates.C0, axes.C0)
    _check_equal("C1 is not that of the trait axes", estimates.C1, axes.C1)


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused
def check_rotation(data: Contrasts, Qx: Array, prior: Array | None, reml: bool, traits: TraitData) -> None:
    """Check the rotation of one fit: V and Qx have orthonormal columns, ``Z = VᵀY``, ``Yx = QxᵀY``, ``VᵀX``.

    Parameters
    ----------
    data : Contrasts
        The rotated traits; missing cells are filled in with means.
    Qx : NDArray (n, c)
        Basis of the projected covariates.
    prior : NDArray (c, c) or None
        Prior covariance of the fixed effects: a multiple of (XᵀX)⁻¹.
    reml : bool
        Whether the fit is one by REML.
    traits : TraitData
        What was fitted.
    """
    Y, X = traits.Y, traits.X
    _check_orthonormal(data, Qx)
    y = np.random.default_rng(0).standard_normal(Y.shape[1])
    combined = np.where(np.isnan(Y), np.nanmean(Y, axis=0), Y) @ y
    length = float(np.linalg.norm(combined))  # a projection may be all rounding: that of traits that are standardised
    _check_equal("Z is not the rotated traits", data.to_rows(combined), data.Z @ y, length)
    _check_equal("Yx is not the projected traits", Qx.T @ combined, data.Yx @ y, length)
    if data.design is not None:
        _check_array("design_X", data.design.X, (data.s.size, X.shape[1]))
        _check_equal("design_X is not the rotated covariates", data.to_rows(X), data.design.X)
    if (prior is not None) != (reml and X.shape[1] > 0 and traits.has_missing and not traits.reduced):
        raise ValueError("GGᵀ has a prior of the fixed effects where it should not, or has none")
    if prior is not None:
        product = prior @ (X.T @ X)
        if not np.trace(product) > 0:
            raise ValueError("prior is not positive")
        _check_equal(
            "prior is not that of the covariates", product, np.trace(product) / len(product) * np.eye(len(product))
        )


def _check_orthonormal(data: Contrasts, Qx: Array) -> None:
    for name in ("s", "Z", "Yx", "Kxx", "Kxm", "Rx"):
        array = getattr(data, name)
        _check_array(name, array, array.shape)
    if data.s.min(initial=0.0) < 0 or data.noutside != len(Qx) - Qx.shape[1] - len(data.s):
        raise ValueError("s is negative, or its number does not fit the samples")
    rng = np.random.default_rng(0)
    x, q = (rng.standard_normal(size) for size in (len(data.s), Qx.shape[1]))
    rotated, projected = data.to_samples(x), Qx @ q
    _check_equal("V is not orthonormal", data.to_rows(rotated), x)
    _check_equal("Qx is not orthonormal", Qx.T @ projected, q)
    _check_equal("Qx and V are not orthogonal", 1 + Qx.T @ rotated, np.ones(len(q)))


def _estimate_shape(name: str, p: int, c: int, a: int) -> tuple[int, ...]:
    if name in ("B", "B_se"):
        return (c, a)
    return (p,) if name in ("h2", "h2_se", "axis_share", "axis_h2") else (p, p)


def _check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}")


def _check_array(name: str, array: Array, shape: tuple[int, ...]) -> None:
    _check_shape(name, array, shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has a number that is not finite")


def _check_equal(what: str, a: Array, b: Array, size: float = 0.0) -> None:
    """Refuse numbers that differ, by the size of the largest or by `size`."""
    size = max(size, np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
    # Comparisons with NaN are False.
    if not (size < np.inf and np.abs(a - b).max(initial=0.0) <= TOLERANCE * size):
        raise ValueError(what)
