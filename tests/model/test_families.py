"""Block-diagonal relationship matrices against the dense Gaussian, and against the dense rotation of the matrix."""

import numpy as np
import pytest
from made_up_families import Case, covariances, simulated
from numpy.typing import NDArray
from scipy import linalg, optimize, sparse
from set_oracle import scores_of_all

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model import fitting
from kron2sum_cli.model.bartlett import bartlett_factors
from kron2sum_cli.model.block_scanner import block_scanner
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.families import fitting as family_fitting
from kron2sum_cli.model.families.fitting import fixed_effects
from kron2sum_cli.model.families.likelihood import FamilyPoint, evaluate, family_traits
from kron2sum_cli.model.families.null_model import likelihood_of_families, restored_families
from kron2sum_cli.model.families.refit import family_refits
from kron2sum_cli.model.families.scanner import family_scanner, family_set_scanner
from kron2sum_cli.model.families.spectrum import families_by_size, family_spectrum
from kron2sum_cli.model.hypotheses import named_hypothesis
from kron2sum_cli.model.null_model import FAMILIES, NullModel, TraitData, null_likelihood, rotate_samples
from kron2sum_cli.model.profile import heritability_interval
from kron2sum_cli.model.refit import null_maxima, refitter
from kron2sum_cli.model.spectrum import spectrum_of_relationship
from kron2sum_cli.model.trait_axes import axes_of_covariances

Array = NDArray[np.float64]


DESIGNS = [(40, 1, 1), (45, 3, 4), (50, 2, 0), (30, 4, 2)]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("n", "p", "c"), DESIGNS)
def test_likelihood_equals_the_dense_gaussian(n: int, p: int, c: int, reml: bool) -> None:
    case, (C0, C1) = simulated(n, p, c), covariances(p)
    data = case.families
    point = evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), reml)
    assert point.lml == pytest.approx(case.dense(C0, C1).lml(reml), rel=1e-11)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("n", "p", "c"), DESIGNS)
def test_score_and_curvature_are_derivatives(n: int, p: int, c: int, reml: bool) -> None:
    data = simulated(n, p, c).families
    axes = axes_of_covariances(*covariances(p), data.mean_eigenvalue)
    rng = np.random.default_rng(3)
    E0, E1 = (M + M.T for M in rng.normal(size=(2, p, p)))
    # A step in the axes of the point is T⁻¹ E T⁻ᵀ in the traits; scores of the moved point come back the same way.
    step = 1e-5

    def moved(size: float) -> FamilyPoint:
        C0 = axes.C0 + size * axes.Tinv @ E0 @ axes.Tinv.T
        C1 = axes.C1 + size * axes.Tinv @ E1 @ axes.Tinv.T
        return evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), reml)

    point, up, down = evaluate(data, axes, reml), moved(step), moved(-step)
    slope = np.sum(point.score0 * E0) + np.sum(point.score1 * E1)
    assert slope == pytest.approx((up.lml - down.lml) / (2 * step), rel=1e-6, abs=1e-5)
    for k, change in enumerate(point.curvature(E0, E1)):
        ends = [(q.score0, q.score1)[k] for q in (up, down)]
        in_traits = [q.axes.T.T @ S @ q.axes.T for q, S in zip((up, down), ends, strict=True)]
        expected = axes.Tinv.T @ (in_traits[0] - in_traits[1]) @ axes.Tinv / (2 * step)
        np.testing.assert_allclose(change, expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("rank", [1, 3])
def test_fit_equals_that_of_the_dense_rotation(rank: int, reml: bool) -> None:
    case = simulated(150, 3, 3, seed=4)
    spectrum = spectrum_of_relationship(case.K.copy(), case.X)
    dense = fitting.fit(rotate_traits(spectrum, case.Y), rank, reml)
    fitted = family_fitting.fits(case.families, [rank], reml)[0]
    assert fitted.certificate.certified
    assert fitted.point.lml == pytest.approx(dense.point.lml, abs=1e-7)


@pytest.mark.parametrize(("n", "p", "c"), DESIGNS)
def test_statistics_of_variants_equal_dense_least_squares(n: int, p: int, c: int) -> None:
    case, (C0, C1) = simulated(n, p, c), covariances(p)
    data = case.families
    axes = axes_of_covariances(C0, C1, data.mean_eigenvalue)
    G = np.random.default_rng(5).binomial(2, 0.3, size=(n, 6)).astype(float)
    found = family_scanner(evaluate(data, axes, True), np.float64).statistics(G)
    P, y = case.dense(C0, C1).P(), case.Y.T.reshape(-1)
    for k, g in enumerate(G.T):
        effects = np.kron(axes.Tinv, g[:, None])
        np.testing.assert_allclose(found.u[k], effects.T @ P @ y, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(np.diag(found.v[k]), effects.T @ P @ effects, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("same", [True, False], ids=["one eigenvalue", "many"])
def test_pieces_of_samples_add_up(same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the dense model's, also where the samples without relatives have one eigenvalue: weights of one column."""
    case, (C0, C1) = simulated(90, 3, 3, largest=3), covariances(3)
    K = case.K.copy()
    if same:
        alone = np.count_nonzero(K, axis=1) == 1
        K[alone, alone] = 1.0
    case = Case(K, case.X, case.Y)
    for name, value in (("CACHED_GENOTYPES", 1), ("FEWEST_SAMPLES", 7), ("RELATIVES_AT_ONCE", 5)):
        monkeypatch.setattr(f"kron2sum_cli.model.families.scanner.{name}", value)
    data = case.families
    axes = axes_of_covariances(C0, C1, data.mean_eigenvalue)
    scanner = family_scanner(evaluate(data, axes, True), np.float64)
    assert (scanner.squares.shape[1] == 1) == same and len(scanner.relatives) > 10
    G, H = np.random.default_rng(5).binomial(2, 0.3, size=(2, 90, 4)).astype(float)
    found, P, y = scanner.pair_statistics(G, H), case.dense(C0, C1).P(), case.Y.T.reshape(-1)
    for k in range(4):
        g, h = (np.kron(axes.Tinv, one[:, [k]]) for one in (G, H))
        np.testing.assert_allclose(found.first.u[k], g.T @ P @ y, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(np.diag(found.cross[k]), g.T @ P @ h, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(np.diag(found.second.v[k]), h.T @ P @ h, rtol=1e-8, atol=1e-8)


def test_a_search_without_the_covariates_part_of_the_information_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulated(1200, 2, 1, seed=4).families
    without = family_fitting.fits(data, [2], True)[0]
    monkeypatch.setattr(family_fitting, "SAMPLES_PER_COVARIATE", np.inf)
    exact = family_fitting.fits(data, [2], True)[0]
    assert without.certificate.certified and without.point.lml == pytest.approx(exact.point.lml, abs=1e-9)
    np.testing.assert_allclose(without.point.axes.C0, exact.point.axes.C0, rtol=1e-5, atol=1e-6)


def test_single_precision_differs_by_rounding() -> None:
    case = simulated(200, 5, 6)
    spectrum = spectrum_of_relationship(case.K.copy(), case.X)
    fitted = fitting.fit(rotate_traits(spectrum, case.Y), 5, True)
    point = evaluate(case.families, fitted.point.axes, True)
    G = np.random.default_rng(6).binomial(2, 0.2, size=(200, 40)).astype(float)
    G -= G.mean(axis=0)
    exact = block_scanner(fitted.point, spectrum.Qx, np.float64).statistics(G)
    found = family_scanner(point).statistics(G.astype(np.float32))
    np.testing.assert_allclose(found.u, exact.u, rtol=1e-4, atol=1e-4 * np.abs(exact.u).max())
    np.testing.assert_allclose(found.v, exact.v, rtol=2e-6)


def test_effects_and_their_errors_equal_dense_least_squares() -> None:
    case, (C0, C1) = simulated(60, 3, 4), covariances(3)
    data = case.families
    point = evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), True)
    B, se = fixed_effects(point)
    dense = case.dense(C0, C1)
    beta, covariance = dense.fixed_effects(dense.M)
    np.testing.assert_allclose(B.T.reshape(-1), beta, rtol=1e-9)
    np.testing.assert_allclose(se.T.reshape(-1), np.sqrt(np.diag(covariance)), rtol=1e-9)


def test_families_are_the_connected_components() -> None:
    K = np.eye(7)
    for i, j in ((0, 3), (3, 6), (1, 5)):
        K[i, j] = K[j, i] = 0.25
    found = [{frozenset(family) for family in members.tolist()} for members in families_by_size(sparse.csr_array(K))]
    assert found == [{frozenset({1, 5})}, {frozenset({0, 3, 6})}]


def test_slightly_negative_eigenvalues_are_set_to_0() -> None:
    """The nearest positive semi-definite matrix: what a cutoff leaves of three relatives."""
    K = np.eye(5)
    for i, j in ((0, 1), (1, 2)):
        K[i, j] = K[j, i] = 0.75
    spectrum = family_spectrum(sparse.csr_array(K))
    values, vectors = np.linalg.eigh(K)
    nearest = (vectors * np.maximum(values, 0)) @ vectors.T
    U = spectrum.rotation.to_samples(np.eye(5))
    np.testing.assert_allclose((U * spectrum.s) @ U.T, nearest, atol=1e-12)
    assert (spectrum.nnegative, spectrum.smallest) == (1, pytest.approx(values[0]))
    centred = nearest - nearest.mean(axis=0)
    assert spectrum.mean_diagonal == pytest.approx(np.trace(centred) / 5)


def test_a_matrix_with_a_large_negative_eigenvalue_is_refused() -> None:
    K = np.eye(4)
    K[0, 1] = K[1, 0] = 1.3
    with pytest.raises(NumericalError, match="not positive semi-definite.*-0.3"):
        family_spectrum(sparse.csr_array(K))


def test_collinear_covariates_are_refused() -> None:
    case = simulated(20, 1, 1)
    with pytest.raises(NumericalError, match="in the span of the others"):
        family_traits(family_spectrum(sparse.csr_array(case.K)), case.Y, np.ones((20, 2)))


def fitted(case: Case, reml: bool, rank: int = 3) -> tuple[NullModel, NullModel]:
    """The null model of families, and that of the dense rotation of the same matrix."""
    data = TraitData(case.Y, np.eye(case.Y.shape[1]), case.X)
    of_families = likelihood_of_families(family_spectrum(sparse.csr_array(case.K)), data, reml)
    dense = null_likelihood(rotate_samples(case.K.copy(), False, data, reml), data, reml)
    return tuple(likelihood.null_model(likelihood.fit(rank)) for likelihood in (of_families, dense))  # type: ignore[return-value]


@pytest.mark.parametrize("reml", [True, False])
def test_null_model_equals_that_of_the_dense_rotation(reml: bool) -> None:
    case = simulated(150, 3, 3, seed=4, largest=6)
    found, dense = fitted(case, reml)
    assert found.summary.lml == pytest.approx(dense.summary.lml, abs=1e-9)
    for name in ("C0", "C1", "C0_se", "h2", "h2_se", "rg_se", "re", "B", "B_se", "axis_h2"):
        numbers = [getattr(model.summary.estimates, name) for model in (found, dense)]
        np.testing.assert_allclose(numbers[0], numbers[1], rtol=1e-6, atol=1e-7, err_msg=name)
    intervals = [
        heritability_interval(model.point, 0, model.summary.mean_diagonal, model.summary.rank)
        for model in (found, dense)
    ]
    assert intervals[0].low == pytest.approx(intervals[1].low, abs=1e-6)
    assert found.spans_intercept
    K = 0.1 * np.random.default_rng(2).normal(size=(150, 4))
    X = np.random.default_rng(3).normal(size=(4, 3))
    predicted = []
    for predictor in (found.predictor(), dense.predictor()):
        genetic = predictor.genetic_values(K, np.ones(4))
        predicted.append((genetic, predictor.new_cells(genetic, K, X)))
    for ours, theirs in zip(*predicted, strict=True):
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours.variance, theirs.variance, rtol=1e-6, atol=1e-6)


def test_scores_of_a_set_equal_dense_least_squares() -> None:
    case, (C0, C1) = simulated(45, 3, 4), covariances(3)
    data = case.families
    axes = axes_of_covariances(C0, C1, data.mean_eigenvalue)
    G = np.random.default_rng(5).binomial(2, 0.3, size=(45, 4)).astype(float)
    scores = scores_of_all(family_set_scanner(evaluate(data, axes, True), np.float64), G)
    P, y = case.dense(C0, C1).P(), case.Y.T.reshape(-1)
    for j in range(3):
        effects = np.kron(axes.Tinv[:, [j]], G)
        np.testing.assert_allclose(scores.u[:, j], effects.T @ P @ y, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(scores.V[j], effects.T @ P @ effects, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("design", [np.eye(2), np.ones((2, 1)), np.eye(2)[:, :1]], ids=["any", "common", "trait"])
def test_refits_are_maxima_of_the_dense_likelihood(design: Array) -> None:
    """Against a search over factors of C0 and C1 in the dense Gaussian of the contrasts, the variant a fixed effect."""
    case = simulated(40, 2, 2, seed=7, largest=4)
    model, _ = fitted(case, reml=True, rank=2)
    g = np.random.default_rng(8).binomial(2, 0.4, size=(40, 1)).astype(float)
    refit = model.refits().of_variants(g, np.zeros(1))(design)
    N = linalg.null_space(case.X.T)
    K, Y, w = N.T @ case.K @ N, N.T @ case.Y, np.kron(design, N.T @ g)
    tril = np.tril_indices(2)

    def minus_lml(x: Array) -> float:
        L0, L1 = np.zeros((2, 2)), np.zeros((2, 2))
        L0[tril], L1[tril] = x[:3], x[3:]
        V = np.kron(L0 @ L0.T, K) + np.kron(L1 @ L1.T, np.eye(len(K)))
        try:
            root = np.linalg.cholesky(V)
        except np.linalg.LinAlgError:
            return 1e10
        y, M = (linalg.solve_triangular(root, A, lower=True) for A in (Y.T.reshape(-1), w))
        rest = y - M @ np.linalg.lstsq(M, y, rcond=None)[0]
        return float(0.5 * (rest @ rest + y.size * np.log(2 * np.pi)) + np.log(np.diag(root)).sum())

    rng = np.random.default_rng(9)
    best = min(optimize.minimize(minus_lml, rng.normal(size=6), method="BFGS").fun for _ in range(8))
    assert refit.lml[0] == pytest.approx(-best, abs=1e-4)


@pytest.mark.parametrize("seed", [2, 5])
def test_refits_far_from_the_null_model_end_at_their_maxima(seed: int) -> None:
    """There the information is not the null model's. As with the dense rotation of the same matrix."""
    case, rng = simulated(40, 3, 1, seed=seed), np.random.default_rng(seed)
    G = rng.binomial(2, 0.35, size=(40, 2)).astype(float)
    Y = case.Y + 2 * G[:, :1] * rng.normal(size=3) * case.Y.std(axis=0)
    found, expected = (
        model.refits().of_variants(G, np.zeros(2))(np.eye(3)) for model in fitted(Case(case.K, case.X, Y), reml=True)
    )
    np.testing.assert_allclose(found.lml, expected.lml, atol=1e-6)
    np.testing.assert_allclose(found.beta, expected.beta, atol=1e-4)


def test_refits_of_few_samples_climb_from_several_places() -> None:
    """There are two maxima without a variant; with it the lower one is the higher. As with the dense rotation."""
    case, g, size = of_populations(1023)
    found, expected = (
        model.refits().of_variants(g, np.zeros(1))(size).lml for model in fitted(case, reml=False, rank=len(size))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_maximum_near_that_of_similar_data_is_the_highest() -> None:
    """With few samples also where a climb from there stays at a lower one."""
    case, _, size = of_populations(1023)
    data, p = case.families, len(size)
    fitted = family_fitting.fits(data, [p], False)[0]
    *_, lowest = family_refits(data, fitted.point.axes, p, False).maxima
    assert family_fitting.climb(data, lowest.point.axes, p, False).point.lml < fitted.point.lml - 0.01
    found = family_fitting.climb_near(data, lowest.point.axes, p, False)
    assert found.point.lml == pytest.approx(fitted.point.lml, abs=1e-6)


def of_populations(seed: int) -> tuple[Case, Array, Array]:
    """Three populations, a variant (n, 1) without effect, and the standard deviations of the traits (p, 1)."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(24, 36)), int(rng.integers(2, 4))
    blocks = []
    for start in range(0, n, n // 3):
        m, shared = min(n // 3, n - start), rng.uniform(0.1, 0.5)
        W = rng.normal(size=(m, 2 * m))
        blocks.append(shared + (1 - shared) * W @ W.T / (2 * m))
    order = rng.permutation(n)
    K = linalg.block_diag(*blocks)[np.ix_(order, order)]
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, int(rng.integers(1, 3)) - 1))])

    def covariance() -> Array:
        L = rng.normal(size=(p, int(rng.choice([1, p, p + 2]))))
        return np.asarray(L @ L.T / L.shape[1] + 1e-3 * np.eye(p))

    C0, C1 = covariance() * rng.choice([0.2, 1, 3]), covariance()
    Y = np.linalg.cholesky(K) @ rng.normal(size=(n, p)) @ np.linalg.cholesky(C0).T
    Y += rng.normal(size=(n, p)) @ np.linalg.cholesky(C1).T
    G = rng.binomial(2, 0.35, size=(n, 2)).astype(float)
    Y += 0.7 * G[:, :1] * rng.normal(size=p) * Y.std(axis=0)
    return Case(K, X, Y), G[:, 1:], Y.std(axis=0)[:, None]


def test_the_bartlett_factor_of_refits() -> None:
    """As of the same traits with the dense rotation of the same matrix."""
    case = simulated(60, 2, 2, seed=7, largest=4)
    model, _ = fitted(case, reml=True, rank=2)
    whole = rotate_traits(spectrum_of_relationship(case.K, case.X), case.Y)
    data = whole.without_projected()
    dense = refitter(data, null_maxima(data, model.summary.axes, 2), reml=True)
    assert dense.null_lml == pytest.approx(model.summary.lml, abs=1e-5)
    hypotheses = [named_hypothesis("any", ("a", "b"))]
    factors = [bartlett_factors(refits, hypotheses, 1)[0] for refits in (model.refits(), dense)]
    assert factors[0] == pytest.approx(factors[1], abs=0.06)


def test_arrays_restore_the_model() -> None:
    case = simulated(60, 3, 2, seed=11)
    data = TraitData(case.Y, np.eye(3), case.X)
    model, _ = fitted(case, reml=True)
    arrays = {name.removeprefix(FAMILIES): array for name, array in model.arrays().items()}
    assert restored_families(model.summary, arrays, data).point.lml == model.summary.lml
    with pytest.raises(ValueError, match="do not go together"):
        restored_families(model.summary, arrays | {"Z": arrays["Z"][:-1]}, data)


def test_what_families_cannot_do_is_refused() -> None:
    case = simulated(30, 2, 1)
    spectrum = family_spectrum(sparse.csr_array(case.K))
    with pytest.raises(NumericalError, match="--trait-design"):
        likelihood_of_families(spectrum, TraitData(case.Y, np.ones((2, 1)), case.X), True)
