"""``make bench``: measurements of docs/benchmarks.md that take minutes, as one table; then predicted costs of a scan.

    python -m benchmarks [--folder DIR] [--data DIR] [--quick]

``--data`` names the folder of the HS1940 mice for the comparison with GEMMA (see against_gemma.py). ``--quick``
measures less and smaller data, to see that everything runs.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import memory, scan_against_sgemm, start_up
from benchmarks.processes import Row, environment, print_table


def rows(folder: Path, data: Path | None, quick: bool) -> Iterator[Row]:
    """All measurements that can be made here."""
    runs = 1 if quick else 5
    yield from start_up.rows(folder)
    for n, variants, p in [(1200, 5_000, 2)] if quick else scan_against_sgemm.CASES:
        yield scan_against_sgemm.compare(folder, n, variants, p, runs)
    yield from memory.rows(folder, [(1000, 2, 2_000, 5_000), (5000, 2, 200, 500)] if quick else memory.CASES)
    if importlib.util.find_spec("glimix_core"):
        from benchmarks import against_glimix

        yield from against_glimix.rows()
    if data and shutil.which("gemma"):
        from benchmarks import against_gemma

        cases = ("2,3,0",) if quick else against_gemma.CASES
        yield from against_gemma.rows(data, folder, cases, runs)


def main() -> None:
    """Run every benchmark that can run here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to keep simulated data")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print_table(rows(folder, options.data, options.quick))
    for name, *arguments in (["fit_many_traits", *(["--traits", "2,10"] if options.quick else [])], ["cost_model"]):
        print(f"\n{name.replace('_', ' ')}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        subprocess.run(command, check=True, env=environment(os.cpu_count() or 1))


if __name__ == "__main__":
    main()
