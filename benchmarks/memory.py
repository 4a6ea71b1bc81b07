"""Peak memory of whole processes.

    python benchmarks/memory.py [--folder DIR] [--large] [--case n,p,variants of the GRM,variants tested ...]

A scan must not grow with the number of variants; a fit holds at most six n × n matrices in double precision. With
``--large`` also n = 10,000 (a full GRM: minutes) and n = 100,000 with a GRM of 1,000 variants, which must stay below
2.5 GiB.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.processes import KRON2SUM, Row, peak_mib, print_table
from benchmarks.simulated import write_genotypes, write_traits

CASES = [(1000, 2, 20_000, 20_000), (1000, 2, 20_000, 200_000)]
LARGE_CASES = [(10_000, 2, 20_000, 2_000), (100_000, 2, 1_000, 2_000)]


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


def rows(folder: Path, cases: Sequence[tuple[int, int, int, int]]) -> Iterator[Row]:
    """Peaks of the fit and the scan of every case."""
    base = peak_mib((*KRON2SUM[:2], "kron2sum_cli", "--version"))
    yield Row("peak memory of python and the command line", f"{base:.0f} MiB")
    for n, p, grm_variants, scanned in cases:
        grm, tested = genotypes(folder, n, grm_variants), genotypes(folder, n, scanned)
        fitted = peak_mib(fit_command(folder, n, p, grm))
        scan = (*KRON2SUM, "scan", "-q", "--refit", "0", "--null", folder / f"null{n}x{p}.npz")
        scanning = peak_mib((*scan, "--geno", f"{tested}.bed", "--out", folder / "out.parquet"))
        asked = "2560 MiB" if n >= 100_000 else ""
        matrix, peak = n * n / 2**17, f"{fitted:.0f} MiB"
        what = f"peak memory of a fit, n = {n:,}, GRM of {grm_variants:,}"
        if matrix < base or n > grm_variants:
            yield Row(what, peak, asked=asked)
        else:
            yield Row(what, peak, f"n × n matrix {matrix:.0f} MiB", f"{(fitted - base) / matrix:.2f}")
        yield Row(f"peak memory of a scan, n = {n:,}, {scanned:,} variants", f"{scanning:.0f} MiB", asked=asked)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--case", action="append", help="n,p,variants of the GRM,variants tested")
    options = parser.parse_args()
    asked = [tuple(map(int, case.split(","))) for case in options.case or ()]
    with tempfile.TemporaryDirectory() as scratch:
        cases = asked or (CASES + LARGE_CASES if options.large else CASES)
        print_table(rows(options.folder or Path(scratch), cases))


if __name__ == "__main__":
    main()
