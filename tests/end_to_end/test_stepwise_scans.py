"""Independent signals, from end to end: against the dense Gaussian, scans given other variants, and each other."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bed_reader import open_bed
from dense_scan import dense_projection, variant
from example_commands import EXAMPLE, kron2sum, scan

from kron2sum_cli.model.tail_probability import chi2_mlog10p

TRAITS = ("height", "weight", "glucose")
REGION = ("--region", "5:11000000-14000000", "--stepwise-kb", "5000")
PLACE = REGION[:2]
FIT = ("fit", "-q", "--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")


def signals(out: Path) -> pd.DataFrame:
    return pd.read_csv(f"{out}.signals.tsv", sep="\t", dtype={"CHR": str})


def without_effects(P: np.ndarray, chosen: list[np.ndarray]) -> np.ndarray:
    """P with the effects of some variants on every trait in the model, too."""
    if not chosen:
        return P
    S = np.kron(np.eye(3), np.column_stack(chosen))
    return P - P @ S @ np.linalg.solve(S.T @ P @ S, S.T @ P)


@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
def test_forward_selection_and_joint_effects_equal_the_dense_gaussian(example: Path, tmp_path: Path, null: str) -> None:
    out = tmp_path / "s.parquet"
    assert scan(example / null, out, "--precision", "double", "--refit", "0", *REGION, "--stepwise", "0.05") == 0
    found = signals(out)
    assert len(found) >= 3
    rows = pq.read_table(out).to_pandas()
    y, P, size = dense_projection(example / null, "5" if null == "loco.npz" else None)
    G = {name: variant(example / null, int(name.removeprefix("snp")) - 1) for name in rows.SNPID}
    chosen: list[np.ndarray] = []

    def drop(P: np.ndarray, g: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        M1 = np.kron(np.eye(3), g[:, None])
        u, covariance = M1.T @ P @ y, np.linalg.inv(M1.T @ P @ M1)
        return float(u @ covariance @ u), covariance @ u, covariance

    def mlog10p(P: np.ndarray, g: np.ndarray, others: int) -> float:
        q0, contrasts = y @ P @ y, size - 3 * others
        return float(chi2_mlog10p(np.array([contrasts * np.log(q0 / (q0 - drop(P, g)[0]))]), 3)[0])

    for k, row in enumerate(found.itertuples()):
        Pk = without_effects(P, chosen)
        all_of_step = {name: mlog10p(Pk, g, k) for name, g in G.items() if not any(g is other for other in chosen)}
        assert max(all_of_step, key=all_of_step.__getitem__) == row.SNPID
        assert pytest.approx(all_of_step[row.SNPID], rel=1e-8) == row.MLOG10P
        chosen.append(G[row.SNPID])
    Pk = without_effects(P, chosen)
    rest = [mlog10p(Pk, g, len(chosen)) for g in G.values() if not any(g is other for other in chosen)]
    assert max(rest) < -np.log10(0.05)
    for _, row in found.iterrows():
        others = [G[name] for name in found.SNPID if name != row.SNPID]
        Pk, g = without_effects(P, others), G[row.SNPID]
        chisq, beta, covariance = drop(Pk, g)
        scale = (y @ Pk @ y - chisq) / (size - 3 * len(others))
        assert pytest.approx(mlog10p(Pk, g, len(others)), rel=1e-8) == row.MLOG10P_JOINT
        np.testing.assert_allclose(row[[f"BETA.{trait}" for trait in TRAITS]].astype(float), beta, rtol=1e-8)
        se = row[[f"SE.{trait}" for trait in TRAITS]].astype(float)
        np.testing.assert_allclose(se, np.sqrt(scale * np.diag(covariance)), rtol=1e-8)


NULLS = {
    "missing cells": ("--grm", EXAMPLE / "genotypes.bed", "--missing", "exact"),
    "families": ("--grm", EXAMPLE / "genotypes.bed", "--grm-cutoff", "0.2"),
    "independent": ("--grm", "none"),
    "ml": ("--grm", EXAMPLE / "genotypes.bed", "--ml"),
    "design": ("--grm", EXAMPLE / "genotypes.bed", "--trait-design", "common.csv", "--keep", "some.txt"),
}


@pytest.mark.parametrize("kind", NULLS)
def test_steps_and_joint_effects_are_those_of_scans_given_the_others(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("common.csv").write_text("trait,all\nheight,1\nweight,1\nglucose,1\n")
    some = (EXAMPLE / "genotypes.fam").read_text().splitlines()[:160]
    Path("some.txt").write_text("\n".join("\t".join(line.split()[:2]) for line in some))
    null, out = tmp_path / "null.npz", tmp_path / "s.parquet"
    options = ("--precision", "double", "--stat", "f", "--refit", "0", *PLACE)
    assert kron2sum(*FIT, *NULLS[kind], "--out", null) == 0
    assert scan(null, out, *options, *REGION[2:], "--stepwise", "0.05", "--condition", "snp0409") == 0
    found = signals(out)
    assert len(found) >= 2

    @cache
    def given(*others: str) -> pd.DataFrame:
        conditions = [word for name in ("snp0409", *others) for word in ("--condition", name)]
        assert scan(null, tmp_path / "c.parquet", *options, *conditions) == 0
        return pq.read_table(tmp_path / "c.parquet").to_pandas().set_index("SNPID")

    for k, row in found.iterrows():
        for column, others in (("MLOG10P", found.SNPID[:k]), ("MLOG10P_JOINT", found.SNPID.drop(k))):
            rows = given(*others)
            assert rows.MLOG10P[row.SNPID] == pytest.approx(row[column], rel=1e-6)
            if column == "MLOG10P":
                assert rows.MLOG10P.idxmax() == row.SNPID
        for name in ("BETA", "SE", "MLOG10P"):
            names = [f"{name}.{trait}" for trait in TRAITS]
            np.testing.assert_allclose(row[names].astype(float), rows.loc[row.SNPID, names].astype(float), rtol=1e-6)


@pytest.mark.usefixtures("few_simulated_traits")
def test_no_byte_depends_on_threads_nor_the_table_on_the_signals(example: Path, tmp_path: Path) -> None:
    """The table of variants is that of a scan without the option."""
    outs = [tmp_path / f"{threads}.parquet" for threads in (1, 2)]
    for threads, out in enumerate(outs, 1):
        assert scan(example / "loco.npz", out, "--stepwise", "1e-3", "--threads", threads) == 0
    plain = tmp_path / "plain.parquet"
    assert scan(example / "loco.npz", plain) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes() == plain.read_bytes()
    first, second = (Path(f"{out}.signals.tsv").read_bytes() for out in outs)
    assert first == second
    found = signals(outs[0])
    assert found.LOCUS.is_monotonic_increasing and (found.groupby("LOCUS").STEP.min() == 1).all()
    assert {"snp0409", "snp1823", "snp2811"} <= set(found.SNPID)


def test_signals_of_an_earlier_scan_go(example: Path, tmp_path: Path) -> None:
    """They are not of the new table; another file of that name stays."""
    out, other = tmp_path / "s.parquet", tmp_path / "t.parquet"
    assert scan(example / "null.npz", out, "--stepwise", "1e-3", "--chr", "1", "--refit", "0") == 0
    assert Path(f"{out}.signals.tsv").exists()
    Path(f"{other}.signals.tsv").write_text("SIGNAL\tof\tsomething else\n")
    for path, kept in ((out, False), (other, True)):
        assert scan(example / "null.npz", path, "--chr", "1", "--refit", "0") == 0
        assert Path(f"{path}.signals.tsv").exists() == kept
        assert ("it had the signals of an earlier scan" in Path(f"{path}.log").read_text()) != kept


def test_threshold_of_simulated_scans(example: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    assert scan(example / "null.npz", out, "--bootstrap", "99", "--refit", "0", "--stepwise", "gw:0.05") == 0
    log = Path(f"{out}.log").read_text()
    threshold = float(re.search(r"whole scan, any: .* ([0-9.]+) at 0.05", log)[1])
    found = signals(out)
    assert set(found.SNPID) == {"snp0409", "snp1823", "snp2811"}
    assert (threshold <= found.MLOG10P).all()
    assert "3 independent signals at 3 loci" in log and "(--stepwise gw:0.05)" in log


def test_nothing_passes(example: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    assert scan(example / "null.npz", out, "--stepwise", "1e-30", "--chr", "2", "--refit", "0") == 0
    assert signals(out).empty
    assert list(signals(out).columns[:4]) == ["LOCUS", "STEP", "CHR", "POS"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--stepwise", "2"), 2, "neither a P between 0 and 1 nor gw:LEVEL"),
        (("--stepwise", "gw:0.05", "--bootstrap", "9"), 2, "--stepwise gw:0.05 needs --bootstrap 19 or more"),
        (("--stepwise", "1e-5", "--shard", "1/2"), 2, r"--stepwise needs all variants of a locus.*\(--chr\)"),
        (("--stepwise", "1e-5", "--windows", "1mb"), 2, "--stepwise is for variants, not for --sets"),
        (("--stepwise", "1e-5", "--coding", "dominant"), 2, "--stepwise is for additive effects"),
        (("--stepwise-kb", "5"), 2, "--stepwise-kb needs --stepwise"),
        (("--stepwise", "1e-5", "--out", "-", "--to", "tsv"), 2, "--stepwise needs --out FILE"),
    ],
)
def test_what_is_refused(example: Path, tmp_path: Path, capfd, options, code: int, message: str) -> None:
    out = () if "--out" in options else ("--out", tmp_path / "s.parquet")
    geno = ("--geno", EXAMPLE / "genotypes.bed")
    assert kron2sum("scan", "-q", "--null", example / "null.npz", *geno, *out, *options) == code
    error = capfd.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "s.parquet").exists()


def test_interrupted_while_signals_are_chosen(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither table is there; the scan's blocks are kept."""
    out, whole = tmp_path / "s.parquet", tmp_path / "whole.parquet"
    options = ("--stepwise", "1e-4", "--refit", "0")
    assert scan(example / "null.npz", whole, *options) == 0

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kron2sum_cli.scan.scan.write_signals", interrupted)
        assert scan(example / "null.npz", out, *options) == 130
    assert not out.exists() and not Path(f"{out}.signals.tsv").exists()
    assert scan(example / "null.npz", out, *options, "--resume") == 0
    assert "finished blocks of an interrupted scan taken over" in Path(f"{out}.log").read_text()
    assert out.read_bytes() == whole.read_bytes()
    assert Path(f"{out}.signals.tsv").read_bytes() == Path(f"{whole}.signals.tsv").read_bytes()


def test_contigs_that_share_a_null_model(tmp_path: Path) -> None:
    """The first signal of a contig has the P of the scan, whatever null model that took."""
    for suffix in ("bed", "fam"):
        (tmp_path / f"contigs.{suffix}").write_bytes((EXAMPLE / f"genotypes.{suffix}").read_bytes())
    lines = (EXAMPLE / "genotypes.bim").read_text().splitlines()
    contigs = (f"contig{k // 50}\t{line.split(maxsplit=1)[1]}\n" for k, line in enumerate(lines))
    (tmp_path / "contigs.bim").write_text("".join(contigs))
    null, geno, out = tmp_path / "null.npz", tmp_path / "contigs.bed", tmp_path / "s.parquet"
    assert kron2sum(*FIT, "--pheno-name", "height", "--grm", geno, "--loco", "--out", null) == 0
    options = ("--precision", "double", "--refit", "0", "--stepwise", "1e-3", "--stepwise-kb", "1e6", "--out", out)
    assert kron2sum("scan", "-q", "--null", null, "--geno", geno, *options) == 0
    found, rows = signals(out), pq.read_table(out).to_pandas().set_index("SNPID")
    first = found[found.STEP == 1]
    assert first.CHR.nunique() == len(first) >= 3
    np.testing.assert_allclose(first.MLOG10P, rows.MLOG10P[first.SNPID], rtol=1e-8)


def test_genotypes_in_several_files_of_another_format(example: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.parquet", [tmp_path / f"{name}.traw" for name in "ab"]
    options = ("--stepwise", "1e-4", "--refit", "0")
    assert scan(example / "null.npz", whole, *options) == 0
    bed = open_bed(EXAMPLE / "genotypes.bed", num_threads=1)
    dosages, samples = bed.read(dtype="float64"), [f"{fid}_{iid}" for fid, iid in zip(bed.fid, bed.iid, strict=True)]
    table = pd.DataFrame({"CHR": bed.chromosome, "SNP": bed.sid, "(C)M": 0, "POS": bed.bp_position})
    table = table.assign(COUNTED=bed.allele_1, ALT=bed.allele_2)
    table = pd.concat([table, pd.DataFrame(dosages.T, columns=samples).astype("Int64")], axis=1)
    for part, rows in zip(parts, (table[:1700], table[1700:]), strict=True):
        rows.to_csv(part, sep="\t", index=False, na_rep="NA")
    out = tmp_path / "s.parquet"
    genotypes = [word for part in parts for word in ("--geno", part)]
    assert kron2sum("scan", "-q", "--null", example / "null.npz", *genotypes, "--out", out, *options) == 0
    assert Path(f"{out}.signals.tsv").read_bytes() == Path(f"{whole}.signals.tsv").read_bytes()
