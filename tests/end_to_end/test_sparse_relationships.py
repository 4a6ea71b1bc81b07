"""Sparse relationship matrices through the commands, against the dense matrix of the same numbers."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bed_reader import open_bed, to_bed
from example_commands import kron2sum
from scipy import linalg, sparse
from scipy.io import mmwrite

N, VARIANTS = 150, 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Families in random order, as a dense matrix and in every sparse format; traits, a covariate, genotypes."""
    folder = tmp_path_factory.mktemp("families")
    rng = np.random.default_rng(1)
    blocks = [np.full((m, m), 0.5) + 0.5 * np.eye(m) for m in rng.integers(1, 6, size=N)]
    order = rng.permutation(N)
    K = linalg.block_diag(*blocks)[:N, :N][np.ix_(order, order)]
    names = [f"s{i}" for i in range(N)]
    np.save(folder / "dense.npy", K)
    noise = np.where(K == 0, 0.01, K)
    np.save(folder / "noisy.npy", noise)
    (folder / "ids").write_text("\n".join(names) + "\n")
    (folder / "gcta.grm.id").write_text("".join(f"{name}\t{name}\n" for name in names))
    i, j = np.nonzero(np.tril(K))
    pairs = zip(i.tolist(), j.tolist(), K[i, j].tolist(), strict=True)
    (folder / "gcta.grm.sp").write_text("".join(f"{a}\t{b}\t{value}\n" for a, b, value in pairs))
    mmwrite(folder / "market.mtx", sparse.coo_array(K), symmetry="symmetric")
    i, j = np.nonzero(np.tril(K, -1))
    lines = [f"{names[a]}\t{names[b]}\t{value / 2}" for a, b, value in zip(i, j, K[i, j], strict=True)]
    (folder / "pairs.kin0").write_text("\n".join(["#IID1\tIID2\tKINSHIP", *lines]) + "\n")
    Y = np.linalg.cholesky(K) @ rng.normal(size=(N, 2)) @ [[1, 0.5], [0, 1]] + rng.normal(size=(N, 2))
    pd.DataFrame(Y, names, ["a", "b"]).rename_axis("IID").to_csv(folder / "y.csv")
    Y[np.random.default_rng(2).random(Y.shape) < 0.1] = np.nan
    pd.DataFrame(Y, names, ["a", "b"]).rename_axis("IID").to_csv(folder / "missing.csv")
    pd.DataFrame(rng.normal(size=(N, 1)), names, ["age"]).rename_axis("IID").to_csv(folder / "x.csv")
    genotypes = rng.binomial(2, 0.3, size=(N, VARIANTS)).astype(float)
    genotypes[rng.uniform(size=genotypes.shape) < 0.01] = np.nan
    to_bed(folder / "g.bed", np.asfortranarray(genotypes), properties={"fid": names, "iid": names})
    return folder


def results(folder: Path, name: str, *grm: str, method: str = "--reml", **options: Sequence[str]) -> pd.DataFrame:
    """The table of a scan with one relationship matrix; further options of ``fit`` and ``scan``."""
    null, table = folder / f"{name}.npz", folder / f"{name}.parquet"
    tables = ("--pheno", folder / options.get("pheno", ["y.csv"])[0], "--covar", folder / "x.csv")
    words = (*tables, *grm, method, *options.get("fit", ()))
    assert kron2sum("fit", "-q", "--threads", "1", *words, "--out", null) == 0
    scan = ("--geno", folder / "g.bed", "--precision", "double", "--test", "common", "--test", "only:a")
    scan = (*scan, *options.get("scan", ("--refit", "0")))
    assert kron2sum("scan", "-q", "--threads", "1", "--null", null, *scan, "--out", table) == 0
    return pd.read_parquet(table)


@pytest.fixture(scope="module")
def dense(folder: Path) -> pd.DataFrame:
    return results(folder, "dense", "--grm", str(folder / "dense.npy"), "--grm-id", str(folder / "ids"))


def same(found: pd.DataFrame, expected: pd.DataFrame, rtol: float = 1e-7, atol: float = 1e-8) -> None:
    """All numbers to the precision of the fits."""
    assert list(found) == list(expected)
    for name in expected.select_dtypes("number"):
        if not name.startswith(("AXIS.", "INFORMATION.")):  # the order and the sign of axes are free
            np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "grm", ["gcta", "gcta.grm.sp", "market.mtx --grm-id ids", "pairs.kin0", "noisy.npy --grm-id ids --grm-cutoff 0.05"]
)
def test_sparse_matrices_give_the_results_of_the_dense_one(grm: str, folder: Path, dense: pd.DataFrame) -> None:
    words = ["--grm", *(str(folder / word) if word[0] not in "-0" else word for word in grm.split())]
    same(results(folder, "sparse", *words), dense)


def test_maximum_likelihood(folder: Path) -> None:
    expected = results(
        folder, "dense_ml", "--grm", str(folder / "dense.npy"), "--grm-id", str(folder / "ids"), method="--ml"
    )
    same(results(folder, "sparse_ml", "--grm", str(folder / "gcta"), method="--ml"), expected)


EXACT = {"pheno": ["missing.csv"], "fit": ["--missing", "exact"]}


@pytest.mark.parametrize(
    ("method", "scan"),
    [
        ("--reml", "--refit 0"),
        ("--reml", "--refit 0 --condition sid7"),
        ("--ml", "--refit 1e-1"),  # by REML divided by a Bartlett factor, which is simulated
        ("--ml", "--refit 0 --bootstrap 20"),
    ],
)
def test_missing_cells(folder: Path, method: str, scan: str) -> None:
    """With every sample that has some of the traits, as with the dense matrix, to the precision of the fits."""
    options = EXACT | {"scan": scan.split()}
    words = ("--grm", str(folder / "dense.npy"), "--grm-id", str(folder / "ids"))
    expected = results(folder, "dense_missing", *words, method=method, **options)
    found = results(folder, "sparse_missing", "--grm", str(folder / "gcta"), method=method, **options)
    assert "N.b" in found
    same(found, expected, rtol=2e-4, atol=1e-5)


def test_missing_cells_of_independent_samples(folder: Path) -> None:
    """Where the other trait says nothing of a trait's missing cells, a trait's effects are ordinary least squares."""
    Y = pd.read_csv(folder / "missing.csv")
    Y["b"] = np.where(Y["a"].isna(), Y["b"], np.nan)
    Y.to_csv(folder / "apart.csv", index=False)
    found = results(folder, "apart", "--grm", "none", **EXACT | {"pheno": ["apart.csv"]})
    seen = Y["a"].notna().to_numpy()
    X = np.column_stack([np.ones(N), pd.read_csv(folder / "x.csv")["age"]])
    g = open_bed(folder / "g.bed").read()[:, 3]
    g = np.where(np.isnan(g), np.nanmean(g), g)
    beta = np.linalg.lstsq(np.column_stack([X, g])[seen], Y["a"][seen], rcond=None)[0][-1]
    assert found.loc[3, "BETA.a"] == pytest.approx(beta, rel=1e-6)


def test_independent_samples_are_ordinary_least_squares(folder: Path) -> None:
    found = results(folder, "none", "--grm", "none")
    Y = pd.read_csv(folder / "y.csv")[["a", "b"]].to_numpy()
    X = np.column_stack([np.ones(N), pd.read_csv(folder / "x.csv")["age"]])
    g = open_bed(folder / "g.bed").read()[:, 3]
    g = np.where(np.isnan(g), np.nanmean(g), g)
    beta = np.linalg.lstsq(np.column_stack([X, g]), Y, rcond=None)[0][-1]
    np.testing.assert_allclose(found.loc[3, ["BETA.a", "BETA.b"]].astype(float), beta, rtol=1e-6)


def test_refits_of_independent_samples_are_wilks_statistics(folder: Path) -> None:
    """Of contrasts: ``(n - c)(log|S0| - log|S1|)``, S the cross products of the residuals, over the Bartlett factor."""
    results(folder, "none", "--grm", "none")
    table = folder / "refit.parquet"
    options = ("--geno", folder / "g.bed", "--precision", "double", "--refit", "1", "--out", table)
    assert kron2sum("scan", "-q", "--threads", "1", "--null", folder / "none.npz", *options) == 0
    found = pd.read_parquet(table)
    factor = json.loads(pq.read_schema(table).metadata[b"kron2sum"])["refit_factors"]["genome"]["any"]
    Y = pd.read_csv(folder / "y.csv")[["a", "b"]].to_numpy()
    X = np.column_stack([np.ones(N), pd.read_csv(folder / "x.csv")["age"]])
    G = open_bed(folder / "g.bed").read()

    def logdet(M: np.ndarray) -> float:
        residual = Y - M @ np.linalg.lstsq(M, Y, rcond=None)[0]
        return float(np.linalg.slogdet(residual.T @ residual)[1])

    for k in range(5):
        g = np.where(np.isnan(G[:, k]), np.nanmean(G[:, k]), G[:, k])
        expected = (N - 2) * (logdet(X) - logdet(np.column_stack([X, g])))
        assert found["CHISQ_REFIT"][k] * factor == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_counts_of_families_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = ("--pheno", folder / "y.csv", "--grm", folder / "noisy.npy", "--grm-id", folder / "ids")
    assert kron2sum("fit", "--threads", "1", *tables, "--grm-cutoff", "0.05", "--out", folder / "said.npz") == 0
    said = capsys.readouterr().err
    assert "of 150 samples are in" in said
    assert "families of 2 to 5" in said
    assert "pairs of samples below --grm-cutoff 0.05 of 11175" in said


def test_a_family_too_large_is_refused_with_a_cutoff(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("kron2sum_cli.fit.families.MATRICES_OF_FAMILY", 100_000)
    K = np.load(folder / "noisy.npy")
    np.save(folder / "chained.npy", np.where(K == 0.01, 0.06, K))
    tables = ("--pheno", folder / "y.csv", "--grm", folder / "chained.npy", "--grm-id", folder / "ids")
    assert kron2sum("fit", "--memory", "1000", *tables, "--grm-cutoff", "0.05", "--out", folder / "no.npz") == 1
    assert "the largest family has 150 samples" in (said := capsys.readouterr().err)
    assert "--grm-cutoff 0.07 splits it" in said


def test_what_python_takes_counts_as_memory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = ("--pheno", folder / "y.csv", "--grm", folder / "gcta")
    assert kron2sum("fit", "--memory", "100", *tables, "--out", folder / "no.npz") == 1
    assert "some 180 MiB, where --memory allows 100 MiB; allow that" in capsys.readouterr().err


def test_predictions_of_missing_cells(folder: Path) -> None:
    tables = []
    for name, grm in (("dense", ["dense.npy", "--grm-id", folder / "ids"]), ("sparse", ["gcta"])):
        words = (
            "--grm",
            folder / grm[0],
            *grm[1:],
            "--pheno",
            folder / "missing.csv",
            "--missing",
            "exact",
            "--predict",
        )
        assert kron2sum("fit", "-q", "--threads", "1", *words, "--out", folder / f"{name}_cells.npz") == 0
        blup = folder / f"{name}_cells.tsv"
        assert kron2sum("export", "-q", folder / f"{name}_cells.npz", "--to", "blup", "--out", blup) == 0
        tables.append(pd.read_csv(blup, sep="\t"))
    for name in ("genetic", "genetic_var", "predicted", "predicted_var"):
        np.testing.assert_allclose(tables[1][name], tables[0][name], rtol=2e-4, atol=1e-5)


def test_predictions_of_samples_without_phenotypes(folder: Path) -> None:
    few = pd.read_csv(folder / "y.csv")[:120]
    few.to_csv(folder / "few.csv", index=False)
    tables = []
    for name, grm in (("dense", ["dense.npy", "--grm-id", folder / "ids"]), ("sparse", ["gcta"])):
        words = ("--grm", folder / grm[0], *grm[1:], "--pheno", folder / "few.csv", "--predict")
        assert kron2sum("fit", "-q", "--threads", "1", *words, "--out", folder / f"{name}_few.npz") == 0
        blup = folder / f"{name}_blup.tsv"
        assert kron2sum("export", "-q", folder / f"{name}_few.npz", "--to", "blup", "--out", blup) == 0
        tables.append(pd.read_csv(blup, sep="\t"))
    for name in ("genetic", "genetic_var", "predicted", "predicted_var"):
        np.testing.assert_allclose(tables[1][name], tables[0][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("with_fids", [False, True])
def test_predictions_of_samples_that_a_table_of_pairs_lists(folder: Path, with_fids: bool) -> None:
    K = np.load(folder / "dense.npy")
    related = pd.Series((K != 0).sum(axis=0) > 1, [f"s{i}" for i in range(N)])
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in ("y", "x")}
    tables["y"] = tables["y"][:120]
    for name, each in tables.items():
        if with_fids:
            each.insert(0, "FID", "f" + each.IID)
        each.to_csv(folder / f"{name}_few.csv", index=False)
    words = ("--pheno", folder / "y_few.csv", "--covar", folder / "x_few.csv", "--predict")
    predicted = []
    for name, grm in (("dense", ["dense.npy", "--grm-id", folder / "ids"]), ("pairs", ["pairs.kin0"])):
        null, blup = folder / f"{name}_listed.npz", folder / f"{name}_listed.tsv"
        assert kron2sum("fit", "-q", "--grm", folder / grm[0], *grm[1:], *words, "--out", null) == 0
        assert kron2sum("export", "-q", null, "--to", "blup", "--out", blup) == 0
        predicted.append(pd.read_csv(blup, sep="\t").set_index(["IID", "trait"]).sort_index())
    dense, pairs = predicted
    known = set(tables["y"].IID) | set(related.index[related])
    assert list(pairs.index) == [key for key in dense.index if key[0] in known]
    dense = dense.loc[pairs.index]
    assert dense.observed.isna().sum() > 10 and pairs.genetic[dense.observed.isna()].std() > 0
    for name in ("genetic", "genetic_var", "predicted", "predicted_var"):
        np.testing.assert_allclose(pairs[name], dense[name], rtol=1e-4, atol=1e-5)
    assert not with_fids or ("f" + pairs.index.get_level_values("IID") == pairs.FID).all()
