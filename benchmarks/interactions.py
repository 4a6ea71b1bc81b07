"""Scans with two columns a variant: what they cost, and when the P of an interaction is right.

    python -m benchmarks.interactions [--data-sets 20] [--variants 1000] [--random-slopes] [--no-cost]

The cost is the processor time of `scan --interaction` and `scan --coding genotypic` over that of `scan`, of whole
processes less that of a scan of one variant. Calibration is the share of variants with P below a level, over the level,
and λ, of variants without effect in families of four siblings, where traits have

- nothing that depends on the covariate;
- a polygenic interaction: a further genetic effect of every GRM variant, times the covariate;
- a residual variance that grows with the covariate.

With ``--random-slopes`` all variants are tested with random slopes on the covariate, too (`scan --random-slopes --refit
1`).
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from bed_reader import to_bed
from numpy.typing import NDArray
from scipy import stats

from benchmarks.calibration import GRM_VARIANTS, genotypes, write_table
from benchmarks.processes import KRON2SUM, Row, cpu_seconds, print_table
from benchmarks.simulated import write_genotypes, write_traits
from kron2sum_cli.cli import run

Array = NDArray[np.float64]

COST = ((1200, 2, 20_000), (4000, 5, 10_000))
"""Samples, traits and variants of the measurements of cost."""

KINDS = ("nothing", "polygenic interaction", "residual variance")
LEVELS = (0.05, 0.01, 0.001)
SHARE = 0.3
"""Variance of the polygenic interaction, where genetic and residual variance are 1 each."""

N, P = 600, 2


def cost(folder: Path, n: int, p: int, variants: int) -> Iterator[Row]:
    """Processor time of scans with a second column over that of scans without one."""
    genotypes_of, null = folder / f"g{n}", folder / f"null{n}.npz"
    write_genotypes(genotypes_of, n, variants)
    write_traits(folder / "y.csv", n, p)
    rng = np.random.default_rng(5)
    write_table(folder / "e.csv", [f"i{i}" for i in range(n)], "E", rng.normal(size=(n, 1)))
    bed = genotypes_of.with_suffix(".bed")
    fit = [*KRON2SUM, "fit", "--pheno", folder / "y.csv", "--covar", folder / "e.csv", "--grm", bed, "--out", null]
    cpu_seconds([str(word) for word in fit])
    scan = [
        str(w) for w in (*KRON2SUM, "scan", "--null", null, "--refit", "0", "--threads", "1", "--out", folder / "s")
    ]
    (folder / "one").write_text("v0\n")
    start = cpu_seconds([*scan, "--extract", str(folder / "one")])
    plain = min(cpu_seconds(scan) for _ in range(3)) - start
    for options in (["--interaction", "E0"], ["--coding", "genotypic"]):
        found = min(cpu_seconds([*scan, *options]) for _ in range(3)) - start
        what = f"scan {' '.join(options)} over scan, n={n}, p={p}"
        yield Row(what, f"{found:.2f} s", f"{plain:.2f} s", f"{found / plain:.2f}")


def write_data(folder: Path, kind: str, variants: int, rng: np.random.Generator) -> None:
    """One data set."""
    g = genotypes("families", N, GRM_VARIANTS + variants, rng)
    of_grm = g[:, :GRM_VARIANTS]
    G = (of_grm - of_grm.mean(axis=0)) / of_grm.std(axis=0) / np.sqrt(GRM_VARIANTS)
    E = rng.normal(size=(N, 1))
    Y = G @ rng.normal(size=(GRM_VARIANTS, P)) + 0.3 * E
    noise = rng.normal(size=(N, P))
    if kind == "polygenic interaction":
        Y += np.sqrt(SHARE) * E * (G @ rng.normal(size=(GRM_VARIANTS, P)))
    Y += noise * np.exp(0.3 * E) if kind == "residual variance" else noise
    names = [f"S{i}" for i in range(N)]
    np.save(folder / "K.npy", G @ G.T)
    (folder / "K.id").write_text("\n".join(names) + "\n")
    (folder / "g.bed").unlink(missing_ok=True)
    to_bed(folder / "g.bed", np.asfortranarray(g[:, GRM_VARIANTS:]), properties={"fid": names, "iid": names})
    write_table(folder / "y.csv", names, "t", Y)
    write_table(folder / "e.csv", names, "E", E)


def tests_of(folder: Path, random_slopes: bool) -> dict[str, Array]:
    """-log10 P of the tests of one data set."""
    files = ["--pheno", "y.csv", "--covar", "e.csv", "--grm", "K.npy", "--grm-id", "K.id"]
    paths = [word if word.startswith("--") else str(folder / word) for word in files]
    null, out = str(folder / "null.npz"), str(folder / "s.parquet")
    common = ["--threads", "1", "--quiet"]
    if run(["fit", *paths, "--out", null, *common]):
        return {}
    scan = ["scan", "--null", null, "--geno", str(folder / "g.bed"), "--out", out]
    refit = ["--refit", "1", "--random-slopes"] if random_slopes else ["--refit", "0"]
    if run([*scan, *refit, "--interaction", "E0", *common]):
        return {}
    columns = pq.read_table(out).to_pandas().dropna()
    names = {"any": "MLOG10P", "interaction": "MLOG10P.interaction", "joint": "MLOG10P.joint"}
    if random_slopes:
        names |= {f"{test}, slopes": f"MLOG10P_REFIT.{test}" for test in ("interaction", "joint")}
    return {test: columns[name].to_numpy() for test, name in names.items()}


def calibration(kind: str, data_sets: int, variants: int, random_slopes: bool) -> None:
    """Print the shares below each level, and λ."""
    rng = np.random.default_rng([3, KINDS.index(kind)])
    found: dict[str, list[Array]] = {}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(data_sets):
            write_data(Path(name), kind, variants, rng)
            for test, values in tests_of(Path(name), random_slopes).items():
                found.setdefault(test, []).append(values)
    for test, parts in found.items():
        P_values = 10.0 ** -np.concatenate(parts)
        ratios = "  ".join(f"{np.mean(P_values < level) / level:.2f}" for level in LEVELS)
        inflation = stats.chi2.isf(np.median(P_values), 1) / stats.chi2.isf(0.5, 1)
        print(f"{kind:<24}{test:<22}{P_values.size:>8}  {ratios}  λ {inflation:.3f}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=20)
    parser.add_argument("--variants", type=int, default=1000)
    parser.add_argument("--random-slopes", action="store_true")
    parser.add_argument("--no-cost", action="store_true")
    options = parser.parse_args()
    logging.getLogger("kron2sum").propagate = False  # the writer of the .bed lets Python print every log
    if not options.no_cost:
        with tempfile.TemporaryDirectory() as name:
            print_table(row for case in COST for row in cost(Path(name), *case))
    for kind in KINDS:
        calibration(kind, options.data_sets, options.variants, options.random_slopes)


if __name__ == "__main__":
    main()
