"""Refits against the dense Gaussian and against the search of null models, and what they must not depend on."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense, vec
from scipy.optimize import minimize

from benchmarks.refits_against_brute_force import by_brute_force, by_program, simulate
from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model import information
from kron2sum_cli.model import refit as module
from kron2sum_cli.model.bartlett import Refit
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign, rotate_traits
from kron2sum_cli.model.fitting import Fit, climb, fit
from kron2sum_cli.model.likelihood import evaluate
from kron2sum_cli.model.refit import Refitter, null_maxima, refitter
from kron2sum_cli.model.spectrum import Spectrum, spectrum_of_features
from kron2sum_cli.model.tail_probability import chi2_mlog10p
from kron2sum_cli.model.trait_axes import axes_of_covariances
from kron2sum_cli.model.variant_likelihood import States, VariantLikelihood

LML = 2e-6
"""Tolerance of a log-likelihood: off a face, 1e-6 may be left."""


@dataclass(frozen=True)
class Case:
    """Traits Y (n, p), covariates X, features G and variants g (n, b), with the null model."""

    Y: Array
    X: Array
    G: Array
    g: Array
    spectrum: Spectrum
    data: Contrasts
    null: Fit

    @property
    def variants(self) -> Array:
        return self.data.V.T @ self.g

    @property
    def outside(self) -> Array | None:
        projected = self.spectrum.Qx.T @ self.g
        rest = np.sum(self.g**2, axis=0) - np.sum(self.variants**2, axis=0) - np.sum(projected**2, axis=0)
        return np.maximum(rest, 0.0) if self.data.noutside else None

    def outside_products(self, which: Array) -> Array:
        """Products (k, k) of some variants outside V and X."""
        g = self.g[:, which]
        for Q in (self.data.V, self.spectrum.Qx):
            g = g - Q @ (Q.T @ g)
        return g.T @ g if self.data.noutside else np.zeros((len(which), len(which)))

    @property
    def fitter(self) -> Refitter:
        """Refits from the null model alone, whatever other maxima there are."""
        return refitter(self.data, [self.null], reml=False)

    def refit(self, design: Array) -> Refit:
        return self.fitter.refit(self.variants, design, self.outside)


def make(
    seed: int,
    n: int = 120,
    p: int = 3,
    c: int = 1,
    r: int | None = None,
    b: int = 8,
    rank: int | None = None,
    genetic_rank: int | None = None,
    residual_rank: int | None = None,
    effect: float = 0.3,
) -> Case:
    """Simulated data; every other variant has an effect, of this size in standard deviations of the residuals."""
    rng = np.random.default_rng(seed)
    r = r or 2 * n
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 3))])[:, :c]
    G = rng.normal(size=(n, r)) * np.exp(0.7 * rng.normal(size=r))
    G /= np.sqrt(np.sum(G**2) / n)
    g = rng.binomial(2, 0.3, size=(n, b)).astype(float)
    L0 = rng.normal(size=(p, genetic_rank or p))
    L1 = rng.normal(size=(p, residual_rank or p + 2)) / 2
    effects = effect * rng.normal(size=(b, p)) * (np.arange(b) % 2)[:, None]
    Y = G @ rng.normal(size=(r, L0.shape[1])) @ L0.T + rng.normal(size=(n, L1.shape[1])) @ L1.T + g @ effects
    spectrum = spectrum_of_features(G, X)
    data = rotate_traits(spectrum, Y)
    return Case(Y, X, G, g, spectrum, data, fit(data, rank or p, reml=False))


def with_variant(case: Case, k: int | Array, design: Array) -> Contrasts:
    """The data with a variant, or some, among the fixed effects, what they have outside V among the rows."""
    p = case.Y.shape[1]
    wider = rotate_traits(case.spectrum, np.hstack([case.Y, case.g[:, np.atleast_1d(k)]]))
    coupled = CoupledDesign(design, wider.Z[:, p:], 0.0)
    return replace(wider, Z=wider.Z[:, :p], Yx=wider.Yx[:, :p], design=coupled)


def searched(case: Case, k: int, design: Array) -> tuple[float, Array, Array]:
    """One variant refitted by the search of null models."""
    found = climb(with_variant(case, k, design), case.null.point.axes, case.null.rank, reml=False)
    assert found.certificate.certified
    assert found.point.coupled is not None
    H = found.point.coupled.chol @ found.point.coupled.chol.T
    covariance = design @ np.linalg.inv(H) @ design.T
    return found.point.lml, design @ found.point.coupled.beta[0], np.sqrt(np.diag(covariance))


def check(case: Case, design: Array, found: Refit) -> None:
    """Every variant is where the search ends, or above."""
    for k in range(case.g.shape[1]):
        lml, beta, se = searched(case, k, design)
        assert found.lml[k] > lml - LML
        if found.lml[k] < lml + LML:  # else the search ended at a lower optimum
            np.testing.assert_allclose(found.se[k], se, rtol=2e-3)
            np.testing.assert_allclose(found.beta[k] / se, beta / se, atol=5e-3)


def trait_design(name: str, p: int) -> Array:
    rng = np.random.default_rng(p)
    return {"identity": np.eye(p), "common": np.ones((p, 1)), "general": rng.normal(size=(p, p - 1))}[name]


def no_search(*_: object) -> Fit:
    raise AssertionError("left to the search of null models")


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variant may be left to the search."""
    monkeypatch.setattr(module, "climb", no_search)
    monkeypatch.setattr(module, "may_have_several_maxima", lambda *_, **__: False)


def dense_maximum(case: Case, k: int, design: Array) -> tuple[float, Array, Array]:
    """The maximum of the dense likelihood over factors of C0 and C1, by L-BFGS from near the null model."""
    n, p = case.Y.shape
    data = Data(case.Y, np.eye(p), case.X, case.G)
    GG, tril = case.G @ case.G.T, np.tril_indices(p)

    def model(x: Array) -> tuple[Array, Array, Dense]:
        L0, L1 = x[: p * p].reshape(p, p), np.zeros((p, p))
        L1[tril] = x[p * p :]
        return L0, L1, Dense(data, L0 @ L0.T, L1 @ L1.T)

    def design_matrix(dense: Dense) -> Array:
        return np.hstack([dense.M, np.kron(design, case.g[:, [k]])])

    def objective(x: Array) -> tuple[float, Array]:
        L0, L1, dense = model(x)
        M = design_matrix(dense)
        r = vec(case.Y) - M @ dense.fixed_effects(M)[0]
        inverse = np.linalg.inv(dense.K)
        alpha = (inverse @ r).reshape(p, n).T
        lml = -0.5 * (r.size * np.log(2 * np.pi) + 2 * np.log(np.diag(dense.root)).sum() + vec(alpha) @ r)
        blocks = inverse.reshape(p, n, p, n)
        S0 = 0.5 * (alpha.T @ GG @ alpha - np.einsum("jilk,ki->jl", blocks, GG))
        S1 = 0.5 * (alpha.T @ alpha - np.einsum("jili->jl", blocks))
        return -lml, -2 * np.concatenate([(S0 @ L0).ravel(), (S1 @ L1)[tril]])

    axes = case.null.point.axes
    start = np.concatenate([(axes.Tinv * axes.c0).ravel(), np.linalg.cholesky(axes.C1)[tril]])
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-7}
    # An empty axis of C0 is a saddle in its factor: start beside it.
    starts = start + 0.1 * np.random.default_rng(0).normal(size=(3, start.size))
    best = min(
        (minimize(objective, x, jac=True, method="L-BFGS-B", options=options) for x in starts), key=lambda m: m.fun
    )
    dense = model(best.x)[2]
    estimates, covariance = dense.fixed_effects(design_matrix(dense))
    e = design.shape[1]
    return (
        -float(best.fun),
        design @ estimates[-e:],
        np.sqrt(np.diag(design @ covariance[-e:, -e:] @ design.T)),
    )


@pytest.mark.parametrize("name", ["identity", "common", "general"])
@pytest.mark.parametrize(("p", "c", "r"), [(2, 0, 80), (2, 1, 25), (2, 3, 80), (3, 1, 80)])
def test_dense_oracle(name: str, p: int, c: int, r: int) -> None:
    case, design = make(p + c, n=48, p=p, c=c, r=r, b=2, effect=1.0), trait_design(name, p)
    found = case.refit(design)
    for k in range(2):
        lml, beta, se = dense_maximum(case, k, design)
        assert found.lml[k] == pytest.approx(lml, abs=LML)
        np.testing.assert_allclose(found.se[k], se, rtol=2e-3)
        np.testing.assert_allclose(found.beta[k] / se, beta / se, atol=2e-3)


@pytest.mark.parametrize("name", ["identity", "common", "general"])
@pytest.mark.parametrize(("seed", "c", "r"), [(10, 0, None), (12, 1, None), (14, 1, 60), (12, 3, None)])
@pytest.mark.usefixtures("together")
def test_inside_the_cones(name: str, seed: int, c: int, r: int | None) -> None:
    """No variant is left to the search of null models, and that finds the same."""
    case, design = make(seed, n=160, c=c, r=r), trait_design(name, 3)
    assert case.null.certificate.active_C0 == case.null.certificate.active_C1 == 0
    assert (case.data.noutside > 0) == (r is not None)
    check(case, design, case.refit(design))


@pytest.mark.parametrize("name", ["identity", "common"])
@pytest.mark.parametrize(
    ("seed", "rank", "genetic_rank", "empty"), [(42, 3, 1, 1), (40, 3, 1, 2), (40, 2, 3, 1), (41, 1, 3, 2)]
)
@pytest.mark.usefixtures("together")
def test_on_a_face_of_C0(name: str, seed: int, rank: int, genetic_rank: int, empty: int) -> None:
    """The null model leaves axes empty, by itself or because its rank is bounded."""
    case, design = make(seed, n=160, b=12, genetic_rank=genetic_rank, rank=rank), trait_design(name, 3)
    assert np.count_nonzero(case.null.point.axes.c0 < 1e-6) == empty
    check(case, design, case.refit(design))


@pytest.mark.parametrize(("seed", "n", "b"), [(43, 160, 12), (45, 80, 8), (40, 80, 8), (47, 80, 8)])
@pytest.mark.usefixtures("together")
def test_other_faces(monkeypatch: pytest.MonkeyPatch, seed: int, n: int, b: int) -> None:
    """Axes that fill or empty."""
    case, design = make(seed, n=n, b=b, genetic_rank=1), np.eye(3)
    check(case, design, case.refit(design))
    monkeypatch.setattr(module, "MOST_FACES", 0)
    with pytest.raises(AssertionError, match="left to the search"):
        case.refit(design)


@pytest.mark.parametrize("name", ["identity", "common"])
@pytest.mark.parametrize(
    ("seed", "n", "p", "r"), [(0, 200, 2, 100), (2, 200, 3, 180), (8, 300, 3, 150), (3, 150, 4, 75)]
)
@pytest.mark.usefixtures("together")
def test_traits_without_genetics(name: str, seed: int, n: int, p: int, r: int) -> None:
    """Nearly every axis is empty, or nearly so: faces change from variant to variant."""
    rng = np.random.default_rng(seed)
    G, X = rng.normal(size=(n, r)) / np.sqrt(r), np.ones((n, 1))
    g = rng.binomial(2, 0.3, size=(n, 30)).astype(float)
    Y = rng.normal(size=(n, p)) @ rng.normal(size=(p, p))
    spectrum = spectrum_of_features(G, X)
    data = rotate_traits(spectrum, Y)
    case, design = Case(Y, X, G, g, spectrum, data, fit(data, p, reml=False)), trait_design(name, p)
    check(case, design, case.refit(design))


@pytest.mark.parametrize("seed", [40, 44])
def test_hard_null_models(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """C1 on its boundary: what cannot be done together is done apart."""
    case = make(seed, n=80, genetic_rank=3, residual_rank=2)
    check(case, np.eye(3), case.refit(np.eye(3)))
    monkeypatch.setattr(module, "climb", no_search)
    with pytest.raises(AssertionError, match="left to the search"):
        case.refit(np.eye(3))


@pytest.mark.parametrize("seed", [23, 25])
def test_huge_effects(seed: int) -> None:
    case, design = make(seed, n=300, effect=8), np.eye(3)
    found = case.refit(design)
    assert np.max(chi2_mlog10p(2 * (found.lml - case.null.point.lml), 3)) > 50
    check(case, design, found)


def test_a_strong_effect_is_searched_from_beside_the_null_model() -> None:
    """Its highest maximum was found from there alone: the likelihood ratio was 0.0025 too low."""
    case, designs = simulate("dense", 54), [np.eye(3)]
    found, expected = by_program(case, designs)[1], by_brute_force(case, designs, starts=4, seed=54)[1]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_many_traits_are_done_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    case, design = make(12, n=160), np.eye(3)
    expected = case.refit(design)
    assert case.fitter.maxima[0].metrics
    monkeypatch.setattr(information, "OBSERVED_TRAITS", 2)
    assert not case.fitter.maxima[0].metrics
    found = case.refit(design)
    np.testing.assert_allclose(found.lml, expected.lml, atol=LML)
    np.testing.assert_allclose(found.beta / expected.se, expected.beta / expected.se, atol=1e-3)


def test_no_refit_depends_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    case, design = make(43, n=160, b=12, genetic_rank=1), np.eye(3)
    expected = case.refit(design)
    for size in (1, 1 << 14):
        monkeypatch.setattr(module, "BATCH_BYTES", size)
        same(case.refit(design), expected)
    shuffled = np.random.default_rng(0).permutation(12)
    found = case.fitter.refit(case.variants[:, shuffled], design)
    same(found, Refit(expected.lml[shuffled], expected.beta[shuffled], expected.se[shuffled]))


def same(found: Refit, expected: Refit, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(found.lml, expected.lml, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.beta, expected.beta, rtol=rtol, atol=rtol * float(np.max(np.abs(expected.beta))))
    np.testing.assert_allclose(found.se, expected.se, rtol=rtol)


def test_units() -> None:
    """Traits and variants in other units, and another basis of the design."""
    case, design = make(12, n=160, c=3), trait_design("general", 3)
    units = np.array([1e-6, 1.0, 1e5])
    data = rotate_traits(case.spectrum, case.Y * units)
    fitter = refitter(data, [fit(data, 3, reml=False)], reml=False)
    other = fitter.refit(1e3 * case.variants, units[:, None] * design @ [[1, 1], [0, 1e-3]])
    expected = case.refit(design)
    np.testing.assert_allclose(other.lml + len(case.Y) * np.log(units).sum(), expected.lml, atol=LML)
    np.testing.assert_allclose(other.se * 1e3 / units, expected.se, rtol=1e-3)
    np.testing.assert_allclose(other.beta * 1e3 / units / expected.se, expected.beta / expected.se, atol=1e-3)


def test_one_trait() -> None:
    case = make(3, n=160, p=1)
    check(case, np.eye(1), case.refit(np.eye(1)))


def test_variant_of_length_zero_is_empty() -> None:
    case = make(12, n=160)
    variants = case.variants
    expected = case.refit(np.eye(3))
    variants[:, [2, 5]] = 0.0
    found = case.fitter.refit(variants, np.eye(3))
    assert np.flatnonzero(np.isnan(found.lml)).tolist() == [2, 5]
    assert np.isnan(found.beta[[2, 5]]).all() and np.isnan(found.se[[2, 5]]).all()
    kept = [0, 1, 3, 4, 6, 7]
    np.testing.assert_allclose(found.lml[kept], expected.lml[kept], atol=1e-9)


def test_a_refit_that_does_not_converge_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Fit:
        raise NumericalError("no")

    case = make(12, n=160)
    monkeypatch.setattr(module, "climb", fails)
    monkeypatch.setattr(module, "MAX_STEPS", 0)
    found = case.refit(np.eye(3))
    assert np.isnan(found.lml).all() and np.isnan(found.beta).all() and np.isnan(found.se).all()


def test_wrong_uses_are_named() -> None:
    case = make(12, n=160, r=60)
    with pytest.raises(ValueError, match="squared lengths"):
        case.fitter.refit(case.variants, np.eye(3))
    with pytest.raises(ValueError, match="likelihood of the contrasts"):
        refitter(case.data, [fit(case.data, 3, reml=True)], reml=True)


@pytest.mark.parametrize("r", [None, 60])
@pytest.mark.parametrize("c", [0, 2])
@pytest.mark.parametrize("k", [1, 2])
def test_likelihood_from_moments(c: int, r: int | None, k: int) -> None:
    """The likelihood and its score at any (C0, C1) are those from the rows, to rounding."""
    case, design = make(12, n=160, c=c, r=r), trait_design("general", 3)
    fitter, axes = case.fitter.maxima[0], case.null.point.axes
    assert fitter.moments.nodes.size < case.data.s.size
    rng = np.random.default_rng(1)
    M = rng.normal(size=(5, 3, 3))
    states = States(np.eye(3) + 0.1 * M, np.array([0.9 * m @ m.T / np.linalg.norm(m) ** 2 for m in M]))
    pairs = [np.arange(v, v + k) for v in range(5)]
    columns = np.stack([case.variants[:, pair] for pair in pairs], axis=1)
    outside = np.array([case.outside_products(pair) for pair in pairs])
    moments = fitter.moments.of_variants(columns, outside)
    points = VariantLikelihood(fitter.moments, axes.T @ design, axes.logdet_T, 0, 3).evaluate(states, moments)
    for v, pair in enumerate(pairs):
        back = axes.Tinv @ np.linalg.inv(states.frame[v])
        C0 = back @ states.share[v] @ back.T / case.data.mean_eigenvalue
        C1 = back @ (np.eye(3) - states.share[v]) @ back.T
        at = axes_of_covariances(C0, C1, case.data.mean_eigenvalue)
        point = evaluate(with_variant(case, pair, design), at, reml=False)
        assert points.lml[v] == pytest.approx(point.lml, abs=1e-8)
        for score, in_axes in ((points.score0[v], point.score0), (points.score1[v], point.score1)):
            expected = back.T @ point.axes.T.T @ in_axes @ point.axes.T @ back
            np.testing.assert_allclose(score, expected, atol=1e-8 * float(np.abs(expected).max()))
        assert point.coupled is not None
        np.testing.assert_allclose(points.gamma[v], point.coupled.beta.T.ravel(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("rank", [2, 1])
@pytest.mark.parametrize(("c", "r"), [(1, 80), (3, 80), (3, 25)])
def test_under_REML_the_data_are_contrasts(c: int, r: int, rank: int) -> None:
    """As by maximum likelihood of ``QᵀY``, ``QᵀG`` and ``Qᵀg`` without covariates, Q orthogonal to X."""
    case = make(c, n=48, p=2, c=c, r=r, b=3, rank=rank, effect=1.0)
    null = fit(case.data, rank, reml=True)
    data = case.data.without_projected()
    fitter = refitter(data, null_maxima(data, null.point.axes, rank), reml=True)
    assert fitter.null_lml == pytest.approx(null.point.lml, abs=1e-7)
    Q = np.linalg.qr(case.X, mode="complete")[0][:, c:]
    spectrum = spectrum_of_features(Q.T @ case.G, np.empty((48 - c, 0)))
    rotated = rotate_traits(spectrum, Q.T @ case.Y)
    nothing = np.empty((48 - c, 0))
    alone = Case(Q.T @ case.Y, nothing, Q.T @ case.G, Q.T @ case.g, spectrum, rotated, fit(rotated, rank, reml=False))
    for design in (np.eye(2), np.ones((2, 1))):
        found, expected = fitter.refit(case.variants, design, case.outside), alone.refit(design)
        np.testing.assert_allclose(found.lml, expected.lml, atol=LML)
        np.testing.assert_allclose(found.se, expected.se, rtol=1e-3)
        np.testing.assert_allclose(found.beta / found.se, expected.beta / expected.se, atol=1e-3)
        if rank == 2:
            assert found.lml[1] == pytest.approx(dense_maximum(alone, 1, design)[0], abs=LML)


def test_a_centred_relationship_matrix() -> None:
    """ML is unbounded there as C1 tends to a singular matrix; refits of a null model by REML are not."""
    case = make(4, n=60, p=2, r=400)
    G = case.G - case.G.mean(axis=0)
    spectrum = spectrum_of_features(G, case.X)
    data = rotate_traits(spectrum, case.Y)
    null = fit(data, 2, reml=True)
    alone = data.without_projected()
    fitter = refitter(alone, null_maxima(alone, null.point.axes, 2), reml=True)
    found = fitter.refit(data.to_rows(case.g), np.eye(2))
    assert np.all(found.lml > null.point.lml)
    assert np.all(np.isfinite(found.beta)) and np.all(np.isfinite(found.se))


def test_the_highest_of_several_maxima(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the highest maximum without a variant alone some refits end lower."""
    monkeypatch.setattr(module, "STRONG_EFFECT", np.inf)
    case, design = make(7, n=30, p=4, r=60, b=6, effect=1.5), np.eye(4)
    maxima = null_maxima(case.data, case.null.point.axes, 4)
    assert len(maxima) == 2
    from_other = null_maxima(case.data, maxima[1].point.axes, 4)
    np.testing.assert_allclose([f.point.lml for f in from_other], [f.point.lml for f in maxima], atol=LML)
    which = [2, 3]
    lml, *alone = (
        refitter(case.data, some, reml=False).refit(case.variants[:, which], design).lml
        for some in (maxima, maxima[:1], maxima[1:])
    )
    assert np.all(lml > np.maximum(*alone) - LML)
    assert np.any(lml > alone[0] + 0.1)
    searched_anew = [fit(with_variant(case, k, design), 4, reml=False).point.lml for k in which]
    np.testing.assert_allclose(lml, searched_anew, atol=1e-5)


@pytest.mark.parametrize(("seed", "which"), [(13, [3, 4]), (17, [1, 2]), (38, [0, 1])])
def test_a_variant_that_moves_the_maxima(monkeypatch: pytest.MonkeyPatch, seed: int, which: list[int]) -> None:
    """From the only maximum without it one of two variants climbs to one that is not the highest."""
    case, design = make(seed, n=30, p=4, r=60, b=6, effect=1.5), np.eye(4)
    maxima = null_maxima(case.data, case.null.point.axes, 4)
    assert len(maxima) == 1
    fitter = refitter(case.data, maxima, reml=False)
    highest = [fit(with_variant(case, k, design), 4, reml=False).point.lml for k in which]
    np.testing.assert_allclose(fitter.refit(case.variants[:, which], design).lml, highest, atol=1e-5)
    monkeypatch.setattr(module, "STRONG_EFFECT", np.inf)
    assert np.any(fitter.refit(case.variants[:, which], design).lml < np.array(highest) - 0.1)
