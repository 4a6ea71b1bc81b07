"""``make bench``: the measurements that the README quotes, one after another.

    python -m benchmarks [--folder DIR] [--data DIR] [--quick]

``--data`` names the folder of the HS1940 mice for the comparison with GEMMA (see against_gemma.py).
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Run every benchmark that can run here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to keep simulated data")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="two runs instead of five")
    options = parser.parse_args()
    runs = ["--runs", "2"] if options.quick else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(options.folder or scratch)
        programs = [
            ["start_up", "--folder", folder],
            ["scan_against_sgemm", "--folder", folder, *runs],
            ["memory", "--folder", folder],
            ["fit_many_traits"],
            ["cost_model"],
        ]
        if importlib.util.find_spec("glimix_core"):
            programs.append(["against_glimix"])
        if options.data and shutil.which("gemma"):
            programs.append(["against_gemma", "--data", str(options.data), *runs])
        for name, *arguments in programs:
            print(f"\n{name.replace('_', ' ')}", flush=True)
            paths = os.pathsep.join((str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")))
            command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": paths})


if __name__ == "__main__":
    main()
