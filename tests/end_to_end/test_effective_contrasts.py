"""`--stat satterthwaite` at the command line: exact tests where there are some, and where it is refused."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense_scan import variant
from example_commands import EXAMPLE, kron2sum, metadata, scan, table
from scipy import stats

from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.files.samples import match
from kron2sum_cli.genotypes.bed import open_bed
from kron2sum_cli.model import null_model
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.null_model import CompleteNullModel

TRAITS = ("height", "weight", "glucose")
STAT = ("--stat", "satterthwaite", "--refit", "0")


def residuals(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    return Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]


@pytest.mark.parametrize("given", [(), ("snp0409", "snp1823", "snp2811")])
def test_of_independent_samples_the_tests_are_exact(tmp_path: Path, given: tuple[str, ...]) -> None:
    """Hotelling's of all traits and of their contrasts, the t tests of single ones: by least squares."""
    null, out = tmp_path / "null.npz", tmp_path / "s.parquet"
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv", "--grm", "none")
    assert kron2sum("fit", "-q", *files, "--out", null) == 0
    options = ("--precision", "double", "--test", "specific", "--region", "2:1-40000000")
    assert scan(null, out, *STAT, *options, *(word for name in given for word in ("--condition", name))) == 0
    data, rows = read_null(str(null)).description, table(out).dropna(subset=["MLOG10P"])
    source = open_bed(str(EXAMPLE / "genotypes.bed"))
    order = match(data.samples, source.samples)
    names = source.variants.table["SNPID"].to_pylist()

    def imputed(name: str) -> np.ndarray:
        g = source.read(np.array([names.index(name)]), order).astype(float)
        return np.where(np.isnan(g), np.nanmean(g), g)

    covariates = np.hstack([data.X, *(imputed(name) for name in given)])
    n, c = covariates.shape
    for row in rows.sort_values("MLOG10P").iloc[[0, 40, -1]].itertuples(index=False):
        X = np.hstack([covariates, imputed(row.SNPID)])
        for suffix, L in (
            ("", np.eye(3)),
            (".specific", np.array([[1, -1, 0], [0, 1, -1.0]])),
            (".weight", np.eye(3)[[1]]),
        ):
            Y, e = data.Y @ L.T, len(L)
            small, large = (residuals(one, Y) for one in (covariates, X))
            ratio = np.linalg.det(small.T @ small) / np.linalg.det(large.T @ large)
            expected = stats.f.logsf((ratio - 1) * (n - c - e) / e, e, n - c - e)
            found = row[rows.columns.get_loc(f"MLOG10P{suffix}")]
            assert found == pytest.approx(-expected / np.log(10), rel=1e-7), suffix


def genotypes_of(null: Path, positions: tuple[int, ...], out: Path) -> Path:
    """A table of the covariates of example_data and of variants of the samples of a null model."""
    G = np.column_stack([variant(null, k) for k in positions])
    columns = pd.DataFrame(G, index=read_null(str(null)).samples.iids).add_prefix("g")
    pd.read_csv(EXAMPLE / "covariates.csv").join(columns, on="IID", how="inner").to_csv(out, index=False)
    return out


@pytest.mark.parametrize("grm", [(), ("--loco",), ("--grm-cutoff", "0.2")], ids=["dense", "loco", "families"])
def test_given_variants_it_is_a_scan_with_them_as_covariates(tmp_path: Path, grm: tuple[str, ...]) -> None:
    """C0 and C1 are estimated given them: every P, effect and contrast is that of a fit with both."""
    null, both = tmp_path / "null.npz", tmp_path / "both.npz"
    fit = ("fit", "-q", "--pheno", EXAMPLE / "phenotypes.csv", "--grm", EXAMPLE / "genotypes.bed", *grm)
    assert kron2sum(*fit, "--covar", EXAMPLE / "covariates.csv", "--out", null) == 0
    assert kron2sum(*fit, "--covar", genotypes_of(null, (408, 1822), tmp_path / "c.csv"), "--out", both) == 0
    tables = [tmp_path / f"{k}.parquet" for k in range(2)]
    options = (*STAT, "--region", "5:10000000-14000000", "--precision", "double", "--test", "common")
    assert scan(null, tables[0], *options, "--condition", "snp0409", "--condition", "snp1823") == 0
    assert scan(both, tables[1], *options) == 0
    given, as_covariates = map(table, tables)
    columns = [
        "MLOG10P",
        "MLOG10P.common",
        *(f"{name}.{trait}" for name in ("BETA", "SE", "MLOG10P") for trait in TRAITS),
    ]
    assert given.MLOG10P.max() > 5
    np.testing.assert_allclose(given[columns], as_covariates[columns], rtol=1e-5, atol=1e-7)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[float, int, bytes]]:
    """How often C0 and C1 are searched: by the log-likelihood of the null model, and number and span of the given."""
    found, search = Counter[tuple[float, int, bytes]](), CompleteNullModel.estimated_given

    def counted(model: CompleteNullModel, S: np.ndarray) -> object:
        found[model.summary.lml, S.shape[1], S.tobytes()] += 1
        return search(model, S)

    monkeypatch.setattr(CompleteNullModel, "estimated_given", counted)
    return found


@pytest.mark.parametrize("stepwise", [(), ("--stepwise", "0.001")])
def test_covariances_given_variants_are_searched_once(
    example: Path, tmp_path: Path, searches: Counter[tuple[float, int, bytes]], stepwise: tuple[str, ...]
) -> None:
    """Under every null model, as the metadata have all; given signals at each step, and for their effects given all."""
    options = ("--chr", "2,5", "--condition", "snp0409", "--condition", "snp1823", *stepwise)
    assert scan(example / "loco.npz", tmp_path / "s.parquet", *STAT, *options) == 0
    of_scan = {key: number for key, number in searches.items() if key[1] == 2}
    assert len(of_scan) == len(metadata(tmp_path / "s.parquet")["nulls"]) == 6
    assert set(of_scan.values()) == {1}
    if not stepwise:
        assert searches.keys() == of_scan.keys()
        return
    signals = pd.read_csv(tmp_path / "s.parquet.signals.tsv", sep="\t")
    assert 0 < sum(searches.values()) - len(of_scan) <= 2 * len(signals)


@pytest.mark.parametrize(("given", "times"), [((), 1), (("--condition", "snp0409"), 2)])
def test_a_scan_evaluates_the_likelihood_of_a_null_model_once(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], times: int
) -> None:
    """Once more given variants, for the scale of the tests: null models are not held until blocks are tested."""
    evaluated: list[int] = []

    def counted(*arguments: Any) -> Point:
        evaluated.append(1)
        return evaluate(*arguments)

    monkeypatch.setattr(null_model, "evaluate", counted)
    options = ("--refit", "0", "--chr", "2", *given)
    assert scan(example / "null.npz", tmp_path / "s.parquet", *options) == 0
    assert len(evaluated) == times


def test_independent_signals_are_those_of_conditional_scans(example: Path, tmp_path: Path) -> None:
    out, null = tmp_path / "s.parquet", example / "null.npz"
    options = (*STAT, "--precision", "double", "--region", "5:11000000-14000000")
    assert scan(null, out, *options, "--stepwise", "0.02", "--stepwise-kb", "5000") == 0
    signals = pd.read_csv(f"{out}.signals.tsv", sep="\t")
    assert len(signals) >= 3

    def given(names: list[str], name: str) -> pd.Series:
        conditions = [word for other in names for word in ("--condition", other)]
        assert scan(null, tmp_path / "given.parquet", *options, *conditions) == 0
        return table(tmp_path / "given.parquet").set_index("SNPID").loc[name]

    for k, signal in signals.iterrows():
        step = given(list(signals.SNPID[:k]), signal.SNPID)
        np.testing.assert_allclose(step.MLOG10P, signal.MLOG10P, rtol=1e-6)
        last = given([name for name in signals.SNPID if name != signal.SNPID], signal.SNPID)
        np.testing.assert_allclose(last.MLOG10P, signal.MLOG10P_JOINT, rtol=1e-6)
        for column in (f"{name}.{trait}" for name in ("BETA", "SE", "MLOG10P") for trait in TRAITS):
            np.testing.assert_allclose(last[column], signal[column], rtol=1e-5)


@pytest.mark.parametrize("given", [(), ("--condition", "snp0409")])
@pytest.mark.parametrize("kind", ["null.npz", "loco.npz"])
def test_export_computes_the_same_tests(example: Path, tmp_path: Path, kind: str, given: tuple[str, ...]) -> None:
    null = example / kind
    out, tests = tmp_path / "s.parquet", ("--test", "common", "--test", "only:weight")
    options = ("--precision", "double", "--region", "3:1-40000000", *given)
    assert scan(null, out, *STAT, *options, *tests) == 0
    assert scan(null, tmp_path / "any.parquet", *STAT, *options) == 0
    computed = tmp_path / "computed.parquet"
    assert kron2sum("export", "-q", tmp_path / "any.parquet", *tests, "--out", computed) == 0
    scanned, found = table(out), table(computed)
    for name in ("MLOG10P.common", "MLOG10P.only:weight", "CHISQ.common"):
        np.testing.assert_allclose(found[name], scanned[name], rtol=1e-8, atol=1e-12)
    nulls = metadata(out)["nulls"]
    assert all(np.shape(one["contrasts"]["variance"]) == (3, 3) for one in nulls)
    assert len(nulls) == (6 if kind == "loco.npz" else 1)
    if given:
        return
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
    "options", [("--windows", "1mb"), ("--bootstrap", "10"), ("--random-slopes", "--interaction", "age")]
)
def test_other_tests_are_refused(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    assert scan(example / "null.npz", tmp_path / "s.parquet", *STAT, *options) == 2
    said = capsys.readouterr().err
    assert "--stat satterthwaite is for effects of variants, not for" in said
    assert options[0] in said


def test_interactions_that_are_refused(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given other variants, and with a covariate whose own effect is not in the null model."""
    out, age = tmp_path / "s.parquet", tmp_path / "c.csv"
    assert scan(example / "null.npz", out, *STAT, "--interaction", "age", "--condition", "snp0001") == 2
    assert "goes with --condition, or with --interaction and --coding genotypic" in capsys.readouterr().err
    covariates = pd.read_csv(EXAMPLE / "covariates.csv")
    covariates.assign(warm=covariates.index % 3)[["IID", "warm"]].to_csv(age, index=False)
    assert scan(example / "null.npz", out, *STAT, "--interaction", "warm", "--covar", age) == 2
    assert "--interaction warm: give the covariate to fit, too (fit --covar)" in capsys.readouterr().err


def test_interactions_of_independent_samples_rest_on_all_their_contrasts(tmp_path: Path) -> None:
    """P of products by least squares, with the effect of the variant in the error; of both from the two P values."""
    null, out = tmp_path / "null.npz", tmp_path / "s.parquet"
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv", "--grm", "none")
    assert kron2sum("fit", "-q", *files, "--out", null) == 0
    options = ("--precision", "double", "--region", "2:1-4000000", "--interaction", "age")
    assert scan(null, out, *STAT, *options) == 0
    data, rows = read_null(str(null)).description, table(out).dropna(subset=["MLOG10P.interaction"])
    X, e = data.X, data.X[:, read_null(str(null)).covariates.index("age")]
    n, c = X.shape
    first = residuals(X, data.Y)
    for row in rows.iloc[[0, 5]].itertuples(index=False):
        g = variant(null, int(row.SNPID.removeprefix("snp")) - 1)
        both = [residuals(np.column_stack([X, *columns]), data.Y) for columns in ([g], [g, g * e])]
        explained = both[0].T @ both[0] - both[1].T @ both[1]
        found = dict(zip(rows.columns, row, strict=True))
        for suffix, share, df in (
            (".interaction", np.trace(np.linalg.solve(first.T @ first, explained)), 3),
            ("_GXE.weight", explained[1, 1] / (first.T @ first)[1, 1], 1),
        ):
            expected = -stats.beta.logsf(share, df / 2, (n - c - df) / 2) / np.log(10)
            assert found[f"MLOG10P{suffix}"] == pytest.approx(expected, rel=1e-6), suffix
        total = sum(stats.chi2.isf(10.0 ** -found[f"MLOG10P{name}"], 3) for name in ("", ".interaction"))
        assert found["MLOG10P.joint"] == pytest.approx(-stats.chi2.logsf(total, 6) / np.log(10), rel=1e-6)
    assert f"by test: interaction {n - c:.1f}, interaction height {n - c:.1f}" in Path(f"{out}.log").read_text()


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


def test_given_variants_effects_of_covariates_are_those_of_every_trait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--grm", EXAMPLE / "genotypes.bed")
    null, out, design = tmp_path / "null.npz", tmp_path / "s.parquet", tmp_path / "design.csv"
    design.write_text("trait,all\nheight,1\nweight,1\nglucose,1\n")
    assert kron2sum("fit", "-q", *files, "--trait-design", design, "--transform", "rank-normal", "--out", null) == 0
    for options in (("--condition", "snp0409"), ("--stepwise", "1e-5"), ("--coding", "genotypic")):
        assert scan(null, out, *STAT, *options) == 2
        said = capsys.readouterr().err
        assert "--stat satterthwaite given other variants, or with a second column, needs a null model" in said


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
