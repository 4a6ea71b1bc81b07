"""Refits of every variant against GEMMA's likelihood ratio test: the same answers, and in what time.

    python benchmarks/refit_against_gemma.py --data DIR [--case mouse_cd8_mch.csv:CD8,MCH ...]

``fit`` and ``scan --refit 1`` as whole processes on two threads, then ``gemma -lmm 2`` on the same samples and kinship.
GEMMA centres the kinship on the analysed samples, which changes a likelihood that is not restricted, so ours is given
it centred. Where GEMMA's likelihood is the higher one its digits are the limit: a p_lrt has seven of them. DIR holds
mouse_hs1940.{bed,bim,fam} (the example of GEMMA: Debian package gemma-doc), its kinship as mouse_hs1940.grm.bin and
.grm.id, and tables of traits. ``apt-get install gemma``.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import chi2

from benchmarks.processes import KRON2SUM, seconds
from kron2sum_cli.genotypes.relationship import open_relationship

CASES = ("mouse_cd8_mch.csv:CD8,MCH", "mouse_sim10.csv:S1,S2,S3,S4,S5")


@dataclass(frozen=True)
class Inputs:
    """Files of one case: phenotypes as both programs read them, and the kinship, whole and centred."""

    traits: list[str]
    table: Path
    gemma_traits: Path
    gemma_kinship: Path
    kinship: Path
    samples: Path


def write_inputs(data: Path, folder: Path, case: str) -> Inputs:
    """The kinship in the order of the .fam for GEMMA, and centred on the samples with all traits for us."""
    name, _, names = case.partition(":")
    traits = names.split(",")
    file = open_relationship(str(data / "mouse_hs1940.grm.bin"))
    K = file.load(np.arange(len(file.samples))).K
    assert K is not None
    table = pd.read_csv(data / name, dtype={"FID": str, "IID": str}).set_index("IID")
    values = table.loc[list(file.samples.iids), traits]
    rows = np.flatnonzero(values.notna().all(axis=1))
    centred = K[np.ix_(rows, rows)]
    centred = centred - centred.mean(axis=0)
    centred = centred - centred.mean(axis=1, keepdims=True)
    inputs = Inputs(
        traits, data / name, *(folder / f for f in ("traits.txt", "kinship.txt", "kinship.npy", "kinship.id"))
    )
    np.savetxt(inputs.gemma_kinship, K, fmt="%.10g")
    values.to_csv(inputs.gemma_traits, sep="\t", header=False, index=False, na_rep="NA")
    np.save(inputs.kinship, centred)
    identities = zip(np.asarray(file.samples.fids)[rows], np.asarray(file.samples.iids)[rows], strict=True)
    inputs.samples.write_text("".join(f"{fid} {iid}\n" for fid, iid in identities))
    return inputs


def run_ours(data: Path, folder: Path, inputs: Inputs) -> tuple[float, pd.DataFrame]:
    """Seconds of ``fit`` and ``scan``, and the result table."""
    null, out = folder / "null.npz", folder / "out.parquet"
    grm = ("--grm", inputs.kinship, "--grm-id", inputs.samples)
    names = ("--pheno-name", ",".join(inputs.traits))
    spent = seconds((*KRON2SUM, "fit", "-q", "--ml", "--pheno", inputs.table, *names, *grm, "--out", null))
    scan = ("scan", "-q", "--null", null, "--geno", data / "mouse_hs1940.bed", "--refit", "1", "--threads", "2")
    spent += seconds((*KRON2SUM, *scan, "--out", out))
    return spent, pd.read_parquet(out).set_index("SNPID")


def run_gemma(data: Path, folder: Path, inputs: Inputs) -> tuple[float, pd.DataFrame]:
    """Seconds of ``gemma -lmm 2``, and its table."""
    columns = [str(k + 1) for k in range(len(inputs.traits))]
    files = ("-bfile", data / "mouse_hs1940", "-p", inputs.gemma_traits, "-k", inputs.gemma_kinship)
    spent = seconds(("gemma", *files, "-n", *columns, "-lmm", "2", "-o", "gemma"), folder=folder)
    return spent, pd.read_csv(folder / "output" / "gemma.assoc.txt", sep="\t").set_index("rs")


def compare(data: Path, case: str) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = write_inputs(data, Path(scratch), case)
        ours, table = run_ours(data, Path(scratch), inputs)
        theirs, gemma = run_gemma(data, Path(scratch), inputs)
    p = len(inputs.traits)
    table = table.loc[gemma.index]
    difference = np.abs(table["MLOG10P_REFIT"] + np.log10(gemma["p_lrt"]))[gemma["p_lrt"] < 1e-3]
    above = table["CHISQ_REFIT"] - chi2.isf(gemma["p_lrt"], p)
    empty = int(table["CHISQ_REFIT"].isna().sum())
    return (
        f"{p:>3} {len(gemma):>9} {empty:>6} {len(difference):>5} {difference.max():>11.1e} {above.min():>14.1e}"
        f" {int((above > 1e-3).sum()):>12} {ours:>8.2f} {theirs:>9.2f} {ours / theirs:>7.3f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--case", action="append", help="TABLE:TRAIT,TRAIT,...")
    options = parser.parse_args()
    print("On hits (p_lrt < 1e-3) the largest difference of -log10 p; on all, χ² less GEMMA's, and how often > 1e-3.")
    print("  p  variants  empty  hits  difference  least χ² diff.  ours higher  ours, s  GEMMA, s   ratio")
    for case in options.case or CASES:
        print(compare(options.data.resolve(), case), flush=True)


if __name__ == "__main__":
    main()
