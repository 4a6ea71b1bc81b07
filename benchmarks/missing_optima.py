"""Fits with missing cells against many random starts: does `fit --missing exact` end at a local optimum?

Small data sets: 40 to 80 samples in families, 2 to 4 traits, 20 to 60% of the cells missing, one to six covariates,
REML or ML, C0 of full or bounded rank; with ``--larger`` 60 to 150 samples, in families, of three populations or
unrelated, with the relationship matrix of 1,000 variants. Printed is by how much the log-likelihood of the fit lies
below the best of the searches from random starts that end at a certified optimum, and how many of these end there.

    python -m benchmarks.missing_optima [--seeds 0:100] [--starts 20] [--larger]
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model.missing.fitting import climb, fit
from kron2sum_cli.model.missing.observed import ObservedCells, observed_cells, observed_spectrum
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances

Array = NDArray[np.float64]

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """Observed cells, the largest rank of C0, the method, and a description."""

    cells: ObservedCells
    rank: int
    reml: bool
    label: str


def simulate(seed: int) -> Case:
    """One data set."""
    rng = np.random.default_rng([78, seed])
    n, p = int(rng.integers(40, 81)), int(rng.choice([2, 3, 3, 3, 4]))
    share, reml = rng.uniform(0.2, 0.6), bool(rng.uniform() < 0.6)
    rank = int(rng.integers(1, p + 1)) if rng.uniform() < 0.5 else p
    c, r = int(rng.choice([1, 3, 6])), 2 * n
    families = np.repeat(np.arange(n), 3)[:n]
    G = (0.7 * rng.normal(size=(n, r))[families] + 0.7 * rng.normal(size=(n, r))) / np.sqrt(r)
    L0, L1 = rng.normal(size=(2, p, p + 1)) / np.sqrt(p + 1)
    L0 *= rng.choice([0.4, 1, 2])
    Y = G @ rng.normal(size=(r, p + 1)) @ L0.T + rng.normal(size=(n, p + 1)) @ L1.T
    missing = rng.uniform(size=Y.shape) < share
    missing[missing.all(axis=1), rng.integers(p)] = False
    Y[missing] = np.nan
    X = np.column_stack([np.ones(n)] + [rng.normal(size=n) for _ in range(c - 1)])
    spectrum, prior = observed_spectrum(G @ G.T, X, False, reml)
    label = f"n={n} p={p} c={c} missing={share:.2f} rank={rank} {'REML' if reml else 'ML'}"
    return Case(observed_cells(spectrum, Y, np.eye(p), X, prior), rank, reml, label)


def simulate_larger(seed: int) -> Case:
    """One data set of 60 to 150 samples."""
    rng = np.random.default_rng([2026, 1128, seed])
    n, p = int(rng.integers(60, 151)), int(rng.choice([2, 3, 3, 3, 4]))
    share, reml = rng.uniform(0.2, 0.6), bool(rng.uniform() < 0.5)
    kind, f = int(rng.integers(3)), rng.uniform(0.1, 0.5, 1000)
    g = _genotypes(rng, n, kind, f)
    # Centred on the samples under REML alone: under ML the likelihood would be unbounded.
    G = (g - (g.mean(axis=0) if reml else 2 * f.mean())) / g.std(axis=0) / np.sqrt(g.shape[1])
    genetic = G @ rng.normal(size=(G.shape[1], p)) @ _root(rng, p).T * rng.choice([0.3, 1, 2])
    Y = genetic + rng.normal(size=(n, p)) @ _root(rng, p).T
    missing = rng.uniform(size=Y.shape) < share
    missing[missing.all(axis=1), rng.integers(p)] = False
    Y[missing] = np.nan
    c = int(rng.choice([1, 1, 3, 6]))
    X = np.column_stack([np.ones(n)] + [rng.normal(size=n) for _ in range(c - 1)])
    rank = int(rng.integers(1, p + 1)) if rng.uniform() < 0.3 else p
    spectrum, prior = observed_spectrum(G @ G.T, X, False, reml)
    label = f"n={n} p={p} c={c} missing={share:.2f} rank={rank} {'REML' if reml else 'ML'}"
    return Case(observed_cells(spectrum, Y, np.eye(p), X, prior), rank, reml, label)


def _root(rng: np.random.Generator, p: int) -> Array:
    """Lower Cholesky factor of a random covariance (p, p)."""
    L = rng.normal(size=(p, p + 1))
    return np.asarray(np.linalg.cholesky(L @ L.T / (p + 1)), np.float64)


def _genotypes(rng: np.random.Generator, n: int, kind: int, f: Array) -> Array:
    """Genotypes (n, m) of families of four (kind 0), of three populations (1), or of unrelated samples (2)."""
    m = f.size
    if kind == 0:
        parents = rng.binomial(1, f, size=(-(-n // 4), 2, 2, m))
        passed_on = rng.integers(0, 2, size=(n, 2, 1, m))
        g = np.take_along_axis(parents[np.arange(n) // 4], passed_on, axis=2).sum(axis=(1, 2))
    else:
        of_population = rng.beta(4 * f, 4 * (1 - f), size=(3, m)) if kind == 1 else f[None, :]
        g = rng.binomial(2, of_population[np.arange(n) % len(of_population)])
    return np.asarray(g[:, g.std(axis=0) > 0], np.float64)


def random_starts(case: Case, number: int, seed: int) -> Iterator[TraitAxes]:
    """Axes of random covariances in the units of the traits."""
    rng = np.random.default_rng([5, seed])
    cells = case.cells
    p, tau = cells.ntraits, cells.mean_eigenvalue
    spread = np.std(cells.filled.Z, axis=0)
    for _ in range(number):
        L0, L1 = (rng.uniform(0.1, 1.2, size=(p, 1)) * rng.normal(size=(p, p + 1)) / np.sqrt(p) for _ in range(2))
        C0, C1 = (np.multiply.outer(spread, spread) * (L @ L.T) for L in (L0, L1))
        yield axes_of_covariances(C0 / tau, C1 + 1e-6 * np.diag(spread**2), tau)


def certified(case: Case, start: TraitAxes) -> float:
    """The log-likelihood of a certified optimum reached from a start; minus infinity where it is none."""
    try:
        found = climb(case.cells, start, case.rank, case.reml)
    except NumericalError:
        return -np.inf
    return found.point.lml if found.certificate.certified else -np.inf


def main() -> None:
    """Print a line a data set, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:100")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--larger", action="store_true")
    options = parser.parse_args()
    below = fitted = failed = 0
    for seed in range(*map(int, options.seeds.split(":"))):
        case = simulate_larger(seed) if options.larger else simulate(seed)
        random = np.array([certified(case, start) for start in random_starts(case, options.starts, seed)])
        best = float(random.max())
        try:
            lml = fit(case.cells, case.rank, case.reml).point.lml
        except ConvergenceError as error:
            failed += 1
            print(f"{seed:4} {case.label}: no fit ({str(error)[:60]} ...); best random start {best:.4f}", flush=True)
            continue
        fitted, below = fitted + 1, below + (best > lml + TOLERANCE)
        there = int(np.sum(random > best - TOLERANCE))
        print(
            f"{seed:4} {case.label}: {best - lml:10.1e} below; {there} of {len(random)} starts at the best", flush=True
        )
    print(f"{fitted} fits, {below} of them more than {TOLERANCE:g} below; {failed} without a maximum")


if __name__ == "__main__":
    main()
