"""Whole scans against a bare single-precision matrix product of the same rotation.

    python benchmarks/scan_against_sgemm.py [--folder DIR] [--runs 5] [--case n,variants,p ...]

Both are whole processes on two threads, in turn. The product multiplies a random (n - 1) × n rotation with as many
random columns as there are variants, in blocks of the scan's size, so it does nothing but the floor of the work.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.simulated import write_genotypes, write_traits

CASES = ((4000, 20_000, 5), (1200, 100_000, 2), (4000, 20_000, 50))
PRODUCT = """
import sys, numpy as np
n, variants, block = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
V = rng.random((n - 1, n), dtype=np.float32)
G = np.asfortranarray(rng.random((n, block), dtype=np.float32))
for _ in range(0, variants, block):
    V @ G
"""


def timed(command: list[str], threads: int) -> float:
    """Seconds of a whole process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - start


def prepare(folder: Path, n: int, variants: int, p: int) -> tuple[Path, Path]:
    """Genotypes and a null model, made once."""
    stem, null = folder / f"g{n}x{variants}", folder / f"null{n}x{p}.npz"
    if not stem.with_suffix(".bed").exists():
        write_genotypes(stem, n, variants)
    if not null.exists():
        traits = folder / f"y{n}x{p}.csv"
        write_traits(traits, n, p)
        run = [sys.executable, "-m", "kron2sum_cli", "fit", "--quiet", "--pheno", str(traits)]
        subprocess.run([*run, "--grm", f"{stem}.bed", "--out", str(null)], check=True)
    return stem, null


def compare(folder: Path, n: int, variants: int, p: int, runs: int, threads: int) -> str:
    """One line of the table."""
    stem, null = prepare(folder, n, variants, p)
    scan = [sys.executable, "-m", "kron2sum_cli", "scan", "--quiet", "--refit", "0", "--threads", str(threads)]
    scan += ["--null", str(null), "--geno", f"{stem}.bed", "--out", str(folder / "out.parquet")]
    product = [sys.executable, "-c", PRODUCT, str(n), str(variants), "1024"]
    ours, floor = [], []
    for run in range(runs + 1):
        a, b = timed(scan, threads), timed(product, threads)
        if run:
            ours.append(a)
            floor.append(b)
    ratio = statistics.median(a / b for a, b in zip(ours, floor, strict=True))
    return (
        f"{n:>7} {variants:>9} {p:>4}  {statistics.median(ours):8.2f} {statistics.median(floor):8.2f}  {ratio:6.2f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to keep the data")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", action="append", help="n,variants,p")
    options = parser.parse_args()
    cases = [tuple(map(int, case.split(","))) for case in options.case] if options.case else list(CASES)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print("      n  variants    p   scan, s  sgemm, s   ratio")
        for n, variants, p in cases:
            print(compare(folder, n, variants, p, options.runs, options.threads), flush=True)


if __name__ == "__main__":
    main()
