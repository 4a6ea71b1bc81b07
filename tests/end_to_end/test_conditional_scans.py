"""Scans conditioned on variants, from end to end: against the dense Gaussian, ordinary regression, and each other."""

import re
from pathlib import Path

import numpy as np
import pytest
from dense_scan import dense_projection, variant
from example_commands import EXAMPLE, kron2sum, metadata, scan, table
from scipy import stats

from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.model.sets.quadratic_forms import mixture_mlog10p

GIVEN = {"snp0409": 408, "snp1823": 1822}  # their positions in the file
CONDITIONS = ("--condition", "snp0409", "--condition", "snp1823")


@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
def test_every_number_of_a_row_equals_the_dense_gaussian(example: Path, tmp_path: Path, null: str) -> None:
    out = tmp_path / "s.parquet"
    options = ("--precision", "double", "--test", "common", *CONDITIONS)
    assert scan(example / null, out, *options) == 0
    rows = table(out)
    S = np.kron(np.eye(3), np.column_stack([variant(example / null, k) for k in GIVEN.values()]))
    for index in (0, 405, 2900):
        row = rows.iloc[index]
        y, P, size = dense_projection(example / null, row.CHR if null == "loco.npz" else None)
        P, size = P - P @ S @ np.linalg.solve(S.T @ P @ S, S.T @ P), size - S.shape[1]
        g, q0 = variant(example / null, index), y @ P @ y

        def drop(A1, g=g, P=P, y=y):
            M1 = np.kron(A1, g[:, None])
            u = M1.T @ P @ y
            return u @ np.linalg.solve(M1.T @ P @ M1, u)

        for suffix, design in (("", np.eye(3)), (".common", np.ones((3, 1)))):
            expected = size * np.log(q0 / (q0 - drop(design)))
            assert row["CHISQ" + suffix] == pytest.approx(expected, rel=1e-8, abs=1e-8)
        M1 = np.kron(np.eye(3), g[:, None])
        covariance = np.linalg.inv(M1.T @ P @ M1)
        beta, scale = covariance @ M1.T @ P @ y, (q0 - drop(np.eye(3))) / size
        for j, trait in enumerate(("height", "weight", "glucose")):
            assert row[f"BETA.{trait}"] == pytest.approx(beta[j], rel=1e-8)
            assert row[f"SE.{trait}"] == pytest.approx(np.sqrt(scale * covariance[j, j]), rel=1e-8)


@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
def test_sets_given_variants_are_the_dense_variance_component(example: Path, tmp_path: Path, null: str, caplog) -> None:
    """The variants conditioned on, members of the set or not, are out of it."""
    positions = [405, 408, 410, 411]
    names, out = [f"snp{k + 1:04d}" for k in positions], tmp_path / "s.parquet"
    (tmp_path / "sets.txt").write_text(f"gene {' '.join(names)}\nself snp0409\n")
    options = ("--sets", tmp_path / "sets.txt", "--set-test", "skat", "--set-test", "fixed", "--set-test", "burden")
    assert scan(example / null, out, *options, *CONDITIONS) == 0
    row, other = table(out).iloc[0], table(out).iloc[1]
    assert (row.NVAR, row.NVAR_LEFT_OUT, other.NVAR) == (3, 1, 0)
    assert "2 variants of sets left out: no variation given the variants conditioned on" in caplog.text
    assert metadata(out)["settings"]["conditioned"] == list(GIVEN)
    chromosome = row.CHR if null == "loco.npz" else None
    y, P, size = dense_projection(example / null, chromosome)
    M = np.kron(np.eye(3), np.column_stack([variant(example / null, k) for k in GIVEN.values()]))
    P, size = P - P @ M @ np.linalg.solve(M.T @ P @ M, M.T @ P), size - M.shape[1]
    G = np.column_stack([variant(example / null, k) for k in positions if k != 408])
    whole = read_null(str(example / null))
    summary = whole.whole if chromosome is None else whole.chromosomes[chromosome]
    root = np.linalg.cholesky(summary.mean_diagonal * summary.axes.C0 + summary.axes.C1)
    columns = np.kron(root, G)
    score, lam = columns.T @ P @ y, np.maximum(np.linalg.eigvalsh(columns.T @ P @ columns), 0)
    expected = mixture_mlog10p(lam[None], np.array([score @ score]))[0]
    assert row["MLOG10P_SET.skat"] == pytest.approx(expected, rel=1e-5)

    def drop(columns: np.ndarray) -> float:
        u = columns.T @ P @ y
        return float(u @ np.linalg.solve(columns.T @ P @ columns, u))

    q0, both = y @ P @ y, np.kron(np.eye(3), G)
    assert pytest.approx(size * np.log(q0 / (q0 - drop(both))), rel=1e-5) == row.CHISQ
    summed = size * np.log(q0 / (q0 - drop(np.kron(np.eye(3), G.sum(axis=1)[:, None]))))
    assert row["MLOG10P_SET.burden"] == pytest.approx(-stats.chi2.logsf(summed, 3) / np.log(10), rel=1e-5)


def test_what_was_conditioned_on_is_empty_counted_and_recorded(example: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("snp1823\nsnp0409\n")
    assert scan(example / "null.npz", tmp_path / "s.parquet", "--condition", "snp0409", "--condition-list", names) == 0
    rows, meta = table(tmp_path / "s.parquet").set_index("SNPID"), metadata(tmp_path / "s.parquet")
    plain = table(example / "scan.parquet").set_index("SNPID")
    assert plain.loc[list(GIVEN)].MLOG10P.min() > 7
    assert rows.loc[list(GIVEN), ["CHISQ", "BETA.height", "SE.weight", "AXIS.1"]].isna().all(axis=None)
    assert meta["settings"]["conditioned"] == ["snp0409", "snp1823"]
    assert meta["settings"]["refit"] == 0
    reason = "variants in the span of the covariates and of the variants conditioned on (empty statistics)"
    assert meta["counts"][reason] == 2 + metadata(example / "scan.parquet")["counts"].get(reason, 0)
    assert meta["counts"]["variants tested"] == metadata(example / "scan.parquet")["counts"]["variants tested"] - 2
    assert meta["nulls"][0]["residual_df"] == metadata(example / "scan.parquet")["nulls"][0]["residual_df"] - 2 * 3


def test_independent_samples_of_one_trait_give_ordinary_regression(example: Path, tmp_path: Path) -> None:
    null, out = tmp_path / "null.npz", tmp_path / "s.parquet"
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")
    assert kron2sum("fit", "-q", *files, "--pheno-name", "height", "--grm", "none", "--out", null) == 0
    assert scan(null, out, "--stat", "f", "--precision", "double", "--chr", "1", *CONDITIONS) == 0
    rows, data = table(out), read_null(str(null)).description
    given = [variant(null, k) for k in GIVEN.values()]
    for index in (0, 300, 405):
        M = np.column_stack([data.X, *given, variant(null, index)])
        (beta, residual), df = np.linalg.lstsq(M, data.Y[:, 0])[:2], len(M) - M.shape[1]
        t = beta[-1] / np.sqrt(residual[0] / df * np.linalg.inv(M.T @ M)[-1, -1])
        assert rows["BETA.height"][index] == pytest.approx(beta[-1], rel=1e-8)
        assert rows.P[index] == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-8)


def test_missing_cells(example: Path, tmp_path: Path) -> None:
    """Both precisions are one, and a second scan of the variants given is not asked for."""
    null = tmp_path / "null.npz"
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")
    assert kron2sum("fit", "-q", *files, "--grm", EXAMPLE / "genotypes.bed", "--missing", "exact", "--out", null) == 0
    for precision in ("single", "double"):
        out = tmp_path / f"{precision}.parquet"
        assert scan(null, out, "--precision", precision, "--chr", "1", *CONDITIONS) == 0
    single, double = table(tmp_path / "single.parquet"), table(tmp_path / "double.parquet")
    np.testing.assert_array_equal(single.MLOG10P, double.MLOG10P)
    assert single.MLOG10P.notna().sum() > 500


@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
def test_threads_and_shards_change_no_byte(example: Path, tmp_path: Path, null: str) -> None:
    whole = tmp_path / "whole.parquet"
    assert scan(example / null, whole, *CONDITIONS, "--threads", "1") == 0
    shards = [tmp_path / f"shard{i}.parquet" for i in (1, 2)]
    for i, shard in enumerate(shards):
        assert scan(example / null, shard, *CONDITIONS, "--shard", f"{i + 1}/2", "--threads", "2") == 0
    merged = tmp_path / "merged.parquet"
    assert kron2sum("export", "-q", *shards, "--to", "parquet", "--out", merged) == 0
    assert merged.read_bytes() == whole.read_bytes()


def test_further_tests_from_the_table(example: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    assert scan(example / "null.npz", out, *CONDITIONS, "--precision", "double", "--test", "specific") == 0
    later = tmp_path / "later.parquet"
    options = ("--test", "again=" + str(tmp_path / "one.csv"), "--to", "parquet")
    (tmp_path / "one.csv").write_text("trait,a\nheight,1\nweight,1\nglucose,1\n")
    assert scan(example / "null.npz", tmp_path / "c.parquet", *CONDITIONS, "--precision", "double", *options[:2]) == 0
    assert kron2sum("export", "-q", out, *options, "--out", later) == 0
    expected = table(tmp_path / "c.parquet")["CHISQ.again"]
    np.testing.assert_allclose(table(later)["CHISQ.again"], expected, rtol=1e-8, atol=1e-10)


def test_parts_of_other_conditions_are_not_joined(example: Path, tmp_path: Path, capfd) -> None:
    for i, options in enumerate([(), ("--condition", "snp0409")]):
        out = tmp_path / f"{i}.parquet"
        assert scan(example / "null.npz", out, "--refit", "0", "--shard", f"{i + 1}/2", *options) == 0
    assert kron2sum("export", tmp_path / "0.parquet", tmp_path / "1.parquet") == 1
    assert "differs from" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--condition", "rs1"), 1, "--condition rs1: no variant of .* has this name; name its file with --geno, too"),
        (("--condition", "snp0001", "--condition", "snp0001"), 2, "--condition: snp0001 named more than once"),
        (("--condition", "snp0409", "--refit", "0.5"), 2, "--condition and --refit exclude each other"),
    ],
)
def test_what_is_refused(example: Path, tmp_path: Path, capfd, options, code: int, message: str) -> None:
    assert scan(example / "null.npz", tmp_path / "s.parquet", *options) == code
    error = capfd.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "s.parquet").exists()
