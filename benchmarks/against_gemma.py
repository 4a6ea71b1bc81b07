"""``fit`` and ``scan`` as whole processes against GEMMA on the same kinship and samples, two threads, in one run.

    python benchmarks/against_gemma.py --data DIR [--runs 5]

DIR holds mouse_hs1940.{bed,bim,fam} (the example of GEMMA: Debian package gemma-doc), its kinship as
mouse_hs1940.grm.bin and .grm.id, and mouse_sim10.csv with ten traits S1 to S10. ``apt-get install gemma``. The kinship
is the same for both: kron2sum reads the .grm.bin, GEMMA the text that is its only format.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.processes import KRON2SUM, Row, print_table, seconds
from kron2sum_cli.genotypes.relationship import open_relationship

CASES = ("2,3,0", "5,3,0", "10,3,0", "2,2,1", "5,2,1")
ASKED = {(2, 3): ("0.5", ""), (5, 3): ("0.25", ""), (10, 3): ("0.111", "0.067")}
"""What is asked of the ratios, by p and mode: of fit and scan, and of the scan alone."""


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


def compare(
    data: Path, folder: Path, gemma: tuple[Path, Path], p: int, mode: int, runs: int, refit: str
) -> Iterator[Row]:
    """Fit and scan over GEMMA, and the scan alone."""
    names = ",".join(f"S{k + 1}" for k in range(p))
    null, stem = folder / f"null{p}.npz", data / "mouse_hs1940"
    grm = data / "mouse_hs1940.grm.bin"
    fit = (*KRON2SUM, "fit", "-q", "--pheno", data / "mouse_sim10.csv", "--pheno-name", names, "--grm", grm)
    scan = (*KRON2SUM, "scan", "-q", "--null", null, "--geno", f"{stem}.bed", "--refit", refit)
    ours = [(*fit, "--out", null), (*scan, "--out", folder / "out.parquet")]
    columns = [str(k + 1) for k in range(p)]
    theirs = ("gemma", "-bfile", stem, "-p", gemma[1], "-n", *columns, "-k", gemma[0], "-lmm", str(mode), "-o", "g")
    (both, alone), peer, (ratio, ratio_alone) = _paired(ours, theirs, runs, folder)
    what = f"HS1940, p = {p}, --refit {refit}"
    time = f"gemma -lmm {mode} {peer:.2f} s"
    asked = ASKED.get((p, mode), ("", ""))
    yield Row(f"fit + scan, {what}", f"{both:.2f} s", time, f"{ratio:.3f}", asked[0])
    yield Row(f"scan alone, {what}", f"{alone:.2f} s", time, f"{ratio_alone:.3f}", asked[1])


def _paired(
    ours: Sequence[Sequence[str | Path]], theirs: Sequence[str | Path], runs: int, folder: Path
) -> tuple[tuple[float, float], float, tuple[float, float]]:
    """Median seconds of fit and scan and of the scan, of GEMMA, and the median ratios, of runs in turn."""
    times = []
    for run in range(runs + 1):
        fit, scan, peer = (seconds(command, folder=folder) for command in (*ours, theirs))
        if run:  # the first warms the caches
            times.append((fit + scan, scan, peer, (fit + scan) / peer, scan / peer))
    both, alone, peer, ratio, ratio_alone = (statistics.median(column) for column in zip(*times, strict=True))
    return (both, alone), peer, (ratio, ratio_alone)


def rows(data: Path, folder: Path, cases: Sequence[str], runs: int) -> Iterator[Row]:
    """All cases, each as p,mode,refit."""
    gemma = write_gemma_inputs(data, folder)
    for case in cases:
        p, mode, refit = case.split(",")
        yield from compare(data.resolve(), folder, gemma, int(p), int(mode), runs, refit)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case", action="append", help="p,mode,refit such as 2,3,0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print_table(rows(options.data, Path(scratch), options.case or CASES, options.runs))


if __name__ == "__main__":
    main()
