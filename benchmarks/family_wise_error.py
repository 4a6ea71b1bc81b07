"""Family-wise error of ``scan --bootstrap``: how many scans without any effect have a significant variant.

    python -m benchmarks.family_wise_error --bed mouse_hs1940.bed [--data-sets 400] [--samples 200,1200]
    python -m benchmarks.family_wise_error --null f2.npz --bed f2.bed [--whole-scans 200] [--bootstrap 1000]

The first form takes real genotypes, of samples at random, with their linkage disequilibrium and relatedness. Two
traits of heritability a half are simulated again and again; for each the null model is fitted, as by `fit`, and the
whole genome is scanned, as by `scan --bootstrap 199`. Printed is the share of data sets in which some variant has a P
over the whole scan of at most 0.05, with its exact 95% interval: for the test of any effect, of a common one, and of
each trait. Errors are normal, or have heavy tails (t with three degrees of freedom), for which thresholds come from
normal traits (`--resample normal`) and from permuted ones (`--resample permute`).

The second form takes a null model and its genotypes, and compares the thresholds of B simulated traits, at the C0 and
C1 of the null model, with whole scans of traits that are simulated independently of them, each with a null model fitted
to it: the share of these scans whose smallest P lies beyond the threshold. With a null model by `--loco` every
chromosome has its own.

Genotypes are rotated once and stay in memory. One thread is best: OMP_NUM_THREADS=1.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from bed_reader import open_bed
from numpy.typing import NDArray
from scipy import stats

from kron2sum_cli.errors import Kron2SumError
from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.model.bootstrap import (
    SimulatedTraits,
    largest_statistics,
    normal_errors,
    permutations,
    simulated_normal,
    simulated_permuted,
    threshold,
)
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, named_hypothesis
from kron2sum_cli.model.null_model import CompleteNullModel, FitSummary, RotatedSamples, TraitData, null_likelihood
from kron2sum_cli.model.spectrum import Spectrum, spectrum_of_relationship

Array = NDArray[np.float64]

P = 2
"""Traits of the first form."""

C0, C1 = np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 1.0]])
TAILS = 3
"""Degrees of freedom of errors with heavy tails."""

DATA_SETS_AT_ONCE = 100
"""Simulated traits of `thresholds` that are scored at once."""


@dataclass(frozen=True)
class Genome:
    """Genotypes in memory, beside their rotation.

    Attributes
    ----------
    G : NDArray (n, b)
        Centred variants without missing values.
    squares : NDArray (m, b)
        Squares of the rotated variants.
    """

    G: NDArray[np.float32]
    squares: NDArray[np.float32]


def read_genotypes(bed: Path, rows: NDArray[np.intp] | None) -> NDArray[np.float32]:
    """Centred genotypes (n, b) of some samples, missing ones at the mean; without variants of one genotype."""
    with open_bed(bed) as file:
        G = file.read(slice(None) if rows is None else np.s_[rows, :], dtype="float32")
    G = np.where(np.isnan(G), np.nanmean(G, axis=0), G)
    return np.asarray((G - G.mean(axis=0))[:, G.std(axis=0) > 0.14])  # frequencies of 0.01 and more


def genome_of(G: NDArray[np.float32], V: Array) -> Genome:
    """Rotate genotypes."""
    return Genome(G, (V.astype(np.float32).T @ G) ** 2)


def largest_of(
    model: CompleteNullModel, genome: Genome, tests: Sequence[Hypothesis], simulated: SimulatedTraits | None
) -> dict[str, Array]:
    """The largest -log10 P of every test and trait: of the traits themselves (first), then of those simulated."""
    point, p = model.point, model.contrasts.ntraits
    scores, quadratic = model.scores()[:, :, None].astype(np.float32), np.array([point.quadratic])
    if simulated is not None:
        scores = np.concatenate([scores, simulated.scores], axis=2)
        quadratic = np.append(quadratic, simulated.quadratic)
    both = SimulatedTraits(scores, quadratic)
    u = (genome.G.T @ scores.reshape(len(scores), -1)).reshape(genome.G.shape[1], p, -1)
    size = model.contrasts.nrows * p
    context = TestContext(model.summary.axes.T, point.quadratic, size, size)
    traits = [f"t{j}" for j in range(p)]
    return largest_statistics(both, u, (genome.squares.T @ point.W).astype(np.float64), tests, traits, context)


def interval(k: int, n: int) -> str:
    """A share with its exact 95% interval, in percent."""
    found = stats.binomtest(k, n).proportion_ci()
    return f"{100 * k / n:.1f}% ({100 * found.low:.1f}-{100 * found.high:.1f})"


def errors(bed: Path, n: int, data_sets: int, bootstrap: int, tails: bool) -> None:
    """Print the family-wise error of scans of n samples."""
    rng = np.random.default_rng([7, n, tails])
    with open_bed(bed) as file:
        rows = np.sort(rng.permutation(file.iid_count)[:n])
    G = read_genotypes(bed, rows)
    scaled = (G / G.std(axis=0)).astype(np.float64)
    K = scaled @ scaled.T / G.shape[1]
    root = np.linalg.cholesky(K + 1e-8 * np.eye(n))
    spectrum = spectrum_of_relationship(K, np.ones((n, 1)))
    genome = genome_of(G, spectrum.V)
    tests = [named_hypothesis(name, ["t0", "t1"]) for name in ("any", "common")]
    ways = ("normal", "permute") if tails else ("normal",)
    counts: dict[tuple[str, str], int] = {}
    done = 0
    for seed in range(data_sets):
        noise = stats.t.rvs(TAILS, size=(n, P), random_state=rng) / np.sqrt(3) if tails else rng.normal(size=(n, P))
        Y = root @ rng.normal(size=(n, P)) @ np.linalg.cholesky(C0).T + noise @ np.linalg.cholesky(C1).T
        try:
            model = null_model(spectrum, Y)
        except Kron2SumError as error:
            print(f"data set {seed}: {error}", flush=True)
            continue
        done += 1
        for way in ways:
            simulated = simulate(model, Y, way, bootstrap, seed)
            for test, values in largest_of(model, genome, tests, simulated).items():
                beyond = threshold(values[1:], 0.05)
                assert beyond is not None
                counts[way, test] = counts.get((way, test), 0) + int(values[0] > beyond)
    for (way, test), count in counts.items():
        kind = f"t, {TAILS} degrees of freedom" if tails else "normal"
        print(f"n={n:<5} {kind:<24} --resample {way:<8} {test:<8} {interval(count, done)} of {done}", flush=True)


def null_model(spectrum: Spectrum, Y: Array) -> CompleteNullModel:
    """The null model of complete traits with an intercept."""
    n, p = Y.shape
    data = TraitData(Y, np.eye(p), np.ones((n, 1)))
    likelihood = null_likelihood(RotatedSamples(spectrum, None), data, True)
    model = likelihood.null_model(likelihood.fit(p))
    assert isinstance(model, CompleteNullModel)
    return model


def simulate(model: CompleteNullModel, Y: Array, way: str, number: int, seed: int) -> SimulatedTraits:
    """Traits of `--bootstrap`."""
    if way == "normal":
        return simulated_normal(model, normal_errors(seed, number, *Y.shape), None, np.float32)
    return simulated_permuted(model, Y, permutations(seed, number, len(Y)), None, np.float32)


def thresholds(null: str, bed: Path, bootstrap: int, whole_scans: int) -> None:
    """Print the thresholds of a null model, and how many whole scans of independent traits go beyond them."""
    file = read_null(null)
    with open_bed(bed) as genotypes:
        rows = np.array([list(genotypes.iid).index(name) for name in file.samples.iids])
        chromosomes = np.asarray(genotypes.chromosome)
        G = genotypes.read(np.s_[rows, :], dtype="float32")
    G = np.where(np.isnan(G), np.nanmean(G, axis=0), G)
    G -= G.mean(axis=0)
    p, seed = len(file.traits), 20_000
    tests = [named_hypothesis("any", file.traits)]
    of_bootstrap: list[dict[str, Array]] = []
    of_scans: list[dict[str, Array]] = []
    for chromosome in [*file.chromosomes] or [None]:
        model = file.load(chromosome)
        assert isinstance(model, CompleteNullModel)
        here = chromosomes == chromosome if chromosome else np.ones(len(chromosomes), dtype=bool)
        genome = genome_of(G[:, here & (G.std(axis=0) > 0)], model.contrasts.V)
        simulated = simulate(model, file.description.Y, "normal", bootstrap, 0)
        found = largest_of(model, genome, tests, simulated)
        of_bootstrap.append({name: values[1:] for name, values in found.items()})
        found = {}
        for Y in independent_traits(model, whole_scans, seed, p):
            refitted = replace(
                model,
                contrasts=rotate_traits(spectrum_of(model), Y),
                summary=refit(model.summary, spectrum_of(model), Y),
            )
            for name, values in largest_of(refitted, genome, tests, None).items():
                found[name] = np.append(found.get(name, np.empty(0)), values)
        of_scans.append(found)
        print(f"chromosome {chromosome}: {genome.G.shape[1]} variants", flush=True)
    for name in of_bootstrap[0]:
        simulated_ones = np.max([part[name] for part in of_bootstrap], axis=0)
        scanned = np.max([part[name] for part in of_scans], axis=0)
        for level in (0.1, 0.05):
            beyond, other = threshold(simulated_ones, level), threshold(scanned, level)
            assert beyond is not None
            assert other is not None
            share = interval(int(np.sum(scanned > beyond)), len(scanned))
            print(f"{name:<6} at {level}: threshold {beyond:.3f}, of whole scans {other:.3f}; beyond it {share}")


def independent_traits(model: CompleteNullModel, number: int, seed: int, p: int) -> Iterator[Array]:
    """Traits (n, p) under a null model, without fixed effects; the same errors for every chromosome."""
    axes = model.summary.axes
    for start in range(0, number, DATA_SETS_AT_ONCE):
        size = min(DATA_SETS_AT_ONCE, number - start)
        rng = np.random.default_rng([seed, start])
        coloured = model.colour(rng.normal(size=(model.contrasts.nsamples, p, size)))
        for k in range(size):
            yield coloured[:, :, k] @ axes.Tinv.T


def spectrum_of(model: CompleteNullModel) -> Spectrum:
    """The spectrum of a model that was read."""
    data = model.contrasts
    return Spectrum(data.V, data.s, model.Qx, data.Rx, data.Kxx, data.Kxm, model.summary.mean_diagonal)


def refit(summary: FitSummary, spectrum: Spectrum, Y: Array) -> FitSummary:
    """The fit of other traits."""
    point = fit(rotate_traits(spectrum, Y), Y.shape[1], True).point
    return replace(summary, axes=point.axes, lml=point.lml, quadratic=point.quadratic)


def main() -> None:
    """Print one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bed", type=Path, required=True)
    parser.add_argument("--null", default=None)
    parser.add_argument("--samples", default="200,1200")
    parser.add_argument("--data-sets", type=int, default=400)
    parser.add_argument("--whole-scans", type=int, default=200)
    parser.add_argument("--bootstrap", type=int, default=None)
    options = parser.parse_args()
    if options.null is not None:
        thresholds(options.null, options.bed, options.bootstrap or 1000, options.whole_scans)
        return
    for n in map(int, options.samples.split(",")):
        for tails in (False, True):
            errors(options.bed, n, options.data_sets, options.bootstrap or 199, tails)


if __name__ == "__main__":
    main()
