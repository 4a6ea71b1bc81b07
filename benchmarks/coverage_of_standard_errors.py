"""Are the standard errors calibrated? Coverage of 95% intervals of heritabilities and correlations.

Three traits on 500 people in families, simulated again and again from the same C0 and C1 and fitted by REML; an
interval is the estimate ± 1.96 standard errors (and, with --profile, the profile-likelihood interval of the
heritabilities). With 200 simulations a coverage of 0.95 is itself known to ± 0.03 (two standard errors).

    python benchmarks/coverage_of_standard_errors.py --simulations 200
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.profile import heritability_interval
from kron2sum_cli.model.spectrum import Array, Spectrum, spectrum_of_features
from kron2sum_cli.model.uncertainty import Estimates, estimates_of

FAMILIES, CHILDREN, VARIANTS = 100, 3, 1500
HERITABILITY = np.array([0.25, 0.5, 0.7])
GENETIC = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.1], [-0.3, 0.1, 1.0]])
RESIDUAL = np.array([[1.0, 0.3, 0.2], [0.3, 1.0, -0.4], [0.2, -0.4, 1.0]])
LEVEL = 0.95


@dataclass(frozen=True)
class Truth:
    """What is simulated, and its heritabilities and correlations in the order of `named`."""

    C0: Array
    C1: Array
    values: dict[str, float]


def families(rng: np.random.Generator) -> Array:
    """G (n, r) of couples and their children: standardised genotypes over √r."""
    frequency = rng.uniform(0.1, 0.9, size=VARIANTS)
    people = []
    for _ in range(FAMILIES):
        haplotypes = rng.random(size=(4, VARIANTS)) < frequency
        people += [haplotypes[0] + 0.0 + haplotypes[1], haplotypes[2] + 0.0 + haplotypes[3]]
        for _ in range(CHILDREN):
            from_parents = (haplotypes[2 * k + rng.integers(2, size=VARIANTS), np.arange(VARIANTS)] for k in (0, 1))
            people.append(sum(h.astype(float) for h in from_parents))
    G = np.array(people)
    G = G[:, G.std(axis=0) > 0]
    return np.asarray((G - G.mean(axis=0)) / G.std(axis=0) / np.sqrt(G.shape[1]))


def truth(mean_diagonal: float) -> Truth:
    """Covariances of traits of variance 1 with the heritabilities and correlations above."""
    C0 = GENETIC * np.sqrt(np.outer(HERITABILITY, HERITABILITY)) / mean_diagonal
    C1 = RESIDUAL * np.sqrt(np.outer(1 - HERITABILITY, 1 - HERITABILITY))
    return Truth(C0, C1, named(HERITABILITY, GENETIC, RESIDUAL))


def named(h2: Array, rg: Array, re: Array) -> dict[str, float]:
    """Heritabilities and correlations of pairs by name."""
    values = {f"h2 of trait {j + 1}": float(h2[j]) for j in range(len(h2))}
    for name, r in (("rg", rg), ("re", re)):
        for i, j in ((1, 0), (2, 0), (2, 1)):
            values[f"{name} of {i + 1} and {j + 1}"] = float(r[i, j])
    return values


@dataclass(frozen=True)
class Replicate:
    """The estimates of one simulation, their standard errors, and intervals by profile."""

    estimate: dict[str, float]
    se: dict[str, float]
    profile: dict[str, tuple[float, float]]
    boundary: bool


def replicate(rng: np.random.Generator, G: Array, spectrum: Spectrum, true: Truth, profile: bool) -> Replicate:
    """Simulate once and fit."""
    (n, r), p = G.shape, len(HERITABILITY)
    roots = [np.linalg.cholesky(C) for C in (true.C0, true.C1)]
    Y = G @ rng.normal(size=(r, p)) @ roots[0].T + rng.normal(size=(n, p)) @ roots[1].T
    fitted = fit(rotate_traits(spectrum, Y), p, True)
    g = spectrum.mean_diagonal
    e: Estimates = estimates_of(fitted.point, spectrum.Qx, p, g, np.eye(p), np.ones((n, 1)))
    intervals = {}
    for j in range(p if profile else 0):
        interval = heritability_interval(fitted.point, j, g, p, LEVEL)
        intervals[f"h2 of trait {j + 1}"] = (interval.low, interval.high)
    boundary = fitted.certificate.active_C0 + fitted.certificate.active_C1 > 0
    return Replicate(named(e.h2, e.rg, e.re), named(e.h2_se, e.rg_se, e.re_se), intervals, boundary)


def run(simulations: int, seed: int, profile: bool, report: Callable[[str], None] = print) -> dict[str, float]:
    """Simulate and print the table; the coverage by parameter."""
    rng = np.random.default_rng(seed)
    G = families(rng)
    spectrum = spectrum_of_features(G, np.ones((len(G), 1)))
    true = truth(spectrum.mean_diagonal)
    replicates = [replicate(rng, G, spectrum, true, profile) for _ in range(simulations)]
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    report(f"{len(G)} people, {G.shape[1]} variants, {simulations} simulations, REML")
    report(f"{sum(one.boundary for one in replicates)} of the fits lie on a boundary")
    header = f"{'':16s} {'truth':>7s} {'mean':>7s} {'sd':>7s} {'mean se':>7s} {'coverage':>8s}"
    report(header + " of the profile" * profile)
    coverage = {}
    for name, value in true.values.items():
        estimate, se = (np.array([getattr(one, kind)[name] for one in replicates]) for kind in ("estimate", "se"))
        coverage[name] = float(np.mean(np.abs(estimate - value) <= z * se))
        line = (
            f"{name:16s} {value:7.2f} {estimate.mean():7.3f} {estimate.std(ddof=1):7.3f} {se.mean():7.3f}"
            f" {coverage[name]:8.3f}"
        )
        if name in replicates[0].profile:
            inside = [low <= value <= high for low, high in (one.profile[name] for one in replicates)]
            line += f" {np.mean(inside):14.3f}"
        report(line)
    for kind in ("h2", "rg", "re"):
        mean = np.mean([share for name, share in coverage.items() if name.startswith(kind)])
        report(f"coverage of {kind}, all: {mean:.3f}")
    return coverage


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="also profile-likelihood intervals (minutes)")
    options = parser.parse_args()
    run(options.simulations, options.seed, options.profile)
