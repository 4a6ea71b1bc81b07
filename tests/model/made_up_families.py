"""Simulated families: a block-diagonal relationship matrix, covariates and traits."""

from dataclasses import dataclass

import numpy as np
from dense_oracle import Data, Dense
from numpy.typing import NDArray
from scipy import linalg, sparse

from kron2sum_cli.model.families.likelihood import FamilyTraits, family_traits
from kron2sum_cli.model.families.spectrum import family_spectrum

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A relationship matrix of families in random order, covariates and traits."""

    K: Array
    X: Array
    Y: Array

    @property
    def families(self) -> FamilyTraits:
        return family_traits(family_spectrum(sparse.csr_array(self.K)), self.Y, self.X)

    def dense(self, C0: Array, C1: Array) -> Dense:
        data = Data(self.Y, np.eye(self.Y.shape[1]), self.X, np.linalg.cholesky(self.K))
        return Dense(data, C0, C1)


def simulated(n: int, p: int, c: int, seed: int = 1, largest: int = 8) -> Case:
    rng = np.random.default_rng(seed)
    blocks = []
    while sum(map(len, blocks)) < n:
        m = int(rng.integers(1, largest + 1))
        M = rng.normal(size=(m, m + 3))
        blocks.append(0.6 * np.eye(m) + 0.4 * M @ M.T / (m + 3))
    order = rng.permutation(n)
    K = linalg.block_diag(*blocks)[:n, :n][np.ix_(order, order)]
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, c))])[:, :c]
    genetic = np.linalg.cholesky(K) @ rng.normal(size=(n, p)) @ rng.normal(size=(p, p))
    return Case(K, X, genetic + rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) + 3)


def covariances(p: int, seed: int = 2) -> tuple[Array, Array]:
    L0, L1 = np.random.default_rng(seed).normal(size=(2, p, p))
    return L0 @ L0.T, L1 @ L1.T + 0.1 * np.eye(p)
