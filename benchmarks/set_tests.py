"""Tests of sets of variants: type I error, power and time.

Families of two parents and three children; common variants for the relationship matrix and rare ones for the sets, both
passed on from the parents. The null model is fitted by REML to every data set of simulated traits, as in a real scan.

    python -m benchmarks.set_tests errors [--sets 100000] [--n 2000] [--traits 4] [--tests skat,burden] [--bed FILE]
                                          [--results FILE]
    python -m benchmarks.set_tests power [--sets 500]
    python -m benchmarks.set_tests time [--n 5000] [--variants 50]
    python -m benchmarks.set_tests null [--draws 1000000]
    python -m benchmarks.set_tests scan [--n 5000] [--variants 50] [--sets 400] [--folder DIR]

``errors`` prints the share of sets with P below each level, over the level: 1 is right, more is too many false
positives; its 95% interval; and the band that 99.9% of such shares lie in if sets are independent. Sets with the same
traits are not: the interval has the variance between data sets of traits. With ``--bed`` samples and variants are those
of a file. ``--results`` keeps the counts of every data set in a file, from which the next run goes on. ``power`` prints
the share of sets with P below 1e-4 where a fifth of 30 rare variants acts: on one, two or all traits, with one sign or
both. ``null`` draws scores from their null distribution and prints the share beyond the value whose P is a level, over
the level, for rare and common variants, with independent axes and (missing cells) correlated ones: a tenth of the draws
for lr, whose null distribution is simulated anew every 2,000 scores. ``scan`` prints the processor time of whole scans
of sets (four traits, one thread) over that of the scan of the same variants.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import cast

import numpy as np
from scipy import stats

from benchmarks.memory import fit_command, genotypes
from benchmarks.processes import KRON2SUM, cpu_seconds, seconds
from kron2sum_cli.errors import Kron2SumError
from kron2sum_cli.genotypes.open import open_genotypes
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, named_hypothesis, test
from kron2sum_cli.model.likelihood import Point
from kron2sum_cli.model.sets.fixed_effects import SetScores
from kron2sum_cli.model.sets.kernel_tests import KernelScores, information_of_variants, null_weights
from kron2sum_cli.model.sets.likelihood_ratio import REPLICATES, fit_tail, maximise
from kron2sum_cli.model.sets.quadratic_forms import mixture_quantile, mixture_tails
from kron2sum_cli.model.sets.random_effects import (
    SetNull,
    SetTest,
    VariantSetScores,
    combined_mlog10p,
    omnibus_parts,
    random_effects_mlog10p,
)
from kron2sum_cli.model.sets.skato import GRID, Sums, grid_weights, skato, turned_covariance
from kron2sum_cli.model.spectrum import Array, Spectrum, spectrum_of_features, weighted_products

LEVELS = (0.05, 0.01, 1e-3, 1e-4)
FAST: tuple[SetTest, ...] = ("skat", "burden", "acat", "omnibus")
SETS_AT_A_TIME, SETS_IN_ALL = 100, 400
"""Sets that are tested with the same traits, chosen among so many."""

DATA_SETS_A_REPORT = 20

NULL_LEVELS = np.array([1e-2, 1e-3, 1e-4])
DRAWS_AT_A_TIME = 50_000
SCORES_OF_A_TAIL = 2000

EFFECT = 0.06
"""Standard deviation of a trait that a causal variant makes, in units of the residual."""


@dataclass(frozen=True)
class Sample:
    """Samples with relatives, and sets of rare variants.

    Attributes
    ----------
    G : NDArray (n, r)
        Common variants, ``GGᵀ`` the relationship matrix
    spectrum : Spectrum
        Of G given an intercept
    sets : NDArray (n, k, s)
        Centred genotypes of k sets
    rows : NDArray (k, m, s)
        The same, rotated
    eaf : NDArray (k, s)
        Frequencies
    """

    G: Array
    spectrum: Spectrum
    sets: Array
    rows: Array
    eaf: Array


def inherited(rng: np.random.Generator, n: int, frequencies: Array) -> Array:
    """Genotypes (n, m) in families of two parents and three children."""
    families = -(-n // 5)
    founders = rng.random((families, 2, 2, frequencies.size)) < frequencies
    people = [founders.sum(axis=2, dtype=np.int8)]
    for _ in range(3):
        passed = rng.random((families, 2, frequencies.size)) < 0.5
        child = np.where(passed, founders[:, :, 0], founders[:, :, 1]).sum(axis=1, dtype=np.int8)
        people.append(child[:, None])
    return np.concatenate(people, axis=1).reshape(-1, frequencies.size)[:n].astype(float)


def by_set(rows: Array, variants: int) -> Array:
    """Rotated variants (m, k s) as (k, m, s)."""
    return np.ascontiguousarray(rows.reshape(len(rows), -1, variants).transpose(1, 0, 2))


def sample(rng: np.random.Generator, n: int, sets: int, variants: int) -> Sample:
    """Samples of families with sets of rare variants (frequencies 0.0005 to 0.02) that all vary."""
    common = inherited(rng, n, rng.uniform(0.05, 0.5, size=n + 500))
    G = (common - common.mean(axis=0)) / common.std(axis=0) / np.sqrt(common.shape[1])
    rare = inherited(rng, n, np.exp(rng.uniform(np.log(0.0005), np.log(0.02), size=3 * sets * variants)))
    rare = rare[:, rare.std(axis=0) > 0][:, : sets * variants]
    eaf = rare.mean(axis=0).reshape(sets, variants) / 2
    genotypes = rare - rare.mean(axis=0)
    spectrum = spectrum_of_features(G, np.ones((n, 1)))
    rows = rotate_traits(spectrum, rng.normal(size=(n, 1))).V.T @ genotypes
    return Sample(G, spectrum, genotypes.reshape(n, sets, -1), by_set(rows, variants), eaf)


def traits(rng: np.random.Generator, G: Array, p: int) -> Array:
    """Traits (n, p) of heritability about a half, correlated."""
    L0, L1 = (np.linalg.cholesky(0.35 * np.ones((p, p)) + 0.65 * np.eye(p)) for _ in range(2))
    genetic, residual = G @ rng.normal(size=(G.shape[1], p)) @ L0.T, rng.normal(size=(len(G), p)) @ L1.T
    return np.sqrt(0.5) * (genetic + residual)


def scored(one: Sample, Y: Array, which: Iterable[int]) -> tuple[SetNull, list[VariantSetScores]]:
    """The null model of traits, and scores of sets."""
    data = rotate_traits(one.spectrum, Y)
    found = fit(data, Y.shape[1], True)
    point, size = found.point, Y.size
    context = TestContext(point.axes.T, point.quadratic, size, size - Y.shape[1])
    g = float(np.mean(np.sum((one.G - one.G.mean(axis=0)) ** 2, axis=1)))
    sets = []
    for k in which:
        rows = one.rows[k]
        scores, weights = _scores(point, rows), np.ones(rows.shape[1])
        with_sum = partial(_scores, point, np.column_stack([rows, rows @ weights]))
        of_sum = partial(_sum_scores, point, rows)
        sets.append(VariantSetScores(scores, of_sum, with_sum, lambda weights: None, weights, one.eaf[k], (1, k)))
    return SetNull(point.axes, g, context), sets


def _scores(point: Point, rows: Array) -> SetScores:
    V = weighted_products(rows, point.W)
    return SetScores(rows.T @ point.alpha, V, np.einsum("jaa->ja", V))


def _sum_scores(point: Point, rows: Array, weights: Array) -> SetScores:
    return _scores(point, (rows @ weights)[:, None])


def sample_of_file(path: Path, variants: int) -> Sample:
    """Samples and variants of a PLINK file: all make the relationship matrix, and stretches of them the sets."""
    source = open_genotypes([str(path)])
    dosages = source.read(np.arange(len(source.variants)), np.arange(len(source.samples))).astype(float)
    mean = np.nanmean(dosages, axis=0)
    centred = np.where(np.isnan(dosages), mean, dosages) - mean
    varying = centred.std(axis=0) > 0
    centred, eaf = centred[:, varying], mean[varying] / 2
    G = centred / np.sqrt(2 * eaf * (1 - eaf) * len(eaf))
    spectrum = spectrum_of_features(G, np.ones((len(G), 1)))
    rows = rotate_traits(spectrum, np.zeros((len(G), 1))).V.T @ centred
    whole = len(eaf) // variants * variants
    sets = centred[:, :whole].reshape(len(centred), -1, variants)
    return Sample(G, spectrum, sets, by_set(rows[:, :whole], variants), eaf[:whole].reshape(-1, variants))


def interval(counts: Array, sizes: Array) -> tuple[Array, Array, Array]:
    """Share of sets below a level and its 95% interval, where sets with the same traits are not independent.

    Clopper and Pearson's interval of as many independent sets as have the variance that the share has between data
    sets of traits (Korn and Graubard 1998, Survey Methodology 24:193).

    Parameters
    ----------
    counts : NDArray (d, k)
        Sets of each data set below k levels
    sizes : NDArray (d,)
        All sets of each data set
    """
    total = np.sum(sizes)
    share = np.sum(counts, axis=0) / total
    residual = counts - share * sizes[:, None]
    variance = np.sum(residual**2, axis=0) * len(sizes) / max(len(sizes) - 1, 1) / total**2
    of_independent = share * (1 - share) / total
    ratio = np.divide(variance, of_independent, where=share > 0, out=np.ones_like(share))
    independent = total / np.maximum(ratio, 1)
    below = share * independent
    low = np.nan_to_num(stats.beta.ppf(0.025, below, independent - below + 1))
    return share, low, stats.beta.ppf(0.975, below + 1, independent - below)


def print_shares(found: Array, tests: list[SetTest]) -> None:
    """Print the share of sets below each level over the level, with 95% intervals."""
    sizes, counts = found[:, 1], found[:, 2:].reshape(len(found), len(tests), len(LEVELS))
    print(f"{np.sum(sizes):.0f} sets, {len(sizes)} data sets")
    for k, name in enumerate(tests):
        of_levels = np.array(interval(counts[:, k], sizes)).T / np.array(LEVELS)[:, None]
        print(name, *(f"{x:.2f} ({a:.2f}-{b:.2f})" for x, a, b in of_levels), sep="\t", flush=True)


def mlog10p_of_tests(tests: list[SetTest], each: VariantSetScores, tested: Hypothesis, null: SetNull) -> list[float]:
    """-log10 P of tests of a set without weights; what omnibus combines is not computed again."""
    names: tuple[SetTest, ...] = ("skat", "burden", "acat")
    known: dict[SetTest, float] = {}
    if "omnibus" in tests:
        parts = omnibus_parts(each, tested, null)
        known = dict(zip(names, parts[::2].tolist(), strict=True)) | {"omnibus": combined_mlog10p(parts)}
    return [known[name] if name in known else random_effects_mlog10p(name, each, tested, null) for name in tests]


def errors(total: int, one: Sample, p: int, tests: list[SetTest], hypothesis: str, kept: Path) -> None:
    """Print type I errors, from time to time and at the end; a row of ``kept`` is a data set, its sets and counts."""
    number = one.eaf.shape[0]
    at_a_time = min(SETS_AT_A_TIME, number)
    tested = named_hypothesis(hypothesis, tuple(f"t{j}" for j in range(p)))
    print(f"{one.eaf.shape[1]} variants a set, n = {len(one.G)}, {p} traits, {hypothesis} effects")
    print("test", *(f"{level:g}" for level in LEVELS), sep="\t")
    rows = np.loadtxt(kept, ndmin=2).tolist() if kept.exists() else []
    following = int(rows[-1][0]) + 1 if rows else 0
    while sum(row[1] for row in rows) < total:
        rng = np.random.default_rng((1, following))
        following += 1
        try:
            null, sets = scored(one, traits(rng, one.G, p), rng.choice(number, at_a_time, replace=False))
        except Kron2SumError:
            continue
        found = np.array([mlog10p_of_tests(tests, each, tested, null) for each in sets])
        below = np.sum(found[:, :, None] >= -np.log10(LEVELS), axis=0)
        rows.append([following - 1, len(sets), *below.ravel().tolist()])
        with kept.open("a") as file:
            print(*map(int, rows[-1]), sep="\t", file=file)
        if len(rows) % DATA_SETS_A_REPORT == 0:
            print_shares(np.array(rows), tests)
    print_shares(np.array(rows), tests)
    bands = [stats.binom(total, level).ppf([0.0005, 0.9995]) / (total * level) for level in LEVELS]
    print("band", *(f"{low:.2f}-{high:.2f}" for low, high in bands), sep="\t")


def compared(each: VariantSetScores, null: SetNull, names: tuple[str, ...]) -> list[float]:
    """-log10 P of the joint tests of a set, the best single trait's, and the best variant's, both corrected."""
    anything = named_hypothesis("any", names)
    joint = [random_effects_mlog10p(name, each, anything, null) for name in (*FAST, "skato")]
    single = [random_effects_mlog10p("skat", each, named_hypothesis(f"trait:{name}", names), null) for name in names]
    variants = test(each.scores.u, information_of_variants(each.scores), anything, null.context).mlog10p
    return [*joint, max(single) - np.log10(len(names)), float(np.max(variants)) - np.log10(variants.size)]


def power(total: int, n: int, p: int, variants: int, level: float = 1e-4) -> None:
    """Print power of joint tests of sets, of the best single trait, and of single variants."""
    names = tuple(f"t{j}" for j in range(p))
    columns = (*FAST, "skato", "best trait's skat", "best variant")
    print("effects on", "signs", *columns, sep="\t")
    for acting in (1, 2, p):
        for mixed in (False, True):
            rng = np.random.default_rng(acting)
            one = sample(rng, n, SETS_AT_A_TIME, variants)
            found = []
            for k in range(total):
                number = k % SETS_AT_A_TIME
                causal = rng.choice(variants, size=variants // 5, replace=False)
                size = EFFECT / np.sqrt(2 * one.eaf[number, causal])
                beta = np.zeros((variants, p))
                beta[causal, :acting] = (size * np.where(rng.random(causal.size) < 0.5 * mixed, -1, 1))[:, None]
                null, (each,) = scored(one, traits(rng, one.G, p) + one.sets[:, number] @ beta, [number])
                found.append(compared(each, null, names))
            share = np.mean(np.array(found) >= -np.log10(level), axis=0)
            print(f"{acting} of {p}", "both" if mixed else "one", *(f"{x:.2f}" for x in share), sep="\t", flush=True)


def covariance(rng: np.random.Generator, p: int, s: int, rare: bool, coupled: bool) -> Array:
    """Covariance of the scores of s variants in 400 samples along p axes: (p, s, s), or (p, p, s, s)."""
    low, high = (0.005, 0.02) if rare else (0.1, 0.5)
    S = rng.binomial(2, rng.uniform(low, high, size=s), size=(400, s)).astype(float)
    S += 1e-3 * rng.normal(size=S.shape)  # so that all vary
    S -= S.mean(axis=0)
    W = rng.uniform(0.3, 1, size=(p, 400))
    if not coupled:
        return np.stack([(S * w[:, None]).T @ S for w in W])
    between = np.where(rng.random((400, p, p)) < 0.3, 0.2, 0.0)
    P = between + between.transpose(0, 2, 1) + W.T[:, :, None] * np.eye(p)
    values, vectors = np.linalg.eigh(P)
    P = (vectors * np.maximum(values, 0.01)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return np.einsum("ijl,ia,ib->jlab", P, S, S, optimize=True)


def draw(kernel: KernelScores, rng: np.random.Generator, count: int) -> Array:
    """Scores (count, p, s) from their null distribution."""
    values, vectors = np.linalg.eigh(kernel.blocks)
    roots = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
    drawn = rng.normal(size=(count, *values.shape))
    return np.stack([drawn[:, k] @ roots[k].T for k in range(len(roots))], axis=1).reshape(count, *kernel.z.shape)


def rejection_values(kernel: KernelScores, level: float, direction: Array) -> Array:
    """Values of every Q_ρ at which SKAT-O has this P, along a direction of the scores."""
    low, high = 0.0, 1.0
    while skato(KernelScores(high * direction, kernel.A)) < -np.log10(level):
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        found = skato(KernelScores(middle * direction, kernel.A))
        low, high = (middle, high) if found < -np.log10(level) else (low, middle)
    rho = np.array(GRID)
    z = high * direction
    weights = grid_weights(turned_covariance(kernel, Sums.of(kernel)), rho)
    best = mixture_tails(weights, (1 - rho) * np.sum(z**2) + rho * np.sum(z.sum(axis=1) ** 2)).log_upper.min()
    return mixture_quantile(weights, float(best))


def null(draws: int) -> None:
    """Print how often values with a P of each level are exceeded."""
    print("traits", "variants", "frequency", "axes", "test", *(f"{level:g}" for level in NULL_LEVELS), sep="\t")
    for p, s, rare, coupled in product((1, 2, 4), (1, 5, 30), (True, False), (False, True)):
        if coupled and p == 1:
            continue
        rng = np.random.default_rng((p, s, rare, coupled))
        kernel = KernelScores(np.zeros((p, s)), covariance(rng, p, s, rare, coupled))
        label = (p, s, "rare" if rare else "common", "correlated" if coupled else "independent")
        for name, share in {**shares(kernel, rng, draws), "lr": shares_of_lr(kernel, rng, draws // 10)}.items():
            print(*label, name, *(f"{x:.3f}" for x in share / NULL_LEVELS), sep="\t", flush=True)


def shares(kernel: KernelScores, rng: np.random.Generator, draws: int) -> dict[str, Array]:
    """Shares of null scores beyond the values whose P is each level, of tests with one null distribution a set."""
    rho, direction = np.array(GRID), draw(kernel, rng, 1)[0]
    skat_at = [mixture_quantile(null_weights(kernel.blocks), float(np.log(level)))[0] for level in NULL_LEVELS]
    skato_at = [rejection_values(kernel, level, direction) for level in NULL_LEVELS]
    of_sums = kernel.A.sum(axis=(-2, -1))
    precision = np.linalg.inv(of_sums if of_sums.ndim == 2 else np.diag(of_sums))
    counts = {name: np.zeros(len(NULL_LEVELS)) for name in ("skat", "skato", "burden")}
    for _ in range(draws // DRAWS_AT_A_TIME):
        z = draw(kernel, rng, DRAWS_AT_A_TIME)
        sums, squares = z.sum(axis=2), np.sum(z**2, axis=(1, 2))
        Q = (1 - rho) * squares[:, None] + rho * np.sum(sums**2, axis=1)[:, None]
        chisq = np.sum((sums @ precision) * sums, axis=1)
        counts["skat"] += [np.sum(squares > q) for q in skat_at]
        counts["skato"] += [np.sum(np.any(q < Q, axis=1)) for q in skato_at]
        counts["burden"] += np.sum(chisq[:, None] > stats.chi2.isf(NULL_LEVELS, len(precision)), axis=0)
    return {name: count / (draws // DRAWS_AT_A_TIME * DRAWS_AT_A_TIME) for name, count in counts.items()}


def shares_of_lr(kernel: KernelScores, rng: np.random.Generator, draws: int) -> Array:
    """The same of the likelihood ratio test, whose null distribution is simulated anew for every so many scores."""
    (_, _), (short, _), (long, small) = REPLICATES
    unit = np.mean(np.einsum("kaa->ka", kernel.blocks))
    kernel = KernelScores(kernel.z, kernel.A / unit)
    below = np.zeros(len(NULL_LEVELS))
    for z in np.array_split(draw(kernel, rng, draws), max(1, draws // SCORES_OF_A_TAIL)):
        simulated, lr = (maximise(kernel, scores, 1)[0] for scores in (draw(kernel, rng, long), z))
        first, all_of_them = fit_tail(simulated[:short]), fit_tail(simulated)
        mlog10p = np.array([first.mlog10p(float(each)) for each in lr])
        is_small = mlog10p > -np.log10(small)
        mlog10p[is_small] = [all_of_them.mlog10p(float(each)) for each in lr[is_small]]
        below += np.sum(mlog10p[:, None] >= -np.log10(NULL_LEVELS), axis=0)
    return below / draws


def times(n: int, p: int, variants: int) -> None:
    """Print processor time a set of every test, scores apart."""
    rng = np.random.default_rng(3)
    one = sample(rng, n, 10, variants)
    names = tuple(f"t{j}" for j in range(p))
    start = time.process_time()
    null, sets = scored(one, traits(rng, one.G, p), range(10))
    print("test", f"ms a set of {variants}, {p} traits", sep="\t")
    for name in (*FAST, "skato", "lr"):
        some = sets[:2] if name == "lr" else sets
        start = time.process_time()
        for each in some:
            random_effects_mlog10p(cast(SetTest, name), each, named_hypothesis("any", names), null)
        print(name, f"{(time.process_time() - start) / len(some) * 1e3:.1f}", sep="\t", flush=True)


def scans(folder: Path, n: int, p: int, variants: int, sets: int, runs: int) -> None:
    """Print processor times of scans of sets, over that of the scan of their variants."""
    stem, null = genotypes(folder, n, sets * variants), folder / f"null{n}x{p}.npz"
    if not null.exists():
        seconds(fit_command(folder, n, p, stem))
    names = (f"s{k} " + " ".join(f"v{i}" for i in range(variants * k, variants * (k + 1))) for k in range(sets))
    (folder / "sets.txt").write_text("\n".join(names) + "\n")
    scan = (*KRON2SUM, "scan", "-q", "--threads", "1", "--refit", "0", "--null", null, "--geno", f"{stem}.bed")
    of_sets = (*scan, "--sets", folder / "sets.txt", "--out", folder / "sets.parquet")
    ways = {name: (*of_sets, "--set-test", name) for name in ("fixed", *FAST, "skato")}
    print("test", "processor s", "over the scan", sep="\t")
    times: dict[str, list[float]] = {name: [] for name in ("variants", *ways)}
    for _ in range(runs):
        times["variants"].append(cpu_seconds((*scan, "--out", folder / "scan.parquet")))
        for name, command in ways.items():
            times[name].append(cpu_seconds(command))
    for name, found in times.items():
        ratio = np.median(np.array(found) / times["variants"])
        print(name, f"{np.median(found):.1f}", f"{ratio:.2f}", sep="\t", flush=True)


def main() -> None:
    """Run one of the five."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("errors", "power", "time", "null", "scan"))
    parser.add_argument("--sets", type=int, default=None, help="sets tested (errors: 100000, power: 500)")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--traits", type=int, default=4)
    parser.add_argument("--variants", type=int, default=30)
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where to keep the data of scans")
    parser.add_argument("--test", default="any", help="hypothesis about the traits (errors)")
    parser.add_argument("--tests", default=",".join(FAST))
    parser.add_argument("--bed", type=Path, default=None, help="genotypes in place of simulated families (errors)")
    parser.add_argument("--results", type=Path, default=None, help="where to keep counts (errors)")
    options = parser.parse_args()
    if options.what == "errors":
        tests = [cast(SetTest, name) for name in options.tests.split(",")]
        if options.bed is not None:
            one = sample_of_file(options.bed, options.variants)
        else:
            one = sample(np.random.default_rng(1), options.n, SETS_IN_ALL, options.variants)
        with tempfile.TemporaryDirectory() as scratch:
            kept = options.results or Path(scratch) / "counts.tsv"
            errors(options.sets or 100_000, one, options.traits, tests, options.test, kept)
    elif options.what == "power":
        power(options.sets or 500, options.n, options.traits, options.variants)
    elif options.what == "null":
        null(options.draws)
    elif options.what == "scan":
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.folder or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            scans(folder, options.n, options.traits, options.variants, options.sets or 400, options.runs)
    else:
        times(options.n, options.traits, options.variants)


if __name__ == "__main__":
    main()
