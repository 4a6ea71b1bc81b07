"""Founder probabilities: every locus against dense generalised least squares, and two founders against one variant."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dense_scan import dense_projection
from example_commands import kron2sum
from numpy.typing import NDArray
from scipy import stats

from kron2sum_cli.scan import sets

Array = NDArray[np.float64]
N, LOCI, FOUNDERS = 110, 12, "ABCDEFGH"
NAMES = [f"c{1 + k // 7}.loc{k}" for k in range(LOCI)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_cross(founders: str = FOUNDERS, digits: int = 4) -> Array:
    """Probabilities (n, l, f), in ``c1.csv`` and ``c2.csv`` as R writes them, ``pmap.csv``, ``y.csv``, ``g.csv``.

    Locus 3 has an effect on the first trait; nobody has the last founder at locus 5.
    """
    rng = np.random.default_rng(8)
    samples = [f"s{i}" for i in range(N)]
    probabilities = rng.dirichlet(np.full(len(founders), 0.25), size=(N, LOCI))
    if len(founders) > 2:
        probabilities[:, 5, -1] = 0
        probabilities /= probabilities.sum(axis=2, keepdims=True)
    probabilities = probabilities.round(digits)
    for chromosome, loci in (("1", range(7)), ("2", range(7, LOCI))):
        columns = {f"{f}.{NAMES[k]}": probabilities[:, k, j] for k in loci for j, f in enumerate(founders)}
        pd.DataFrame(columns, index=samples).to_csv(f"c{chromosome}.csv", index_label="")
    places = [f"{name},{1 + k // 7},{10 + 1.5 * k}" for k, name in enumerate(NAMES)]
    Path("pmap.csv").write_text("\n".join(["# a cross", "marker,chr,pos", *places]) + "\n")
    G = rng.normal(size=(N, 150)) / np.sqrt(150)
    Y = G @ rng.normal(size=(150, 2)) + rng.normal(size=(N, 2))
    Y[:, 0] += 6 * probabilities[:, 3, 0]
    pd.DataFrame(G, index=samples).add_prefix("g").to_csv("g.csv", index_label="IID")
    pd.DataFrame(Y, index=samples, columns=["t", "u"]).to_csv("y.csv", index_label="IID")
    return probabilities


def scanned(*options: str) -> pd.DataFrame:
    files = ("--geno", "c1.csv", "--geno", "c2.csv", "--map", "pmap.csv")
    assert kron2sum("scan", "-q", *files, *options, "--out", "s.tsv") == 0
    return pd.read_csv("s.tsv", sep="\t", dtype={"CHR": str})


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("precision", ["double", "single"])
def test_every_locus_is_the_dense_test_of_its_founders(intercept: bool, precision: str) -> None:
    """χ² = -n log(1 - drop / rᵀK⁻¹r); with an intercept one of the founders follows from the others."""
    probabilities = write_cross()
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.csv", *([] if intercept else ["--no-intercept"])) == 0
    table = scanned("--founders", "--precision", precision)
    assert table["SET"].tolist() == NAMES
    assert table["CHR"].tolist() == ["1"] * 7 + ["2"] * 5
    assert table["START"].tolist() == table["END"].tolist() == [int(1e6 * (10 + 1.5 * k)) for k in range(LOCI)]
    y, P, contrasts = dense_projection(Path("null.npz"), None)
    total = y @ P @ y
    for k, row in table.iterrows():
        of_locus = probabilities[:, k]  # type: ignore[call-overload]
        S = of_locus / of_locus.sum(axis=1, keepdims=True)
        rank = np.linalg.matrix_rank(np.column_stack([S, *([np.ones(N)] if intercept else [])])) - intercept
        assert rank == (6 if k == 5 else 7) + (not intercept)
        columns = np.kron(np.eye(2), S)
        score, H = columns.T @ P @ y, columns.T @ P @ columns
        drop = score @ np.linalg.pinv(H, rcond=1e-9, hermitian=True) @ score
        chisq = -contrasts * np.log1p(-drop / total)
        assert row["DF"] == 2 * rank
        assert row["NVAR"] == (7 if k == 5 else 8)
        assert row["CARRIERS"] == np.count_nonzero(2 * S >= 0.5, axis=0)[np.ptp(S, axis=0) > 0].min()
        assert row["CHISQ"] == pytest.approx(chisq, rel=1e-6 if precision == "double" else 1e-4)
        expected = -stats.chi2.logsf(row["CHISQ"], row["DF"]) / np.log(10)
        assert row["MLOG10P"] == pytest.approx(expected, rel=1e-9)
    assert table["MLOG10P"].idxmax() == 3


def test_two_founders_are_one_variant() -> None:
    probabilities = write_cross("AB")
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.csv") == 0
    loci = scanned("--founders", "--precision", "double", "--test", "common", "--bootstrap", "99")
    variants = pd.DataFrame(probabilities[:, :, 0] / probabilities.sum(axis=2), columns=NAMES)
    variants.insert(0, "IID", [f"s{i}" for i in range(N)])
    variants.to_csv("a.csv", index=False)
    assert kron2sum("scan", "-q", "--geno", "a.csv", "--map", "pmap.csv", "--precision", "double", "--refit", "0",
                    "--test", "any", "--test", "common", "--bootstrap", "99", "--out", "a.tsv") == 0  # fmt: skip
    single = pd.read_csv("a.tsv", sep="\t")
    assert single["SNPID"].tolist() == loci["SET"].tolist()
    assert single["POS"].tolist() == loci["START"].tolist()
    for name in ("CHISQ", "DF", "MLOG10P", "CHISQ.common", "DF.common", "MLOG10P.common"):
        np.testing.assert_allclose(loci[name], single[name], rtol=1e-5)
    for name in ("", ".common"):
        np.testing.assert_array_equal(loci[f"MLOG10P_SET_GW.fixed{name}"], single[f"MLOG10P_GW{name}"])


def test_loci_go_through_shards_random_effects_and_pictures() -> None:
    write_cross()
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.csv") == 0
    whole = scanned("--founders", "--set-test", "skat", "--set-test", "fixed")
    parts = [scanned("--founders", "--set-test", "skat", "--set-test", "fixed", "--shard", f"{k}/3") for k in (1, 2, 3)]
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    only = scanned("--founders", "--chr", "2")
    assert only["SET"].tolist() == NAMES[7:]
    pd.testing.assert_series_equal(only["CHISQ"], whole["CHISQ"][7:].reset_index(drop=True), rtol=1e-4)
    files = ("--geno", "c1.csv", "--geno", "c2.csv", "--map", "pmap.csv", "--founders")
    assert kron2sum("scan", "-q", *files, "--out", "s.parquet") == 0
    assert kron2sum("export", "-q", "s.parquet", "--top", "1", "--columns", "SET", "--out", "top.tsv") == 0
    assert Path("top.tsv").read_text().split() == ["SET", NAMES[3]]
    assert kron2sum("export", "-q", "s.parquet", "--leads", "--columns", "SET,LEAD_TEST", "--out", "leads.tsv") == 0
    assert Path("leads.tsv").read_text().split() == ["SET", "LEAD_TEST", NAMES[3], "fixed"]
    pytest.importorskip("matplotlib")
    assert kron2sum("export", "-q", "s.parquet", "--plot", "manhattan", "--out", "m.png") == 0


def test_founders_whose_sum_cancels_are_read_once_more_whatever_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    write_cross("ABC")
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.csv") == 0
    read, genotypes = [], sets._genotypes
    monkeypatch.setattr(sets, "_genotypes", lambda *of_set: read.append(of_set) or genotypes(*of_set))
    scanned("--founders", "--set-test", "burden", "--set-test", "skato", "--test", "common")
    assert len(read) == LOCI


@pytest.mark.parametrize("precision", ["single", "double"])
def test_probabilities_that_add_up_to_1_have_no_burden(precision: str) -> None:
    """What single precision leaves of their sum is no variant to test."""
    write_cross()
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.csv") == 0
    tests = ("burden", "skat", "skato")
    found = scanned("--founders", "--precision", precision, *(f"--set-test={name}" for name in tests))
    assert found["MLOG10P_SET.burden"].isna().all()
    np.testing.assert_allclose(found["MLOG10P_SET.skato"], found["MLOG10P_SET.skat"], rtol=1e-9)
    weighted = scanned("--founders", "--precision", precision, "--set-test=burden", "--set-weights=beta:1,25")
    assert weighted["MLOG10P_SET.burden"].notna().all()


@pytest.mark.parametrize("precision", ["single", "double"])
def test_the_omnibus_test_of_founders_combines_the_tests_that_there_are(precision: str) -> None:
    """All but the burden with equal weights, in the scan and in simulated data sets."""
    write_cross()
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.csv") == 0
    options = ("--founders", "--precision", precision)
    parts = []
    for weights, names in (("beta:1,1", ("skat", "acat")), ("beta:1,25", ("skat", "burden", "acat"))):
        one = scanned(*options, f"--set-weights={weights}", *(f"--set-test={name}" for name in names))
        parts += [one[f"P_SET.{name}"] for name in names]
    found = scanned(*options, "--set-test=omnibus", "--bootstrap=19")
    expected = np.arctan2(1, np.mean(1 / np.tan(np.pi * np.array(parts)), axis=0)) / np.pi
    np.testing.assert_allclose(found["P_SET.omnibus"], expected, rtol=1e-6)
    assert found["MLOG10P_SET_GW.omnibus"].nunique() > 1


def test_a_scan_given_a_locus_is_given_all_of_its_founders(capsys: pytest.CaptureFixture[str]) -> None:
    probabilities = write_cross()
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.csv") == 0
    given = scanned("--founders", "--precision", "double", "--condition", NAMES[3])
    assert capsys.readouterr().err == ""
    assert given["MLOG10P"].isna().tolist() == [k == 3 for k in range(LOCI)]
    y, P, contrasts = dense_projection(Path("null.npz"), None)
    S, T = (probabilities[:, k] / probabilities[:, k].sum(axis=1, keepdims=True) for k in (3, 8))
    dropped = []
    for columns in (np.kron(np.eye(2), S), np.kron(np.eye(2), np.hstack([S, T]))):
        score, H = columns.T @ P @ y, columns.T @ P @ columns
        dropped.append(score @ np.linalg.pinv(H, rcond=1e-9, hermitian=True) @ score)
    left = y @ P @ y - dropped[0]
    chisq = -(contrasts - 14) * np.log1p(-(dropped[1] - dropped[0]) / left)
    assert given.loc[8, "CHISQ"] == pytest.approx(chisq, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--founders",), "--founders belongs to a table of founder probabilities: name it with --geno"),
        (("--geno", "x", "--founders", "--windows", "1kb"), "--windows and --founders exclude each other; run twice"),
        (("--geno", "x", "--founders", "--interaction", "E"), "not for --sets, --windows and --founders; run twice"),
        (("--geno", "x", "--founders", "--set-weights", "W"), "--set-weights: --founders has no column of weights"),
    ],
)
def test_usage(options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert kron2sum("scan", *options) == 2
    assert message in capsys.readouterr().err
