"""Scores of sets of variants for the tests: complete and with missing cells, beside the dense matrices."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kron2sum_cli.model.block_scanner import diagonal_scanner
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.missing.likelihood import evaluate as evaluate_observed
from kron2sum_cli.model.missing.observed import observed_cells, observed_spectrum
from kron2sum_cli.model.missing.scanner import observed_scanner
from kron2sum_cli.model.sets.fixed_effects import SetScores
from kron2sum_cli.model.sets.scanner import CompleteSetScanner, ObservedSetScanner, SetScanner, SetVariants
from kron2sum_cli.model.spectrum import Array, spectrum_of_features
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances

sys.path.insert(0, str(Path(__file__).parent / "missing"))
from missing_oracle import Observed, problem


@dataclass(frozen=True)
class Case:
    """A null model, a set S (n, s) and its scores along the axes, and the dense model."""

    dense: Observed
    axes: TraitAxes
    S: Array
    scanner: SetScanner

    @property
    def scores(self) -> SetScores:
        return scores_of_all(self.scanner, self.S)

    def sum_scores(self, weights: Array) -> SetScores:
        """Of the sum of the set with weights (s,), as one variant."""
        return set_of_all(self.scanner, self.S).scores_of_sum(weights)

    def columns(self, root: Array, weights: Array) -> Array:
        """``(L ⊗ S W^½)`` in the rows of the observed cells, for a root L (p, e) of the kernel of the traits."""
        return np.kron(root, self.S * weights)[self.dense.seen]


def direction_kernel(T: Array, effects: Array) -> Array:
    """A root F (p, 1) of the kernel ``aaᵀ`` of effects (p,) on the traits that are multiples of a."""
    return np.asarray(T @ effects)[:, None]


def case(
    seed: int,
    p: int = 3,
    s: int = 6,
    share: float = 0.0,
    n: int = 60,
    r: int = 90,
    frequency: float = 0.3,
    dtype: type[np.floating] = np.float64,
) -> Case:
    """A random problem; scores are in double precision where cells are missing."""
    dense, G = problem(seed, share=share or 0.3, n=n, p=max(p, 2), r=r)
    rng = np.random.default_rng(seed + 1000)
    if not share:
        Y = np.where(np.isnan(dense.Y), rng.normal(size=dense.Y.shape), dense.Y)[:, :p]
        dense = Observed(Y, dense.A[:p, :p], dense.X, dense.R, dense.C0[:p, :p], dense.C1[:p, :p])
    S = rng.binomial(2, frequency, size=(n, s)).astype(float)
    if share:
        spectrum, prior = observed_spectrum(G, dense.X, True, True)
        cells = observed_cells(spectrum, dense.Y, dense.A, dense.X, prior)
        axes = axes_of_covariances(dense.C0, dense.C1, cells.mean_eigenvalue)
        observed = evaluate_observed(cells, axes, True)
        return Case(dense, axes, S, ObservedSetScanner(observed_scanner(observed, np.float64)))
    data = rotate_traits(spectrum_of_features(G, dense.X), dense.Y)
    axes = axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue)
    return Case(dense, axes, S, complete_scanner(evaluate(data, axes, True), dense.X, dtype))


def scores_of_all(scanner: SetScanner, S: Array) -> SetScores:
    """The scores of all variants of S (n, s) as one set."""
    return set_of_all(scanner, S).scores()


def set_of_all(scanner: SetScanner, S: Array) -> SetVariants:
    """All variants of S (n, s), in the precision of the scanner, as one set."""
    return SetVariants(scanner.rotate(S.astype(scanner.dtype)), np.arange(S.shape[1]), lambda: S)


def complete_scanner(point: Point, X: Array, dtype: type[np.floating] = np.float64) -> CompleteSetScanner:
    """Of a null model of complete traits, whose covariates X are all projected out."""
    return CompleteSetScanner(diagonal_scanner(point, np.linalg.qr(X)[0], dtype, None))


def cancel(S: Array) -> None:
    """Make the first three variants of S (n, s) the alleles of one locus, whose sum is constant, and centre all."""
    alleles = np.random.default_rng(3).choice(3, size=(len(S), 2), p=[0.5, 0.3, 0.2])
    S[:, :3] = np.sum(alleles[:, :, None] == np.arange(3), axis=1)
    S[:] -= S.mean(axis=0)
