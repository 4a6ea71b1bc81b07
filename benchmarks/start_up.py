"""Start-up: the version, and a scan of one variant.

python benchmarks/start_up.py [--folder DIR]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.memory import fit_command, genotypes
from benchmarks.processes import KRON2SUM, seconds, user_seconds


def main() -> None:
    """Print the medians of seven runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    version = statistics.median(user_seconds((*KRON2SUM, "--version")) for _ in range(7))
    print(f"kron2sum --version: {version:.3f} s of user time")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        stem = genotypes(folder, 1200, 5_000)
        seconds(fit_command(folder, 1200, 2, stem))
        one = folder / "one.txt"
        one.write_text("v17\n")
        scan = (*KRON2SUM, "scan", "-q", "--null", folder / "null1200x2.npz", "--geno", f"{stem}.bed")
        scan = (*scan, "--extract", one, "--out", folder / "one.parquet")
        print(f"scan of one variant, n = 1,200: {statistics.median(seconds(scan) for _ in range(7)):.2f} s")


if __name__ == "__main__":
    main()
