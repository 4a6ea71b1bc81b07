"""What must not change, or change in a known way, whatever the data."""

from dataclasses import dataclass, replace

import numpy as np
from dense_oracle import Array
from hypothesis import given, settings
from hypothesis import strategies as st

from kron2sum_cli import Kron2Sum

RTOL = 1e-8


@dataclass(frozen=True)
class Problem:
    """Data, parameters and one variant."""

    Y: Array
    A: Array
    X: Array
    G: Array
    C0: Array
    C1: Array
    g: Array
    restricted: bool

    @property
    def p(self) -> int:
        return self.Y.shape[1]

    def model(self) -> Kron2Sum:
        return Kron2Sum(self.Y, self.A, self.X, self.G, rank=self.p, restricted=self.restricted)

    def here(self) -> Kron2Sum:
        return self.model().at(self.C0, self.C1)


def invertible(rng: np.random.Generator, p: int) -> Array:
    """A matrix with singular values from 1/3 to 3."""
    U, V = (np.linalg.qr(rng.normal(size=(p, p)))[0] for _ in range(2))
    return (U * rng.uniform(1 / 3, 3, size=p)) @ V


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, np.random.Generator]:
    """Of 1 to 4 traits, 0 to 3 covariates, low or full rank."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p, c, n = draw(st.integers(1, 4)), draw(st.integers(0, 3)), draw(st.integers(12, 25))
    r = draw(st.sampled_from([1, 5, n - 1, n, 2 * n]))
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 2))])[:, :c]
    G = rng.normal(size=(n, r)) / np.sqrt(r)
    L0, L1 = rng.normal(size=(p, draw(st.integers(1, p)))), invertible(rng, p)
    Y = G @ rng.normal(size=(r, p)) + rng.normal(size=(n, p)) @ L1.T
    g = rng.binomial(2, 0.4, size=(n, 1)).astype(float)
    g[:2, 0] = 0, 2
    restricted = draw(st.booleans())
    return Problem(Y, np.eye(p), X, G, L0 @ L0.T, L1 @ L1.T, g, restricted), rng


def any_effect(problem: Problem) -> float:
    """Likelihood ratio of the scanner for free effects of the variant on all traits."""
    scanner = problem.here().get_fast_scanner()
    return float(scanner.scan(np.eye(problem.p), problem.g)["lml"] - scanner.null_lml())


def close(a: object, b: object, rtol: float = RTOL) -> None:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)  # type: ignore[arg-type]


@settings(max_examples=25)
@given(problems())
def test_permuting_samples_changes_nothing(drawn: tuple[Problem, np.random.Generator]) -> None:
    problem, rng = drawn
    order = rng.permutation(len(problem.Y))
    other = replace(problem, Y=problem.Y[order], X=problem.X[order], G=problem.G[order], g=problem.g[order])
    model, permuted = problem.here(), other.here()
    close(permuted.lml(), model.lml())
    close(permuted.beta, model.beta)
    close(permuted.gradient()["C1.Lu"], model.gradient()["C1.Lu"], 1e-7)
    close(any_effect(other), any_effect(problem))


@settings(max_examples=25)
@given(problems())
def test_permuting_traits_permutes_the_estimates(drawn: tuple[Problem, np.random.Generator]) -> None:
    problem, rng = drawn
    order = rng.permutation(problem.p)
    pair = np.ix_(order, order)
    other = replace(problem, Y=problem.Y[:, order], C0=problem.C0[pair], C1=problem.C1[pair])
    close(other.here().lml(), problem.here().lml())
    close(other.here().B, problem.here().B[:, order])
    close(any_effect(other), any_effect(problem))


@settings(max_examples=25)
@given(problems())
def test_mixing_traits_adds_the_jacobian(drawn: tuple[Problem, np.random.Generator]) -> None:
    """Y → YM: the density loses ``log|det M|`` a contrast; tests of any effect are unchanged."""
    problem, rng = drawn
    M = invertible(rng, problem.p)
    other = replace(problem, Y=problem.Y @ M, C0=M.T @ problem.C0 @ M, C1=M.T @ problem.C1 @ M)
    n, c = problem.X.shape
    jacobian = (n - c if problem.restricted else n) * np.linalg.slogdet(M)[1]
    close(other.here().lml(), problem.here().lml() - jacobian)
    close(other.here().B, problem.here().B @ M)
    close(any_effect(other), any_effect(problem))


@settings(max_examples=25)
@given(problems())
def test_only_the_span_of_the_covariates_counts(drawn: tuple[Problem, np.random.Generator]) -> None:
    problem, rng = drawn
    change = invertible(rng, problem.X.shape[1])
    other = replace(problem, X=problem.X @ change)
    close(other.here().lml(), problem.here().lml())
    close(change @ other.here().B, problem.here().B)
    close(any_effect(other), any_effect(problem))


@settings(max_examples=25)
@given(problems(), st.floats(1e-3, 1e3))
def test_units_of_G_are_those_of_C0(drawn: tuple[Problem, np.random.Generator], unit: float) -> None:
    problem, _ = drawn
    other = replace(problem, G=unit * problem.G, C0=problem.C0 / unit**2)
    close(other.here().lml(), problem.here().lml())
    close(any_effect(other), any_effect(problem))


@settings(max_examples=25)
@given(problems())
def test_fixed_effects_in_the_traits_change_only_B(drawn: tuple[Problem, np.random.Generator]) -> None:
    problem, rng = drawn
    effects = 10 * rng.normal(size=(problem.X.shape[1], problem.p))
    other = replace(problem, Y=problem.Y + problem.X @ effects)
    close(other.here().lml(), problem.here().lml())
    close(other.here().B - effects, problem.here().B, 1e-7)
    close(any_effect(other), any_effect(problem))


@settings(max_examples=25)
@given(problems())
def test_an_invertible_trait_design_renames_the_effects(drawn: tuple[Problem, np.random.Generator]) -> None:
    problem, rng = drawn
    other = replace(problem, A=invertible(rng, problem.p))
    close(other.here().lml(), problem.here().lml())
    close(other.here().B @ other.A.T, problem.here().B)
    close(other.here().mean(), problem.here().mean())
    close(any_effect(other), any_effect(problem))


@settings(max_examples=25)
@given(problems(), st.floats(-3, 3).filter(lambda x: abs(x) > 1e-2), st.floats(-10, 10))
def test_recoding_a_variant_scales_its_effects(
    drawn: tuple[Problem, np.random.Generator], scale: float, shift: float
) -> None:
    problem, _ = drawn
    moved = shift if problem.X.shape[1] else 0.0
    other = replace(problem, g=scale * problem.g + moved)
    close(any_effect(other), any_effect(problem))
    scanner, A1 = problem.here().get_fast_scanner(), np.eye(problem.p)
    result, recoded = scanner.scan(A1, problem.g), scanner.scan(A1, other.g)
    close(scale * recoded["effsizes1"], result["effsizes1"], 1e-7)
    close(abs(scale) * recoded["effsizes1_se"], result["effsizes1_se"], 1e-7)


@settings(max_examples=12)
@given(problems().filter(lambda drawn: drawn[0].G.shape[1] >= len(drawn[0].G) and drawn[0].p <= 3))
def test_fits_follow_units_and_mixtures(drawn: tuple[Problem, np.random.Generator]) -> None:
    problem, rng = drawn
    M = invertible(rng, problem.p)
    mixed = replace(problem, Y=problem.Y @ M, G=3 * problem.G)
    n, c = problem.X.shape
    first, second = problem.model(), mixed.model()
    first.fit(verbose=False)
    second.fit(verbose=False)
    jacobian = (n - c if problem.restricted else n) * np.linalg.slogdet(M)[1]
    close(second.lml() + jacobian, first.lml(), 1e-7)
    size = np.abs(first.C1).max() + np.abs(first.C0).max()
    np.testing.assert_allclose(9 * second.C0, M.T @ first.C0 @ M, atol=2e-3 * size)
    np.testing.assert_allclose(second.C1, M.T @ first.C1 @ M, atol=2e-3 * size)
