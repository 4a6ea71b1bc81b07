"""The largest difference that single precision makes to a -log10 P, over whole scans.

    python -m benchmarks.single_precision [--data DIR]

On example_data, and with ``--data`` (see against_gemma.py; with mouse_cd8_mch.csv) on the HS1940 mice too.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.processes import KRON2SUM, environment

EXAMPLE = Path(__file__).parents[1] / "example_data"


def run(*arguments: str | Path) -> None:
    """One command, which has to succeed."""
    words = [str(word) for word in (*KRON2SUM, *arguments, "-q")]
    subprocess.run(words, check=True, env=environment(2), stderr=subprocess.DEVNULL)


def difference(folder: Path, geno: Path, fit: tuple[str | Path, ...]) -> str:
    """Number of variants, largest -log10 P and largest difference over the any, common, specific and trait tests."""
    null = folder / "null.npz"
    run("fit", *fit, "--out", null)
    tables = []
    for precision in ("single", "double"):
        out = folder / f"{precision}.parquet"
        scan = ("scan", "--null", null, "--geno", geno, "--test", "common", "--test", "specific", "--refit", "0")
        run(*scan, "--precision", precision, "--out", out)
        table = pq.read_table(out)
        names = [name for name in table.column_names if name.startswith("MLOG10P")]
        tables.append(np.column_stack([table[name].to_numpy() for name in names]))
    single, double = tables
    return f"{len(double):>9}  {np.nanmax(double):18.1f}  {np.nanmax(np.abs(single - double)):18.1e}"


def rows(folder: Path, data: Path | None) -> Iterator[str]:
    """A line a scan."""
    yield "scan                  variants  largest -log10 P  largest difference"
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")
    geno = EXAMPLE / "genotypes.bed"
    yield f"example_data        {difference(folder, geno, (*files, '--grm', geno))}"
    if data is None:
        return
    geno, grm = data / "mouse_hs1940.bed", ("--grm", data / "mouse_hs1940.grm.bin")
    yield f"HS1940, CD8 and MCH {difference(folder, geno, ('--pheno', data / 'mouse_cd8_mch.csv', *grm))}"
    for p in (2, 5, 10):
        names = ",".join(f"S{k + 1}" for k in range(p))
        fit = ("--pheno", data / "mouse_sim10.csv", "--pheno-name", names, *grm)
        yield f"HS1940, {p:>2} simulated {difference(folder, geno, fit)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for line in rows(Path(scratch), options.data):
            print(line, flush=True)


if __name__ == "__main__":
    main()
