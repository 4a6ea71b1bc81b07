"""Missing phenotypes: what the exact likelihood of the observed cells costs, and what it gains.

    python benchmarks/missing_phenotypes.py cost        # time of fit and scan, as multiples of complete traits'
    python benchmarks/missing_phenotypes.py power       # type I error and power: exact, drop, mean imputation
    python benchmarks/missing_phenotypes.py prediction  # masked cells: squared error, coverage of 95% intervals

Data are simulated; ``--grm PREFIX`` (GCTA's .grm.bin and .grm.id) with ``--pheno CSV --traits A,B`` takes real ones for
``cost`` and ``prediction``. The heterogeneous-stock mice come with GEMMA (Debian package gemma-doc), whose ``-gk 1``
makes the relationship matrix. Where ``gemma`` is installed its predictions are compared, too. Complete traits are the
same samples with missing cells filled in by means.
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model import fitting
from kron2sum_cli.model.block_scanner import BlockStatistics, block_scanner
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.hypotheses import TestContext, named_hypothesis, test
from kron2sum_cli.model.missing.fitting import fit
from kron2sum_cli.model.missing.observed import ObservedCells, observed_cells, observed_spectrum
from kron2sum_cli.model.missing.scanner import observed_scanner
from kron2sum_cli.model.prediction import missing_cells
from kron2sum_cli.model.spectrum import Array, spectrum_of_relationship

Rng = np.random.Generator

BLOCK = 1024


@dataclass(frozen=True)
class Study:
    """Traits Y (n, p) with NaN, covariates X (n, c) and relatedness K (n, n)."""

    Y: Array
    X: Array
    K: Array

    def take(self, rows: NDArray[np.intp]) -> "Study":
        """Some of the samples."""
        return Study(self.Y[rows], self.X[rows], self.K[np.ix_(rows, rows)])

    @property
    def filled(self) -> Array:
        """The traits with missing cells filled in by means."""
        return np.where(np.isnan(self.Y), np.nanmean(self.Y, axis=0), self.Y)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Which samples have all traits."""
        return np.asarray(np.isfinite(self.Y).all(axis=1))

    def cells(self) -> ObservedCells:
        """The observed cells, for REML."""
        spectrum, prior = observed_spectrum(self.K, self.X, False, True)
        return observed_cells(spectrum, self.Y, np.eye(self.Y.shape[1]), self.X, prior)


def relatedness(rng: Rng, n: int, size: int = 8) -> Array:
    """Families of this size, half related, with noise as of genotypes."""
    family = np.arange(n) // size
    G = rng.normal(size=(n, 4 * n)) / np.sqrt(4 * n)
    shared = rng.normal(size=(n, 4 * n)) / np.sqrt(4 * n)
    mixed = np.sqrt(0.5) * G + np.sqrt(0.5) * shared[family]
    return np.asarray(mixed @ mixed.T)


def simulated(rng: Rng, n: int, p: int, share: float, effects: Array | None = None) -> Study:
    """Traits with half their variance genetic, all correlated, this share of cells missing."""
    K = relatedness(rng, n)
    C = 0.5 * np.eye(p) + 0.5
    root = np.linalg.cholesky(C)
    genetic = np.linalg.cholesky(K + 1e-8 * np.eye(n)) @ rng.normal(size=(n, p))
    Y = np.sqrt(0.5) * (genetic + rng.normal(size=(n, p))) @ root.T + (0 if effects is None else effects)
    Y[rng.random((n, p)) < share] = np.nan
    return Study(Y, np.ones((n, 1)), K).take(np.flatnonzero(np.isfinite(Y).any(axis=1)))


def real(prefix: str, pheno: str, traits: list[str]) -> Study:
    """Samples of a GCTA relationship matrix with at least one of the traits."""
    ids = [line.split()[1] for line in Path(f"{prefix}.grm.id").read_text().splitlines()]
    K = np.zeros((len(ids), len(ids)))
    i, j = np.tril_indices(len(ids))
    K[i, j] = K[j, i] = np.fromfile(f"{prefix}.grm.bin", np.float32)
    with open(pheno, newline="") as file:
        rows = {row["IID"]: row for row in csv.DictReader(file)}
    Y = np.array([[_number(rows.get(iid, {}).get(trait, "")) for trait in traits] for iid in ids])
    return Study(Y, np.ones((len(ids), 1)), K).take(np.flatnonzero(np.isfinite(Y).any(axis=1)))


def _number(text: str) -> float:
    return np.nan if text in ("", "NA", "nan") else float(text)


def seconds(work: Callable[[], object], runs: int) -> float:
    """Median of several runs, after one that does not count."""
    work()
    times = []
    for _ in range(runs):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return statistics.median(times)


def cost(study: Study, runs: int, lines: Callable[[str], None]) -> None:
    """Fit and scan against those of the same samples with complete traits."""
    n, p = study.Y.shape
    eigen = seconds(lambda: spectrum_of_relationship(study.K, study.X), runs)
    spectrum = spectrum_of_relationship(study.K, study.X)
    data, cells = rotate_traits(spectrum, study.filled), study.cells()
    complete, exact = fitting.fit(data, p, True), fit(cells, p, True)
    times = [seconds(lambda: fitting.fit(data, p, True), runs), seconds(lambda: fit(cells, p, True), runs)]
    lines(f"{n} samples, {p} traits, {cells.ncells} missing cells on {len(set(cells.rows.tolist()))} samples")
    lines(f"lml {exact.point.lml:.6f}; {exact.certificate}")
    lines(f"eigendecomposition {eigen:.3f} s, fit complete {times[0]:.3f} s, exact {times[1]:.3f} s")
    lines(f"fit, exact / complete: {times[1] / times[0]:.1f}; with the eigendecomposition, which both need:")
    lines(f"    {(eigen + times[1]) / (eigen + times[0]):.2f}")
    G = np.random.default_rng(0).binomial(2, 0.3, size=(BLOCK, n)).astype(np.float32).T
    G -= G.mean(axis=0)
    scanners = block_scanner(complete.point, spectrum.Qx), observed_scanner(exact.point)
    ratios = []
    for _ in range(runs + 1):
        a, b = (_once(partial(scanner.statistics, G)) for scanner in scanners)
        ratios.append(b / a)
    lines(f"scan of {BLOCK} variants, exact / complete: {statistics.median(ratios[1:]):.2f}")


def _once(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def any_effect(axes_T: Array, quadratic: float, size: int, statistics: BlockStatistics) -> Array:
    """-log10 p of an effect on any trait."""
    p = axes_T.shape[0]
    context = TestContext(axes_T, quadratic, size, size - p)
    return test(statistics.u, statistics.v, named_hypothesis("any", [str(k) for k in range(p)]), context).mlog10p


def tested_complete(study: Study, Y: Array, G: Array) -> Array:
    """Tests of variants with complete traits."""
    spectrum = spectrum_of_relationship(study.K, study.X)
    data = rotate_traits(spectrum, Y)
    point = fitting.fit(data, Y.shape[1], True).point
    quadratic = float(np.sum(point.alpha * (data.Z @ point.axes.T.T)))
    found = block_scanner(point, spectrum.Qx, np.float64).statistics(G - G.mean(axis=0))
    return any_effect(point.axes.T, quadratic, Y.size, found)


def tested_exact(study: Study, G: Array) -> Array:
    """Tests of variants on the observed cells."""
    point = fit(study.cells(), study.Y.shape[1], True).point
    found = observed_scanner(point, np.float64).statistics(G - G.mean(axis=0))
    return any_effect(point.axes.T, point.quadratic, int(np.isfinite(study.Y).sum()), found)


def power(replicates: int, n: int, share: float, sizes: list[float], rng: Rng, lines: Callable[[str], None]) -> None:
    """Ten variants with effects and 500 without in every replicate; an effect size for every trait."""
    causal, null = 10, 500
    found: dict[str, list[Array]] = {"exact": [], "drop": [], "mean imputation": []}
    for _ in range(replicates):
        G = rng.binomial(2, 0.3, size=(n, causal + null)).astype(float)
        signs = rng.choice([-1.0, 1.0], size=(causal, 1))
        effects = G[:, :causal] @ (signs * np.array(sizes))
        marked = simulated(rng, n, len(sizes), 0.0, effects)
        Y = np.where(rng.random(marked.Y.shape) < share, np.nan, marked.Y)
        kept = np.isfinite(Y).any(axis=1)
        study, seen = Study(Y, marked.X, marked.K).take(np.flatnonzero(kept)), G[kept]
        found["exact"].append(tested_exact(study, seen))
        found["mean imputation"].append(tested_complete(study, study.filled, seen))
        whole = np.flatnonzero(study.complete)
        dropped = study.take(whole)
        found["drop"].append(tested_complete(dropped, dropped.Y, seen[whole]))
    lines(f"{replicates} replicates of {n} samples, {share:.0%} of cells missing; effects {sizes} a copy, in sd")
    lines("                    type I error at 0.05   at 0.001   power at 1e-4")
    for name, parts in found.items():
        p = 10.0 ** -np.array(parts)
        without, having = p[:, causal:], p[:, :causal]
        lines(
            f"{name:>16} {np.mean(without < 0.05):23.4f} {np.mean(without < 1e-3):10.5f} {np.mean(having < 1e-4):15.3f}"
        )


def predicted_by_gemma(study: Study) -> Array:
    """All cells by ``gemma -predict`` (n, p), from its own fit of the samples with all traits."""
    with tempfile.TemporaryDirectory() as folder:
        np.savetxt(Path(folder) / "kinship.txt", study.K, fmt="%.10g")
        lines = ("\t".join("NA" if np.isnan(y) else repr(float(y)) for y in row) for row in study.Y)
        (Path(folder) / "traits.txt").write_text("\n".join(lines) + "\n")
        columns = [str(k + 1) for k in range(study.Y.shape[1])]
        command = ["gemma", "-p", "traits.txt", "-n", *columns, "-k", "kinship.txt", "-predict", "1", "-o", "g"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return np.loadtxt(Path(folder) / "output" / "g.prdt.txt")


def prediction(study: Study, share: float, folds: int, rng: Rng, lines: Callable[[str], None]) -> None:
    """Observed cells masked in turn, predicted from the rest; squared error over the trait's variance."""
    n, p = study.Y.shape
    errors: dict[str, list[Array]] = {"exact": [], "gemma -predict": [], "mean of the trait": []}
    inside = []
    for _ in range(folds):
        masked = np.isfinite(study.Y) & (rng.random((n, p)) < share)
        Y = np.where(masked, np.nan, study.Y)
        kept = np.isfinite(Y).any(axis=1)
        part = Study(Y, study.X, study.K).take(np.flatnonzero(kept))
        fitted = fit(part.cells(), p, True)
        data = fitted.point.data
        predicted = missing_cells(fitted.point)
        mean, variance = predicted.mean, predicted.variance
        cells = data.rows, data.traits
        truth = np.where(masked, study.Y, np.nan)[kept][cells]
        known = np.isfinite(truth)
        found = {"exact": mean, "mean of the trait": np.nanmean(part.Y, axis=0)[data.traits]}
        if shutil.which("gemma"):
            found["gemma -predict"] = predicted_by_gemma(part)[cells]
        scale = np.nanvar(study.Y, axis=0)[data.traits]
        for name, values in found.items():
            errors[name].append(((truth - values) ** 2 / scale)[known])
        inside.append(np.abs(truth - mean)[known] < 1.959964 * np.sqrt(variance[known]))
    lines(f"{folds} times {share:.0%} of the observed cells masked, {sum(map(len, inside))} cells in all")
    for name, parts in errors.items():
        if parts:
            lines(f"mean squared error over the trait's variance, {name}: {np.mean(np.concatenate(parts)):.3f}")
    lines(f"coverage of 95% intervals, exact: {np.mean(np.concatenate(inside)):.3f}")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("cost", "power", "prediction"))
    parser.add_argument("--grm", help="prefix of a GCTA relationship matrix")
    parser.add_argument("--pheno", help="CSV with IID and traits")
    parser.add_argument("--traits", default="")
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--ntraits", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--effects", default="0.25,0", help="of a causal variant on every trait")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.part == "power":
        sizes = [float(size) for size in options.effects.split(",")]
        power(options.runs, options.samples, options.share, sizes, rng, print)
        return
    if options.grm:
        study = real(options.grm, options.pheno, options.traits.split(","))
    else:
        study = simulated(rng, options.samples, options.ntraits, options.share)
    if options.part == "cost":
        cost(study, options.runs, print)
    else:
        prediction(study, 0.1 if options.grm else options.share, options.runs, rng, print)


if __name__ == "__main__":
    main()
