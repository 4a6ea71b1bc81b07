"""The statistics of blocks of variants against dense P y and against the scanner's likelihood ratio."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense

from kron2sum_cli import Kron2Sum
from kron2sum_cli.model.block_scanner import BlockScanner, block_scanner
from kron2sum_cli.model.spectrum import spectrum_of_features

N, P = 60, 3


@dataclass(frozen=True)
class Case:
    """A model, its dense twin, and a block of variants (n, b) as they are read: 0, 1 and 2."""

    model: Kron2Sum
    dense: Dense
    Qx: Array
    block: Array

    def scanner(self, dtype: type[np.floating]) -> BlockScanner:
        return block_scanner(self.model.point, self.Qx, dtype)


@pytest.fixture(
    params=[(r, c, reml, design) for r in (12, 58, 90) for c, reml in ((0, True), (1, False), (3, True))
            for design in ("identity", "square")],
    ids=lambda q: f"r{q[0]}-c{q[1]}-{'REML' if q[2] else 'ML'}-A={q[3]}",
)  # fmt: skip
def case(request: pytest.FixtureRequest) -> Case:
    r, c, reml, design = request.param
    rng = np.random.default_rng([r, c])
    X = np.hstack([np.ones((N, 1)), rng.normal(size=(N, 2))])[:, :c]
    G = rng.normal(size=(N, r)) / np.sqrt(r)
    A = np.eye(P) if design == "identity" else rng.normal(size=(P, P))
    Y = G @ rng.normal(size=(r, P)) + rng.normal(size=(N, P))
    L0, L1 = rng.normal(size=(P, P)), np.tril(rng.normal(size=(P, P)), -1) + np.eye(P)
    dense = Dense(Data(Y, A, X, G), L0 @ L0.T, L1 @ L1.T)
    model = Kron2Sum(Y, A, X, G, rank=P, restricted=reml).at(dense.C0, dense.C1)
    block = rng.binomial(2, rng.uniform(0.05, 0.5, size=7), size=(N, 7)).astype(float)
    return Case(model, dense, spectrum_of_features(G, X).Qx, block)


def axis_projections(case: Case) -> Array:
    """P in the trait axes: one (n, n) matrix an axis, the axes independent."""
    lift = np.kron(case.model.axes.Tinv, np.eye(N))
    blocks = (lift.T @ case.dense.P() @ lift).reshape(P, N, P, N).transpose(0, 2, 1, 3)
    for j in range(P):
        for k in set(range(P)) - {j}:
            np.testing.assert_allclose(blocks[j, k], 0, atol=1e-7 * np.abs(blocks[j, j]).max())
    return np.array([blocks[j, j] for j in range(P)])


def centred(case: Case) -> Array:
    """As they come to the scanner: centred where 1 is in the span of X."""
    return case.block - case.block.mean(axis=0) if case.model.ncovariates else case.block


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-9), (np.float32, 2e-5)])
def test_score_and_information_of_every_axis(case: Case, dtype: type[np.floating], rtol: float) -> None:
    Pj = axis_projections(case)
    traits = case.dense.data.Y @ case.model.axes.T.T
    u = np.stack([case.block.T @ Pj[j] @ traits[:, j] for j in range(P)], axis=1)
    v = np.stack([np.sum(case.block * (Pj[j] @ case.block), axis=0) for j in range(P)], axis=1)
    found = case.scanner(dtype).statistics(centred(case).astype(dtype))
    assert found.u.dtype == found.v.dtype == np.float64
    np.testing.assert_allclose(found.v, v, rtol=rtol)
    # A score has the scale √v · √(yᵀPy): what is 0 up to chance is not computed to relative accuracy.
    scale = np.sqrt(v) * np.sqrt(np.einsum("ij,jik,kj->j", traits, Pj, traits))
    np.testing.assert_array_less(np.abs(found.u - u), rtol * scale)


def test_length_is_what_the_covariates_leave(case: Case) -> None:
    left = case.block - case.Qx @ (case.Qx.T @ case.block)
    for dtype, rtol in ((np.float64, 1e-9), (np.float32, 2e-5)):
        found = case.scanner(dtype).statistics(centred(case).astype(dtype))
        np.testing.assert_allclose(found.length, np.sum(left**2, axis=0), rtol=rtol)


def test_chi_square_gives_the_likelihood_ratio_of_the_scanner(case: Case) -> None:
    scanner = case.model.get_fast_scanner()
    found = case.scanner(np.float64).statistics(centred(case))
    chi2 = np.sum(found.u**2 / found.v, axis=1)
    quadratic = N * P * scanner.null_scale
    ratios = -0.5 * N * P * np.log1p(-chi2 / quadratic)
    effects = (found.u / found.v) @ case.model.axes.Tinv.T
    for k in range(case.block.shape[1]):
        result = scanner.scan(np.eye(P), case.block[:, k : k + 1])
        np.testing.assert_allclose(result["lml"] - scanner.null_lml(), ratios[k], rtol=1e-8)
        np.testing.assert_allclose(result["effsizes1"][0], effects[k], rtol=1e-8, atol=1e-10)
        variances = (case.model.axes.Tinv**2) @ (1 / found.v[k])
        np.testing.assert_allclose(result["effsizes1_se"][0], np.sqrt(result["scale"] * variances), rtol=1e-8)


def test_rotated_variants(case: Case) -> None:
    V = case.model.point.data.V
    rotated = case.scanner(np.float32).rotate(centred(case).astype(np.float32))
    assert rotated.dtype == np.float64
    np.testing.assert_allclose(rotated, V.T @ case.block, atol=1e-5)


def test_a_block_is_not_changed_and_its_width_does_not_matter(case: Case) -> None:
    scanner, block = case.scanner(np.float64), centred(case)
    kept = block.copy()
    whole = scanner.statistics(block)
    np.testing.assert_array_equal(block, kept)
    for k in range(block.shape[1]):
        alone = scanner.statistics(np.ascontiguousarray(block[:, k : k + 1]))
        np.testing.assert_allclose(alone.u[0], whole.u[k], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(alone.v[0], whole.v[k], rtol=1e-12)


def test_the_low_rank_case_has_silent_rows(case: Case) -> None:
    data = case.model.point.data
    r = case.dense.data.G.shape[1]
    assert (data.noutside > 0) == (r == 12)
    assert data.Z.shape[0] == (12 + P if r == 12 else N - case.model.ncovariates)


@pytest.mark.parametrize("restricted", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("r", [12, 90])
def test_information_of_coupled_axes_is_a_matrix(r: int, restricted: bool) -> None:
    rng = np.random.default_rng(r)
    X = np.hstack([np.ones((N, 1)), rng.normal(size=(N, 1))])
    G = rng.normal(size=(N, r)) / np.sqrt(r)
    data = Data(rng.normal(size=(N, P)), rng.normal(size=(P, 1)), X, G)
    L0, L1 = rng.normal(size=(P, P)), np.tril(rng.normal(size=(P, P)), -1) + np.eye(P)
    dense = Dense(data, L0 @ L0.T, L1 @ L1.T)
    model = Kron2Sum(data.Y, data.A, X, G, rank=P, restricted=restricted).at(dense.C0, dense.C1)
    block = rng.binomial(2, 0.3, size=(N, 4)).astype(float)
    found = block_scanner(model.point, np.empty((N, 0))).statistics(block)
    lift = np.kron(model.axes.Tinv, np.eye(N))
    blocks = (lift.T @ dense.P() @ lift).reshape(P, N, P, N)
    y = (data.Y @ model.axes.T.T).T
    np.testing.assert_allclose(found.u, np.einsum("ib,jilk,lk->bj", block, blocks, y), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.v, np.einsum("ib,jilk,kb->bjl", block, blocks, block), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.length, np.sum(block**2, axis=0), rtol=1e-10)
    scanner = model.get_fast_scanner()
    chi2 = np.einsum("bj,bj->b", found.u, np.linalg.solve(found.v, found.u[:, :, None])[:, :, 0])
    ratios = -0.5 * N * P * np.log1p(-chi2 / (N * P * scanner.null_scale))
    for k in range(4):
        result = scanner.scan(np.eye(P), block[:, k : k + 1])
        np.testing.assert_allclose(result["lml"] - scanner.null_lml(), ratios[k], rtol=1e-8)
    assert scanner.scan_block(block[:, :0]).v.shape == (0, P, P)


def test_blocks_do_not_change_each_other(case: Case) -> None:
    """Wide and narrow ones, in single and double precision, in two threads: each as with a scanner of its own."""
    shared, block = case.scanner(np.float32), centred(case)
    blocks = [block, block[:, :3], block[:, :0], block.astype(np.float32), block[:, 2:6].astype(np.float32)] * 20
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(shared.statistics, blocks))
    for G, found in zip(blocks, together, strict=True):
        alone = case.scanner(np.float32).statistics(G)
        for name in ("u", "v", "length", "outside"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))


def test_variants_of_the_matrix_in_single_precision() -> None:
    """They lie in V, outside which an axis with little residual variance has a weight that magnifies rounding."""
    rng = np.random.default_rng(8)
    G = rng.binomial(2, 0.3, size=(N, 20)) - 0.6
    G -= G.mean(axis=0)
    X, Y = np.ones((N, 1)), G[:, :3] + 0.1 * rng.normal(size=(N, P))
    C1 = np.diag([1e-4, 1e-2, 1.0])
    model = Kron2Sum(Y, np.eye(P), X, G, rank=P, restricted=True).at(np.eye(P), C1)
    Qx = spectrum_of_features(G, X).Qx
    block = np.hstack([G, G + 0.05 * rng.normal(size=G.shape)])
    double, single = (block_scanner(model.point, Qx, dtype) for dtype in (np.float64, np.float32))
    H = np.roll(block, 1, axis=1)
    expected, found = double.statistics(block), single.statistics(block.astype(np.float32))
    np.testing.assert_allclose(found.v, expected.v, rtol=1e-5)
    expected, found = (
        double.pair_statistics(block, H),
        single.pair_statistics(*(x.astype(np.float32) for x in (block, H))),
    )
    size = np.sqrt(expected.first.v * expected.second.v)
    np.testing.assert_allclose(found.cross / size, expected.cross / size, atol=1e-5)
    np.testing.assert_allclose(found.second.v, expected.second.v, rtol=1e-5)


def test_variants_of_a_small_matrix_beside_a_residual_combination_that_hardly_varies() -> None:
    """What is outside the matrix has a weight of 10⁹ there: its variants have nothing in it, and no rounding either."""
    rng = np.random.default_rng(0)
    n, r = 80, 20
    G = rng.binomial(2, 0.3, size=(n, r)).astype(float)
    G -= G.mean(axis=0)
    L = rng.normal(size=(P, P))
    C0, C1 = L @ L.T, (L * [1e-9, 1.0, 0.5]) @ L.T
    Y = G @ rng.normal(size=(r, P)) @ L.T + rng.normal(size=(n, P)) * np.sqrt([1e-9, 1.0, 0.5]) @ L.T
    model = Kron2Sum(Y, np.eye(P), np.ones((n, 1)), G, rank=P, restricted=True).at(C0, C1)
    found = block_scanner(model.point, np.full((n, 1), n**-0.5), np.float64).statistics(G)
    # They lie in the span of the matrix: its eigenvectors are all that scores and information consist of.
    U, sizes, _ = np.linalg.svd(G, full_matrices=False)
    W = 1 / model.axes.variances(sizes**2)
    v = ((U.T @ G) ** 2).T @ W
    u = (U.T @ G).T @ (W * (U.T @ Y @ model.axes.T.T))
    np.testing.assert_allclose(found.v, v, rtol=1e-10)
    np.testing.assert_array_less(np.abs(found.u - u), 1e-9 * np.sqrt(v))
