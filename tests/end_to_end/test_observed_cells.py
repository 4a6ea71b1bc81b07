"""`--missing exact` at the command line: fit, scan, export, predictions, against the dense Gaussian."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from example_commands import EXAMPLE, kron2sum, scan
from observed_cells import TRAITS, Dense, dense_of, exported, fit, genotypes, relationship, write_tables

from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.model.sets.quadratic_forms import mixture_mlog10p

TESTS = {"common": (np.ones((3, 1)), np.zeros((3, 0))), "specific": (np.eye(3), np.ones((3, 1)))}
ONE_CHROMOSOME = ("--region", "3:1-30000000")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables; exact.npz, of REML with predictions; loco.npz, of ML and rank 1; drop.npz, with predictions."""
    folder = tmp_path_factory.mktemp("observed")
    write_tables(folder)
    assert fit(folder, "exact.npz", "--predict") == 0
    assert fit(folder, "loco.npz", "--loco", "--ml", "--rank", "1") == 0
    assert fit(folder, "drop.npz", "--predict", missing="drop") == 0
    return folder


def table(path: Path) -> pd.DataFrame:
    return pq.read_table(path).to_pandas()


def variants_of(dense: Dense) -> np.ndarray:
    """Mean-imputed genotypes of the samples of a model."""
    dosages, iids, _ = genotypes()
    G = dosages[[iids.index(iid) for iid in dense.iids]]
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(G), np.nanmean(G, axis=0), G)


def test_the_likelihood_is_the_density_of_the_observed_cells(folder: Path) -> None:
    for name, restricted in (("exact.npz", True), ("loco.npz", False)):
        found, dense = exported(folder / name), dense_of(folder, folder / name)
        assert found["n"] == len(dense.iids)
        assert len(dense.iids) == np.isfinite(dense.Y).any(axis=1).sum()
        assert found["n_observed"] == np.isfinite(dense.Y).sum(axis=0).tolist()
        assert found["lml"] == pytest.approx(dense.lml(restricted), abs=1e-6)
        assert found["converged"]
    found, dense = exported(folder / "loco.npz"), dense_of(folder, folder / "loco.npz", loco="3")
    assert np.linalg.matrix_rank(dense.C0, tol=1e-9) == 1
    assert found["loco"]["3"]["lml"] == pytest.approx(dense.lml(False), abs=1e-6)


def test_no_other_covariances_are_likelier(folder: Path) -> None:
    dense = dense_of(folder, folder / "exact.npz")
    best, rng = dense.lml(True), np.random.default_rng(0)
    for _ in range(6):
        E = 0.02 * rng.normal(size=(3, 3))
        near = [(np.eye(3) + E) @ C @ (np.eye(3) + E).T for C in (dense.C0, dense.C1)]
        for C0, C1 in ((near[0], dense.C1), (dense.C0, near[1])):
            moved = replace(dense, C0=C0, C1=C1)
            assert moved.lml(True) < best


def test_fixed_effects_and_their_standard_errors(folder: Path) -> None:
    found, dense = exported(folder / "exact.npz"), dense_of(folder, folder / "exact.npz")
    inverse = np.linalg.inv(dense.K)
    covariance = np.linalg.inv(dense.M.T @ inverse @ dense.M)
    beta = covariance @ dense.M.T @ inverse @ dense.y
    np.testing.assert_allclose(np.array(found["B"]).T.ravel(), beta, rtol=1e-7)
    np.testing.assert_allclose(np.array(found["B_se"]).T.ravel(), np.sqrt(np.diag(covariance)), rtol=1e-7)


@pytest.mark.parametrize("null", ["exact.npz", "loco.npz"])
def test_every_number_of_a_row(folder: Path, tmp_path: Path, null: str) -> None:
    out = tmp_path / "s.parquet"
    options = ("--precision", "double", "--refit", "0", "--test", "common", "--test", "specific")
    assert scan(folder / null, out, *ONE_CHROMOSOME, *options) == 0
    rows, dense = table(out), dense_of(folder, folder / null, loco="3" if null == "loco.npz" else None)
    G, seen = variants_of(dense), np.isfinite(dense.Y)
    dosages, iids, _ = genotypes()
    called = ~np.isnan(dosages[[iids.index(iid) for iid in dense.iids]])
    # Tests count contrasts after REML, observations after ML.
    size, q0 = int(seen.sum()) - (null == "exact.npz") * dense.M.shape[1], dense.quadratic()
    positions = pd.read_csv(EXAMPLE / "genotypes.bim", sep=r"\s+", header=None)[1].tolist()
    for row in rows.iloc[[0, 30, 77]].itertuples(index=False):
        values = dict(zip(rows.columns, row, strict=True))
        k = positions.index(values["SNPID"])
        g = G[:, [k]]
        assert values["EAF"] == pytest.approx(g.mean() / 2)
        assert values["N"] == called[:, k].sum()
        assert [values[f"N.{trait}"] for trait in TRAITS] == (seen & called[:, [k]]).sum(axis=0).tolist()
        whole, beta, covariance = dense.drop(np.eye(3), g)
        assert values["CHISQ"] == pytest.approx(size * np.log(q0 / (q0 - whole)), rel=1e-7)
        np.testing.assert_allclose([values[f"BETA.{t}"] for t in TRAITS], beta, rtol=1e-6)
        se = np.sqrt((q0 - whole) / size * np.diag(covariance))
        np.testing.assert_allclose([values[f"SE.{t}"] for t in TRAITS], se, rtol=1e-6)
        for name, (A1, A0) in TESTS.items():
            above = dense.drop(np.hstack([A0, A1[:, : 3 - A0.shape[1]]]), g)[0]
            below = dense.drop(A0, g)[0] if A0.size else 0.0
            expected = size * np.log((q0 - below) / (q0 - above))
            assert values[f"CHISQ.{name}"] == pytest.approx(expected, rel=1e-6)
            assert values[f"DF.{name}"] == (1 if name == "common" else 2)


def test_the_table_answers_every_contrast_afterwards(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "D.csv").write_text("trait,x\nheight,1\nweight,-0.5\nglucose,2\n")
    asked = [word for name in ("common", "trait:weight", f"mine={tmp_path / 'D.csv'}") for word in ("--test", name)]
    for stat in ("lr", "f"):
        plain, whole, later = (tmp_path / f"{stat}_{name}.parquet" for name in ("plain", "whole", "later"))
        options = (*ONE_CHROMOSOME, "--precision", "double", "--refit", "0", "--stat", stat)
        assert scan(folder / "exact.npz", plain, *options) == 0
        assert scan(folder / "exact.npz", whole, *options, *asked) == 0
        assert kron2sum("export", "-q", plain, *asked, "--out", later) == 0
        expected, found = table(whole), table(later)
        for name in ("common", "trait:weight", "mine"):
            for kind in ("CHISQ", "DF", "MLOG10P"):
                np.testing.assert_allclose(found[f"{kind}.{name}"], expected[f"{kind}.{name}"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found["MLOG10P.weight"], found["MLOG10P.trait:weight"], rtol=1e-6)
        assert found.CHISQ.notna().sum() > 500


def test_f_statistics_count_the_observed_cells(folder: Path, tmp_path: Path) -> None:
    from scipy.stats import f

    out = tmp_path / "f.parquet"
    options = ("--precision", "double", "--refit", "0", "--stat", "f")
    assert scan(folder / "exact.npz", out, *ONE_CHROMOSOME, *options) == 0
    row, dense = table(out).iloc[5], dense_of(folder, folder / "exact.npz")
    k = genotype_position(row.SNPID)
    whole, q0 = dense.drop(np.eye(3), variants_of(dense)[:, [k]])[0], dense.quadratic()
    df = int(np.isfinite(dense.Y).sum()) - 9 - 3
    assert pytest.approx(f.sf(whole / 3 / ((q0 - whole) / df), 3, df), rel=1e-6) == 10.0**-row.MLOG10P


def factors_of(path: Path) -> dict[str, float]:
    """The Bartlett factors of a scan's refits."""
    factors: dict[str, float] = json.loads(pq.read_schema(path).metadata[b"kron2sum"])["refit_factors"]["genome"]
    return factors


def genotype_position(name: str) -> int:
    return int(pd.read_csv(EXAMPLE / "genotypes.bim", sep=r"\s+", header=None)[1].tolist().index(name))


def test_a_refit_is_a_fit_with_the_variant_as_a_covariate(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By ML, where both are fits of the same kind; by REML the likelihood ratio is larger and divided by its factor."""
    monkeypatch.setattr("kron2sum_cli.model.bartlett.MOST_TRAITS", 30)
    (tmp_path / "one.txt").write_text("snp1823\n")
    out = tmp_path / "r.parquet"
    options = ("--refit", "1", "--precision", "double", "--test", "common", "--extract", tmp_path / "one.txt")
    assert fit(folder, "without.npz", "--ml") == 0
    assert scan(folder / "without.npz", out, *options) == 0
    row, dense = table(out).iloc[0], dense_of(folder, folder / "exact.npz")
    covariates = pd.read_csv(folder / "covar.csv").set_index("IID").loc[dense.iids].reset_index()
    covariates["variant"] = variants_of(dense)[:, genotype_position("snp1823")]
    covariates[["FID", "IID", "sex", "age", "variant"]].to_csv(tmp_path / "covar.csv", index=False)
    for name in ("some.csv", "keep.txt"):
        (tmp_path / name).write_text((folder / name).read_text())
    assert fit(tmp_path, "with.npz", "--ml") == 0
    with_it, without = exported(tmp_path / "with.npz"), exported(folder / "without.npz")
    assert pytest.approx(2 * (with_it["lml"] - without["lml"]), abs=1e-5) == row.CHISQ_REFIT
    np.testing.assert_allclose([row[f"BETA_REFIT.{t}"] for t in TRAITS], with_it["B"][-1], rtol=1e-3)
    np.testing.assert_allclose([row[f"SE_REFIT.{t}"] for t in TRAITS], with_it["B_se"][-1], rtol=1e-3)
    assert 0 < row["CHISQ_REFIT.common"] < row.CHISQ_REFIT
    assert factors_of(out) == {"any": 1.0, "common": 1.0}
    assert scan(folder / "exact.npz", out, *options) == 0
    factor = factors_of(out)["any"]
    assert pytest.approx(row.CHISQ_REFIT, rel=0.05) == table(out).iloc[0].CHISQ_REFIT * factor
    assert 1 < factor < 1.2


@pytest.mark.usefixtures("few_simulated_traits")
def test_fewer_variants_than_samples(folder: Path, tmp_path: Path) -> None:
    """Where GGᵀ has null directions: fit, scan, refit, predictions."""
    (folder / "few.txt").write_text("".join(f"snp{k:04d}\n" for k in range(1, 3000, 50)))
    assert fit(folder, "thin.npz", "--grm-extract", folder / "few.txt", "--predict") == 0
    dense, out = dense_of(folder, folder / "thin.npz", every=50), tmp_path / "thin.parquet"
    assert exported(folder / "thin.npz")["lml"] == pytest.approx(dense.lml(True), abs=1e-6)
    (tmp_path / "one.txt").write_text("snp1823\n")
    assert (
        scan(folder / "thin.npz", out, "--refit", "1", "--precision", "double", "--extract", tmp_path / "one.txt") == 0
    )
    row, size, q0 = table(out).iloc[0], int(np.isfinite(dense.Y).sum()) - dense.M.shape[1], dense.quadratic()
    whole = dense.drop(np.eye(3), variants_of(dense)[:, [genotype_position("snp1823")]])[0]
    assert float(row.CHISQ) == pytest.approx(size * np.log(q0 / (q0 - whole)), rel=1e-7)
    assert row.CHISQ < row.CHISQ_REFIT * factors_of(out)["any"] < 2 * row.CHISQ
    rows = predictions(folder / "thin.npz")
    mean, variance = dense.genetic(relationship(every=50), rows.IID[::3].tolist())
    np.testing.assert_allclose(rows.genetic, mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(rows.genetic_var, variance, rtol=1e-6)


def test_ssf_has_the_samples_of_every_trait(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    assert scan(folder / "exact.npz", out, *ONE_CHROMOSOME, "--refit", "0") == 0
    assert kron2sum("export", "-q", out, "--to", "ssf", "--out", tmp_path / "ssf.tsv") == 0
    rows = table(out).dropna(subset=["CHISQ"])
    for trait in TRAITS:
        assert pd.read_csv(tmp_path / f"ssf.{trait}.tsv", sep="\t").n.tolist() == rows[f"N.{trait}"].tolist()
        count = int(np.isfinite(dense_of(folder, folder / "exact.npz").Y[:, TRAITS.index(trait)]).sum())
        assert f"sample_size: {count}\n" in (tmp_path / f"ssf.{trait}.tsv-meta.yaml").read_text()


def test_sets_of_variants(folder: Path, tmp_path: Path) -> None:
    names = ["snp0001", "snp0002", "snp0409"]
    (tmp_path / "sets.txt").write_text(f"three {' '.join(names)}\ntwice snp0001 snp0001\nnone nothing\n")
    out = tmp_path / "sets.parquet"
    assert scan(folder / "exact.npz", out, "--sets", tmp_path / "sets.txt", "--test", "common") == 0
    row, dense = table(out).set_index("SET").loc["three"], dense_of(folder, folder / "exact.npz")
    G = variants_of(dense)[:, [genotype_position(name) for name in names]]
    size, q0 = int(np.isfinite(dense.Y).sum()) - dense.M.shape[1], dense.quadratic()
    for suffix, A1 in (("", np.eye(3)), (".common", np.ones((3, 1)))):
        expected = size * np.log(q0 / (q0 - dense.drop(A1, G)[0]))
        assert row["CHISQ" + suffix] == pytest.approx(expected, rel=1e-6)
    assert (row.DF, row["DF.common"]) == (9, 3)
    assert table(out).set_index("SET").loc["none"].isna()[["CHISQ", "P", "CHISQ.common"]].all()


def test_sets_of_variants_as_random_effects(folder: Path, tmp_path: Path) -> None:
    names = ["snp0001", "snp0002", "snp0409"]
    (tmp_path / "sets.txt").write_text(f"three {' '.join(names)}\n")
    out = tmp_path / "sets.parquet"
    every = [word for name in ("burden", "skat", "skato", "acat", "lr", "omnibus") for word in ("--set-test", name)]
    assert scan(folder / "exact.npz", out, "--sets", tmp_path / "sets.txt", *every, "--test", "common") == 0
    row, dense = table(out).iloc[0], dense_of(folder, folder / "exact.npz")
    G = variants_of(dense)[:, [genotype_position(name) for name in names]]
    summary = read_null(str(folder / "exact.npz")).whole
    any_effect = np.linalg.cholesky(summary.mean_diagonal * dense.C0 + dense.C1)
    for root, suffix in ((any_effect, ""), (np.ones((3, 1)), ".common")):
        columns = np.kron(root, G)[dense.seen]
        score = columns.T @ dense.Q @ dense.y
        lam = np.maximum(np.linalg.eigvalsh(columns.T @ dense.Q @ columns), 0)[None]
        expected = mixture_mlog10p(lam, np.array([score @ score]))[0]
        assert row["MLOG10P_SET.skat" + suffix] == pytest.approx(expected, rel=1e-5)
    assert row.filter(like="MLOG10P_SET").notna().all()


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("missing", ["exact", "drop"])
def test_a_trait_design(folder: Path, tmp_path: Path, columns: int, missing: str) -> None:
    """Fit, variants, sets and predictions; with two columns the fixed effects couple the trait axes."""
    A = np.array([[2.0, 0.1, 0.3], [1.0, -0.5, 0.2], [0.05, 0.01, 1.0]])[:, :columns]
    text = "\n".join(f"{trait},{','.join(map(str, row))}" for trait, row in zip(TRAITS, A, strict=True))
    (folder / "A.csv").write_text(f"trait,{','.join('xyz'[:columns])}\n{text}\n")
    assert fit(folder, "A.npz", "--trait-design", folder / "A.csv", "--predict", missing=missing) == 0
    dense = dense_of(folder, folder / "A.npz", whole=missing == "drop", A=A)
    assert exported(folder / "A.npz")["lml"] == pytest.approx(dense.lml(True), abs=1e-6)
    out, sets = tmp_path / "A.parquet", tmp_path / "sets.parquet"
    assert scan(folder / "A.npz", out, *ONE_CHROMOSOME, "--precision", "double", "--refit", "0") == 0
    row, size, q0 = table(out).iloc[10], int(np.isfinite(dense.Y).sum()) - dense.M.shape[1], dense.quadratic()
    G = variants_of(dense)[:, [genotype_position(row.SNPID), genotype_position("snp0001")]]
    whole, both = (dense.drop(np.eye(3), part)[0] for part in (G[:, :1], G))
    assert float(row.CHISQ) == pytest.approx(size * np.log(q0 / (q0 - whole)), rel=1e-6)
    (tmp_path / "sets.txt").write_text(f"two {row.SNPID} snp0001\n")
    assert scan(folder / "A.npz", sets, "--sets", tmp_path / "sets.txt") == 0
    assert float(table(sets).CHISQ[0]) == pytest.approx(size * np.log(q0 / (q0 - both)), rel=1e-6)
    rows = predictions(folder / "A.npz")
    mean, variance = dense.genetic(relationship(), rows.IID[::3].tolist())
    np.testing.assert_allclose(rows.genetic, mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(rows.genetic_var, variance, rtol=1e-6)


def test_shards_threads_and_resumed_scans_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    whole, joined = tmp_path / "whole.parquet", tmp_path / "joined.parquet"
    assert scan(folder / "exact.npz", whole, "--refit", "0", "--threads", "1") == 0
    parts = [tmp_path / f"{part}.parquet" for part in (1, 2, 3)]
    for part, path in enumerate(parts, start=1):
        options = ("--refit", "0", "--shard", f"{part}/3", "--threads", "2", "--resume")
        assert scan(folder / "exact.npz", path, *options) == 0
    assert kron2sum("export", "-q", *parts, "--out", joined) == 0
    assert joined.read_bytes() == whole.read_bytes()


def predictions(null: Path) -> pd.DataFrame:
    out = null.with_suffix(".blup")
    assert kron2sum("export", "-q", null, "--to", "blup", "--out", out) == 0
    rows = pd.read_csv(out, sep="\t")
    assert kron2sum("export", "-q", null, "--to", "blup", "--out", null.with_suffix(".csv")) == 0
    pd.testing.assert_frame_equal(rows, pd.read_csv(null.with_suffix(".csv")))
    return rows


@pytest.mark.parametrize("missing", ["exact", "drop"])
def test_predictions_are_conditional_means_and_variances(folder: Path, missing: str) -> None:
    rows = predictions(folder / f"{missing}.npz")
    dense = dense_of(folder, folder / f"{missing}.npz", whole=missing == "drop")
    R, iids = relationship(), rows.IID[::3].tolist()
    assert iids[: len(dense.iids)] == dense.iids
    assert set(iids) == set((folder / "keep.txt").read_text().split()[1::2])
    covariates = pd.read_csv(folder / "covar.csv", index_col="IID")[["sex", "age"]]
    known = [iid in covariates.index for iid in iids]
    X = np.column_stack([np.ones(len(iids)), covariates.reindex(iids).fillna(0)])
    K = R.loc[iids, dense.iids].to_numpy()
    same = (np.array(iids)[:, None] == np.array(dense.iids)).astype(float)
    cross, own = np.kron(dense.C0, K)[:, dense.seen], np.kron(np.diag(dense.C0), np.diag(R.loc[iids, iids]))
    shape = (3, len(iids))
    mean, variance = dense.genetic(R, iids)
    np.testing.assert_allclose(rows.genetic, mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(rows.genetic_var, variance, rtol=1e-6)
    with_residual = cross + np.kron(dense.C1, same)[:, dense.seen]
    total = own + np.repeat(np.diag(dense.C1), len(iids))
    mean, variance = (
        part.reshape(shape).T.ravel() for part in dense.kriging(with_residual, np.kron(dense.A, X), total)
    )
    to_predict = rows.observed.isna() & np.repeat(known, 3)
    np.testing.assert_array_equal(rows.predicted.notna(), to_predict)
    np.testing.assert_allclose(rows.predicted[to_predict], mean[to_predict], rtol=1e-6)
    np.testing.assert_allclose(rows.predicted_var[to_predict], variance[to_predict], rtol=1e-6)
    assert len(iids) > len(dense.iids) + 10


def test_predictions_change_nothing_else(folder: Path) -> None:
    assert fit(folder, "plain.npz") == 0
    plain, more = exported(folder / "plain.npz"), exported(folder / "exact.npz")
    assert plain["lml"] == pytest.approx(more["lml"], abs=1e-8)
    # A certified optimum with a predicted gain of g lies some √(2g) standard errors from the maximum.
    apart = np.abs(np.array(plain["C0"]) - np.array(more["C0"])) / np.array(plain["C0_se"])
    assert apart.max() < 1e-3


def test_predictions_have_to_be_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kron2sum("export", folder / "loco.npz", "--to", "blup") == 2
    assert "--predict" in capsys.readouterr().err


def test_a_table_of_a_scan_has_no_predictions(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scan(folder / "exact.npz", tmp_path / "s.parquet", "--refit", "0", "--region", "1:1-100000") == 0
    assert kron2sum("export", tmp_path / "s.parquet", "--to", "blup") == 2
    assert "is a table of a scan; --to blup" in capsys.readouterr().err


def test_without_missing_cells_it_is_the_same_file(folder: Path) -> None:
    traits = pd.read_csv(folder / "some.csv")
    traits.dropna().to_csv(folder / "whole.csv", index=False)
    for missing in ("exact", "drop"):
        assert fit(folder, f"whole_{missing}.npz", missing=missing, pheno="whole.csv") == 0
    exact, drop = np.load(folder / "whole_exact.npz"), np.load(folder / "whole_drop.npz")
    assert (folder / "whole_exact.npz").read_bytes() == (folder / "whole_drop.npz").read_bytes()
    assert exact.files == drop.files


def test_a_sample_without_any_trait_changes_no_number(folder: Path) -> None:
    pd.read_csv(folder / "some.csv").dropna(how="all", subset=TRAITS).to_csv(folder / "less.csv", index=False)
    assert fit(folder, "less.npz", "--predict", pheno="less.csv") == 0
    less, more = np.load(folder / "less.npz"), np.load(folder / "exact.npz")
    assert less.files == more.files
    for name in less.files:
        if name != "meta":
            np.testing.assert_array_equal(less[name], more[name], err_msg=name)


def test_drop_says_what_exact_would_use(folder: Path) -> None:
    traits = pd.read_csv(folder / "some.csv")[list(TRAITS)].isna()
    partial = int((traits.any(axis=1) & ~traits.all(axis=1)).sum())
    log = (folder / "drop.npz.log").read_text()
    assert f"--missing exact would use the {partial} of them that have some of the traits" in log


def test_too_many_missing_cells_for_the_memory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(folder, "big.npz", "--memory", "100") == 1
    message = capsys.readouterr().err
    traits = pd.read_csv(folder / "some.csv").dropna(how="all", subset=TRAITS)[list(TRAITS)]
    worst = traits.isna().sum().idxmax()
    for part in (f"{traits.isna().sum().sum()} missing cells", "--memory allows 100 MiB", f"such as {worst}, which"):
        assert part in message
    assert "samples that lack 2 of the 3 traits (" in message
    assert not (folder / "big.npz").exists()


def test_a_trait_on_too_few_samples_is_refused_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traits = pd.read_csv(folder / "some.csv")
    traits.loc[traits.weight.notna().cumsum() > 4, "weight"] = np.nan
    traits.to_csv(folder / "few.csv", index=False)
    assert fit(folder, "few.npz", pheno="few.csv") == 1
    assert "trait weight is observed on 4 samples" in capsys.readouterr().err
    traits["weight"] = np.nan
    traits.to_csv(folder / "few.csv", index=False)
    assert fit(folder, "few.npz", pheno="few.csv") == 1
    assert "trait 'weight' is missing in all 103 analysed samples: leave it out" in capsys.readouterr().err


def test_traits_never_seen_together_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traits = pd.read_csv(folder / "some.csv").dropna(how="all", subset=TRAITS)
    first = np.arange(len(traits)) % 2 == 0
    traits.loc[first, "weight"] = np.nan
    traits.loc[~first, "height"] = np.nan
    traits.dropna(how="all", subset=TRAITS).to_csv(folder / "apart.csv", index=False)
    assert fit(folder, "apart.npz", "--allow-unconverged", pheno="apart.csv") == 0
    assert "no sample has both traits of 1 pair (such as height and weight)" in capsys.readouterr().err


@pytest.mark.parametrize("transform", ["standardize", "rank-normal"])
def test_transforms_are_over_the_samples_that_have_the_trait(folder: Path, transform: str) -> None:
    assert fit(folder, "t.npz", "--transform", transform, "--rank", "auto") == 0
    Y = np.load(folder / "t.npz")["Y"]
    np.testing.assert_array_equal(np.isnan(Y), np.isnan(dense_of(folder, folder / "exact.npz").Y))
    np.testing.assert_allclose(np.nanmean(Y, axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.nanstd(Y, axis=0, ddof=1), 1, rtol=0.03)
    if transform == "standardize":
        h2 = exported(folder / "exact.npz")["h2"]
        assert fit(folder, "t.npz", "--transform", transform) == 0
        np.testing.assert_allclose(exported(folder / "t.npz")["h2"], h2, atol=1e-4)


def test_profile_intervals(folder: Path) -> None:
    assert fit(folder, "p.npz", "--profile", "h2", "--pheno-name", "height,weight") == 0
    found = exported(folder / "p.npz")
    for h2, trait in zip(found["h2"], ("height", "weight"), strict=True):
        interval = found["profile"][trait]
        assert interval["low"] < h2 < interval["high"]
