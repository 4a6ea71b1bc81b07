"""What further tests cost: a scan with three of them against the same scan with none, whole processes in turn.

    python benchmarks/further_tests.py [--folder DIR] [--runs 5] [--case n,variants,p ...]

User and system time of one thread, which does not depend on what else the machine does.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.memory import fit_command, genotypes
from benchmarks.processes import KRON2SUM, cpu_seconds, seconds

CASES = ((1200, 100_000, 2), (4000, 20_000, 5), (4000, 20_000, 50))
TESTS = ("--test", "common", "--test", "specific", "--test", "trait:t1")


def compare(folder: Path, n: int, variants: int, p: int, runs: int) -> str:
    """One line of the table."""
    stem, null = genotypes(folder, n, variants), folder / f"null{n}x{p}.npz"
    if not null.exists():
        seconds(fit_command(folder, n, p, stem))
    scan = (*KRON2SUM, "scan", "-q", "--refit", "0", "--threads", "1")
    scan = (*scan, "--null", null, "--geno", f"{stem}.bed", "--out", folder / "out.parquet")
    pairs = [(cpu_seconds(scan), cpu_seconds((*scan, *TESTS))) for _ in range(runs)]
    plain, tested = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    return f"{n:>7} {variants:>9} {p:>4}  {plain:8.2f} {tested:17.2f}  {ratio:6.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to keep the data")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case", action="append", help="n,variants,p")
    options = parser.parse_args()
    cases = [tuple(map(int, case.split(","))) for case in options.case] if options.case else list(CASES)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print("      n  variants    p   scan, s  and three tests, s  ratio")
        for n, variants, p in cases:
            print(compare(folder, n, variants, p, options.runs), flush=True)


if __name__ == "__main__":
    main()
