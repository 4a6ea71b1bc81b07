"""Scans for interactions and with other codings, end to end: against the dense Gaussian, regression, and each other."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dense_scan import dense_projection
from example_commands import EXAMPLE, kron2sum, metadata, scan, table
from scipy import stats

from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.files.samples import match
from kron2sum_cli.genotypes.bed import open_bed
from kron2sum_cli.model.null_model import CompleteNullModel
from kron2sum_cli.model.random_slopes import fit_slopes, slopes_data_of, slopes_tests

TRAITS = ("height", "weight", "glucose")
FILES = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")
INTERACTION, GENOTYPIC = ("--interaction", "age"), ("--coding", "genotypic")


def dosages(null: Path, index: int) -> np.ndarray:
    source = open_bed(str(EXAMPLE / "genotypes.bed"))
    return source.read(np.array([index]), match(read_null(str(null)).samples, source.samples))[:, 0].astype(float)


def imputed(g: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(g), np.nanmean(g), g)


def second(null: Path, index: int, options: tuple[str, str]) -> np.ndarray:
    """The second column as a user would make it: the product, or 1 for heterozygotes."""
    g = dosages(null, index)
    if options == GENOTYPIC:
        return imputed(np.where(np.isnan(g), np.nan, g == 1))
    data = read_null(str(null)).description
    return imputed(g) * data.X[:, data.covariates.index("age")]


@pytest.fixture(scope="module")
def scans_of_one_column() -> dict[str, pd.DataFrame]:
    """Those that tests have made, by their null models."""
    return {}


@pytest.mark.usefixtures("few_simulated_traits")
@pytest.mark.parametrize("options", [INTERACTION, GENOTYPIC])
@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
def test_every_number_of_a_row_equals_the_dense_gaussian(
    example: Path, tmp_path: Path, scans_of_one_column: dict[str, pd.DataFrame], null: str, options
) -> None:
    out, plain = tmp_path / "s.parquet", tmp_path / "plain.parquet"
    assert scan(example / null, out, "--precision", "double", *options) == 0
    if null not in scans_of_one_column:
        assert scan(example / null, plain, "--precision", "double") == 0
        scans_of_one_column[null] = table(plain)
    rows, kind = table(out), "GXE" if options == INTERACTION else "DOM"
    own = scans_of_one_column[null]
    refits = [column for column in own.columns if "_REFIT" in column]  # more variants are refitted, and with more tests
    pd.testing.assert_frame_equal(rows[own.columns.drop(refits)], own.drop(columns=refits))
    pd.testing.assert_frame_equal(rows[refits][own.CHISQ_REFIT.notna()], own[refits][own.CHISQ_REFIT.notna()])
    for index in (0, 405, 2900):
        row = rows.iloc[index]
        y, P, size = dense_projection(example / null, row.CHR if null == "loco.npz" else None)
        q0, g, h = y @ P @ y, imputed(dosages(example / null, index)), second(example / null, index, options)

        def fit(*columns, P=P, y=y):
            M1 = np.kron(np.eye(3), np.column_stack(columns))
            covariance = np.linalg.inv(M1.T @ P @ M1)
            beta = covariance @ M1.T @ P @ y
            return beta @ M1.T @ P @ y, beta, covariance

        alone, (both, beta, covariance) = fit(g)[0], fit(g, h)
        name = "interaction" if kind == "GXE" else "dominance"
        assert row[f"CHISQ.{name}"] == pytest.approx(size * np.log((q0 - alone) / (q0 - both)), rel=1e-8, abs=1e-8)
        assert row["CHISQ.joint"] == pytest.approx(size * np.log(q0 / (q0 - both)), rel=1e-8)
        assert (row[f"DF.{name}"], row["DF.joint"]) == (3, 6)
        assert row["MLOG10P.joint"] == pytest.approx(-stats.chi2.logsf(row["CHISQ.joint"], 6) / np.log(10), rel=1e-8)
        for j, trait in enumerate(TRAITS):
            variance = covariance[2 * j + 1, 2 * j + 1]
            assert row[f"BETA_{kind}.{trait}"] == pytest.approx(beta[2 * j + 1], rel=1e-8)
            assert row[f"SE_{kind}.{trait}"] == pytest.approx(np.sqrt((q0 - both) / size * variance), rel=1e-8)
            chisq = size * np.log1p(beta[2 * j + 1] ** 2 / variance / (q0 - both))
            expected = -stats.chi2.logsf(chisq, 1) / np.log(10)
            assert row[f"MLOG10P_{kind}.{trait}"] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("options", [INTERACTION, GENOTYPIC])
def test_refits_of_both_columns(example: Path, tmp_path: Path, options) -> None:
    """Of variants with any small test; near the tests without refits, and the same in other units of the covariate."""
    out, name, kind = (
        tmp_path / "s.parquet",
        *(("interaction", "GXE") if options == INTERACTION else ("dominance", "DOM")),
    )
    assert scan(example / "null.npz", out, "--chr", "1", "--refit", "0.003", *options) == 0
    rows, factors = table(out), metadata(out)["refit_factors"]["genome"]
    assert set(factors) == {"any", name, "joint"}
    assert all(1 < factor < 1.1 for factor in factors.values())
    strongest = rows[["MLOG10P", f"MLOG10P.{name}", "MLOG10P.joint"]].max(axis=1)
    refitted = rows[f"CHISQ_REFIT.{name}"].notna()
    assert refitted.sum() > 5
    assert (refitted == (strongest > -np.log10(0.003)) & rows[f"CHISQ.{name}"].notna()).all()
    assert (rows.CHISQ_REFIT.notna() == (strongest > -np.log10(0.003))).all()
    some = rows[refitted]
    for test, df in ((name, 3), ("joint", 6)):
        chisq = some[f"CHISQ_REFIT.{test}"]
        np.testing.assert_allclose(chisq, some[f"CHISQ.{test}"], rtol=0.1, atol=0.5)
        np.testing.assert_allclose(some[f"MLOG10P_REFIT.{test}"], -stats.chi2.logsf(chisq, df) / np.log(10), rtol=1e-8)
    # What two tests of the second column add up to: l(both) - l(g) + l(g) - l(neither).
    total = sum(factors[test] * some[f"CHISQ_REFIT{ending}"] for test, ending in (("any", ""), (name, f".{name}")))
    np.testing.assert_allclose(factors["joint"] * some["CHISQ_REFIT.joint"], total, atol=1e-5)
    for trait in TRAITS:
        se = some[f"SE_{kind}.{trait}"]
        np.testing.assert_allclose(some[f"SE_{kind}_REFIT.{trait}"], se, rtol=0.06)
        np.testing.assert_allclose(some[f"BETA_{kind}_REFIT.{trait}"] / se, some[f"BETA_{kind}.{trait}"] / se, atol=0.2)
    if options == INTERACTION:
        ages = pd.read_csv(EXAMPLE / "covariates.csv")[["FID", "IID", "age"]].assign(days=lambda t: 365 * t.age + 7)
        ages.drop(columns="age").to_csv(tmp_path / "days.csv", index=False)
        days = ("--covar", tmp_path / "days.csv", "--interaction", "days")
        assert scan(example / "null.npz", tmp_path / "d.parquet", "--chr", "1", "--refit", "0.003", *days) == 0
        other = table(tmp_path / "d.parquet")[refitted]
        np.testing.assert_allclose(
            other["CHISQ_REFIT.interaction"], some["CHISQ_REFIT.interaction"], rtol=1e-3, atol=1e-4
        )
        np.testing.assert_allclose(365 * other["BETA_GXE_REFIT.height"], some["BETA_GXE_REFIT.height"], rtol=1e-2)


def test_random_slopes(example: Path, tmp_path: Path) -> None:
    """Tests of the interaction are those of the model with slopes, and nothing else changes."""
    out, plain = tmp_path / "s.parquet", tmp_path / "plain.parquet"
    null = tmp_path / "null.npz"
    few = ("--pheno-name", "height", "--covar-name", "age")
    assert kron2sum("fit", "-q", *FILES, *few, "--grm", EXAMPLE / "genotypes.bed", "--out", null) == 0
    options = ("--chr", "1", "--refit", "0.01", *INTERACTION)
    assert scan(null, plain, *options) == 0
    assert scan(null, out, *options, "--random-slopes") == 0
    rows, own = table(out), table(plain)
    assert metadata(out)["settings"]["random_slopes"] is True
    assert set(metadata(out)["refit_factors"]["genome"]) == {"any"}
    second = [
        name for name in rows.columns if "_REFIT.interaction" in name or "_REFIT.joint" in name or "GXE_REFIT" in name
    ]
    pd.testing.assert_frame_equal(rows.drop(columns=second), own.drop(columns=second))
    refitted = np.flatnonzero(rows["CHISQ_REFIT.interaction"].notna())
    assert refitted.tolist() == np.flatnonzero(own["CHISQ_REFIT.interaction"].notna()).tolist()
    assert re.search(
        "random slopes on age: genetic and residual variance .*: height [0-9.]+ and", Path(f"{out}.log").read_text()
    )
    model, X = read_null(str(null)).load(None), read_null(str(null)).description.X
    assert isinstance(model, CompleteNullModel)
    e = (X[:, 1] - X[:, 1].mean()) / X[:, 1].std()
    data = slopes_data_of(model.contrasts, model.Qx, e)
    point = fit_slopes(data, model.summary.axes.C0, model.summary.axes.C1)
    for index in refitted[:3]:
        g = imputed(dosages(null, index))
        expected = slopes_tests(data, point, g[:, None], (g * e)[:, None], "lr")
        assert rows["CHISQ_REFIT.interaction"][index] == pytest.approx(expected.interaction.chisq[0], rel=1e-3)
        assert rows["CHISQ_REFIT.joint"][index] == pytest.approx(expected.joint.chisq[0], rel=1e-3)
        assert rows["BETA_GXE_REFIT.height"][index] == pytest.approx(expected.beta[0, 0] / X[:, 1].std(), rel=1e-3)
        assert rows["SE_GXE_REFIT.height"][index] == pytest.approx(expected.se[0, 0] / X[:, 1].std(), rel=1e-3)


def test_independent_samples_of_one_trait_give_ordinary_regression(example: Path, tmp_path: Path) -> None:
    """And so the sums of squares of plink2 --glm interaction, genotypic, dominant and recessive."""
    null = tmp_path / "null.npz"
    assert kron2sum("fit", "-q", *FILES, "--pheno-name", "height", "--grm", "none", "--out", null) == 0
    data, found, exactly = (
        read_null(str(null)).description,
        {},
        ("--stat", "f", "--precision", "double", "--refit", "0"),
    )
    for name, options in (("i", INTERACTION), ("g", GENOTYPIC)):
        assert scan(null, tmp_path / f"{name}.parquet", *exactly, *options) == 0
        found[name] = table(tmp_path / f"{name}.parquet")
    for coding in ("dominant", "recessive"):
        assert scan(null, tmp_path / "c.parquet", *exactly, "--coding", coding) == 0
        found[coding] = table(tmp_path / "c.parquet")

    def regression(*columns):
        M = np.column_stack([data.X, *columns])
        (beta, residual), df = np.linalg.lstsq(M, data.Y[:, 0])[:2], len(M) - M.shape[1]
        t = beta[-1] / np.sqrt(residual[0] / df * np.linalg.inv(M.T @ M)[-1, -1])
        return beta[-1], 2 * stats.t.sf(abs(t), df), residual[0], df

    for index in (0, 300, 405):
        g, empty = dosages(null, index), regression(np.empty((len(data.X), 0)))
        for name, kind, options in (("i", "GXE", INTERACTION), ("g", "DOM", GENOTYPIC)):
            beta, p, residual, df = regression(imputed(g), second(null, index, options))
            row = found[name].iloc[index]
            assert row[f"BETA_{kind}.height"] == pytest.approx(beta, rel=1e-8)
            assert 10 ** -row[f"MLOG10P_{kind}.height"] == pytest.approx(p, rel=1e-8)
            f = (empty[2] - residual) / 2 / (residual / df)
            assert 10 ** -row["MLOG10P.joint"] == pytest.approx(stats.f.sf(f, 2, df), rel=1e-8)
        for coding, copies in (("dominant", 1), ("recessive", 2)):
            beta, p, _, _ = regression(imputed(np.where(np.isnan(g), np.nan, g >= copies)))
            assert found[coding]["BETA.height"][index] == pytest.approx(beta, rel=1e-8)
            assert found[coding].P[index] == pytest.approx(p, rel=1e-8)
            assert found[coding].EAF[index] == pytest.approx(np.nanmean(g) / 2, rel=1e-6)


@pytest.mark.parametrize("options", [INTERACTION, GENOTYPIC])
def test_families_and_missing_cells_are_tested(example: Path, tmp_path: Path, options) -> None:
    """In single precision as in double; families are those of the dense matrix with the same relationships."""
    for name, more in (("families", ("--grm-cutoff", "0.05")), ("missing", ("--missing", "exact"))):
        null, tables = tmp_path / f"{name}.npz", []
        assert kron2sum("fit", "-q", *FILES, "--grm", EXAMPLE / "genotypes.bed", *more, "--out", null) == 0
        for precision in ("single", "double"):
            out = tmp_path / f"{name}.{precision}.parquet"
            assert scan(null, out, "--precision", precision, "--chr", "1", "--refit", "0", *options) == 0
            tables.append(table(out))
        single, double = tables
        tests = [column for column in double.columns if column.startswith("MLOG10P")]
        np.testing.assert_array_equal(single[tests].isna(), double[tests].isna())
        np.testing.assert_allclose(single[tests], double[tests], atol=2e-3)
        assert double[tests[-1]].notna().sum() > 400


def test_a_covariate_of_a_table_is_as_one_of_the_null_model(example: Path, tmp_path: Path) -> None:
    """Its own effect is added: the same where the covariate is in the model already, and where C0 is 0 for all."""
    given = ("--covar", EXAMPLE / "covariates.csv", *INTERACTION)
    for name, options in (("a", INTERACTION), ("b", given)):
        assert scan(example / "null.npz", tmp_path / f"{name}.parquet", "--refit", "0", *options) == 0
    pd.testing.assert_frame_equal(table(tmp_path / "a.parquet"), table(tmp_path / "b.parquet"))
    assert [file["name"] for file in metadata(tmp_path / "b.parquet")["inputs"]["covar"]] == ["covariates.csv"]
    for name, covariates, options in (("with", ("sex", "age"), INTERACTION), ("without", ("sex",), given)):
        null, out = tmp_path / f"{name}.npz", tmp_path / f"{name}.parquet"
        chosen = ("--covar-name", ",".join(covariates), "--pheno-name", "height", "--grm", "none")
        assert kron2sum("fit", "-q", *FILES, *chosen, "--out", null) == 0
        assert scan(null, out, "--stat", "f", "--precision", "double", "--refit", "0", *options) == 0
    one, other = table(tmp_path / "with.parquet"), table(tmp_path / "without.parquet")
    for column in ("MLOG10P", "MLOG10P.interaction", "MLOG10P.joint", "BETA_GXE.height", "BETA.height"):
        np.testing.assert_allclose(other[column], one[column], rtol=1e-7, atol=1e-10)


def test_an_added_covariate_is_said_and_takes_refits_away(example: Path, tmp_path: Path, capfd) -> None:
    ids = pd.read_csv(EXAMPLE / "covariates.csv")[["FID", "IID"]]
    ids["dose"] = np.random.default_rng(1).normal(size=len(ids))
    ids.to_csv(tmp_path / "dose.csv", index=False)
    out = tmp_path / "s.parquet"
    assert scan(example / "null.npz", out, "--covar", tmp_path / "dose.csv", "--interaction", "dose") == 0
    assert "--interaction dose: its own effect on every trait is not in the null model" in capfd.readouterr().err
    meta = metadata(out)
    assert (meta["settings"]["refit"], meta["settings"]["interaction"]) == (0, "dose")
    assert meta["nulls"][0]["residual_df"] == metadata(example / "scan.parquet")["nulls"][0]["residual_df"] - 3


@pytest.mark.usefixtures("few_simulated_traits")
@pytest.mark.parametrize("options", [INTERACTION, GENOTYPIC, ("--coding", "dominant")])
@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
def test_threads_and_shards_change_no_byte(example: Path, tmp_path: Path, null: str, options) -> None:
    whole = tmp_path / "whole.parquet"
    assert scan(example / null, whole, *options, "--threads", "1") == 0
    shards = [tmp_path / f"shard{i}.parquet" for i in (1, 2)]
    for i, shard in enumerate(shards):
        assert scan(example / null, shard, *options, "--shard", f"{i + 1}/2", "--threads", "2") == 0
    merged = tmp_path / "merged.parquet"
    assert kron2sum("export", "-q", *shards, "--to", "parquet", "--out", merged) == 0
    assert merged.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("options", [INTERACTION, GENOTYPIC])
def test_thresholds_over_the_whole_scan(example: Path, tmp_path: Path, options) -> None:
    """Of the tests of the second column, too; joined shards have those of one scan."""
    whole, more = tmp_path / "whole.parquet", (*options, "--bootstrap", "19", "--refit", "0")
    assert scan(example / "null.npz", whole, *more) == 0
    rows, meta, name = table(whole), metadata(whole), "interaction" if options == INTERACTION else "dominance"
    for test in (name, "joint"):
        largest = np.array(meta["largest"][test])
        assert largest.shape == (19,) and 1.5 < np.median(largest) < 5
        as_large = (largest[:, None] >= rows[f"MLOG10P.{test}"].dropna().to_numpy()).sum(axis=0)
        expected = -np.log10((1 + as_large) / 20)
        np.testing.assert_allclose(rows[f"MLOG10P_GW.{test}"].dropna(), expected, atol=1e-12)
    shards = [tmp_path / f"shard{i}.parquet" for i in (1, 2)]
    for i, shard in enumerate(shards):
        assert scan(example / "null.npz", shard, *more, "--shard", f"{i + 1}/2", "--threads", "2") == 0
    merged = tmp_path / "merged.parquet"
    assert kron2sum("export", "-q", *shards, "--to", "parquet", "--out", merged) == 0
    assert merged.read_bytes() == whole.read_bytes()


def test_what_adds_nothing_is_counted(example: Path, tmp_path: Path) -> None:
    """A dominance deviation needs three genotypes."""
    out = tmp_path / "s.parquet"
    assert scan(example / "null.npz", out, "--refit", "0", *GENOTYPIC) == 0
    rows, counts = table(out), metadata(out)["counts"]
    reason = "dominance deviations in the span of the variant and the covariates (empty statistics)"
    empty = rows.MLOG10P.notna() & rows["MLOG10P.dominance"].isna()
    assert counts[reason] == empty.sum() > 50
    source = open_bed(str(EXAMPLE / "genotypes.bed"))
    G = source.read(np.arange(3000), match(read_null(str(example / "null.npz")).samples, source.samples))
    three = np.all([(copies == G).any(axis=0) for copies in range(3)], axis=0)
    np.testing.assert_array_equal(empty, rows.MLOG10P.notna() & ~three)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--interaction", "agee"), 1, "--interaction agee: the null model has no covariate .* did you mean age?"),
        (("--interaction", "intercept"), 1, "--interaction intercept: is 1 in every analysed sample"),
        (("--covar", EXAMPLE / "covariates.csv"), 2, "--covar has the covariate of --interaction"),
        ((*INTERACTION, *GENOTYPIC), 2, "--interaction and --coding genotypic exclude each other"),
        (
            (*INTERACTION, "--windows", "1mb"),
            2,
            "--interaction is for variants, not for --sets, --windows and --founders",
        ),
        (("--coding", "dominant", "--windows", "1mb"), 2, "--coding dominant is for variants"),
        ((*INTERACTION, "--stepwise", "1e-5"), 2, "--stepwise is for additive effects; leave out"),
        (("--random-slopes",), 2, "--random-slopes needs --interaction"),
        ((*INTERACTION, "--random-slopes", "--refit", "0"), 2, "tests the variants that --refit chooses"),
        (
            (*INTERACTION, "--random-slopes", "--condition", "snp0001"),
            1,
            "--random-slopes: needs all effects in the null",
        ),
        (("--test", "interaction"), 2, "--test interaction: comes with --interaction COVARIATE"),
        ((*GENOTYPIC, "--ploidy", "4"), 2, "--coding genotypic is for diploid genotypes, and --ploidy is 4"),
    ],
)
def test_what_is_refused(example: Path, tmp_path: Path, capfd, options, code: int, message: str) -> None:
    assert scan(example / "null.npz", tmp_path / "s.parquet", *options) == code
    error = capfd.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "s.parquet").exists()


def test_other_programs_are_told_of_the_coding(example: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    assert scan(example / "null.npz", out, "--refit", "0", "--chr", "1", "--coding", "recessive") == 0
    assert kron2sum("export", "-q", out, "--to", "ssf", "--out", tmp_path / "s.tsv") == 0
    assert "coded recessive: beta is the effect of" in (tmp_path / "s.height.tsv-meta.yaml").read_text()
    for options, said in ((INTERACTION, "those with age are not in this file"), (GENOTYPIC, "the additive effect")):
        assert scan(example / "null.npz", out, "--refit", "0", "--chr", "1", *options) == 0
        assert kron2sum("export", "-q", out, "--to", "ssf", "--out", tmp_path / "s.tsv") == 0
        assert said in (tmp_path / "s.height.tsv-meta.yaml").read_text()


def test_pictures_and_tables_of_the_tests(example: Path, tmp_path: Path, capfd) -> None:
    out, picture = tmp_path / "s.parquet", tmp_path / "m.png"
    assert scan(example / "null.npz", out, "--refit", "0", *INTERACTION) == 0
    assert kron2sum("export", "-q", out, "--plot", "manhattan", "--test", "interaction", "--out", picture) == 0
    assert picture.stat().st_size > 10_000
    later = tmp_path / "t.parquet"
    options = ("--test", "interaction", "--test", "specific", "--trait", "height", "--to", "parquet")
    assert kron2sum("export", "-q", out, *options, "--out", later) == 0
    found, stored = table(later), table(out)
    assert {"BETA_GXE.height", "MLOG10P.joint", "CHISQ.specific"} <= set(found.columns)
    assert not [name for name in found.columns if "weight" in name or name.startswith("AXIS")]
    pd.testing.assert_series_equal(found["MLOG10P.interaction"], stored["MLOG10P.interaction"])
    leads = tmp_path / "leads.parquet"
    assert kron2sum("export", "-q", out, "--leads", "--significance", "1e-3", "--to", "parquet", "--out", leads) == 0
    assert "interaction" in set(table(leads).LEAD_TEST)
    capfd.readouterr()
    for source, test, message in (
        (out, "dominance", "--test dominance: is not in the table, nor computed from it; scan with --coding genotypic"),
        (example / "scan.parquet", "joint", "scan with --interaction COVARIATE"),
    ):
        assert kron2sum("export", source, "--test", test) == 1
        assert message in capfd.readouterr().err
