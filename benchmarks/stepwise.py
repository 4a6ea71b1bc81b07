"""Independent signals of simulated loci: how many causal variants come back, and what else, against clumping.

Full siblings in families of four, two traits with a polygenic background, and loci of 150 variants whose linkage
disequilibrium falls off with distance, with one to three causal variants near each other in each. Every data set goes
through `fit` and `scan --stepwise`; lead variants by clumping are told from the same result table, at the same
threshold. A causal variant is found where a signal (or a lead) is the variant itself or has r² > 0.8 with it; all other
signals are extra, also a second one for the same variant.

    python -m benchmarks.stepwise --data-sets 20 --samples 1500
"""

import argparse
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from bed_reader import to_bed
from numpy.typing import NDArray

from kron2sum_cli.cli import run

LOCI, VARIANTS, GRM_VARIANTS = 10, 150, 1000
NEIGHBOURS = 0.95
"""Correlation of the latent haplotypes of two variants side by side."""

NEAR = 40
"""Causal variants of a locus lie within so many variants."""

EXPLAINED, POLYGENIC = 0.02, 0.2
"""Shares of the variance of a trait: of each causal variant, and of the background."""

SIGNIFICANCE, SAME = 5e-8, 0.8

Array = NDArray[np.float64]


def haplotypes(number: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """Haplotypes (number, variants) of one locus."""
    latent = np.empty((number, VARIANTS))
    latent[:, 0] = rng.normal(size=number)
    for k in range(1, VARIANTS):
        latent[:, k] = NEIGHBOURS * latent[:, k - 1] + np.sqrt(1 - NEIGHBOURS**2) * rng.normal(size=number)
    return np.asarray(latent < np.quantile(latent, rng.uniform(0.05, 0.5, VARIANTS), axis=0).diagonal(), np.int8)


def of_siblings(parental: NDArray[np.int8], n: int, rng: np.random.Generator) -> Array:
    """Genotypes (n, variants) of families of four from the haplotypes of two parents a family."""
    family = np.arange(n) // 4
    copies = [parental[4 * family + 2 * parent + rng.integers(0, 2, n)] for parent in (0, 1)]
    return np.asarray(copies[0] + copies[1], np.float64)


def scaled(x: Array) -> Array:
    """Mean 0 and variance 1."""
    return np.asarray((x - x.mean(axis=0)) / x.std(axis=0))


def write_data(folder: Path, n: int, rng: np.random.Generator) -> tuple[Array, list[NDArray[np.intp]]]:
    """Write one data set: the genotypes of its loci (n, v), and the causal variants of each."""
    families = -(-n // 4)
    unlinked = rng.binomial(1, rng.uniform(0.1, 0.5, GRM_VARIANTS), size=(4 * families, GRM_VARIANTS)).astype(np.int8)
    background = scaled(np.hstack([of_siblings(unlinked[:, [k]], n, rng) for k in range(GRM_VARIANTS)]))
    G = np.hstack([of_siblings(haplotypes(4 * families, rng), n, rng) for _ in range(LOCI)])
    Y = np.sqrt(POLYGENIC / GRM_VARIANTS) * background @ rng.normal(size=(GRM_VARIANTS, 2))
    causal = []
    for locus in range(LOCI):
        first = rng.integers(0, VARIANTS - NEAR)
        chosen = locus * VARIANTS + first + rng.choice(NEAR, size=1 + locus % 3, replace=False)
        for variant in chosen:
            direction = rng.normal(size=2)
            effect = np.sqrt(2 * EXPLAINED) * direction / np.linalg.norm(direction)
            Y += np.outer(scaled(G[:, variant]), effect)
        causal.append(np.sort(chosen))
    Y += np.sqrt(max(1 - POLYGENIC - 2 * LOCI * EXPLAINED, 0.2)) * rng.normal(size=(n, 2))
    identities = [f"i{k}" for k in range(n)]
    properties = {
        "fid": identities,
        "iid": identities,
        "sid": [f"v{k}" for k in range(G.shape[1])],
        "chromosome": [str(1 + k // VARIANTS) for k in range(G.shape[1])],
        "bp_position": [100_000 + 2000 * (k % VARIANTS) for k in range(G.shape[1])],
    }
    to_bed(folder / "loci.bed", G, properties=properties)
    pd.DataFrame(background, index=pd.Index(identities, name="IID")).to_csv(folder / "background.csv")
    pd.DataFrame(Y, index=pd.Index(identities, name="IID"), columns=["a", "b"]).to_csv(folder / "traits.csv")
    return G, causal


def clumped(mlog10p: Array, r2: Array, least: float) -> list[int]:
    """Lead variants of a locus: the strongest takes those that have at least this r² with it, and so on."""
    free = mlog10p >= -np.log10(SIGNIFICANCE)
    leads = []
    while free.any():
        leads.append(int(np.argmax(np.where(free, mlog10p, -np.inf))))
        free &= r2[leads[-1]] < least
    return leads


def judged(chosen: Sequence[int], causal: NDArray[np.intp], r2: Array) -> tuple[int, int]:
    """How many causal variants of a locus were found, and how many of those chosen are extra."""
    found = sum(bool(np.any(r2[cause, list(chosen)] > SAME)) if chosen else False for cause in causal.tolist())
    return found, len(chosen) - min(found, len(chosen))


def one_data_set(folder: Path, n: int, seed: int) -> Counter[tuple[str, int, str]]:
    """Counts by way, number of causal variants and what was counted."""
    G, causal = write_data(folder, n, np.random.default_rng(seed))
    names = {name: str(folder / name) for name in ("traits.csv", "background.csv", "loci.bed", "null.npz", "s.parquet")}
    fit = ["fit", "-q", "--pheno", names["traits.csv"], "--grm", names["background.csv"], "--out", names["null.npz"]]
    scan = ["scan", "-q", "--null", names["null.npz"], "--geno", names["loci.bed"], "--refit", "0"]
    assert run(fit) == 0
    assert run([*scan, "--stepwise", str(SIGNIFICANCE), "--out", names["s.parquet"]]) == 0
    mlog10p = pq.read_table(names["s.parquet"], columns=["MLOG10P"]).column(0).to_numpy()
    signals = pd.read_csv(f"{names['s.parquet']}.signals.tsv", sep="\t")
    positions = signals.SNPID.str.removeprefix("v").astype(int)
    joint = positions[-np.log10(SIGNIFICANCE) <= signals.MLOG10P_JOINT]
    counts: Counter[tuple[str, int, str]] = Counter()
    for locus in range(LOCI):
        here = np.arange(locus * VARIANTS, (locus + 1) * VARIANTS)
        r2 = np.corrcoef(G[:, here].T) ** 2
        ways = {
            "--stepwise": (positions[positions.isin(here)] - here[0]).tolist(),
            "--stepwise, joint P below it too": (joint[joint.isin(here)] - here[0]).tolist(),
            "clumping, r² 0.1": clumped(np.nan_to_num(mlog10p[here]), r2, 0.1),
            "clumping, r² 0.5": clumped(np.nan_to_num(mlog10p[here]), r2, 0.5),
        }
        number = len(causal[locus])
        for way, chosen in ways.items():
            found, extra = judged(chosen, causal[locus] - here[0], r2)
            counts += Counter({(way, number, "causal"): number, (way, number, "found"): found})
            counts += Counter({(way, number, "extra"): extra, (way, number, "loci"): 1})
    return counts


def main() -> None:
    """Simulate, choose, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    counts: Counter[tuple[str, int, str]] = Counter()
    for k in range(options.data_sets):
        with tempfile.TemporaryDirectory() as folder:
            counts += one_data_set(Path(folder), options.samples, options.seed + k)
    print("| | causal variants of a locus | loci | causal variants | found | extra signals a locus |")
    print("|---|---|---|---|---|---|")
    for way in dict.fromkeys(way for way, _, _ in counts):
        for number in (1, 2, 3):
            loci, causal, found, extra = (counts[way, number, of] for of in ("loci", "causal", "found", "extra"))
            print(f"| {way} | {number} | {loci} | {causal} | {found / causal:.0%} | {extra / loci:.2f} |")


if __name__ == "__main__":
    main()
