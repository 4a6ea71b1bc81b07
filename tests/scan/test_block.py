"""One block of variants: what becomes of each, and that its numbers are those of the dense Gaussian."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from made_up import TRAITS, GenotypesInMemory, N, genotypes, null_model, scan_of, trait_data
from scipy import stats

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.files.scan_metadata import INDEPENDENT_TESTS
from kron2sum_cli.model.hypotheses import LEAST_LEFT
from kron2sum_cli.scan.block import DETERMINING, IN_SPAN, IN_SPAN_OF_TRAIT, Block, BlockResult, Scan
from kron2sum_cli.scan.block import test_block as tested
from kron2sum_cli.scan.refits import Once, simulated_factors

RTOL = 1e-9

STATISTICS = ("CHISQ", "P", "MLOG10P", "CHISQ.common", "BETA.a", "SE.b", "MLOG10P.b", "DF", "AXIS.1")


def block_of(source: GenotypesInMemory, asked: Any = True) -> Block:
    v = source.dosages.shape[1]
    return Block(np.arange(v), np.full(v, True) & asked)


def columns_of(result: BlockResult) -> dict[str, np.ndarray]:
    return {name: result.rows.column(name).to_numpy(zero_copy_only=False) for name in result.rows.schema.names}


def dense_statistic(scan: Scan, g: np.ndarray, data: Any) -> tuple[float, np.ndarray, np.ndarray]:
    """The likelihood ratio with a free scale, effects and standard errors, from the covariance of all values."""
    model = null_model(data)
    axes = model.summary.axes
    G = np.random.default_rng(2).normal(size=(N, 30)) / np.sqrt(30)
    seen = np.isfinite(data.Y).T.ravel()
    K = (np.kron(axes.C0, G @ G.T) + np.kron(axes.C1, np.eye(N)))[np.ix_(seen, seen)]
    y, M = data.Y.T.ravel()[seen], np.kron(data.A, data.X)[seen]
    M1 = np.kron(np.eye(len(TRAITS)), g[:, None])[seen]

    def fit(design: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        P = np.linalg.inv(K)
        H = np.linalg.inv(design.T @ P @ design)
        beta = H @ (design.T @ P @ y)
        r = y - design @ beta
        return float(r @ P @ r), beta, H

    q0, (q1, beta, H) = fit(M)[0], fit(np.hstack([M, M1]))
    se = np.sqrt(np.diag(H)[-len(TRAITS) :] * q1 / scan.context.size)
    return scan.context.size * np.log(q0 / q1), beta[-len(TRAITS) :], se


@pytest.mark.parametrize("missing", [False, True])
def test_statistics_are_those_of_the_dense_gaussian(missing: bool) -> None:
    source, data = genotypes(6), trait_data(missing)
    scan = scan_of(source, data)
    columns = columns_of(tested(scan, block_of(source)))
    for k in range(6):
        chisq, beta, se = dense_statistic(scan, source.dosages[:, k].astype(float), data)
        assert columns["CHISQ"][k] == pytest.approx(chisq, rel=RTOL)
        assert columns["MLOG10P"][k] == pytest.approx(-stats.chi2.logsf(chisq, 2) / np.log(10), rel=RTOL)
        for j, trait in enumerate(TRAITS):
            assert columns[f"BETA.{trait}"][k] == pytest.approx(beta[j], rel=RTOL)
            assert columns[f"SE.{trait}"][k] == pytest.approx(se[j], rel=RTOL)


def test_what_becomes_of_every_variant() -> None:
    source, data = genotypes(8), trait_data()
    dosages = source.dosages
    dosages[:, 1] = 1  # does not vary
    dosages[:, 2] = np.nan  # nothing called
    dosages[:, 3] = np.where(np.arange(N) == 0, 1, 0)  # rare
    covariate = (np.arange(N) % 2).astype(np.float32)
    dosages[:, 4] = covariate  # lies in the span of the covariates
    data = type(data)(data.Y, data.A, np.column_stack([np.ones(N), covariate.astype(float)]))
    scan = scan_of(source, data, maf=0.05)
    result = tested(scan, block_of(source))
    columns = columns_of(result)
    assert list(columns["SNPID"]) == ["v0", "v1", "v4", "v5", "v6", "v7"]
    tested_rows = np.isfinite(columns["CHISQ"])
    assert list(tested_rows) == [True, False, False, True, True, True]
    for name in STATISTICS:
        np.testing.assert_array_equal(np.isfinite(columns[name]), tested_rows, err_msg=name)
    assert result.counts["variants tested"] == 4
    assert result.counts[IN_SPAN] == 1
    assert result.counts["variants left out by --maf"] == 2
    assert result.counts["variants without variation (empty statistics)"] == 1


def test_variants_that_are_not_asked_for_change_nothing() -> None:
    """They are computed, so that no number depends on the edge of a region; neither rows nor counts show them."""
    source, data = genotypes(30), trait_data()
    source.dosages[:, 3] = 0
    scan = scan_of(source, data, refit=0.5)
    asked = np.arange(30) % 3 == 0
    whole, some = tested(scan, block_of(source)), tested(scan, block_of(source, asked))
    assert some.rows.equals(whole.rows.filter(asked.tolist()))
    assert some.counts["variants tested"] == np.count_nonzero(asked) - 1
    assert some.counts["variants without variation (empty statistics)"] == 1
    assert source.reads == [30, 30]


def test_missing_genotypes_are_at_the_mean() -> None:
    source, data = genotypes(2), trait_data()
    source.dosages[:5, 1] = np.nan
    filled = genotypes(2)
    filled.dosages[:5, 1] = np.nanmean(source.dosages[:, 1])
    scan = scan_of(source, data)
    found = columns_of(tested(scan, block_of(source)))
    expected = columns_of(tested(scan_of(filled, data), block_of(filled)))
    assert list(found["N"]) == [N, N - 5]
    for name in STATISTICS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)


def test_every_trait_has_its_own_number_of_samples() -> None:
    source, data = genotypes(3), trait_data(missing=True)
    source.dosages[:10, 1] = np.nan
    columns = columns_of(tested(scan_of(source, data), block_of(source)))
    seen = np.isfinite(data.Y)
    assert list(columns["N.a"]) == [seen[:, 0].sum(), seen[10:, 0].sum(), seen[:, 0].sum()]
    assert list(columns["N.b"]) == [N, N - 10, N]


def test_a_variant_without_samples_of_one_trait_has_no_statistics() -> None:
    source, data = genotypes(3), trait_data(missing=True)
    observed = np.isfinite(data.Y[:, 0])
    source.dosages[observed, 1] = 1  # varies only where trait a is missing
    result = tested(scan_of(source, data), block_of(source))
    assert list(np.isfinite(columns_of(result)["CHISQ"])) == [True, False, True]
    assert result.counts[IN_SPAN_OF_TRAIT] == 1


def test_a_variant_that_covariates_explain_wherever_it_was_genotyped_has_no_statistics() -> None:
    """A missing genotype at the mean would make it a test of that one sample."""
    source, data = genotypes(4), trait_data()
    covariate = (np.arange(N) % 2).astype(np.float32)
    data = type(data)(data.Y, data.A, np.column_stack([np.ones(N), covariate.astype(float)]))
    source.dosages[:, 1] = 2 * covariate
    source.dosages[5, 1:3] = np.nan
    result = tested(scan_of(source, data), block_of(source))
    assert list(np.isfinite(columns_of(result)["CHISQ"])) == [True, False, True, True]
    assert result.counts[IN_SPAN] == 1


def test_a_variant_that_varies_in_no_genotyped_sample_of_a_trait_has_no_statistics() -> None:
    source, data = genotypes(3), trait_data(missing=True)
    observed = np.isfinite(data.Y[:, 0])
    source.dosages[observed, 1] = 0
    source.dosages[np.flatnonzero(observed)[:2], 1:] = np.nan
    result = tested(scan_of(source, data), block_of(source))
    assert list(np.isfinite(columns_of(result)["CHISQ"])) == [True, False, True]
    assert result.counts[IN_SPAN_OF_TRAIT] == 1


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("statistic", ["lr", "f"])
def test_a_variant_that_explains_the_traits_completely_is_the_strongest(precision: str, statistic: str) -> None:
    source = genotypes(3)
    scan = scan_of(source, trait_data(), refit=1.0)
    whole = columns_of(tested(scan, block_of(source)))
    explained = scan.context.quadratic * -np.expm1(-whole["CHISQ"] / scan.context.size)
    strongest = int(np.argmax(explained))
    least = LEAST_LEFT[precision]
    for more in (1 + 1e-14, 1 - 1e-3):  # what rounding leaves is a little, or less than nothing
        context = replace(scan.context, quadratic=explained[strongest] * more, least_left=least, statistic=statistic)
        result = tested(replace(scan, context=context), block_of(source))
        columns = columns_of(result)
        chisq = -scan.context.size * np.log(least)
        assert columns["CHISQ"][strongest] == pytest.approx(chisq)
        if statistic == "lr":  # two degrees of freedom: P = exp(-chisq / 2)
            assert columns["MLOG10P"][strongest] == pytest.approx(chisq / 2 / np.log(10))
        assert np.argmax(columns["MLOG10P"]) == strongest
        assert columns["BETA.a"][strongest] == whole["BETA.a"][strongest]
        share = least * context.quadratic / (scan.context.quadratic - explained[strongest])
        assert columns["SE.a"][strongest] == pytest.approx(np.sqrt(share) * whole["SE.a"][strongest])
        assert columns["CHISQ.common"][strongest] <= chisq
        assert np.isnan(columns["CHISQ_REFIT"][strongest])
        assert (result.counts[DETERMINING], result.counts["variants tested"]) == (1, 3)


def test_refits_are_of_the_small_tests() -> None:
    source, data = genotypes(20), trait_data()
    result = tested(scan_of(source, data, refit=0.3), block_of(source))
    columns = columns_of(result)
    smallest = np.minimum(columns["P"], 10.0 ** -columns["MLOG10P.common"])
    refitted = np.isfinite(columns["CHISQ_REFIT"])
    np.testing.assert_array_equal(refitted, smallest < 0.3)
    assert 0 < result.counts["variants refitted"] == np.count_nonzero(refitted) < 20
    for name in ("MLOG10P_REFIT", "BETA_REFIT.a", "SE_REFIT.b", "CHISQ_REFIT.common"):
        np.testing.assert_array_equal(np.isfinite(columns[name]), refitted, err_msg=name)


@dataclass(frozen=True)
class Unfit:
    """Refits of whose simulated traits none can be fitted."""

    null: Any
    reml: bool = True
    null_lml: float = 0.0

    def of_variants(self, G: Any, outside: Any) -> Any:
        raise NotImplementedError

    def simulated(self, truth: Any, rng: Any, second: Any = None) -> Any:
        raise ConvergenceError("no maximum")


def test_refits_without_a_factor_have_no_statistics(caplog: pytest.LogCaptureFixture) -> None:
    source, scan = genotypes(20), scan_of(genotypes(20), trait_data(), refit=0.3)
    assert scan.refit is not None
    plan = scan.refit
    factors = Once(lambda: simulated_factors(Unfit(plan.refits.null), scan.tests, 1))
    result = tested(replace(scan, refit=replace(plan, factors=factors)), block_of(source))
    assert "no variants are refitted: too few traits simulated" in caplog.text
    columns, known = columns_of(result), columns_of(tested(scan, block_of(source)))
    for name in ("CHISQ_REFIT", "MLOG10P_REFIT", "CHISQ_REFIT.common"):
        assert np.isnan(columns[name]).all()
    np.testing.assert_array_equal(columns["CHISQ"], known["CHISQ"])
    assert result.refit_factors == {}


def test_columns_of_refits_are_empty_where_there_is_none() -> None:
    source, data = genotypes(5), trait_data()
    without = replace(scan_of(source, data, refit=1.0), refit=None)
    columns = columns_of(tested(without, block_of(source)))
    assert all(np.isnan(columns[name]).all() for name in columns if "_REFIT" in name)
    assert np.isfinite(columns["CHISQ"]).all()


def test_numbers_of_independent_tests_of_parts_add_up() -> None:
    source = genotypes(60)
    source.dosages[:, 20:40] = source.dosages[:, :20]
    scan = scan_of(source, trait_data())
    every, asked = np.arange(60), np.random.default_rng(0).random(60) < 0.4
    whole, part, rest = (
        tested(scan, Block(every, mask)).counts[INDEPENDENT_TESTS]
        for mask in (np.ones(60, dtype=np.bool_), asked, ~asked)
    )
    assert whole == part + rest
    assert 30 < whole <= 40
