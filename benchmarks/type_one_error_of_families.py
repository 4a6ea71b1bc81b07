"""Type I error at a biobank's size: families in the sample, heritable traits, and no variant that has an effect.

A share of n samples lives in families of 2 to 6 full siblings. Every data set has its own traits, of heritability a
half and correlated with each other, and its own variants, which siblings inherit from the same two parents. The null
model is fitted by REML with the matrix of the families, as in a real scan, or without (``--grm none``). Printed is the
share of variants with P below each level, over the level, of the joint test of all traits and of the tests of single
traits, with its 95% interval over data sets: 1 is right, more is too many false positives.

    python -m benchmarks.type_one_error_of_families --samples 20000 --traits 5 --data-sets 20 --variants 5000
"""

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.biobank import BLOCK, family_of_samples, inherited
from kron2sum_cli.model.families import fitting
from kron2sum_cli.model.families.likelihood import family_traits
from kron2sum_cli.model.families.scanner import family_scanner
from kron2sum_cli.model.families.spectrum import FamilySpectrum, family_spectrum
from kron2sum_cli.model.hypotheses import TestContext, hypothesis, test, trait_effects

Array = NDArray[np.float64]

LEVELS = np.array([5e-2, 1e-2, 1e-3, 1e-4])
COVARIATES = 5


def relationships(family: NDArray[np.intp]) -> sparse.csr_array:
    """1 of a sample with itself, 0.5 of siblings."""
    one = sparse.csr_array((np.ones(len(family)), (np.arange(len(family)), family)))
    return sparse.csr_array(0.5 * (one @ one.T) + 0.5 * sparse.eye_array(len(family)))


def simulated_traits(family: NDArray[np.intp], p: int, rng: np.random.Generator) -> Array:
    """Traits (n, p) of heritability a half; their genetic and residual parts are correlated."""
    n = len(family)
    genetic = np.sqrt(0.5) * (rng.normal(size=(int(family.max()) + 1, p))[family] + rng.normal(size=(n, p)))
    mixes = [np.linalg.qr(rng.normal(size=(p, p)))[0] * np.sqrt(rng.uniform(0.2, 1.8, size=p)) for _ in range(2)]
    parts = [
        part @ (M / np.linalg.norm(M, axis=0))
        for part, M in zip((genetic, rng.normal(size=(n, p))), mixes, strict=True)
    ]
    return np.asarray(np.sqrt(0.5) * (parts[0] + parts[1]))


def minus_log10_p(
    spectrum: FamilySpectrum, Y: Array, X: Array, family: NDArray[np.intp], variants: int, seed: int
) -> Array:
    """-log10 P (variants, 1 + p) of the joint test and of the tests of single traits."""
    rng, p = np.random.default_rng(seed), Y.shape[1]
    point = fitting.fits(family_traits(spectrum, Y, X), [0 if spectrum.independent else p], True)[0].point
    size = (len(Y) - X.shape[1]) * p
    context = TestContext(point.axes.T, point.quadratic, size, size)
    scanner, found = family_scanner(point), []
    for start in range(0, variants, BLOCK):
        G = inherited(family, min(BLOCK, variants - start), rng).astype(np.float32)
        G -= G.mean(axis=1, keepdims=True)
        statistics = scanner.statistics(G.T)
        joint = test(statistics.u, statistics.v, hypothesis("any", np.eye(p)), context)
        effects = trait_effects(statistics.u, statistics.v, point.axes.Tinv, context)
        found.append(np.column_stack([joint.mlog10p, effects.mlog10p]))
    return np.vstack(found)


def main() -> None:
    """Simulate, fit, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--traits", type=int, default=5)
    parser.add_argument("--in-families", type=float, default=0.3)
    parser.add_argument("--data-sets", type=int, default=20)
    parser.add_argument("--variants", type=int, default=5000)
    options = parser.parse_args()
    shares: dict[tuple[str, str], list[Array]] = {}
    for seed in range(options.data_sets):
        rng = np.random.default_rng(seed)
        family = family_of_samples(options.samples, rng, options.in_families)
        Y = simulated_traits(family, options.traits, rng)
        X = np.column_stack([np.ones(len(Y)), rng.normal(size=(len(Y), COVARIATES - 1))])
        for matrix, K in (("families", relationships(family)), ("none", sparse.csr_array(sparse.eye_array(len(Y))))):
            mlog10p = minus_log10_p(family_spectrum(K), Y, X, family, options.variants, seed)
            below = (mlog10p[:, :, None] > -np.log10(LEVELS)).mean(axis=0) / LEVELS
            shares.setdefault((matrix, "joint"), []).append(below[0])
            shares.setdefault((matrix, "single traits"), []).append(below[1:].mean(axis=0))
        if seed:
            print(f"{seed + 1} data sets of {options.variants} variants", *_lines(shares), sep="\n", flush=True)


def _lines(shares: dict[tuple[str, str], list[Array]]) -> list[str]:
    """A line a test: at every level the mean over data sets and its 95% interval."""
    lines = [" " * 26 + "".join(f"{level:>24g}" for level in LEVELS)]
    for (matrix, test_name), of_data_sets in shares.items():
        values = np.array(of_data_sets)
        error = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
        cells = (f"{m:.3f} ({m - e:.3f} to {m + e:.3f})" for m, e in zip(values.mean(axis=0), error, strict=True))
        lines.append(f"{matrix:<10}{test_name:<16}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


if __name__ == "__main__":
    main()
