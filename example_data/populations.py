"""Make small data sets of other kinds, for the pages of the documentation: a cross, a panel, polyploids, bacteria.

    python populations.py cross

makes the folder ``cross`` here, always with the same bytes. Everything is simulated.
"""

import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Genotypes = NDArray[np.int64]
"""(M, n) copies of the effect allele, -1 where missing."""


def cross(folder: Path) -> None:
    """250 F2 mice of two inbred strains: 105 markers on five chromosomes of 80 cM, three traits."""
    draw = np.random.default_rng(11)
    n, per_chromosome, step = 250, 21, 4.0
    recombination = (1 - np.exp(-2 * step / 100)) / 2
    markers, copies = [], []
    for chromosome in range(1, 6):
        gametes = [_gametes(draw, n, per_chromosome, recombination) for _ in range(2)]
        copies.append(gametes[0] + gametes[1])
        markers += [(f"m{chromosome}_{k * step:02.0f}", chromosome, k * step) for k in range(per_chromosome)]
    G = np.concatenate(copies)
    sex = draw.integers(0, 2, n)
    names = [name for name, _, _ in markers]
    effects = {"m2_40": (1.5, 0.9, 0.0), "m4_60": (0.0, 0.55, -0.4)}
    Y = np.array([28.0, 6.0, 95.0]) + np.outer(sex, [4.0, 1.0, 2.0]) + _traits(draw, G, [3.0, 1.9, 1.2], 0.12)
    for name, effect in effects.items():
        Y += np.outer(G[names.index(name)], effect)
    G[draw.random(G.shape) < 0.01] = -1
    mice = [f"F2-{i + 1:03d}" for i in range(n)]
    rows = ([mouse, *_cells(G[:, i])] for i, mouse in enumerate(mice))
    _write(folder / "genotypes.csv", ["IID", *names], rows)
    _write(folder / "map.csv", ["marker", "chr", "cM"], markers)
    table = ([mouse, "FM"[sex[i]], *_rounded(Y[i], 2)] for i, mouse in enumerate(mice))
    _write(folder / "mice.csv", ["IID", "sex", "weight", "fat", "length"], table)


def panel(folder: Path) -> None:
    """240 inbred lines in three groups: 1,200 markers on four chromosomes and 60 scaffolds, as HapMap; two traits."""
    draw = np.random.default_rng(5)
    n, markers = 240, 1200
    group = np.repeat([0, 1, 2], n // 3)
    ancestral = draw.beta(1.2, 1.2, markers)
    frequency = np.clip(draw.beta(ancestral * 6 + 0.1, (1 - ancestral) * 6 + 0.1, (3, markers)), 0.02, 0.98)
    founders = (draw.random((3, 8, markers)) < frequency[:, None, :]).astype(np.int64)
    G = np.empty((markers, n), dtype=np.int64)
    for line in range(n):
        switch = draw.random(markers) < 0.06
        source = draw.integers(0, 8, markers)[np.maximum.accumulate(np.where(switch, np.arange(markers), 0))]
        G[:, line] = 2 * founders[group[line], source, np.arange(markers)]
    varies = np.flatnonzero(np.minimum(G.mean(axis=1), 2 - G.mean(axis=1)) > 0.5)
    shared, one = (varies[np.searchsorted(varies, place)] for place in (300, 820))
    Y = np.array([70.0, 180.0]) + np.outer(group == 2, [6.0, 10.0]) + _traits(draw, G, [4.0, 11.0], 0.5)
    Y += np.outer(G[shared], [1.7, -4.6]) + np.outer(G[one], [0.0, 5.0])
    heterozygous = draw.random(G.shape) < 0.02
    G[heterozygous] = 1
    G[draw.random(G.shape) < 0.03] = -1
    lines = [f"L{i + 1:03d}" for i in range(n)]
    alleles = draw.choice(["A/G", "C/T", "A/C", "G/T"], markers)
    rows = []
    for k in range(markers):
        chromosome, position = f"chr{k // 270 + 1}", (k % 270) * 180_000 + int(draw.integers(1, 150_000))
        if k >= 1080:
            chromosome, position = f"scaffold_{(k - 1080) // 2 + 1}", (k % 2) * 9_000 + int(draw.integers(1, 8_000))
        calls = ["NN" if g < 0 else alleles[k][0] * (2 - g) + alleles[k][2] * g for g in G[k]]
        rows.append([f"S{k + 1:04d}", alleles[k], chromosome, position, "+", *["NA"] * 6, *calls])
    header = ["rs#", "alleles", "chrom", "pos", "strand", "assembly#", "center", "protLSID", "assayLSID", "panel"]
    _write(folder / "panel.hmp.txt", [*header, "QCcode", *lines], rows, "\t")
    table = ([line, f"group{group[i] + 1}", *_rounded(Y[i], 1)] for i, line in enumerate(lines))
    _write(folder / "lines.csv", ["line", "group", "flowering", "height"], table)


def potato(folder: Path) -> None:
    """200 tetraploid clones of 20 parents: 600 markers on four chromosomes, dosages 0 to 4; two traits."""
    draw = np.random.default_rng(3)
    n, markers = 200, 600
    frequency = draw.uniform(0.1, 0.9, markers)
    parents = (draw.random((20, 4, markers)) < frequency).astype(np.int64)
    G = np.empty((markers, n), dtype=np.int64)
    for clone in range(n):
        pair = draw.choice(20, 2, replace=False)
        # From each parent two of its four chromosomes, along the genome from changing ones.
        G[:, clone] = sum(_two_of_four(draw, parents[parent]) for parent in pair)
    Y = np.array([45.0, 17.0]) + _traits(draw, G, [7.0, 1.6], 0.4)
    Y += np.outer(G[200], [3.4, -0.75]) + np.outer(G[480], [0.0, 0.75])
    G[draw.random(G.shape) < 0.02] = -1
    clones = [f"P{i + 1:03d}" for i in range(n)]
    rows = (
        [f"st{k + 1:04d}", f"chr{k // 150 + 1:02d}", (k % 150) * 400_000 + 1000, "A", "G", *_cells(G[k])]
        for k in range(markers)
    )
    _write(folder / "dosages.csv", ["marker", "chrom", "pos", "ref", "alt", *clones], rows)
    _write(folder / "clones.csv", ["IID", "yield", "starch"], ([c, *_rounded(Y[i], 1)] for i, c in enumerate(clones)))


def bacteria(folder: Path) -> None:
    """240 isolates of 12 lineages: presence of 900 genes, as Roary and Panaroo write it; log2 MIC of two drugs."""
    draw = np.random.default_rng(8)
    n, genes = 240, 900
    lineage = np.sort(draw.integers(0, 12, n))
    frequency = draw.beta(0.5, 0.5, genes)
    typical = draw.random((12, genes)) < frequency
    gained = draw.random((n, genes)) < 0.06
    G = np.where(gained, draw.random((n, genes)) < frequency, typical[lineage]).T.astype(np.int64)
    G[150] = draw.random(n) < np.where(draw.random(12) < 0.5, 0.6, 0.1)[lineage]
    G[640] = draw.random(n) < 0.25
    of_lineage = draw.normal(0, 1.5, (12, 2))
    Y = of_lineage[lineage] + _traits(draw, G, [0.8, 0.8], 0.4)
    Y += np.outer(G[150], [1.3, 1.1]) + np.outer(G[640], [0.0, 1.2])
    isolates = [f"iso{i + 1:03d}" for i in range(n)]
    names = [f"group_{k + 1}" for k in range(genes)]
    names[150], names[640] = "efflux1", "aac3"
    _write(folder / "gene_presence_absence.Rtab", ["Gene", *isolates], ([g, *G[k]] for k, g in enumerate(names)), "\t")
    table = ([iso, *np.rint(Y[i] - 1).astype(int)] for i, iso in enumerate(isolates))
    _write(folder / "mic.csv", ["isolate", "cipro", "genta"], table)


def _gametes(draw: np.random.Generator, n: int, markers: int, recombination: float) -> Genotypes:
    """(markers, n) alleles of gametes of F1 mice."""
    crossed = draw.random((markers, n)) < recombination
    crossed[0] = draw.random(n) < 0.5
    return np.cumsum(crossed, axis=0) % 2


def _two_of_four(draw: np.random.Generator, chromosomes: Genotypes) -> Genotypes:
    """(markers,) copies in a gamete of a tetraploid, from (4, markers) chromosomes."""
    markers = chromosomes.shape[1]
    blocks = np.cumsum(draw.random(markers) < 0.02)
    chosen = np.array([draw.choice(4, 2, replace=False) for _ in range(blocks[-1] + 1)])[blocks]
    copies: Genotypes = chromosomes[chosen.T, np.arange(markers)].sum(axis=0)
    return copies


def _traits(draw: np.random.Generator, G: Genotypes, sd: Sequence[float], h2: float) -> NDArray[np.float64]:
    """(n, p) traits of many small effects and of the rest, both correlated by 0.4 between traits."""
    p = len(sd)
    root = np.linalg.cholesky(np.full((p, p), 0.4) + 0.6 * np.eye(p))
    Z = G - G.mean(axis=1, keepdims=True)
    Z /= np.sqrt(np.maximum((Z**2).mean(axis=1, keepdims=True), 0.01) * len(G))
    genetic = Z.T @ draw.normal(size=(len(G), p)) @ root.T
    rest = draw.normal(size=(G.shape[1], p)) @ root.T
    traits: NDArray[np.float64] = (np.sqrt(h2) * genetic + np.sqrt(1 - h2) * rest) * np.asarray(sd)
    return traits


def _cells(copies: Genotypes) -> list[str]:
    return ["NA" if copy < 0 else str(copy) for copy in copies]


def _rounded(values: NDArray[np.float64], digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in values]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], separator: str = ",") -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


KINDS: dict[str, Callable[[Path], None]] = {"cross": cross, "panel": panel, "potato": potato, "bacteria": bacteria}


def main() -> None:
    """Make the data sets that the command line names, each in a folder of its name."""
    if not sys.argv[1:] or not set(sys.argv[1:]) <= set(KINDS):
        sys.exit(f"usage: python populations.py {'|'.join(KINDS)} ...")
    for kind in sys.argv[1:]:
        folder = Path(kind)
        folder.mkdir(exist_ok=True)
        KINDS[kind](folder)


if __name__ == "__main__":
    main()
