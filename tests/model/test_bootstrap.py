"""The largest statistics of simulated traits, against dense least squares of each of them."""

from dataclasses import replace

import numpy as np
import pytest
from test_conditioning import KINDS, Case, N, case_of

from kron2sum_cli.model.bootstrap import (
    adjusted_mlog10p,
    largest_statistics,
    normal_errors,
    permutations,
    simulated_normal,
    simulated_permuted,
    threshold,
)
from kron2sum_cli.model.conditioning import conditioned_scanner, given_variants
from kron2sum_cli.model.hypotheses import TestContext, named_hypothesis

B = 5


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("missing")])
def test_colour_is_the_root_of_what_projection_inverts(kind: str) -> None:
    """``PK e = e`` for e outside the covariates."""
    case = case_of(kind)
    E = np.random.default_rng(1).normal(size=(N, case.data.Y.shape[1], 2))
    Q = np.linalg.qr(case.data.X)[0]
    E -= np.einsum("nc,mc,mjk->njk", Q, Q, E)
    again = case.model.project(case.model.colour(case.model.colour(E)))
    np.testing.assert_allclose(again, E, rtol=0, atol=1e-8)


def dense_largest(case: Case, traits: np.ndarray, given: np.ndarray, context: TestContext) -> dict[str, list[float]]:
    """The largest -log10 P of every test over the variants, for each data set (n, p, k) in the traits."""
    p = traits.shape[1]
    found: dict[str, list[float]] = {}
    for k in range(traits.shape[2]):
        Y = np.where(np.isnan(case.data.Y), np.nan, traits[:, :, k])
        u, V, quadratic = replace(case, data=replace(case.data, Y=Y)).dense(given)
        own = replace(context, quadratic=quadratic)

        def drop(A: np.ndarray, u=u, V=V) -> np.ndarray:
            scores = u @ A
            return np.array([s @ np.linalg.solve(A.T @ W @ A, s) for s, W in zip(scores, V, strict=True)])

        designs = {"any": (np.eye(p), 0, p), "common": (np.ones((p, 1)), 0, 1)}
        designs |= {f"t{j}": (np.delete(np.eye(p), j, axis=1), p - 1, p) for j in range(p)}
        for name, (A, below, above) in designs.items():
            of_trait = name.startswith("t")
            full = drop(np.eye(p)) if of_trait else drop(A)
            base = drop(A) if of_trait else 0.0
            result = own.result((full - base) / (quadratic - full), above - below, above)
            found.setdefault(name, []).append(float(result.mlog10p.max()))
    return found


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_largest_statistics_are_those_of_dense_least_squares(kind: str, k: int) -> None:
    case = case_of(kind)
    p, axes = case.data.Y.shape[1], case.model.summary.axes
    errors = np.concatenate(list(normal_errors(4, B, N, p)), axis=2)
    given = given_variants(case.model, case.variants[:, :k], case.X) if k else None
    simulated = simulated_normal(case.model, [errors[:, :, :2], errors[:, :, 2:]], given, np.float64)
    G = case.variants[:, k:]
    scanner = case.model.scanner(np.float64)
    v = (scanner if given is None else conditioned_scanner(scanner, given)).statistics(G).v
    u = (G.T @ simulated.scores.reshape(N, -1)).reshape(G.shape[1], p, B)
    names = [f"t{j}" for j in range(p)]
    tests = [named_hypothesis(name, names) for name in ("any", "common")]
    context = TestContext(axes.T, 1.0, 150, 140, "f" if kind == "ml" else "lr")
    found = largest_statistics(simulated, u, v, tests, names, context)
    left, _, right = np.linalg.svd(axes.T)
    E = np.einsum("jt,ntk->njk", left @ right, errors)
    traits = np.einsum("tj,njk->ntk", axes.Tinv, case.model.colour(E))
    expected = dense_largest(replace(case, variants=G), traits, case.variants[:, :k], context)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-8)


def test_samples_in_their_own_order_are_the_traits_themselves() -> None:
    for kind in ("complete", "thin", "families", "design"):
        case = case_of(kind)
        orders = np.stack([np.arange(N), *permutations(1, 2, N)])
        simulated = simulated_permuted(case.model, case.data.Y, orders, None, np.float64)
        statistics = case.model.scanner(np.float64).statistics(case.variants)
        own = np.einsum("nb,njk->bjk", case.variants, simulated.scores)
        if kind not in ("families", "design"):  # in whose whitened residuals covariates have a part
            np.testing.assert_allclose(own[:, :, 0], statistics.u, rtol=1e-8, atol=1e-8)
            assert simulated.quadratic[0] == pytest.approx(case.model.summary.quadratic, rel=1e-8)
        assert not np.allclose(own[:, :, 1], own[:, :, 0])


def test_errors_do_not_depend_on_how_many_there_are() -> None:
    many, few = (np.concatenate(list(normal_errors(3, number, 5, 2)), axis=2) for number in (300, 2))
    assert many.shape == (5, 2, 300)
    np.testing.assert_array_equal(many[:, :, :2], few)
    np.testing.assert_array_equal(permutations(3, 4, 9)[:2], permutations(3, 2, 9))


def test_adjusted_p_and_thresholds_agree() -> None:
    largest = np.array([3.0, 1.0, 2.0, 5.0, 4.0, 2.0, 1.5, 2.5, 3.5])
    observed = np.array([0.0, 2.0, 4.5, 5.0, 6.0, np.nan])
    found = adjusted_mlog10p(observed, largest)
    np.testing.assert_allclose(10 ** -found[:5], [1.0, 0.8, 0.2, 0.2, 0.1])
    assert np.isnan(found[5])
    assert threshold(largest, 0.1) == 5.0
    assert threshold(largest, 0.2) == 4.0
    assert threshold(largest, 0.05) is None


def test_one_variant_has_the_level_that_is_asked_for() -> None:
    """Adjusted P of fresh null traits is uniform where a scan has one variant."""
    case = case_of("complete")
    p = case.data.Y.shape[1]
    G, names = case.variants[:, [4]], [f"t{j}" for j in range(p)]
    v = case.model.scanner(np.float64).statistics(G).v
    context = TestContext(case.model.summary.axes.T, 1.0, 150, 140)
    found = []
    for seed in (1, 2):
        simulated = simulated_normal(case.model, normal_errors(seed, 999, N, p), None, np.float64)
        u = (G.T @ simulated.scores.reshape(N, -1)).reshape(1, p, -1)
        found.append(largest_statistics(simulated, u, v, [named_hypothesis("any", names)], names, context)["any"])
    share = np.mean(10 ** -adjusted_mlog10p(found[0], found[1]) <= 0.05)
    assert 0.025 < share < 0.08
