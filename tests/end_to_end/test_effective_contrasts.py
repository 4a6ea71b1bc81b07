"""`--stat satterthwaite` at the command line: exact tests where there are some, and where it is refused."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_commands import EXAMPLE, kron2sum, metadata, scan, table
from scipy import stats

from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.files.samples import match
from kron2sum_cli.genotypes.bed import open_bed

TRAITS = ("height", "weight", "glucose")
STAT = ("--stat", "satterthwaite", "--refit", "0")


def residuals(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    return Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]


def test_of_independent_samples_the_tests_are_exact(tmp_path: Path) -> None:
    """Hotelling's of all traits and of their contrasts, the t tests of single ones: by least squares."""
    null, out = tmp_path / "null.npz", tmp_path / "s.parquet"
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv", "--grm", "none")
    assert kron2sum("fit", "-q", *files, "--out", null) == 0
    assert scan(null, out, *STAT, "--precision", "double", "--test", "specific", "--region", "2:1-40000000") == 0
    data, rows = read_null(str(null)).description, table(out).dropna(subset=["MLOG10P"])
    source = open_bed(str(EXAMPLE / "genotypes.bed"))
    order = match(data.samples, source.samples)
    names = source.variants.table["SNPID"].to_pylist()
    n, c = data.X.shape
    for row in rows.sort_values("MLOG10P").iloc[[0, 40, -1]].itertuples(index=False):
        g = source.read(np.array([names.index(row.SNPID)]), order).astype(float)
        X = np.hstack([data.X, np.where(np.isnan(g), np.nanmean(g), g)])
        for suffix, L in (
            ("", np.eye(3)),
            (".specific", np.array([[1, -1, 0], [0, 1, -1.0]])),
            (".weight", np.eye(3)[[1]]),
        ):
            Y, e = data.Y @ L.T, len(L)
            small, large = (residuals(one, Y) for one in (data.X, X))
            ratio = np.linalg.det(small.T @ small) / np.linalg.det(large.T @ large)
            expected = stats.f.logsf((ratio - 1) * (n - c - e) / e, e, n - c - e)
            found = row[rows.columns.get_loc(f"MLOG10P{suffix}")]
            assert found == pytest.approx(-expected / np.log(10), rel=1e-7), suffix


@pytest.mark.parametrize("kind", ["null.npz", "loco.npz"])
def test_export_computes_the_same_tests(example: Path, tmp_path: Path, kind: str) -> None:
    null = example / kind
    out, tests = tmp_path / "s.parquet", ("--test", "common", "--test", "only:weight")
    assert scan(null, out, *STAT, "--precision", "double", "--region", "3:1-40000000", *tests) == 0
    assert scan(null, tmp_path / "any.parquet", *STAT, "--precision", "double", "--region", "3:1-40000000") == 0
    computed = tmp_path / "computed.parquet"
    assert kron2sum("export", "-q", tmp_path / "any.parquet", *tests, "--out", computed) == 0
    scanned, found = table(out), table(computed)
    for name in ("MLOG10P.common", "MLOG10P.only:weight", "CHISQ.common"):
        np.testing.assert_allclose(found[name], scanned[name], rtol=1e-8, atol=1e-12)
    nulls = metadata(out)["nulls"]
    assert all(np.shape(one["contrasts"]["variance"]) == (3, 3) for one in nulls)
    assert len(nulls) == (6 if kind == "loco.npz" else 1)
    plain = tmp_path / "plain.parquet"
    assert scan(null, plain, "--refit", "0", "--precision", "double", "--region", "3:1-40000000") == 0
    same = [
        name for name in scanned if not name.startswith(("P", "MLOG10P")) and not name.endswith(("common", "weight"))
    ]
    pd.testing.assert_frame_equal(table(plain)[same], scanned[same])


def test_shards_are_the_whole(example: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.parquet", [tmp_path / f"{k}.parquet" for k in (1, 2)]
    assert scan(example / "loco.npz", whole, *STAT) == 0
    for k, part in enumerate(parts):
        assert scan(example / "loco.npz", part, *STAT, "--shard", f"{k + 1}/2") == 0
    assert kron2sum("export", "-q", *parts, "--out", tmp_path / "joined.tsv") == 0
    assert kron2sum("export", "-q", whole, "--out", tmp_path / "whole.tsv") == 0
    assert (tmp_path / "joined.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ("--windows", "1mb"),
        ("--bootstrap", "10"),
        ("--stepwise", "1e-5"),
        ("--condition", "snp0001"),
        ("--interaction", "age"),
        ("--coding", "genotypic"),
    ],
)
def test_tests_of_more_than_one_column_are_refused(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    assert scan(example / "null.npz", tmp_path / "s.parquet", *STAT, *options) == 2
    said = capsys.readouterr().err
    assert "--stat satterthwaite is for single effects of variants, not for" in said
    assert options[0] in said


def test_null_models_that_do_not_allow_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those by ML, with missing cells, and of three lines, which have two contrasts for three traits."""
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--grm", EXAMPLE / "genotypes.bed")
    null, out = tmp_path / "null.npz", tmp_path / "s.parquet"
    assert kron2sum("fit", "-q", *files, "--ml", "--out", null) == 0
    assert scan(null, out, *STAT) == 2
    said = capsys.readouterr().err
    assert "--stat satterthwaite needs a null model by REML; fit without --ml, or use --stat lr" in said
    assert kron2sum("fit", "-q", *files, "--missing", "exact", "--out", null) == 0
    assert scan(null, out, *STAT) == 2
    said = capsys.readouterr().err
    assert "--stat satterthwaite needs traits without missing values; fit with --missing drop" in said
    rng, G = np.random.default_rng(3), np.kron(np.eye(3), np.ones((6, 1)))
    iids = pd.read_csv(EXAMPLE / "phenotypes.csv")["IID"][: len(G)]
    Y = 30 * G @ rng.normal(size=(3, 3)) + rng.normal(size=(len(G), 3))
    for name, columns in (("y.csv", Y), ("G.csv", G)):
        pd.DataFrame(columns, index=iids).add_prefix("x").to_csv(tmp_path / name)
    assert kron2sum("fit", "-q", "--pheno", tmp_path / "y.csv", "--grm", tmp_path / "G.csv", "--out", null) == 0
    assert scan(null, out, *STAT) == 1
    said = capsys.readouterr().err
    assert re.search(r"rest on 2\.\d contrasts of samples, too few for test any with 3 effects a variant", said)
    assert not out.exists()


def test_few_lines_are_told_of_it(example: Path, tmp_path: Path) -> None:
    """Scans of 30 lines by the default statistic, not those of the samples of example_data."""
    rng, G = np.random.default_rng(3), np.kron(np.eye(30), np.ones((6, 1)))
    iids = pd.read_csv(EXAMPLE / "phenotypes.csv")["IID"][: len(G)]
    for name, columns in (("y.csv", 2 * G @ rng.normal(size=(30, 3)) + rng.normal(size=(len(G), 3))), ("G.csv", G)):
        pd.DataFrame(columns, index=iids).add_prefix("x").to_csv(tmp_path / name)
    null, out = tmp_path / "null.npz", tmp_path / "s.parquet"
    assert kron2sum("fit", "-q", "--pheno", tmp_path / "y.csv", "--grm", tmp_path / "G.csv", "--out", null) == 0
    assert scan(null, out, "--refit", "0") == 0
    advice = r"rest on (29|3\d) contrasts of samples, few for 3 effects a variant: --stat lr finds too little"
    assert re.search(advice, Path(f"{out}.log").read_text())
    assert scan(example / "null.npz", out, "--refit", "0") == 0
    assert "contrasts of samples" not in Path(f"{out}.log").read_text()
