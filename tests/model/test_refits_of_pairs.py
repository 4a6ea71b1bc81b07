"""Refits with two columns a variant under every kind of null model, against dense maximisation from several starts."""

from typing import Any

import numpy as np
import pytest
from scipy import linalg, sparse
from scipy.optimize import minimize
from test_conditioning import KINDS, Case, N, case_of

from kron2sum_cli.model.families.null_model import likelihood_of_families
from kron2sum_cli.model.families.spectrum import family_spectrum
from kron2sum_cli.model.null_model import TraitData
from kron2sum_cli.model.second_column import basis_of_covariates
from kron2sum_cli.model.spectrum import Array

E = np.random.default_rng(5).normal(size=N) + (np.arange(N) % 2)
REFITTED = [*(kind for kind in KINDS if not kind.startswith("design")), "families, missing"]


def made(kind: str) -> Case:
    if kind != "families, missing":
        return case_of(kind)
    case = case_of("families")
    Y = np.where(np.random.default_rng(8).random(case.data.Y.shape) < 0.1, np.nan, case.data.Y)
    data = TraitData(Y, case.data.A, case.data.X)
    likelihood: Any = likelihood_of_families(family_spectrum(sparse.csr_array(case.K)), data, True)
    return Case(likelihood.null_model(likelihood.fit(Y.shape[1])), case.K, data, case.variants)


def columns(case: Case) -> tuple[Array, Array]:
    """Two variants, and their products with E."""
    G = case.variants[:, [0, 4]] - case.variants[:, [0, 4]].mean(axis=0)
    return G, G * (E - E.mean())[:, None]


class DenseLikelihood:
    """Of the contrasts of the covariates under REML, of the observed values under ML, with effects of some columns."""

    def __init__(self, case: Case, *further: Array) -> None:
        self.p = p = case.data.Y.shape[1]
        seen = np.isfinite(case.data.Y).T.ravel()
        M = np.kron(np.eye(p), case.data.X)[seen]
        M1 = np.hstack([np.kron(np.eye(p), g[:, None]) for g in further])[seen]
        self.Q = linalg.null_space(M.T) if case.model.summary.reml else np.eye(len(M))
        self.effects = self.Q.T @ (M1 if case.model.summary.reml else np.hstack([M, M1]))
        self.y, self.seen, self.K = self.Q.T @ case.data.Y.T.ravel()[seen], seen, case.K

    def at(self, C0: Array, C1: Array) -> tuple[float, Array, Array, Array, Array]:
        """Log-likelihood, effects, their covariance and the scores of C0 and C1."""
        n, p, seen = len(self.K), self.p, self.seen
        V = (np.kron(C0, self.K) + np.kron(C1, np.eye(n)))[np.ix_(seen, seen)]
        inverse = np.linalg.inv(self.Q.T @ V @ self.Q)
        covariance = np.linalg.inv(self.effects.T @ inverse @ self.effects)
        beta = covariance @ self.effects.T @ inverse @ self.y
        alpha = inverse @ (self.y - self.effects @ beta)
        lml = -0.5 * (self.y.size * np.log(2 * np.pi) - np.linalg.slogdet(inverse)[1] + self.y @ alpha)
        S = np.zeros((n * p, n * p))
        S[np.ix_(seen, seen)] = self.Q @ (np.outer(alpha, alpha) - inverse) @ self.Q.T
        blocks = S.reshape(p, n, p, n)
        return (
            lml,
            beta,
            covariance,
            0.5 * np.einsum("jilk,ik->jl", blocks, self.K),
            0.5 * np.einsum("jili->jl", blocks),
        )

    def maximum(self, case: Case, seed: int) -> tuple[float, Array, Array]:
        """The highest of climbs from the null model, from beside it, and from a random place."""
        p, axes, rng = self.p, case.model.summary.axes, np.random.default_rng(seed)

        def objective(x: Array) -> tuple[float, Array]:
            L0, L1 = x.reshape(2, p, p)
            lml, _, _, S0, S1 = self.at(L0 @ L0.T, L1 @ L1.T)
            return -lml, -2 * np.concatenate([(S0 @ L0).ravel(), (S1 @ L1).ravel()])

        null = np.concatenate([(axes.Tinv * axes.c0).ravel(), np.linalg.cholesky(axes.C1 + 1e-3 * np.eye(p)).ravel()])
        starts = [null + 0.01 * rng.normal(size=null.size), null + 0.3 * rng.normal(size=null.size)]
        starts += [rng.normal(size=null.size)]
        options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-6}
        found = [minimize(objective, x, jac=True, method="L-BFGS-B", options=options) for x in starts]
        L0, L1 = min(found, key=lambda one: one.fun).x.reshape(2, p, p)
        lml, beta, covariance, _, _ = self.at(L0 @ L0.T, L1 @ L1.T)
        return lml, beta[-p:], np.sqrt(np.diag(covariance)[-p:])


@pytest.mark.parametrize("kind", REFITTED)
def test_both_columns_reach_the_dense_maximum(kind: str) -> None:
    case = made(kind)
    G, H = columns(case)
    found = case.model.refits().of_pairs(G, H, basis_of_covariates(case.X))
    for k in range(2):
        lml, beta, se = DenseLikelihood(case, G[:, k], H[:, k]).maximum(case, k)
        assert found.lml[k] == pytest.approx(lml, abs=2e-5)
        np.testing.assert_allclose(found.se[k], se, rtol=5e-3)
        np.testing.assert_allclose(found.beta[k] / se, beta / se, atol=1e-2)
