"""Polygenic predictions of regenie's step 1 taken off the traits, against subtracting them by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bed_reader import to_bed
from example_commands import kron2sum

from kron2sum_cli.files.samples import Samples
from kron2sum_cli.fit.polygenic import _match

pytestmark = pytest.mark.usefixtures("few_simulated_traits")  # factors are taken off again, or the same

N, VARIANTS = 120, 40
CHROMOSOMES = ("1", "2", "23")
TRAITS = ("a", "b")
LEFT_OUT = 5
"""Samples without a prediction of trait b."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of sibs, two traits, a covariate, genotypes on four chromosomes, and predictions for three of them."""
    folder = tmp_path_factory.mktemp("pred")
    rng = np.random.default_rng(4)
    names = [f"s{i}" for i in range(N)]
    shared = np.repeat(rng.normal(size=(N // 2, 2)), 2, axis=0)
    age = rng.normal(size=N)
    score = rng.normal(size=(len(CHROMOSOMES), N, 2))
    Y = 10 + age[:, None] + shared + score.sum(axis=0) + rng.normal(size=(N, 2)) @ [[2, 0.5], [0, 3]]
    ids = pd.DataFrame({"FID": [f"f{i // 2}" for i in range(N)], "IID": names})
    ids.assign(a=Y[:, 0], b=Y[:, 1]).to_csv(folder / "y.csv", index=False)
    ids.assign(age=age).to_csv(folder / "x.csv", index=False)
    pairs = [f"{names[i]}\t{names[i + 1]}\t0.25" for i in range(0, N, 2)]
    (folder / "sibs.kin0").write_text("\n".join(["#IID1\tIID2\tKINSHIP", *pairs]) + "\n")
    genotypes = rng.binomial(2, 0.3, size=(N, VARIANTS)).astype(float)
    chromosome = np.repeat(["1", "2", "X", "Y"], VARIANTS // 4)
    properties = {"fid": list(ids["FID"]), "iid": names, "chromosome": chromosome}
    to_bed(folder / "g.bed", np.asfortranarray(genotypes), properties=properties)
    order = rng.permutation(N)
    for j in range(len(TRAITS)):
        header = " ".join(["FID_IID", *(f"f{i // 2}_{names[i]}" for i in order)])
        lines = [f"{c} " + " ".join(_text(score[k, i, j], i, j) for i in order) for k, c in enumerate(CHROMOSOMES)]
        (folder / f"fit_{j + 1}.loco").write_text("\n".join([header, *lines]) + "\n")
    paths = "".join(f"{trait} /elsewhere/fit_{j + 1}.loco\n" for j, trait in enumerate(TRAITS))
    (folder / "fit_pred.list").write_text(paths)
    np.save(folder / "score.npy", score)
    return folder


def _text(score: float, sample: int, trait: int) -> str:
    return "NA" if trait == 1 and sample < LEFT_OUT else repr(float(score))


def fit(folder: Path, name: str, *options: str | Path) -> Path:
    null = folder / f"{name}.npz"
    tables = ("--covar", folder / "x.csv", "--grm", folder / "sibs.kin0", "--threads", "1")
    assert kron2sum("fit", "-q", *tables, *options, "--out", null) == 0
    return null


@pytest.fixture(scope="module")
def predicted(folder: Path) -> Path:
    """The null model of the traits less their predictions."""
    return fit(folder, "pred", "--pheno", folder / "y.csv", "--pred", folder / "fit_pred.list")


def scan(folder: Path, null: Path, *options: str) -> pd.DataFrame:
    table = null.with_suffix(".parquet")
    geno = ("--geno", folder / "g.bed", "--precision", "double", "--refit", "0.2", "--threads", "1")
    assert kron2sum("scan", "-q", "--null", null, *geno, *options, "--out", table) == 0
    return pd.read_parquet(table)


def without_factor(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Refits before the Bartlett factor, which null models without a chromosome take from the one of all traits."""
    metadata = json.loads(pq.read_schema(path).metadata[b"kron2sum"])
    factor = metadata["refit_factors"]["genome"]["any"] if "refit_factors" in metadata else 1.0
    return table.assign(CHISQ_REFIT=table.CHISQ_REFIT * factor).drop(columns="MLOG10P_REFIT")


def by_hand(folder: Path, chromosome: int | None) -> Path:
    """Phenotypes less predictions, in units of what the covariates leave of them."""
    table, age = pd.read_csv(folder / "y.csv").iloc[LEFT_OUT:], pd.read_csv(folder / "x.csv")["age"].iloc[LEFT_OUT:]
    X = np.column_stack([np.ones(len(age)), age])
    for j, trait in enumerate(TRAITS):
        y = table[trait].to_numpy()
        residuals = y - X @ np.linalg.solve(X.T @ X, X.T @ y)
        unit = np.sqrt(residuals @ residuals / (len(y) - 2))
        if chromosome is not None:
            table[trait] = y - unit * np.load(folder / "score.npy")[chromosome, LEFT_OUT:, j]
    path = folder / f"less{chromosome}.csv"
    table.to_csv(path, index=False)
    return path


def test_every_chromosome_is_as_by_hand(folder: Path, predicted: Path) -> None:
    found = without_factor(scan(folder, predicted), predicted.with_suffix(".parquet"))
    assert found.CHISQ_REFIT.notna().any()
    parts = np.split(np.arange(VARIANTS), 4)
    for part, code, number in zip(parts, (*CHROMOSOMES, "Y"), (0, 1, 2, None), strict=True):
        alone = fit(folder, f"alone{number}", "--pheno", by_hand(folder, number))
        expected = without_factor(scan(folder, alone, "--chr", code), alone.with_suffix(".parquet"))
        for column in expected.select_dtypes("number"):
            np.testing.assert_allclose(found.iloc[part][column], expected[column], rtol=1e-6, atol=1e-9, err_msg=column)


def with_missing_cells(folder: Path) -> pd.DataFrame:
    """The phenotypes without some cells of either trait, and without trait b where it has no prediction."""
    table, rng = pd.read_csv(folder / "y.csv"), np.random.default_rng(5)
    for trait in TRAITS:
        table.loc[rng.random(N) < 0.15, trait] = np.nan
    table.to_csv(folder / "gaps.csv", index=False)
    table.loc[: LEFT_OUT - 1, "b"] = np.nan
    return table


def gaps_by_hand(folder: Path, chromosome: int) -> Path:
    """`by_hand` for the observed cells, the unit of a trait from the samples that have it."""
    table, age = with_missing_cells(folder), pd.read_csv(folder / "x.csv")["age"].to_numpy()
    for j, trait in enumerate(TRAITS):
        y = table[trait].to_numpy()
        seen = np.isfinite(y)
        X = np.column_stack([np.ones(N), age])[seen]
        residuals = y[seen] - X @ np.linalg.solve(X.T @ X, X.T @ y[seen])
        unit = np.sqrt(residuals @ residuals / (np.count_nonzero(seen) - 2))
        table[trait] = y - unit * np.load(folder / "score.npy")[chromosome, :, j]
    path = folder / f"gaps{chromosome}.csv"
    table.to_csv(path, index=False)
    return path


def test_observed_cells_are_as_by_hand(folder: Path) -> None:
    """With ``--missing exact`` a sample that lacks a trait, or its prediction, stays with the others."""
    with_missing_cells(folder)
    exact = ("--missing", "exact")
    null = fit(folder, "gaps", "--pheno", folder / "gaps.csv", "--pred", folder / "fit_pred.list", *exact)
    found = without_factor(scan(folder, null), null.with_suffix(".parquet"))
    assert found.CHISQ_REFIT.notna().any()
    own = np.isfinite(with_missing_cells(folder)[list(TRAITS)]).sum()
    assert (found["N.a"] == own["a"]).all() and (found["N.b"] == own["b"]).all() and found.N[0] > own["b"]
    for number, code in enumerate(CHROMOSOMES[:2]):
        alone = fit(folder, f"gaps_alone{number}", "--pheno", gaps_by_hand(folder, number), *exact)
        expected = without_factor(scan(folder, alone, "--chr", code), alone.with_suffix(".parquet"))
        part = found.iloc[number * VARIANTS // 4 : (number + 1) * VARIANTS // 4]
        for column in expected.select_dtypes("number"):
            size = expected[column].abs().max()  # an effect near 0 is known to the size of the others
            np.testing.assert_allclose(part[column], expected[column], rtol=0, atol=1e-6 * size, err_msg=column)


def test_the_families_are_written_once(predicted: Path) -> None:
    with np.load(predicted) as arrays:
        assert {name for name in arrays.files if name.startswith("loco/1/families/")} == {"loco/1/families/Z"}


def test_chromosomes_without_predictions_are_said(
    folder: Path, predicted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan(folder, predicted)
    assert (
        "10 variants on chromosomes without predictions: tested with the traits as they are" in capsys.readouterr().err
    )


def test_samples_without_prediction_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(folder, "count", "--pheno", folder / "y.csv", "--pred", folder / "fit_pred.list")
    assert f"{LEFT_OUT} samples with trait b and no prediction" in capsys.readouterr().err


def test_traits_without_fids_and_predictions_with_fids(folder: Path, predicted: Path) -> None:
    """Names such as ``f1_s2`` are those of ``s2`` where no other name ends so."""
    pd.read_csv(folder / "y.csv").drop(columns="FID").to_csv(folder / "iids.csv", index=False)
    with_fids = scan(folder, predicted)
    null = fit(folder, "iids", "--pheno", folder / "iids.csv", "--pred", folder / "fit_pred.list")
    without = scan(folder, null)
    pd.testing.assert_frame_equal(without, with_fids)
    names = Samples(None, ("f1_s1", "f1_s2", "f2_s2", "f3_s_3"), "fit_1.loco")
    assert _match(Samples(None, ("s_3", "s2", "s1"), "y.csv"), names).tolist() == [3, -1, 0]


def test_samples_without_fids(folder: Path, predicted: Path) -> None:
    pd.read_csv(folder / "y.csv").drop(columns="FID").to_csv(folder / "iid.csv", index=False)
    for j in (1, 2):
        text = (folder / f"fit_{j}.loco").read_text()
        header, rest = text.split("\n", 1)
        names = [name if name == "FID_IID" else "0_" + name.split("_")[1] for name in header.split(" ")]
        (folder / f"plain_{j}.loco").write_text(" ".join(names) + "\n" + rest)
    (folder / "plain.list").write_text(f"b {folder}/plain_2.loco\na {folder}/plain_1.loco\nc nowhere.loco\n")
    null = fit(folder, "plain", "--pheno", folder / "iid.csv", "--pred", folder / "plain.list")
    with np.load(null) as found, np.load(predicted) as expected:
        np.testing.assert_array_equal(found["loco/2/families/Z"], expected["loco/2/families/Z"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"l": "a x.loco\n"}, "names no file for trait 'b', but for a"),
        ({"l": "a x.loco\nb\n"}, "line 2: 'b' is not a trait and a file"),
        ({"l": "a x.loco\na x.loco\n"}, "line 2: names trait 'a' again"),
        ({"l": "a none.loco\nb none.loco\n"}, "line 1: the predictions of trait 'a', none.loco, are not there"),
        ({"x.loco": "1 2\n"}, "does not begin with FID_IID"),
        ({"x.loco": "FID_IID f0_s0 f0_s1\n1 2\n"}, "line 2: has 1 predictions for 2 samples"),
        ({"x.loco": "FID_IID f0_s0 f0_s1\n1 2 x\n"}, "line 2: the prediction 'x' of sample 'f0_s1'"),
        ({"x.loco": "FID_IID f0_s0 f0_s0\n1 2 3\n"}, "line 1: sample 'f0_s0' is there more than once"),
        ({"x.loco": "FID_IID f0_s0 f0_s1\n1 2 3\n1 2 3\n"}, "line 3: chromosome 1 is there more than once"),
        ({"x.loco": "FID_IID f0_s0 f0_s1\n1 2 3\n\nchr1 2 3\n"}, "line 4: chromosome 1 is there more than once (chr1"),
        ({"x.loco": "FID_IID f0_s0 f0_s1\nX 2 3\n23 2 3\n"}, "line 3: chromosome X is there more than once (23 is"),
        ({"x.loco": "\nFID_IID f0_s0 f0_s1\n1 2 3\n"}, "does not begin with FID_IID"),
        ({"x.loco": "FID_IID q r\n1 2 3\n"}, "have no samples in common"),
        ({"l": "a x.loco\nb y.loco\n"}, "has chromosomes 1, and"),
    ],
)
def test_wrong_files(
    folder: Path, tmp_path: Path, files: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    default = {
        "l": "a x.loco\nb x.loco\n",
        "x.loco": "FID_IID f0_s0 f0_s1\n1 2 3\n2 3 4\n",
        "y.loco": "FID_IID f0_s0 f0_s1\n1 2 3\n",
    }
    for name, text in (default | files).items():
        (tmp_path / name).write_text(text)
    tables = ("--pheno", folder / "y.csv", "--grm", "none", "--pred", tmp_path / "l")
    assert kron2sum("fit", *tables, "--out", tmp_path / "null.npz") == 1
    assert message in capsys.readouterr().err


def test_lists_and_files_as_people_have_them(folder: Path, predicted: Path, tmp_path: Path) -> None:
    """Tabs and blank lines in the list, chromosomes in another order and spelling, blank lines between them."""
    header, *lines = (folder / "fit_1.loco").read_text().splitlines()
    other = "\n\n".join([header, *(f"chr{line}" for line in reversed(lines))]) + "\n"
    (tmp_path / "other.loco").write_text(other)
    (tmp_path / "tabs.list").write_text(f"\nb\t{folder}/fit_2.loco\na\t{tmp_path}/other.loco \n")
    found = fit(folder, "tabs", "--pheno", folder / "y.csv", "--pred", tmp_path / "tabs.list")
    with np.load(found) as one, np.load(predicted) as other_one:
        for name in ("loco/1/families/Z", "loco/X/families/Z", "loco/2/T"):
            np.testing.assert_array_equal(one[name], other_one[name])


def test_predictions_are_never_overwritten(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "copy.loco").write_bytes((folder / "fit_1.loco").read_bytes())
    (tmp_path / "copy.list").write_text(f"a {tmp_path}/copy.loco\n")
    tables = ("--pheno", folder / "y.csv", "--pheno-name", "a", "--grm", "none", "--pred", tmp_path / "copy.list")
    assert kron2sum("fit", *tables, "--out", tmp_path / "copy.loco") == 1
    assert "is also an input" in capsys.readouterr().err
    assert (tmp_path / "copy.loco").read_bytes() == (folder / "fit_1.loco").read_bytes()


def test_what_does_not_go_together(folder: Path, predicted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = ("--pheno", folder / "y.csv", "--pred", folder / "fit_pred.list", "--out", folder / "no.npz")
    assert kron2sum("fit", *tables, "--grm", folder / "g.bed", "--loco") == 2
    assert "--pred and --loco exclude each other" in capsys.readouterr().err
    assert kron2sum("fit", *tables, "--grm", folder / "g.bed") == 2
    assert "the predictions stand for a dense relationship matrix" in capsys.readouterr().err
    geno = ("--geno", folder / "g.bed", "--bootstrap", "10", "--resample", "permute", "--out", folder / "p.parquet")
    assert kron2sum("scan", "--null", predicted, *geno) == 2
    assert "--resample permute does not go with the predictions" in capsys.readouterr().err
