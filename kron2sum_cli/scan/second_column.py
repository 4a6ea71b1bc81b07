"""The second column of every variant: its product with a covariate, or its dominance deviation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.scan_columns import DOMINANCE, INTERACTION
from kron2sum_cli.genotypes.coding import dominance_deviation
from kron2sum_cli.genotypes.counts import genotype_counts
from kron2sum_cli.model.bartlett import SecondOf
from kron2sum_cli.model.second_column import basis_of_covariates
from kron2sum_cli.scan.interaction import Interaction

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class SecondColumn:
    """What the second column of every variant is.

    ``basis`` (n, c) is an orthonormal basis of the covariates, and of what the scan is conditioned on, in the precision
    of the scan. ``covariate`` (n,) is that of an interaction, with mean 0 and standard deviation 1; None for dominance
    deviations. Effects are divided by ``scale``, the standard deviation of the covariate, or 1.
    """

    basis: Floats
    covariate: Floats | None
    scale: float

    @property
    def name(self) -> str:
        """Name of the test of its effects."""
        return DOMINANCE if self.covariate is None else INTERACTION

    def of_dosages(self, genotypes: NDArray[np.float32], varying: NDArray[np.bool_]) -> Floats | None:
        """Dominance deviations (n, k) of those of the genotypes (n, b) that vary, missing ones at the mean."""
        if self.covariate is not None:
            return None
        by_variant = dominance_deviation(genotypes.T[varying])
        means = genotype_counts(by_variant.T, ploidy=1).mean.astype(self.basis.dtype)
        return np.where(np.isnan(by_variant), means[:, None], by_variant).astype(self.basis.dtype, copy=False).T

    def of_variants(self, G: Floats, deviations: Floats | None, centre: bool) -> Floats:
        """Second columns (n, k) of variants G (n, k), which are `deviations` where there are some."""
        if deviations is not None:
            by_variant = deviations.T
        else:
            assert self.covariate is not None
            by_variant = G.T * self.covariate
        if centre:
            by_variant = by_variant - by_variant.mean(axis=1, keepdims=True)
        return by_variant.T


def second_of_simulated(interaction: Interaction | None, genotypic: bool) -> SecondOf | None:
    """Second columns of simulated variants (`bartlett.Refits`); None where variants have none.

    Products with the covariate; for dominance the squares, which are related as the squares of relationships are.
    """
    if interaction is not None:
        covariate = interaction.standardised[:, None]
        return lambda G: G * covariate
    return (lambda G: G**2 - np.mean(G**2, axis=0)) if genotypic else None


def second_column(
    interaction: Interaction | None, genotypic: bool, X: NDArray[np.float64], dtype: np.dtype[np.floating]
) -> SecondColumn | None:
    """The second column of variants beside covariates X (n, c), in this precision; None where they have none."""
    if interaction is None and not genotypic:
        return None
    basis = basis_of_covariates(X).astype(dtype)
    if interaction is None:
        return SecondColumn(basis, None, 1.0)
    return SecondColumn(basis, interaction.standardised.astype(dtype), interaction.scale)
