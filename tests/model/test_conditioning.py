"""Variants given others, under every kind of null model, against dense generalised least squares at the same K."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg, sparse

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.collinearity import COLLINEAR
from kron2sum_cli.model.conditioning import (
    bases,
    conditioned_scanner,
    conditioned_set_scanner,
    estimated_given,
    given_variants,
)
from kron2sum_cli.model.families.null_model import likelihood_of_families
from kron2sum_cli.model.families.spectrum import family_spectrum
from kron2sum_cli.model.hypotheses import TestContext, named_hypothesis
from kron2sum_cli.model.null_model import NullModel, TraitData, null_likelihood, rotate_samples

Array = NDArray[np.float64]

N, P = 60, 3
KINDS = ("complete", "thin", "ml", "design", "design, thin", "missing", "missing, thin", "families", "one trait")
RTOL = 1e-8


@dataclass(frozen=True)
class Case:
    """A null model, its relationship matrix and traits, and variants (n, b) of which some are given."""

    model: NullModel
    K: Array
    data: TraitData
    variants: Array

    @property
    def X(self) -> Array:
        """Covariates with an effect on every trait of its own."""
        return self.data.X[:, :0] if self.data.reduced else self.data.X

    def dense(self, given: Array) -> tuple[Array, Array, float]:
        """Score (b, p) and information (b, p, p) of every variant in the traits, and ``rᵀK⁻¹r``, from all values."""
        axes, p = self.model.summary.axes, self.data.Y.shape[1]
        seen = np.isfinite(self.data.Y).T.ravel()
        K = (np.kron(axes.C0, self.K) + np.kron(axes.C1, np.eye(N)))[np.ix_(seen, seen)]
        y, M = self.data.Y.T.ravel()[seen], np.kron(self.data.A, self.data.X)[seen]
        M = np.hstack([M, np.kron(np.eye(p), given)[seen]])
        root = np.linalg.cholesky(K)
        Q = linalg.orth(linalg.solve_triangular(root, M, lower=True))

        def whitened(D: Array) -> Array:
            D = linalg.solve_triangular(root, D, lower=True)
            return np.asarray(D - Q @ (Q.T @ D))

        residual = whitened(y)
        designs = [whitened(np.kron(np.eye(p), g[:, None])[seen]) for g in self.variants.T]
        return (
            np.array([D.T @ residual for D in designs]),
            np.array([D.T @ D for D in designs]),
            float(residual @ residual),
        )

    def dense_set(self, given: Array, S: Array) -> tuple[Array, Array]:
        """Score (q, p) and information (p, q, p, q) of a set S (n, q) in the traits, from all values."""
        M1, y, P = self.projected(given, S)
        p, q = self.data.Y.shape[1], S.shape[1]
        return (M1.T @ P @ y).reshape(p, q).T, (M1.T @ P @ M1).reshape(p, q, p, q)

    def projected(self, given: Array, S: Array) -> tuple[Array, Array, Array]:
        """``I ⊗ S``, the observed values and ``P`` given the covariates and other variants."""
        axes, p = self.model.summary.axes, self.data.Y.shape[1]
        seen = np.isfinite(self.data.Y).T.ravel()
        Ki = np.linalg.inv((np.kron(axes.C0, self.K) + np.kron(axes.C1, np.eye(N)))[np.ix_(seen, seen)])
        M = np.hstack([np.kron(self.data.A, self.data.X), np.kron(np.eye(p), given)])[seen]
        M = linalg.orth(M)
        P = Ki - Ki @ M @ np.linalg.solve(M.T @ Ki @ M, M.T @ Ki)
        return np.kron(np.eye(p), S)[seen], self.data.Y.T.ravel()[seen], P


@cache
def case_of(kind: str) -> Case:
    rng = np.random.default_rng(3)
    p = 1 if kind == "one trait" else P
    X = np.column_stack([np.ones(N), rng.normal(size=N)])
    variants = rng.binomial(2, 0.3, size=(N, 7)).astype(float)
    variants[:, 1] = np.where(rng.random(N) < 0.8, variants[:, 0], variants[:, 1])  # in linkage disequilibrium
    G = rng.normal(size=(N, 25 if "thin" in kind else 90)) / 6
    Y = 2 + G @ rng.normal(size=(G.shape[1], p)) + rng.normal(size=(N, p)) + variants[:, [0]]
    if kind.startswith("missing"):
        Y[rng.random(Y.shape) < 0.15] = np.nan
    A = rng.normal(size=(P, 2)) if kind.startswith("design") else np.eye(p)
    K = linalg.block_diag(*[0.5 + 0.5 * np.eye(3)] * (N // 3)) if kind == "families" else G @ G.T
    K = np.eye(N) if kind == "independent" else K
    data = TraitData(Y, A, X)
    return Case(fitted(kind, K, data), K, data, variants)


def fitted(kind: str, K: Array, data: TraitData) -> NullModel:
    reml, features = kind != "ml", "thin" in kind
    likelihood: Any
    if kind in ("families", "independent"):
        likelihood = likelihood_of_families(family_spectrum(sparse.csr_array(K)), data, reml)
    else:
        values, vectors = np.linalg.eigh(K)
        G = vectors[:, -25:] * np.sqrt(values[-25:])
        likelihood = null_likelihood(rotate_samples(G if features else K.copy(), features, data, reml), data, reml)
    model: NullModel = likelihood.null_model(likelihood.fit(likelihood.largest_rank))
    return model


def in_traits(case: Case, u: Array, v: Array) -> tuple[Array, Array]:
    T = case.model.summary.axes.T
    full = v if v.ndim == 3 else v[:, :, None] * np.eye(v.shape[1])
    return u @ T, np.einsum("ja,bjk,kc->bac", T, full, T)


def close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=RTOL * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_projected_traits_are_scores(kind: str) -> None:
    """Of the data themselves, whose score every scanner has, and its products with itself are the information."""
    case = case_of(kind)
    axes, G = case.model.summary.axes, case.variants - case.variants.mean(axis=0)
    filled = np.where(np.isnan(case.data.Y), 5.0, case.data.Y) @ axes.T.T
    statistics = case.model.scanner(np.float64).statistics(G)
    close(G.T @ case.model.project(filled[:, :, None])[:, :, 0], statistics.u)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [0, 1, 3])
def test_statistics_given_variants_are_those_of_dense_least_squares(kind: str, k: int) -> None:
    case = case_of(kind)
    given = given_variants(case.model, case.variants[:, :k], case.X)
    statistics = conditioned_scanner(case.model.scanner(np.float64), given).statistics(case.variants[:, k:])
    u, v, quadratic = case.dense(case.variants[:, :k])
    found_u, found_v = in_traits(case, statistics.u, statistics.v)
    close(found_u, u[k:])
    close(found_v, v[k:])
    assert case.model.summary.quadratic - given.quadratic == pytest.approx(quadratic, rel=RTOL)
    assert given.rank == k * case.data.Y.shape[1]


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, RTOL), (np.float32, 1e-5)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [0, 1, 3])
def test_sets_given_variants_are_those_of_dense_least_squares(
    kind: str, k: int, dtype: type[np.floating], rtol: float
) -> None:
    """Two overlapping sets of a block that is rotated once."""
    case, T = case_of(kind), case_of(kind).model.summary.axes.T
    scanner = case.model.set_scanner(dtype)
    if k:
        scanner = conditioned_set_scanner(scanner, given_variants(case.model, case.variants[:, :k], case.X))
    G = case.variants - case.variants.mean(axis=0) if case.model.spans_intercept else case.variants
    block = scanner.rotate(G[:, k:].astype(scanner.dtype))
    for members in ([0, 1, 3], [1, 2]):
        scores = block.scores(np.array(members))
        u, V = case.dense_set(case.variants[:, :k], case.variants[:, k:][:, members])
        of_axes = scores.V if scores.V.ndim == 4 else np.einsum("jl,jab->jlab", np.eye(len(T)), scores.V)
        found = np.einsum("jc,jlab,ld->cadb", T, of_axes, T)
        np.testing.assert_allclose(scores.u @ T, u, rtol=0, atol=rtol * np.abs(u).max())
        np.testing.assert_allclose(found, V, rtol=0, atol=rtol * np.abs(V).max())
    assert scanner.rotate(G[:, :0].astype(scanner.dtype)).length.shape == (0,)  # a block of sets without variants


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_keeps_its_digits_beside_a_variant_in_near_complete_disequilibrium(kind: str) -> None:
    case = case_of(kind)
    near = case.variants[:, [0]].copy()
    near[0] += 1  # one genotype apart
    given = given_variants(case.model, case.variants[:, [0]], case.X)
    single, double = (
        conditioned_scanner(case.model.scanner(dtype), given).statistics(near) for dtype in (np.float32, np.float64)
    )
    np.testing.assert_allclose(single.v, double.v, rtol=1e-3, atol=1e-4 * np.abs(double.v).max())
    np.testing.assert_allclose(single.u, double.u, rtol=0, atol=1e-4 * np.abs(double.u).max())
    assert single.length[0] > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_variant_in_the_span_has_no_length(kind: str, dtype: type[np.floating]) -> None:
    case = case_of(kind)
    given = given_variants(case.model, case.variants[:, :2], case.X)
    within = case.variants[:, :2] @ [[1.0, 0.0, -0.5], [0.0, 1.0, 1.5]]
    within = within + case.X @ np.ones((case.X.shape[1], 3))
    G = np.hstack([within, case.variants[:, [3]]]).astype(dtype)
    length = conditioned_scanner(case.model.scanner(dtype), given).statistics(G).length
    assert np.all(length[:3] < 0.1 * COLLINEAR * np.sum(within**2, axis=0))
    assert length[3] > 1


def test_a_variant_that_only_the_samples_of_one_trait_do_not_tell_from_a_given_one() -> None:
    case = case_of("missing")
    observed = np.isfinite(case.data.Y[:, 1])
    alike = np.where(observed, case.variants[:, 0], case.variants[:, 3])
    given = given_variants(case.model, case.variants[:, [0]], case.X)
    G = np.column_stack([alike, case.variants[:, 3]])
    for dtype in (np.float32, np.float64):
        length = conditioned_scanner(case.model.scanner(dtype), given).statistics(G).length
        assert length[0] == 0
        assert length[1] > 1


def test_effects_that_the_samples_of_a_trait_do_not_tell_apart_are_one() -> None:
    case = case_of("missing")
    observed = np.isfinite(case.data.Y[:, 1])
    alike = np.where(observed, case.variants[:, 0], case.variants[:, 3])
    both = np.column_stack([case.variants[:, 0], alike])
    given = given_variants(case.model, both, case.X)
    assert given.rank == 2 * P - 1
    u, v, quadratic = case.dense(both)
    statistics = conditioned_scanner(case.model.scanner(np.float64), given).statistics(case.variants[:, 4:])
    found_u, found_v = in_traits(case, statistics.u, statistics.v)
    close(found_u, u[4:])
    close(found_v, v[4:])
    assert case.model.summary.quadratic - given.quadratic == pytest.approx(quadratic, rel=RTOL)


def test_order_and_combinations_of_given_variants_change_nothing() -> None:
    case = case_of("complete")
    some = case.variants[:, :3]
    mixed = np.column_stack([some[:, 2], some[:, 0] - 3 * some[:, 1], some[:, 1], some[:, 0], np.ones(N)])
    found = [given_variants(case.model, G, case.X) for G in (some, mixed)]
    assert found[1].rank == found[0].rank
    assert found[1].quadratic == pytest.approx(found[0].quadratic, rel=1e-10)
    G = case.variants[:, 3:]
    one, other = (conditioned_scanner(case.model.scanner(np.float64), given).statistics(G) for given in found)
    np.testing.assert_allclose(other.u, one.u, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(other.v, one.v, rtol=1e-10)


def test_variants_that_explain_everything_are_refused() -> None:
    case = case_of("complete")
    with pytest.raises(NumericalError, match="explain the traits completely"):
        given_variants(case.model, case.data.Y, case.X)


@pytest.mark.parametrize("kind", ["complete", "thin", "families", "independent"])
def test_covariances_given_variants_are_those_of_a_fit_with_them_as_covariates(kind: str) -> None:
    """And the contrasts that they rest on, the scale, and the statistics of other variants."""
    case = case_of(kind)
    some, others = case.variants[:, :3], case.variants[:, 3:]
    model, contrasts = estimated_given(case.model, some, case.X)
    expected = fitted(kind, case.K, replace(case.data, X=np.hstack([case.X, some])))
    for name in ("C0", "C1"):
        found = getattr(model.summary.axes, name)
        np.testing.assert_allclose(found, getattr(expected.summary.axes, name), rtol=0, atol=1e-7)
    size = (N - 5) * P
    contexts = [
        TestContext(one.summary.axes.T, size, size, size, "satterthwaite", contrasts=of_one)
        for one, of_one in ((model, contrasts), (expected, expected.effective_contrasts()))
    ]
    for test in ("any", "common", "specific", "trait:b"):
        given, as_covariates = (one.contrasts_of(named_hypothesis(test, ("a", "b", "c"))) for one in contexts)
        assert given == pytest.approx(as_covariates, rel=1e-6)
    given = given_variants(model, some, case.X)
    assert model.summary.quadratic - given.quadratic == pytest.approx(size, rel=1e-8)
    scanners = conditioned_scanner(model.scanner(np.float64), given), expected.scanner(np.float64)
    one, other = (np.sum(of.u**2 / of.v, axis=1) for of in (scanner.statistics(others) for scanner in scanners))
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("kind", ["ml", "design", "missing"])
def test_covariances_are_not_estimated_given_variants_by_ml_or_where_axes_are_coupled(kind: str) -> None:
    with pytest.raises(ValueError, match="C0 and C1 are estimated given variants"):
        estimated_given(case_of(kind).model, case_of(kind).variants, case_of(kind).X)


def test_nothing_outside() -> None:
    assert [basis.shape for basis in bases(np.ones((5, 1)), np.ones((5, 1)))] == [(5, 1), (5, 0)]
    assert [basis.shape for basis in bases(np.ones((5, 0)), np.ones((5, 1)))] == [(5, 1), (5, 0)]
    assert [basis.shape for basis in bases(np.zeros((5, 1)), np.ones((5, 0)))] == [(5, 0), (5, 0)]


@pytest.mark.parametrize("kind", ["complete", "thin", "families"])
def test_second_columns_that_are_inherited_as_variants_rest_on_as_many_contrasts(kind: str) -> None:
    """Other variants as second columns; the products of columns of the root of GGᵀ are GGᵀ, but for covariates."""
    case = case_of(kind)
    root, outside = case.model.of_relationships(np.eye(N)), np.eye(N) - case.X @ np.linalg.pinv(case.X)
    close(outside @ root @ root.T @ outside, outside @ case.K @ outside)
    found = case.model.contrasts_of_second(lambda G: G[:, ::-1], N)
    nothing = np.empty((P, 0))
    for design in (np.eye(P), np.eye(P)[:, :1]):
        expected = case.model.effective_contrasts().of_effects(nothing, design)
        assert found.of_effects(nothing, design) == pytest.approx(expected, rel=0.05)
