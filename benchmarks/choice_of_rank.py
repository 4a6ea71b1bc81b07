"""How the penalty a parameter of C0 by which `--rank auto` chooses changes type I errors and power.

Every rank of C0 is fitted to each simulated data set, and variants are tested under each null model. From
log-likelihoods and numbers of parameters follows the rank that each penalty chooses: 0 for full rank, 1 for the
one-sided AIC of `--rank auto`, 2 for AIC. Printed are the mean rank and, of every test, the share of variants without
effect with P below 0.05 and 0.001 over these levels, with a 95% interval from resampled data sets; with `--effect`, the
share of variants with effects that have P below 1e-4.

    python -m benchmarks.choice_of_rank --samples 80 --traits 2 --covariates 20 --data-sets 200
    python -m benchmarks.choice_of_rank --samples 80 --traits 4 --covariates 8 --genetic-rank 1 --effect 0.35

The traits are those of `benchmarks.calibration`, with a C0 of full rank or of `--genetic-rank`. Effects are, in turn,
the same on all traits, on the first alone, and opposite on every other trait, for one standard deviation of genotypes.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration import LEVELS, covariance, features_and_variants, lines
from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.fit.null_model import with_blas_threads
from kron2sum_cli.model.hypotheses import TestContext, named_hypothesis, test, trait_effects
from kron2sum_cli.model.null_model import NullModel, TraitData, null_likelihood, rotate_samples

Array = NDArray[np.float64]

PENALTIES = (0.0, 0.5, 1.0, 1.5, 2.0)
OF_POWER = 1e-4
CAUSAL = 5
"""Variants with an effect in each data set."""

SAME_FIT = 1e-6
"""Fits that differ less in log-likelihood are one."""


@dataclass(frozen=True)
class Design:
    """Who is sampled, how many, with what; ``genetic_rank`` 0 for full."""

    structure: str
    n: int
    p: int
    covariates: int
    genetic_rank: int
    effect: float


def effects(design: Design, rng: np.random.Generator) -> Array:
    """Effects (CAUSAL, p) of the variants that have some."""
    kinds = [np.ones(design.p), 1.3 * np.eye(design.p)[0], np.where(np.arange(design.p) % 2, -1.0, 1.0)]
    return design.effect * np.array([kinds[k % 3] * rng.choice([-1.0, 1.0]) for k in range(CAUSAL)])


def data_set(design: Design, variants: int, rng: np.random.Generator) -> tuple[TraitData, Array, Array]:
    """Traits, GGᵀ, and the variants that are tested."""
    n, p = design.n, design.p
    G, tested = features_and_variants(design.structure, n, variants, rng)
    if design.genetic_rank:
        root = rng.normal(size=(p, design.genetic_rank))
        root /= np.linalg.norm(root, axis=1)[:, None]
    else:
        root = np.linalg.cholesky(covariance(p, rng))
    Y = G @ rng.normal(size=(G.shape[1], root.shape[1])) @ root.T
    Y += rng.normal(size=(n, p)) @ np.linalg.cholesky(covariance(p, rng)).T
    tested = tested[:, tested.std(axis=0) > 0]
    tested = tested - tested.mean(axis=0)
    if design.effect:
        tested = tested[:, :CAUSAL]
        Y += tested / tested.std(axis=0) @ effects(design, rng)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, design.covariates - 1))])
    return TraitData(Y, np.eye(p), X), G @ G.T, tested


def mlog10p(model: NullModel, data: TraitData, tested: Array) -> Mapping[str, Array]:
    """-log10 P of every test."""
    axes, names = model.summary.axes, [f"t{j}" for j in range(data.Y.shape[1])]
    found = model.scanner(np.float64).statistics(tested)
    size = data.nobserved - data.neffects
    context = TestContext(axes.T, model.summary.quadratic, size, size)
    results = {
        name: test(found.u, found.v, named_hypothesis(name, names), context).mlog10p
        for name in ("any", "common", "specific")
    }
    return {**results, "traits": trait_effects(found.u, found.v, axes.Tinv, context).mlog10p.ravel()}


def chosen_by_each_penalty(design: Design, rng: np.random.Generator) -> list[tuple[int, Mapping[str, Array]]]:
    """Of one data set the rank that each penalty chooses, and the -log10 P under that model; empty without fits."""
    data, K, tested = data_set(design, CAUSAL if design.effect else 1000, rng)
    likelihood = null_likelihood(rotate_samples(K, False, data, reml=True), data, reml=True)
    try:
        fits = [likelihood.fit(rank) for rank in range(1, design.p + 1)]
    except ConvergenceError:
        return []
    found: list[Mapping[str, Array]] = []
    for k, fit in enumerate(fits):
        same = [j for j in range(k) if abs(fits[j].point.lml - fit.point.lml) < SAME_FIT]
        found.append(found[same[0]] if same else mlog10p(likelihood.null_model(fit), data, tested))
    ranks = [int(np.argmin([penalty * f.nparameters - 2 * f.point.lml for f in fits])) for penalty in PENALTIES[1:]]
    return [(rank + 1, found[rank]) for rank in [design.p - 1, *ranks]]


def below(values: Array, levels: Array) -> list[int]:
    """How many there are, and how many have a P below each level."""
    return [len(values), *(int(np.count_nonzero(values > -np.log10(level))) for level in levels)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structure", default="families")
    parser.add_argument("--samples", type=int, default=80)
    parser.add_argument("--traits", type=int, default=2)
    parser.add_argument("--covariates", type=int, default=8)
    parser.add_argument("--genetic-rank", type=int, default=0, help="of the simulated C0; 0 for full")
    parser.add_argument("--effect", type=float, default=0.0, help="of variants, in standard deviations; 0 for none")
    parser.add_argument("--data-sets", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    o = parser.parse_args()
    design = Design(o.structure, o.samples, o.traits, o.covariates, o.genetic_rank, o.effect)
    seeds = [o.seed, design.n, design.p, design.covariates, design.genetic_rank, int(design.effect * 1000)]
    rng = np.random.default_rng(seeds)
    with with_blas_threads(1):
        chosen = [found for _ in range(o.data_sets) if (found := chosen_by_each_penalty(design, rng))]
    print(f"{design}: {len(chosen)} of {o.data_sets} data sets have all fits")
    levels = np.array([OF_POWER]) if design.effect else LEVELS
    for k, penalty in enumerate(PENALTIES):
        ranks, found = zip(*(of_data_set[k] for of_data_set in chosen), strict=True)
        print(f"penalty {penalty:g}: mean rank {np.mean(ranks):.2f}")
        for name in found[0]:
            counts = np.array([below(values[name], levels) for values in found], dtype=float)
            text = f"{counts[:, 1].sum() / counts[:, 0].sum():.3f}" if design.effect else "  ".join(lines(counts))
            print(f"    {name:<10}{text}", flush=True)


if __name__ == "__main__":
    main()
