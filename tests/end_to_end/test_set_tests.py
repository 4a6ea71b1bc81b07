"""`scan --set-test` on example_data, against the dense covariance and the program's own tests of variants."""

from pathlib import Path

import numpy as np
import pytest
from example_commands import EXAMPLE, kron2sum, scan
from test_scan import dense_projection, metadata, table, variant

from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.model.sets.kernel_tests import beta_weights
from kron2sum_cli.model.sets.quadratic_forms import mixture_mlog10p

VARIANTS = [line.split() for line in (EXAMPLE / "genotypes.bim").read_text().splitlines()]
IDS = [fields[1] for fields in VARIANTS]
NAMES = ("snp0100", "snp0102", "snp0103", "snp0107")
HOW = ("fixed", "burden", "skat", "skato", "acat", "lr", "omnibus")
EVERY = [word for name in HOW for word in ("--set-test", name)]


def sets_file(folder: Path, text: str) -> Path:
    path = folder / "sets.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
@pytest.mark.parametrize("beta", [(1.0, 1.0), (1.0, 25.0)])
def test_skat_is_the_dense_variance_component(
    example: Path, tmp_path: Path, null: str, beta: tuple[float, float]
) -> None:
    path, out = sets_file(tmp_path, f"gene {' '.join(NAMES)}\n"), tmp_path / "s.parquet"
    options = ("--set-weights", f"beta:{beta[0]},{beta[1]}", "--test", "only:weight")
    assert scan(example / null, out, "--sets", path, "--set-test", "skat", *options) == 0
    row = table(out).iloc[0]
    chromosome = row.CHR if null == "loco.npz" else None
    y, P, _ = dense_projection(example / null, chromosome)
    S = np.column_stack([variant(example / null, IDS.index(name)) for name in NAMES])
    SW = S * beta_weights(S.mean(axis=0) / 2, *beta)
    whole = read_null(str(example / null))
    summary = whole.whole if chromosome is None else whole.chromosomes[chromosome]
    any_effect = np.linalg.cholesky(summary.mean_diagonal * summary.axes.C0 + summary.axes.C1)
    for root, suffix in ((any_effect, ""), (np.eye(3)[:, [1]], ".only:weight")):
        columns = np.kron(root, SW)
        score = columns.T @ P @ y
        lam = np.maximum(np.linalg.eigvalsh(columns.T @ P @ columns), 0)[None]
        expected = mixture_mlog10p(lam, np.array([score @ score]))[0]
        assert row["MLOG10P_SET.skat" + suffix] == pytest.approx(expected, rel=1e-5)
    assert row["P_SET.skat"] == pytest.approx(10 ** -row["MLOG10P_SET.skat"])
    columns = np.kron(any_effect, SW)
    terms = np.sum((columns.T @ P @ y).reshape(3, 4) ** 2, axis=0)
    assert NAMES[int(np.argmax(terms))] == row.TOP
    assert pytest.approx(np.max(terms) / np.sum(terms), rel=1e-5) == row.TOP_SHARE
    assert "CHISQ" not in row.index


def test_what_a_row_says_of_its_set(example: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = next(name for chromosome, name, *_ in VARIANTS if chromosome == "2")
    path = sets_file(tmp_path, f"gene {' '.join(NAMES)}\nboth {NAMES[0]} {other}\nnone nothing\n")
    out = tmp_path / "s.parquet"
    S = np.column_stack([variant(example / "null.npz", IDS.index(name)) for name in NAMES])
    frequencies = np.minimum(S.mean(axis=0) / 2, 1 - S.mean(axis=0) / 2)
    most = float(np.sort(frequencies)[1:3].mean())
    options = ("--set-max-maf", f"{most}", "--set-test", "skat", "--set-test", "fixed", "--set-test", "burden")
    assert scan(example / "null.npz", out, "--sets", path, *options) == 0
    rows = table(out).set_index("SET")
    gene = rows.loc["gene"]
    assert (gene.NVAR, gene.NVAR_LEFT_OUT, gene.CHR) == (2, 2, "1")
    kept = frequencies <= most
    places = [int(fields[3]) for fields in VARIANTS]
    inside = [places[IDS.index(name)] for name, there in zip(NAMES, kept, strict=True) if there]
    assert (min(inside), max(inside)) == (gene.START, gene.END)
    rarer = np.where(S.mean(axis=0) > 1, 2 - S, S)[:, kept]
    assert np.sum(np.any(rarer >= 0.5, axis=1)) == gene.CARRIERS
    assert "variants of sets left out: --set-max-maf" in caplog.text
    none = rows.loc["none"]
    assert none.NVAR == 0 and none.CARRIERS == 0
    assert none[["P_SET.skat", "MLOG10P_SET.burden", "CHISQ", "TOP", "CHR"]].isna().all()
    assert metadata(out)["filters"]["set_tests"] == ["skat", "fixed", "burden"]


def test_one_variant_is_one_test(example: Path, tmp_path: Path) -> None:
    """The burden and the Cauchy combination of one variant are its test in the scan, the best of one is skat."""
    path, out = sets_file(tmp_path, "one snp0700\n"), tmp_path / "s.parquet"
    assert scan(example / "null.npz", out, "--sets", path, *EVERY, "--test", "common") == 0
    row = table(out).iloc[0]
    single = table(example / "scan.parquet").set_index("SNPID").loc["snp0700"]
    for name in ("burden", "acat"):
        assert row[f"MLOG10P_SET.{name}"] == pytest.approx(single.MLOG10P, rel=1e-4)
        assert row[f"MLOG10P_SET.{name}.common"] == pytest.approx(single["MLOG10P.common"], rel=1e-4)
    assert row["MLOG10P_SET.skato"] == pytest.approx(row["MLOG10P_SET.skat"], rel=1e-8)
    assert pytest.approx(single.MLOG10P, rel=1e-4) == row.MLOG10P
    assert row["MLOG10P_SET.lr.common"] >= 0


def test_threads_do_not_change_a_number(example: Path, tmp_path: Path) -> None:
    text = "".join(f"g{k} {' '.join(IDS[20 * k : 20 * k + 5])}\n" for k in range(6))
    path = sets_file(tmp_path, text)
    for threads in ("1", "3"):
        out = tmp_path / f"t{threads}.parquet"
        assert kron2sum("scan", "-q", "--null", example / "null.npz", "--geno", EXAMPLE / "genotypes.bed", "--out", out,
                        "--sets", path, *EVERY, "--threads", threads) == 0  # fmt: skip
    assert (tmp_path / "t1.parquet").read_bytes() == (tmp_path / "t3.parquet").read_bytes()
    found = table(tmp_path / "t1.parquet").filter(like="MLOG10P_SET")
    assert found.shape == (6, 6)
    assert found.notna().all(axis=None) and (found >= 0).all(axis=None)


def test_single_precision_is_enough(example: Path, tmp_path: Path) -> None:
    """Windows that overlap, with variants in complete disequilibrium among theirs, in both precisions.

    Not `lr`, whose P comes from simulated values.
    """
    found, tests = [], [name for name in HOW if name != "lr"]
    for precision in ("single", "double"):
        out = tmp_path / f"{precision}.parquet"
        named = [word for name in tests for word in ("--set-test", name)]
        options = ("--windows", "2Mb,1Mb", "--chr", "1", *named, "--precision", precision)
        assert scan(example / "null.npz", out, *options) == 0
        found.append(table(out))
    single, double = found
    assert len(double) > 20
    columns = ["CHISQ", "MLOG10P", *(f"MLOG10P_SET.{name}" for name in tests if name != "fixed")]
    for name in columns:
        np.testing.assert_allclose(single[name], double[name], rtol=1e-4, atol=1e-5, err_msg=name)
    same = [column for column in double if column not in columns and not column.startswith(("P", "MLOG", "TOP_"))]
    assert single[same].equals(double[same])


def test_weights_of_a_column(example: Path, tmp_path: Path) -> None:
    """The same as the weights of a frequency where they are those, and another test where they are not."""
    S = np.column_stack([variant(example / "null.npz", IDS.index(name)) for name in NAMES])
    weights = beta_weights(S.mean(axis=0) / 2, 1, 25)
    lines = [f"gene {name} {weight!r} 1\n" for name, weight in zip(NAMES, weights.tolist(), strict=True)]
    path = sets_file(tmp_path, "SET SNPID RARE FLAT\n" + "".join(lines))
    found = {}
    for given in ("beta:1,25", "RARE", "FLAT", "beta:1,1"):
        out = tmp_path / "s.parquet"
        assert scan(example / "null.npz", out, "--sets", path, *EVERY, "--set-weights", given) == 0
        found[given] = table(out).iloc[0]
    for name in HOW[1:]:
        column = f"MLOG10P_SET.{name}"
        assert found["RARE"][column] == pytest.approx(found["beta:1,25"][column], rel=1e-4)
        assert found["FLAT"][column] == pytest.approx(found["beta:1,1"][column], rel=1e-6)
    assert abs(found["FLAT"]["MLOG10P_SET.skat"] - found["RARE"]["MLOG10P_SET.skat"]) > 1e-3


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("gene snp0001\n", "W", "has no header SET SNPID with a column W"),
        ("SET SNPID V\ngene snp0001 1\n", "W", "has no column W, which --set-weights names; it has SET, SNPID, V"),
        ("SET SNPID W\ngene snp0001 x\n", "W", "line 2: weight x of snp0001 must be a number, 0 or more"),
        ("SET SNPID W\ngene snp0001 -1\n", "W", "line 2: weight -1 of snp0001 must be a number"),
        ("SET SNPID W\ngene snp0001\n", "W", "line 2: has 2 fields, and the header has 3"),
        ("SET SNPID W\ng snp0001 1\ng snp0001 2\n", "W", "snp0001 has two different weights in set g"),
        ("SET SNPID W\n", "W", "has no sets"),
    ],
)
def test_weights_that_are_not_there(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, given: str, message: str
) -> None:
    path = sets_file(tmp_path, text)
    out = tmp_path / "s.parquet"
    assert scan(example / "null.npz", out, "--sets", path, "--set-test", "skat", "--set-weights", given) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_weights_of_0_leave_a_set_without_result(
    example: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, out = sets_file(tmp_path, "SET SNPID W\ng snp0001 0\nh snp0002 1\n"), tmp_path / "s.parquet"
    assert scan(example / "null.npz", out, "--sets", path, "--set-test", "skat", "--set-weights", "W") == 0
    rows = table(out).set_index("SET")
    assert np.isnan(rows.loc["g"]["MLOG10P_SET.skat"]) and rows.loc["h"]["MLOG10P_SET.skat"] > 0
    assert "1 test of sets without a result (empty statistics): skat: the scores of the set have no" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set-test", "skat"), "--set-test needs --sets, --windows or --founders"),
        (("--set-weights", "beta:1,25"), "--set-weights needs --sets"),
        (("--set-max-maf", "0.1"), "--set-max-maf needs --sets"),
        (("--sets", "x", "--set-max-maf", "0.7"), "0.7 is not in the range 0<=x<=0.5"),
        (("--sets", "x", "--set-weights", "beta:1"), "must be beta:A,B with two positive numbers"),
        (("--sets", "x", "--set-weights", "beta:0,1"), "must be beta:A,B with two positive numbers"),
        (("--sets", "x", "--set-test", "skat", "--set-test", "skat"), "--set-test: skat named more than once"),
        (("--sets", "x", "--set-test", "best"), "is not one of"),
        (("--sets", "x", "--windows", "1kb"), "--sets and --windows exclude each other; run twice"),
        (("--windows", "1kb,2kb"), "--windows 1000,2000: the step must lie between 1 and the size"),
        (("--windows", "wide"), "'wide' is not SIZE,STEP in bp, kb or Mb"),
        (("--windows", "1kb", "--set-weights", "W"), "--set-weights: --windows has no column of weights"),
    ],
)
def test_options_of_sets(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str) -> None:
    assert kron2sum("scan", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_windows_regions_and_genes_are_the_same_sets(example: Path, tmp_path: Path) -> None:
    """Windows of 1 Mb that begin every 500 kb, and the same as regions, as BED and as GFF."""
    options = ("--set-test", "skat", "--chr", "2")
    window = tmp_path / "w.parquet"
    assert scan(example / "null.npz", window, "--windows", "1Mb,500kb", *options) == 0
    expected = table(window)
    places = np.array([int(fields[3]) for fields in VARIANTS if fields[0] == "2"])
    for name, count in zip(expected.SET, expected.NVAR + expected.NVAR_LEFT_OUT, strict=True):
        first, last = map(int, name.partition(":")[2].split("-"))
        assert (first % 500_000, last - first) == (1, 999_999)
        assert count == np.sum((first <= places) & (places <= last)) > 0
    starts = {int(name.partition(":")[2].split("-")[0]) for name in expected.SET}
    assert all(any(start <= place < start + 1_000_000 for start in starts) for place in places)
    regions = [(k, *name.replace(":", " ").replace("-", " ").split()) for k, name in enumerate(expected.SET)]
    texts = {
        "sets": "".join(f"w{k} {name}\n" for k, name in enumerate(expected.SET)),
        "bed": "track name=x\n" + "".join(f"chr{c}\t{int(a) - 1}\t{b}\tw{k}\n" for k, c, a, b in regions),
        "gff": "##gff-version 3\n2\tx\tchromosome\t1\t9\t.\t.\t.\tID=c\n"
        + "".join(f"{c}\tx\tgene\t{a}\t{b}\t.\t+\t.\tID=gene:E{k};Name=w{k};biotype=x\n" for k, c, a, b in regions),
        "gtf": "".join(
            f'{c}\tx\tgene\t{a}\t{b}\t.\t+\t.\tgene_id "E{k}"; gene_name "w{k}";\n' for k, c, a, b in regions
        ),
    }
    for text in texts.values():
        out = tmp_path / "s.parquet"
        assert scan(example / "null.npz", out, "--sets", sets_file(tmp_path, text), *options) == 0
        found = table(out)
        assert found.SET.tolist() == [f"w{k}" for k in range(len(regions))]
        np.testing.assert_array_equal(found["MLOG10P_SET.skat"], expected["MLOG10P_SET.skat"])


def test_threads_shards_and_blocks_that_shards_share_do_not_change_a_number(example: Path, tmp_path: Path) -> None:
    """Windows that overlap, in several blocks, of which shards have parts."""
    options = ("--windows", "1Mb,500kb", "--set-test", "skat", "--set-test", "fixed")
    how = ("scan", "-q", "--null", example / "null.npz", "--geno", EXAMPLE / "genotypes.bed", *options)
    for threads in ("1", "3"):
        assert kron2sum(*how, "--out", tmp_path / f"t{threads}.parquet", "--threads", threads) == 0
    assert (tmp_path / "t1.parquet").read_bytes() == (tmp_path / "t3.parquet").read_bytes()
    assert int((tmp_path / "t1.parquet.log").read_text().partition(" sets to test in ")[2].split()[0]) > 2
    parts = [tmp_path / f"part{k}.parquet" for k in range(1, 6)]
    for k, part in enumerate(parts, 1):
        assert kron2sum(*how, "--out", part, "--shard", f"{k}/5") == 0
    assert kron2sum("export", "-q", *parts, "--to", "parquet", "--out", tmp_path / "joined.parquet") == 0
    assert table(tmp_path / "joined.parquet").equals(table(tmp_path / "t1.parquet"))


def test_what_the_covariates_explain_is_no_member(
    example: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A variant that is a covariate, too, is left out and counted, and the others are tested as without it."""
    null, out = tmp_path / "null.npz", tmp_path / "s.parquet"
    d = read_null(str(example / "null.npz"))
    g = variant(example / "null.npz", IDS.index(NAMES[0]))
    rows = (f"{iid},{x!r}\n" for iid, x in zip(d.samples.iids, g.tolist(), strict=True))
    (tmp_path / "x.csv").write_text("IID,dose\n" + "".join(rows))
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", tmp_path / "x.csv", "--grm", EXAMPLE / "genotypes.bed")
    assert kron2sum("fit", "-q", *files, "--out", null) == 0
    path = sets_file(tmp_path, f"all {' '.join(NAMES)}\nothers {' '.join(NAMES[1:])}\n")
    assert scan(null, out, "--sets", path, "--set-test", "fixed", "--set-test", "skat") == 0
    first, second = table(out).iloc[0], table(out).iloc[1]
    assert (first.NVAR, first.NVAR_LEFT_OUT, first.DF) == (3, 1, 9)
    assert "1 variant of sets left out: no variation given the covariates" in caplog.text
    assert first.CHISQ == second.CHISQ and first["MLOG10P_SET.skat"] == second["MLOG10P_SET.skat"]


def test_members_vary_in_the_samples_of_some_trait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With missing cells one rule holds, whether or not a variant has missing genotypes."""
    rng = np.random.default_rng(0)
    n, half = 40, np.arange(40) < 20
    G = np.zeros((n, 5))
    G[:, 0] = rng.binomial(2, 0.4, n)
    G[[25, 30, 35], 1] = 1  # varies in the samples of the second trait alone
    G[rng.permutation(n)[:16], 3] = 1  # a covariate, too
    G[:, [2, 4]] = G[:, [1, 3]]
    Y = np.where(np.column_stack([~half, half & (np.arange(n) > 15)]), np.nan, rng.normal(size=(n, 2)))
    rows = zip(range(n), Y.astype(str), G[:, 3], strict=True)
    (tmp_path / "y.csv").write_text("IID,t0,t1,x\n" + "".join(f"S{i},{','.join(y)},{x}\n" for i, y, x in rows))
    G[[1, 38], 2], G[[1, 38], 4] = np.nan, np.nan
    cells = "".join(f"S{i},{','.join('NA' if np.isnan(g) else str(int(g)) for g in G[i])}\n" for i in range(n))
    (tmp_path / "g.csv").write_text("IID,v0,v1,v2,v3,v4\n" + cells)
    traits = ("--pheno", tmp_path / "y.csv", "--pheno-name", "t0,t1", "--missing", "exact")
    covariate, null = ("--covar", tmp_path / "y.csv", "--covar-name", "x"), tmp_path / "null.npz"
    assert kron2sum("fit", "-q", *traits, *covariate, "--grm", "none", "--out", null) == 0
    path = sets_file(tmp_path, "".join(f"s{k} v0 v{k}\n" for k in range(1, 5)) + "alone v0\n")
    how = ("--sets", path, "--set-test", "fixed", "--set-test", "skat", "--out", tmp_path / "s.parquet")
    assert kron2sum("scan", "-q", "--null", null, "--geno", tmp_path / "g.csv", *how) == 0
    found = table(tmp_path / "s.parquet").set_index("SET")
    assert found.NVAR.to_dict() == {"s1": 2, "s2": 2, "s3": 1, "s4": 1, "alone": 1}
    for name in ("s3", "s4"):
        assert found.loc[name, "MLOG10P_SET.skat"] == found.loc["alone", "MLOG10P_SET.skat"]
    assert "2 variants of sets left out: no variation given the covariates" in caplog.text


def test_shards_of_sets_join_to_the_whole(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(f"g{k} {' '.join(IDS[20 * k : 20 * k + 3])}\n" for k in range(7)) + "none nothing\n"
    options = ("--sets", sets_file(tmp_path, text), "--set-test", "skat", "--set-test", "lr", "--set-test", "fixed")
    whole, joined = tmp_path / "whole.parquet", tmp_path / "joined.parquet"
    assert scan(example / "null.npz", whole, *options) == 0
    parts = [tmp_path / f"part{k}.parquet" for k in (1, 2, 3)]
    for k, part in enumerate(parts, 1):
        assert scan(example / "null.npz", part, *options, "--shard", f"{k}/3") == 0
    assert [len(table(part)) for part in parts] == [2, 3, 3]
    assert kron2sum("export", "-q", *parts, "--to", "parquet", "--out", joined) == 0
    assert table(joined).equals(table(whole))
    assert metadata(joined)["counts"] == metadata(whole)["counts"]
    assert kron2sum("export", "-q", parts[0], parts[2], "--to", "parquet", "--out", joined) == 1
    assert "sets 3 to 5 of 8 are missing" in capsys.readouterr().err
