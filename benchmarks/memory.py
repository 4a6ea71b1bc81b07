"""Peak memory of whole processes.

    python benchmarks/memory.py [--folder DIR] [--large]

A scan must not grow with the number of variants; a fit holds at most three n × n matrices in double precision. With
``--large`` also n = 10,000 (a full GRM: minutes) and n = 100,000 with a GRM of 1,000 variants.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.processes import KRON2SUM, peak_mib
from benchmarks.simulated import write_genotypes, write_traits


def fit_command(folder: Path, n: int, p: int, genotypes: Path) -> tuple[str | Path, ...]:
    """A fit of p simulated traits with the GRM of these genotypes."""
    traits = folder / f"y{n}x{p}.csv"
    if not traits.exists():
        write_traits(traits, n, p)
    null = folder / f"null{n}x{p}.npz"
    return (*KRON2SUM, "fit", "-q", "--pheno", traits, "--grm", f"{genotypes}.bed", "--out", null)


def genotypes(folder: Path, n: int, variants: int) -> Path:
    """A file set, made once."""
    stem = folder / f"g{n}x{variants}"
    if not stem.with_suffix(".bed").exists():
        write_genotypes(stem, n, variants)
    return stem


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        base = peak_mib((*KRON2SUM[:2], "kron2sum_cli", "--version"))
        print(f"python and the command line: {base:.0f} MiB")
        cases = [(1000, 2, 20_000, 20_000), (1000, 2, 20_000, 200_000)]
        cases += [(10_000, 2, 20_000, 2_000), (100_000, 2, 1_000, 2_000)] if options.large else []
        for n, p, grm_variants, scanned in cases:
            grm, tested = genotypes(folder, n, grm_variants), genotypes(folder, n, scanned)
            fitted = peak_mib(fit_command(folder, n, p, grm))
            scan = (*KRON2SUM, "scan", "-q", "--refit", "0", "--null", folder / f"null{n}x{p}.npz")
            scanning = peak_mib((*scan, "--geno", f"{tested}.bed", "--out", folder / "out.parquet"))
            matrix = n * n * 8 / 2**20
            print(
                f"n = {n}, GRM of {grm_variants}, {scanned} tested: fit {fitted:.0f} MiB"
                f" ({(fitted - base) / matrix:.2f} n×n matrices of {matrix:.0f} MiB), scan {scanning:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
