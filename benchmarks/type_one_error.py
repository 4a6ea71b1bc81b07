"""Type I error of the any-effect test: likelihood ratio, F, and likelihood ratio after a refit.

Traits are simulated without any effect of a variant; the null model is fitted by REML to every data set, as in a real
scan, and random variants are tested. Printed is the share of variants with P below each level, over the level: 1 is
right, more is too many false positives. K known: the covariances are the true ones, for which F is exact.

    python benchmarks/type_one_error.py [--tests 400000] [--refits 40000]
"""

import argparse

import numpy as np

from kron2sum_cli.errors import Kron2SumError
from kron2sum_cli.model.bartlett import bartlett_factors
from kron2sum_cli.model.block_scanner import block_scanner
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.hypotheses import TestContext, compare, hypothesis, reduction
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.refit import null_maxima, refitter
from kron2sum_cli.model.spectrum import Array, Spectrum, spectrum_of_features
from kron2sum_cli.model.tail_probability import chi2_mlog10p
from kron2sum_cli.model.trait_axes import axes_of_covariances

LEVELS = (5e-2, 1e-2, 1e-3, 1e-4)
VARIANTS = 2000
"""Variants tested on one data set."""


def simulate(rng: np.random.Generator, n: int, p: int) -> tuple[Spectrum, Array, Array, Array, Array]:
    """A spectrum, traits, variants, and the true covariances; families of five."""
    families = np.repeat(np.arange(-(-n // 5)), 5)[:n]
    markers = rng.normal(size=(families[-1] + 1, 3 * n))[families] * np.sqrt(0.5)
    G = (markers + np.sqrt(0.5) * rng.normal(size=(n, 3 * n))) / np.sqrt(3 * n)
    L0, L1 = rng.normal(size=(2, p, p + 1)) / np.sqrt(p + 1)
    C0, C1 = L0 @ L0.T, L1 @ L1.T
    Y = G @ rng.normal(size=(3 * n, p)) @ np.linalg.cholesky(C0).T + rng.normal(size=(n, p)) @ np.linalg.cholesky(C1).T
    f = rng.uniform(0.05, 0.5, size=VARIANTS)
    variants = rng.binomial(2, f, size=(n, VARIANTS)).astype(float)
    return spectrum_of_features(G, np.ones((n, 1))), Y, variants - variants.mean(axis=0), C0, C1


def tested(point: Point, Qx: Array, variants: Array) -> tuple[Array, Array]:
    """-log10 P by likelihood ratio and by F."""
    p, size = point.data.ntraits, point.data.nsamples * point.data.ntraits
    statistics = block_scanner(point, Qx, np.float64).statistics(variants)
    drop = reduction(statistics.u, statistics.v, hypothesis("any", np.eye(p)).full, point.axes.T)
    results = []
    for kind in ("lr", "f"):
        context = TestContext(point.axes.T, point.quadratic, size, size - p, kind)  # type: ignore[arg-type]
        results.append(compare(np.zeros_like(drop), drop, 0, p, context).mlog10p)
    return results[0], results[1]


def run(n: int, p: int, tests: int, refits: int, seed: int = 1) -> dict[str, Array]:
    """Counts of P below every level, and how many variants were tested, by method."""
    rng = np.random.default_rng(seed)
    below = {name: np.zeros(len(LEVELS)) for name in ("LR", "F", "F, K known", "refit")}
    counted = dict.fromkeys(below, 0)
    thresholds = -np.log10(LEVELS)
    while counted["LR"] < tests:
        spectrum, Y, variants, C0, C1 = simulate(rng, n, p)
        variants = variants[:, variants.std(axis=0) > 0]
        data = rotate_traits(spectrum, Y)
        try:
            null = fit(data, p, True)
        except Kron2SumError:
            continue
        found = dict(zip(("LR", "F"), tested(null.point, spectrum.Qx, variants), strict=True))
        known = evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), True)
        found["F, K known"] = tested(known, spectrum.Qx, variants)[1]
        if counted["refit"] < refits:
            contrasts = data.without_projected()
            fitter = refitter(contrasts, null_maxima(contrasts, null.point.axes, p), reml=True)
            factor = bartlett_factors(fitter, [hypothesis("any", np.eye(p))], seed)[0]
            likely = np.flatnonzero(found["LR"] > 0.5)  # none of the others comes near the levels
            done = fitter.refit(data.V.T @ variants[:, likely], np.eye(p))
            found["refit"] = np.zeros(variants.shape[1])
            found["refit"][likely] = chi2_mlog10p(np.maximum(2 * (done.lml - fitter.null_lml), 0) / factor, p)
        for name, mlog10p in found.items():
            below[name] += (mlog10p[:, None] > thresholds).sum(axis=0)
            counted[name] += variants.shape[1]
    return {name: below[name] / counted[name] / np.array(LEVELS) for name in below if counted[name]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=400_000)
    parser.add_argument("--refits", type=int, default=40_000)
    options = parser.parse_args()
    print("   n  p  method      " + "".join(f"{level:>10.0e}" for level in LEVELS))
    for n in (60, 150, 1000):
        for p in (2, 5):
            for name, ratios in run(n, p, options.tests, options.refits).items():
                print(f"{n:>4} {p:>2}  {name:<12}" + "".join(f"{ratio:10.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
