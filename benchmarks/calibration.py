"""Type I error of every test of a scan, as users get it: through the command line, on data without any effect.

For every cell (structure of the samples, n, p, covariates, rank, missing share) traits with a heritability of 0.5 are
simulated again and again, the null model is fitted, and variants of the same structure, without effect, are tested.
Printed is the share of variants with P below each level, over the level, with a 95% interval from resampled data sets:
1 is right, more is too many false positives.

    python -m benchmarks.calibration --structures families,clones --samples 80,300 --traits 2,4 --covariates 1,20
    python -m benchmarks.calibration --cells benchmarks/calibration_cells.csv --out calibration.csv

    python -m benchmarks.calibration --summary benchmarks/calibration_measured.csv
    python -m benchmarks.calibration --structures clones --samples 150 --traits 4 --stat satterthwaite --given 3 \
        --explained 0.1
    python -m benchmarks.calibration --structures clones --samples 150 --traits 4 --covariates 2 --stat satterthwaite \
        --interaction

The second form measures the cells of a file instead of the whole grid, and appends a line a test to a table as soon as
a cell is finished; cells that the table has already are not measured again. `calibration_cells.csv` is a part of the
grid in which every level of every factor occurs, and every two of them where possible. The third says which designs of
such a table have a test beyond `BAND`. In the fourth, scans are conditioned on further variants of the same structure,
each of which explains a share of the variance of every trait. The fifth tests products with the first covariate, too.

Structures: families (full siblings by four), populations (three, Fst 0.2), clones (inbred lines, five replicates of
each), unrelated.
"""

import argparse
import csv
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from bed_reader import to_bed
from numpy.typing import NDArray

from kron2sum_cli.cli import run

LEVELS = np.array([0.05, 0.01, 0.001])
GRM_VARIANTS = 1000
BAND, MOST_AT_0_001 = (0.9, 1.1), 1.3
"""Ratios at 0.05 that are asked for, and the largest at 0.001."""

REFIT_BELOW, REFIT_BELOW_OF_MANY_TRAITS = 0.2, 0.8
"""Variants with a smaller P are refitted; none of the others comes near the levels. With eight traits of few samples P
is far too large, and more are needed."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One design: who is sampled, how many, with what."""

    structure: str
    n: int
    p: int
    covariates: int
    rank: str
    missing: float


@dataclass(frozen=True)
class Given:
    """Variants that scans are conditioned on, and the share of the variance of every trait that each explains.

    ``interaction`` says whether products with the first covariate are tested.
    """

    number: int = 0
    explained: float = 0.0
    interaction: bool = False

    @property
    def names(self) -> list[str]:
        """Those of the variants, the last of the file."""
        return [f"given{k + 1}" for k in range(self.number)]

    @property
    def options(self) -> list[str]:
        """Those of the scan."""
        options = [word for name in self.names for word in ("--condition", name)]
        return options + (["--interaction", "x0"] if self.interaction else [])

    def effects(self, given: Array, p: int, rng: np.random.Generator) -> Array:
        """Effects (n, p) of variants (n, number), up or down, on traits of variance 2 without them."""
        size = given.std(axis=0)
        standard = (given - given.mean(axis=0)) / np.where(size > 0, size, 1.0)
        share = self.explained / (1 - self.number * self.explained)
        return standard @ (np.sqrt(2 * share) * rng.choice([-1.0, 1.0], size=(self.number, p)))


def genotypes(structure: str, n: int, m: int, rng: np.random.Generator) -> Array:
    """Genotypes (n, m) of one structure."""
    f = rng.uniform(0.1, 0.5, m)
    if structure == "families":
        parents = rng.binomial(1, f, size=(-(-n // 4), 2, 2, m))
        family = np.repeat(np.arange(len(parents)), 4)[:n]
        drawn = rng.integers(0, 2, size=(n, 2, 1, m))
        return np.take_along_axis(parents[family], drawn, axis=2).sum(axis=(1, 2)).astype(float)
    if structure == "populations":
        spread = (1 - 0.2) / 0.2
        of_population = rng.beta(f * spread, (1 - f) * spread, size=(3, m))
        return rng.binomial(2, of_population[np.arange(n) % 3]).astype(float)
    if structure == "clones":
        lines = 2.0 * rng.binomial(1, f, size=(-(-n // 5), m))
        return np.repeat(lines, 5, axis=0)[:n]
    return rng.binomial(2, f, size=(n, m)).astype(float)


def covariance(p: int, rng: np.random.Generator) -> Array:
    """A correlation matrix of p traits."""
    L = rng.normal(size=(p, p + 1))
    C = L @ L.T
    size = np.sqrt(np.diag(C))
    return C / np.outer(size, size)


def features_and_variants(structure: str, n: int, variants: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """G (n, r) of GGᵀ, from variants that are not tested, and the tested variants (n, variants)."""
    g = genotypes(structure, n, GRM_VARIANTS + variants, rng)
    of_grm, tested = g[:, :GRM_VARIANTS], g[:, GRM_VARIANTS:]
    of_grm = of_grm[:, of_grm.std(axis=0) > 0]
    return (of_grm - of_grm.mean(axis=0)) / of_grm.std(axis=0) / np.sqrt(of_grm.shape[1]), tested


def write_data(folder: Path, cell: Cell, variants: int, given: Given, rng: np.random.Generator) -> list[str]:
    """Write one data set; the options of `fit` for it."""
    n, p = cell.n, cell.p
    G, tested = features_and_variants(cell.structure, n, variants + given.number, rng)
    genetic = G @ rng.normal(size=(G.shape[1], p)) @ np.linalg.cholesky(covariance(p, rng)).T
    Y = genetic + rng.normal(size=(n, p)) @ np.linalg.cholesky(covariance(p, rng)).T
    Y += given.effects(tested[:, variants:], p, rng)
    Y[rng.uniform(size=Y.shape) < cell.missing] = np.nan
    names = [f"S{i}" for i in range(n)]
    np.save(folder / "K.npy", G @ G.T)
    (folder / "K.id").write_text("\n".join(names) + "\n")
    (folder / "g.bed").unlink(missing_ok=True)
    sid = [*(f"v{k + 1}" for k in range(variants)), *given.names]
    to_bed(folder / "g.bed", np.asfortranarray(tested), properties={"fid": names, "iid": names, "sid": sid})
    write_table(folder / "y.csv", names, "t", Y)
    write_table(folder / "c.csv", names, "x", rng.normal(size=(n, max(cell.covariates - 1, 1))))
    options = ["--pheno", "y.csv", "--grm", "K.npy", "--grm-id", "K.id"]
    options += ["--covar", "c.csv"] if cell.covariates > 1 else []
    options += ["--rank", cell.rank] if cell.rank != "full" else []
    return options + (["--missing", "exact"] if cell.missing else [])


def write_table(path: Path, names: Sequence[str], prefix: str, values: Array) -> None:
    """A table of samples; NaN as NA."""
    rows = (
        f"{name}," + ",".join("NA" if np.isnan(x) else repr(float(x)) for x in row)
        for name, row in zip(names, values, strict=True)
    )
    header = "IID," + ",".join(f"{prefix}{j}" for j in range(values.shape[1]))
    path.write_text("\n".join([header, *rows]) + "\n")


def p_values(folder: Path, cell: Cell, refit: bool, seed: int, stat: str, given: Given) -> dict[str, Array] | None:
    """-log10 P of every test on one data set, or of refits for effects on any trait; None without a null model."""
    null, table = str(folder / "null.npz"), str(folder / "scan.parquet")
    tests = ["--test", "common", "--test", "specific"] if cell.p > 1 and not refit else []
    words = [
        "scan",
        "--null",
        null,
        "--geno",
        str(folder / "g.bed"),
        "--out",
        table,
        "--threads",
        "1",
        "--quiet",
        "--stat",
        stat,
        "--seed",
        str(seed),
        *tests,
        *given.options,
    ]
    below = REFIT_BELOW_OF_MANY_TRAITS if cell.p >= 8 else REFIT_BELOW
    if run([*words, "--refit", str(below if refit else 0)]):
        return None
    columns = pq.read_table(table).to_pandas()
    columns = columns[~columns.SNPID.isin(given.names)]
    columns = columns[columns.CHISQ.notna()]
    found = {"joint": columns.MLOG10P.to_numpy()}
    found |= {test: columns[f"MLOG10P.{test}"].to_numpy() for test in tests[1::2]}
    found["traits"] = np.concatenate([columns[f"MLOG10P.t{j}"] for j in range(cell.p)])
    if given.interaction:
        tested = columns[columns["MLOG10P.interaction"].notna()]
        found |= {"product": tested["MLOG10P.interaction"].to_numpy(), "both": tested["MLOG10P.joint"].to_numpy()}
        found["on traits"] = np.concatenate([tested[f"MLOG10P_GXE.t{j}"] for j in range(cell.p)])
    if refit:
        found["refit"] = columns.MLOG10P_REFIT.fillna(0).to_numpy()
    return found


def measure(
    cell: Cell, data_sets: int, variants: int, refit: bool, seed: int, stat: str, given: Given
) -> tuple[dict[str, Array], int]:
    """Of every test the counts (data sets, 1 + levels): tested, and P below each level; and how many fits failed."""
    rng = np.random.default_rng([seed, cell.n, cell.p, cell.covariates])
    counts: dict[str, list[list[int]]] = {}
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k in range(data_sets):
            options = write_data(folder, cell, variants, given, rng)
            paths = [str(folder / word) if "." in word and not word.startswith("0") else word for word in options]
            if run(["fit", *paths, "--out", str(folder / "null.npz"), "--threads", "1", "--quiet"]):
                failed += 1
                continue
            for test, mlog10p in (p_values(folder, cell, refit, k, stat, given) or {}).items():
                below = [int(np.count_nonzero(mlog10p > -np.log10(level))) for level in LEVELS]
                counts.setdefault(test, []).append([len(mlog10p), *below])
    return {test: np.array(rows, dtype=float) for test, rows in counts.items()}, failed


def lines(counts: Array) -> Iterator[str]:
    """The ratio at each level, with its interval."""
    drawn = np.random.default_rng(0).integers(0, len(counts), (1000, len(counts)))
    for k, level in enumerate(LEVELS):
        ratio = counts[:, 1 + k].sum() / counts[:, 0].sum() / level
        resampled = counts[drawn, 1 + k].sum(axis=1) / counts[drawn, 0].sum(axis=1) / level
        low, high = np.percentile(resampled, [2.5, 97.5])
        yield f"{ratio:5.2f} ({low:.2f}-{high:.2f})"


TESTS = ("joint", "common", "specific", "traits")
COLUMNS = ["structure", "n", "p", "covariates", "rank", "missing", "test", "data_sets", "failed", "tests"]


def cells_of(path: Path) -> list[tuple[Cell, bool]]:
    """The cells of a file with lines `structure,n,p,covariates,rank,missing,refit`, and whether each is refitted."""
    with path.open() as lines_of_file:
        return [
            (Cell(s, int(n), int(p), int(c), rank, float(missing)), refit == "yes")
            for s, n, p, c, rank, missing, refit in list(csv.reader(lines_of_file))[1:]
        ]


def finished(path: Path) -> set[tuple[str, ...]]:
    """The cells (with `refit` or not) that a table has."""
    if not path.exists():
        return set()
    with path.open() as table:
        return {(*row[:6], str(row[6] == "refit")) for row in csv.reader(table)}


def append(path: Path, cell: Cell, counts: dict[str, Array], failed: int) -> None:
    """Append the lines of one cell to a table."""
    is_new = not path.exists()
    with path.open("a", newline="") as table:
        writer = csv.writer(table)
        if is_new:
            writer.writerow([*COLUMNS, *(f"ratio_at_{level:g}" for level in LEVELS)])
        for test, rows in counts.items():
            size = [len(rows), failed, int(rows[:, 0].sum())]
            writer.writerow([*map(str, vars(cell).values()), test, *size, *lines(rows)])


def measure_cells(cells: Path, out: Path, data_sets: int, variants: int, refitted: int, seed: int, stat: str) -> None:
    """Measure the cells of a file, those with refits last and of fewer variants, for they take longer."""
    listed = cells_of(cells)
    for cell, refit in [(cell, False) for cell, _ in listed] + [
        (cell, True) for cell, is_refitted in listed if is_refitted
    ]:
        if (*map(str, vars(cell).values()), str(refit)) in finished(out):
            continue
        number = refitted if refit else variants
        counts, failed = measure(cell, data_sets, number, refit, seed + refit, stat, Given())
        append(out, cell, {test: counts[test] for test in counts if (test == "refit") == refit}, failed)


def summary(path: Path) -> Iterator[str]:
    """How many cells of a table have every test within the band, the designs of the others, and refits of all."""
    table = pd.read_csv(path)
    for level in ("0.05", "0.001"):
        ratios = table[f"ratio_at_{level}"].str.extract(r"([\d.]+) \(([\d.]+)-").astype(float)
        table[[level, f"least at {level}"]] = ratios
    refits = table.test == "refit"
    yield from summary_of_tests(table[~refits])
    yield ""
    yield from summary_of_refits(table[refits])


DESIGN = ["structure", "n", "p", "missing", "rank"]


def design_name(rows: pd.DataFrame) -> str:
    """The first columns of a line of the summary, for the rows of one design."""
    one = rows.iloc[0]
    missing = f", {one.missing:.0%} missing" if one.missing else ""
    return f"{one.structure} {one.n:,} | {one.p} | {one['rank']}{missing}"


def summary_of_tests(table: pd.DataFrame) -> Iterator[str]:
    """Smallest and largest ratios over the covariates, of designs that have a test beyond the band."""
    beyond = ~table["0.05"].between(*BAND) | (table["least at 0.001"] > MOST_AT_0_001)
    outside = beyond.groupby([table[name] for name in COLUMNS[:6]]).any()
    yield f"{(~outside).sum()} of {len(outside)} cells have every test within {BAND[0]} to {BAND[1]} at 0.05"
    yield "| samples | p | rank | cells | " + " | ".join(TESTS) + " | largest at 0.001 |"
    yield "|---" * (5 + len(TESTS)) + "|"
    for _, rows in table.groupby(DESIGN):
        if beyond[rows.index].any():
            of_test = [rows.loc[rows.test == test, "0.05"] for test in TESTS]
            ranges = [f"{found.min():.2f} to {found.max():.2f}" if len(found) else "" for found in of_test]
            cells, largest = rows.covariates.nunique(), rows["0.001"].max()
            yield f"| {design_name(rows)} | {cells} | {' | '.join(ranges)} | {largest:.2f} |"


def summary_of_refits(table: pd.DataFrame) -> Iterator[str]:
    """The ratio of refits with each number of covariates, of every design."""
    columns, within = sorted(set(table.covariates)), table["0.05"].between(*BAND)
    yield (
        f"refits: {within.sum()} of {len(table)} cells within {BAND[0]} to {BAND[1]} at 0.05, mean"
        f" {table['0.05'].mean():.3f} ({table['0.001'].mean():.2f} at 0.001); {(table['0.05'] > BAND[1]).sum()} above,"
        f" {(table['least at 0.05'] > BAND[1]).sum()} with the whole interval; above {MOST_AT_0_001} at 0.001"
        f" {(table['0.001'] > MOST_AT_0_001).sum()}, {(table['least at 0.001'] > MOST_AT_0_001).sum()}"
    )
    yield "| samples | p | rank | " + " | ".join(f"c = {c}" for c in columns) + " | largest at 0.001 |"
    yield "|---" * (4 + len(columns)) + "|"
    for _, rows in table.groupby(DESIGN):
        of_covariates = dict(
            zip(rows.covariates, rows["ratio_at_0.05"].str.strip().str.replace("-", " to "), strict=True)
        )
        ratios = " | ".join(of_covariates.get(c, "") for c in columns)
        yield f"| {design_name(rows)} | {ratios} | {rows['0.001'].max():.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", default="families,populations,clones")
    parser.add_argument("--samples", default="80,150,300,1000")
    parser.add_argument("--traits", default="1,2,4,8")
    parser.add_argument("--covariates", default="1,8,20")
    parser.add_argument("--ranks", default="full,auto")
    parser.add_argument("--missing", default="0,0.3")
    parser.add_argument("--data-sets", type=int, default=50)
    parser.add_argument("--variants", type=int, default=1000)
    parser.add_argument("--refit", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stat", default="lr", help="of the scans, as --stat of scan")
    parser.add_argument("--given", type=int, default=0, help="variants that scans are conditioned on")
    parser.add_argument("--explained", type=float, default=0.0, help="share of variance that each of them explains")
    parser.add_argument("--interaction", action="store_true", help="test products with the first covariate, too")
    parser.add_argument("--cells", type=Path, help="a file of cells to measure instead of the grid")
    parser.add_argument("--summary", type=Path, help="a table of cells to summarise instead")
    parser.add_argument(
        "--out", type=Path, default=Path("calibration.csv"), help="table that gets the cells of the file"
    )
    parser.add_argument("--refitted-variants", type=int, default=400, help="variants of cells of the file with refits")
    options = parser.parse_args()
    logging.getLogger("kron2sum").propagate = False  # the writer of the .bed lets Python print every log
    if options.summary:
        print("\n".join(summary(options.summary)))
        return
    if options.cells:
        sizes = options.data_sets, options.variants, options.refitted_variants
        measure_cells(options.cells, options.out, *sizes, options.seed, options.stat)
        return
    given = Given(options.given, options.explained, options.interaction)
    lists = [
        getattr(options, name).split(",")
        for name in ("structures", "samples", "traits", "covariates", "ranks", "missing")
    ]
    for structure, n, p, covariates, rank, missing in product(*lists):
        cell = Cell(structure, int(n), int(p), int(covariates), rank, float(missing))
        size = options.data_sets, options.variants
        found, failed = measure(cell, *size, options.refit, options.seed, options.stat, given)
        print(f"{structure} n={n} p={p} c={covariates} rank={rank} missing={missing}: failed fits {failed}", flush=True)
        for test, counts in found.items():
            print(f"    {test:<9}{counts[:, 0].sum():>9.0f}  " + "  ".join(lines(counts)), flush=True)


if __name__ == "__main__":
    main()
