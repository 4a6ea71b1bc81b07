"""Standard errors against second differences of the dense log-likelihood, and what they do at the edges."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense, derivative

from kron2sum_cli.model import information
from kron2sum_cli.model.contrasts import rotate_coupled, rotate_traits
from kron2sum_cli.model.fitting import Fit, fit
from kron2sum_cli.model.information import direction_covariance, full_grams
from kron2sum_cli.model.spectrum import Spectrum, spectrum_of_features
from kron2sum_cli.model.uncertainty import Estimates, estimates_of

P = 3
LOWER = np.tril_indices(P)
DESIGNS = {"identity": np.eye(P), "column": np.array([[1.0, 0.2], [0.5, 1.0], [-0.3, 0.4]])}


@dataclass(frozen=True)
class Fitted:
    data: Data
    reml: bool
    spectrum: Spectrum
    fit: Fit

    def estimates(self) -> Estimates:
        d = self.data
        return estimates_of(
            self.fit.point, self.spectrum.Qx, self.fit.rank, self.spectrum.mean_diagonal, d.A, d.X
        )

    def lml(self, C0: Array, C1: Array) -> float:
        return Dense(self.data, C0, C1).lml(self.reml)


def simulated(seed: int, r: int, C0: Array | None = None, C1: Array | None = None, A: Array | None = None) -> Data:
    rng = np.random.default_rng(seed)
    n, L = 40, np.array([[1.2, 0, 0], [0.5, 1.0, 0], [-0.4, 0.3, 0.9]])
    C0 = L @ L.T if C0 is None else C0
    C1 = np.eye(P) + 0.3 if C1 is None else C1
    G = rng.normal(size=(n, r)) * rng.gamma(1.0, size=n)[:, None] / np.sqrt(r)
    genetic = G @ rng.normal(size=(r, P)) @ _root(C0).T
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    return Data(genetic + rng.normal(size=(n, P)) @ _root(C1).T, np.eye(P) if A is None else A, X, G)


def _root(C: Array) -> Array:
    values, vectors = np.linalg.eigh(C)
    return vectors * np.sqrt(np.maximum(values, 0))


def fitted(data: Data, reml: bool, rank: int = P) -> Fitted:
    coupled = data.A.shape[1] < P
    spectrum = spectrum_of_features(data.G, np.empty((len(data.X), 0)) if coupled else data.X)
    rotated = rotate_coupled(spectrum, data.Y, data.A, data.X) if coupled else rotate_traits(spectrum, data.Y)
    return Fitted(data, reml, spectrum, fit(rotated, rank, reml))


def symmetric(entries: Array) -> Array:
    C = np.zeros((P, P))
    C[LOWER] = entries
    return C + C.T - np.diag(np.diag(C))


def hessian(function: Callable[[Array], float], x: Array, step: float) -> Array:
    return np.array(
        [
            derivative(lambda t, k=k: derivative(function, _moved(x, k, t[0]), step)[k:], np.zeros(1), step)
            if False
            else _row(function, x, k, step)
            for k in range(x.size)
        ]
    )


def _row(function: Callable[[Array], float], x: Array, k: int, step: float) -> Array:
    up, down = x.copy(), x.copy()
    up[k] += step
    down[k] -= step
    return (derivative(function, up, step) - derivative(function, down, step)) / (2 * step)


def _moved(x: Array, k: int, t: float) -> Array:
    y = x.copy()
    y[k] += t
    return y
