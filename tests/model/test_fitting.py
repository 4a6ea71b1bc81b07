"""Fits end at the optimum, prove it, and say on which boundary; what has no optimum is refused."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from benchmarks.hard_null_models import CASES, best_of_lbfgs, make
from dense_oracle import Array, Data, Dense, derivative

from kron2sum_cli import Kron2Sum
from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model import fitting
from kron2sum_cli.model.contrasts import Contrasts, rotate_coupled, rotate_traits
from kron2sum_cli.model.fitting import Fit, climb, fit, starting_axes
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances

Rng = np.random.Generator


# Hard problems


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_hard_problems_end_at_a_certified_optimum(case: str, p: int) -> None:
    """The small version of benchmarks/hard_null_models.py."""
    rng = np.random.default_rng([CASES.index(case), p])
    problem, reml = make(case, rng, p), bool((CASES.index(case) + p) % 2)
    data = rotate_traits(spectrum_of_features(problem.G, problem.X), problem.Y)
    result = fit(data, p, reml)
    assert result.certificate.certified
    assert result.certificate.steps <= 60
    assert result.point.lml >= best_of_lbfgs(data, p, reml, rng, starts=2) - 1e-4


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("case", ["C0 of low rank", "scales of 1e6", "low rank GRM"])
def test_bounded_ranks(case: str, reml: bool) -> None:
    """No rank is below L-BFGS or below a smaller rank, and at full rank the bound does not matter."""
    rng = np.random.default_rng(CASES.index(case))
    problem = make(case, rng, 3)
    data = rotate_traits(spectrum_of_features(problem.G, problem.X), problem.Y)
    fits = [fit(data, rank, reml) for rank in (1, 2, 3)]
    lml = [f.point.lml for f in fits]
    assert all(f.certificate.certified for f in fits)
    assert lml[0] <= lml[1] + 1e-6 and lml[1] <= lml[2] + 1e-6
    for rank in (1, 2):
        assert lml[rank - 1] >= best_of_lbfgs(data, rank, reml, rng, starts=2) - 1e-4
        assert np.linalg.matrix_rank(fits[rank - 1].point.axes.C0, tol=1e-10 * problem.Y.var()) <= rank


# The conditions of an optimum, by the dense density


@dataclass(frozen=True)
class Small:
    """A problem small enough for the dense density."""

    data: Data
    rank: int
    restricted: bool

    def fitted(self) -> Kron2Sum:
        data = self.data
        model = Kron2Sum(data.Y, data.A, data.X, data.G, rank=self.rank, restricted=self.restricted)
        model.fit(verbose=False)
        return model

    def lml(self, C0: Array, C1: Array) -> float:
        return Dense(self.data, C0, C1).lml(self.restricted)


def small(kind: str) -> Small:
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    n, p = 28, 2
    G = rng.normal(size=(n, 40)) / np.sqrt(40)
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 1))])
    genetic, residual = G @ rng.normal(size=(40, p)), rng.normal(size=(n, p))
    A = np.eye(p)
    if kind == "C1 singular":
        residual[:, 0] = 0
    elif kind == "C0 singular":
        genetic[:, 0] = 0
    elif kind == "C0 zero":
        genetic[:] = 0
        residual = residual - G @ np.linalg.lstsq(G, residual, rcond=None)[0] * 0.5
    elif kind == "coupled traits":
        A = np.array([[1.0], [-0.5]])
    elif kind == "low rank":
        G = G[:, :10] * 2
    rank = 1 if kind == "rank 1" else 2
    return Small(Data(2 * genetic + residual + X[:, :1], A, X, G), rank, KINDS[kind])


KINDS = {
    "interior": True,
    "C1 singular": True,
    "C0 singular": False,
    "C0 zero": True,
    "coupled traits": True,
    "low rank": False,
    "rank 1": False,
}


def dense_score(problem: Small, C0: Array, C1: Array) -> tuple[Array, Array]:
    """Derivatives of the dense log density with respect to symmetric C0 and C1, (2, 2) each."""

    def unpack(x: Array) -> Array:
        return np.array([[x[0], x[1] / 2], [x[1] / 2, x[2]]])

    def pack(C: Array) -> Array:
        return np.array([C[0, 0], 2 * C[0, 1], C[1, 1]])

    step = 2e-4 * max(np.abs(C0).max(), np.abs(C1).max())
    S0 = derivative(lambda x: problem.lml(unpack(x), C1), pack(C0), step)
    S1 = derivative(lambda x: problem.lml(C0, unpack(x)), pack(C1), step)
    return unpack(2 * S0) / 2 + np.diag(S0[[0, 2]]) / 2 - np.diag(np.diag(unpack(2 * S0) / 2)) / 2, unpack(S1)
