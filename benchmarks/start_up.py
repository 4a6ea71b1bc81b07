"""Start-up: the version, and a scan of one variant.

python benchmarks/start_up.py [--folder DIR]
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.memory import fit_command, genotypes
from benchmarks.processes import KRON2SUM, Row, print_table, seconds, user_seconds


def rows(folder: Path) -> Iterator[Row]:
    """Medians of seven runs."""
    version = statistics.median(user_seconds((*KRON2SUM, "--version")) for _ in range(7))
    yield Row("kron2sum --version, user time", f"{version:.3f} s", asked="0.15 s")
    stem = genotypes(folder, 1200, 5_000)
    seconds(fit_command(folder, 1200, 2, stem))
    one = folder / "one.txt"
    one.write_text("v17\n")
    scan = (*KRON2SUM, "scan", "-q", "--null", folder / "null1200x2.npz", "--geno", f"{stem}.bed")
    scan = (*scan, "--extract", one, "--out", folder / "one.parquet")
    found = statistics.median(seconds(scan) for _ in range(7))
    yield Row("scan of one variant, n = 1,200", f"{found:.2f} s", asked="1 s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print_table(rows(options.folder or Path(scratch)))


if __name__ == "__main__":
    main()
