"""``fit`` and ``scan`` as whole processes against GEMMA on the same kinship and samples, two threads, in one run.

    python benchmarks/against_gemma.py --data DIR [--runs 5]

DIR holds mouse_hs1940.{bed,bim,fam} (the example of GEMMA: Debian package gemma-doc), its kinship as
mouse_hs1940.grm.bin and .grm.id, and mouse_sim10.csv with ten traits S1 to S10. ``apt-get install gemma``.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.processes import KRON2SUM, paired
from kron2sum_cli.genotypes.relationship import open_relationship


def write_gemma_inputs(data: Path, folder: Path) -> tuple[Path, Path]:
    """The kinship and the ten traits as GEMMA reads them, in the order of the .fam."""
    file = open_relationship(str(data / "mouse_hs1940.grm.bin"))
    kinship = folder / "kinship.txt"
    K = file.load(np.arange(len(file.samples))).K
    assert K is not None
    np.savetxt(kinship, K, fmt="%.10g")
    traits = pd.read_csv(data / "mouse_sim10.csv", dtype={"FID": str, "IID": str}).set_index("IID")
    pheno = folder / "traits.txt"
    traits.loc[list(file.samples.iids)].drop(columns="FID").to_csv(pheno, sep="\t", header=False, index=False)
    return kinship, pheno


def compare(data: Path, folder: Path, gemma: tuple[Path, Path], p: int, mode: int, runs: int, refit: str) -> str:
    """One line: ours (fit and scan), GEMMA's time, the ratio."""
    names = ",".join(f"S{k + 1}" for k in range(p))
    null, stem = folder / f"null{p}.npz", data / "mouse_hs1940"
    grm = data / "mouse_hs1940.grm.bin"
    fit = (*KRON2SUM, "fit", "-q", "--pheno", data / "mouse_sim10.csv", "--pheno-name", names, "--grm", grm)
    scan = (*KRON2SUM, "scan", "-q", "--null", null, "--geno", f"{stem}.bed", "--refit", refit)
    ours = [(*fit, "--out", null), (*scan, "--out", folder / "out.parquet")]
    columns = [str(k + 1) for k in range(p)]
    theirs = ("gemma", "-bfile", stem, "-p", gemma[1], "-n", *columns, "-k", gemma[0], "-lmm", str(mode), "-o", "g")
    a, b, ratio = paired(ours, [theirs], runs, folder=folder)
    a1, _, alone = paired([ours[1]], [theirs], 1, folder=folder)
    return f"{p:>3}  -lmm {mode}  --refit {refit:<4} {a:9.2f} {b:9.2f} {ratio:8.3f}   scan alone {a1:7.2f} {alone:8.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case", action="append", help="p,mode,refit such as 2,3,0")
    options = parser.parse_args()
    cases = [case.split(",") for case in options.case or ("2,3,0", "5,3,0", "10,3,0", "2,2,1", "5,2,1")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        gemma = write_gemma_inputs(options.data, folder)
        print("  p                      fit+scan, s  GEMMA, s    ratio")
        for p, mode, refit in cases:
            print(compare(options.data.resolve(), folder, gemma, int(p), int(mode), options.runs, refit), flush=True)


if __name__ == "__main__":
    main()
