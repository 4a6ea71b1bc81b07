"""Power of one joint test, of tests of a common effect, and of one test a trait: which finds which effects.

Four traits of families of four, with a heritability of 0.4 and correlations of 0.5, genetic and residual. Every data
set has a few variants with effects of one architecture on all traits, and is scanned as users do it, through the
command line. Printed is the share of these variants with P below the level: of the joint test (any effect); of four
scans of one trait, each with a null model of its own, the smallest P times four; and of the test of a common effect.

    python -m benchmarks.power [--data-sets 80] [--n 400] [--level 1e-4]
    python -m benchmarks.power --statistics --structure clones --n 150 --causal 1 --explained 0.2

The second form compares the statistics of the joint test, `lr`, `satterthwaite` and that of refits, on such samples and
effects: the share of variants found, and the mean difference in -log10 P from refits.
"""

import argparse
import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from bed_reader import to_bed
from numpy.typing import NDArray

from benchmarks.calibration import genotypes, write_table
from kron2sum_cli.cli import run

Array = NDArray[np.float64]

TRAITS = 4
CORRELATION = 0.5
HERITABILITY = 0.4
GRM_VARIANTS = 1000


@dataclass(frozen=True)
class Architecture:
    """Effects of a variant on the traits, up to their signs; shares of variance explained.

    Attributes
    ----------
    name : str
        What is printed.
    signs : tuple of int
        Of the effects on the traits; 0 for none.
    explained : float
        Share of the variance of a trait that its effect explains.
    """

    name: str
    signs: tuple[int, ...]
    explained: float


ARCHITECTURES = (
    Architecture("the same effect on every trait", (1, 1, 1, 1), 0.03),
    Architecture("an effect on one trait", (1, 0, 0, 0), 0.045),
    Architecture("opposite effects on correlated traits", (1, 1, -1, -1), 0.01),
)


def write_data(
    folder: Path, effects: Architecture, structure: str, n: int, causal_variants: int, rng: np.random.Generator
) -> None:
    """Write one data set."""
    g = genotypes(structure, n, GRM_VARIANTS + causal_variants, rng)
    g = g[:, g.std(axis=0) > 0]
    standardised = (g - g.mean(axis=0)) / g.std(axis=0)
    G, causal = standardised[:, :-causal_variants], standardised[:, -causal_variants:]
    root = np.linalg.cholesky(np.full((TRAITS, TRAITS), CORRELATION) + (1 - CORRELATION) * np.eye(TRAITS))
    genetic = G @ rng.normal(size=(G.shape[1], TRAITS)) @ root.T / np.sqrt(G.shape[1])
    residual = rng.normal(size=(n, TRAITS)) @ root.T
    beta = np.sqrt(effects.explained) * np.outer(rng.choice([-1.0, 1.0], causal_variants), effects.signs)
    Y = np.sqrt(HERITABILITY) * genetic + np.sqrt(1 - HERITABILITY) * residual + causal @ beta
    names = [f"S{i}" for i in range(n)]
    np.save(folder / "K.npy", G @ G.T / G.shape[1])
    (folder / "K.id").write_text("\n".join(names) + "\n")
    (folder / "g.bed").unlink(missing_ok=True)
    to_bed(folder / "g.bed", np.asfortranarray(g[:, -causal_variants:]), properties={"fid": names, "iid": names})
    write_table(folder / "y.csv", names, "t", Y)


def scanned(folder: Path, *options: str, trait: str | None = None) -> dict[str, Array]:
    """Columns of -log10 P of a scan of all traits, or of one."""
    quiet = ["--threads", "1", "--quiet"]
    null, table = str(folder / "null.npz"), str(folder / "scan.parquet")
    fit = ["fit", "--pheno", str(folder / "y.csv"), "--grm", str(folder / "K.npy"), "--grm-id", str(folder / "K.id")]
    scan = ["scan", "--null", null, "--geno", str(folder / "g.bed"), "--out", table, *options]
    if run([*fit, "--out", null, *(["--pheno-name", trait] if trait else []), *quiet]) or run([*scan, *quiet]):
        raise RuntimeError("a data set cannot be analysed")
    found = pq.read_table(table).to_pandas()
    return {name: found[name].to_numpy() for name in found if name.startswith("MLOG10P")}


def mlog10p(folder: Path) -> Array:
    """-log10 P of every variant (v, 3): joint, best of the single traits, common."""
    all_traits = scanned(folder, "--refit", "0", "--test", "common")
    single = np.max([scanned(folder, "--refit", "0", trait=f"t{j}")["MLOG10P"] for j in range(TRAITS)], axis=0)
    return np.column_stack([all_traits["MLOG10P"], single - np.log10(TRAITS), all_traits["MLOG10P.common"]])


def by_statistic(folder: Path) -> Array:
    """-log10 P of the joint test of every variant (v, 3): by `lr`, by `satterthwaite`, of refits."""
    known, estimated = scanned(folder, "--refit", "0"), scanned(folder, "--refit", "1", "--stat", "satterthwaite")
    return np.column_stack([known["MLOG10P"], estimated["MLOG10P"], estimated["MLOG10P_REFIT"]])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=80)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--level", type=float, default=1e-4)
    parser.add_argument("--structure", default="families", help="of `benchmarks.calibration`")
    parser.add_argument("--causal", type=int, default=5, help="variants with an effect in each data set")
    parser.add_argument("--explained", type=float, help="share of the variance of a trait, instead of those above")
    parser.add_argument("--statistics", action="store_true", help="compare the statistics of the joint test")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("kron2sum").propagate = False  # the writer of the .bed lets Python print every log
    names = ("lr", "satterth.", "refit") if options.statistics else ("joint", "single", "common")
    print(f"{'':<40}" + "".join(f"{name:>10}" for name in names) + f"{'variants':>10}")
    for effects in ARCHITECTURES:
        rng = np.random.default_rng(options.seed)
        asked = replace(effects, explained=options.explained or effects.explained)
        found = []
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for _ in range(options.data_sets):
                write_data(folder, asked, options.structure, options.n, options.causal, rng)
                found.append((by_statistic if options.statistics else mlog10p)(folder))
        values = np.concatenate(found)
        shares = np.mean(values > -np.log10(options.level), axis=0)
        print(f"{effects.name:<40}" + "".join(f"{x:10.2f}" for x in shares) + f"{len(values):>10}", flush=True)
        if options.statistics:
            differences = np.nanmean(np.abs(values - values[:, [2]]), axis=0)
            print(f"{'    mean difference from refits':<40}" + "".join(f"{x:10.2f}" for x in differences), flush=True)


if __name__ == "__main__":
    main()
