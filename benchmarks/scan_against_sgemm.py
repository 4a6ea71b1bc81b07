"""Whole scans against a bare single-precision matrix product of the same rotation.

    python benchmarks/scan_against_sgemm.py [--folder DIR] [--runs 5] [--case n,variants,p ...]

Both are whole processes on two threads, in turn. The product multiplies a random (n - 1) × n rotation with as many
random columns as there are variants, in blocks of 1,024 (larger ones take as long), so it does nothing but the floor of
the work.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.memory import fit_command, genotypes
from benchmarks.processes import KRON2SUM, Row, paired, print_table, seconds

CASES = {(4000, 20_000, 5): "1.25", (1200, 100_000, 2): "1.6", (4000, 20_000, 50): "1.6"}
"""n, variants, p, and what is asked of the ratio."""
PRODUCT = """
import sys, numpy as np
n, variants, block = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
V = rng.random((n - 1, n), dtype=np.float32)
G = np.asfortranarray(rng.random((n, block), dtype=np.float32))
for _ in range(0, variants, block):
    V @ G
"""


def compare(folder: Path, n: int, variants: int, p: int, runs: int, threads: int = 2) -> Row:
    """One case."""
    stem = genotypes(folder, n, variants)
    if not (folder / f"null{n}x{p}.npz").exists():
        seconds(fit_command(folder, n, p, stem))
    scan = (*KRON2SUM, "scan", "-q", "--refit", "0", "--threads", str(threads))
    scan = (*scan, "--null", folder / f"null{n}x{p}.npz", "--geno", f"{stem}.bed", "--out", folder / "out.parquet")
    product = (sys.executable, "-c", PRODUCT, str(n), str(variants), "1024")
    ours, floor, ratio = paired([scan], [product], runs, threads)
    what = f"scan, n = {n:,}, {variants:,} variants, p = {p}"
    return Row(what, f"{ours:.2f} s", f"sgemm {floor:.2f} s", f"{ratio:.2f}", CASES.get((n, variants, p), ""))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to keep the data")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", action="append", help="n,variants,p")
    options = parser.parse_args()
    cases = [tuple(map(int, case.split(","))) for case in options.case] if options.case else CASES
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print_table(compare(folder, n, variants, p, options.runs, options.threads) for n, variants, p in cases)


if __name__ == "__main__":
    main()
