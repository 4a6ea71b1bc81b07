"""The second column of every variant: its product with a covariate (``--interaction``), or its dominance deviation."""

import logging
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.sample_table import read_sample_table
from kron2sum_cli.files.samples import match
from kron2sum_cli.genotypes.counts import genotype_counts
from kron2sum_cli.model.collinearity import dependencies
from kron2sum_cli.model.satterthwaite import EffectiveContrasts
from kron2sum_cli.model.second_column import basis_of_covariates
from kron2sum_cli.option_values import DOMINANCE, INTERACTION

logger = logging.getLogger("kron2sum.scan")

Array = NDArray[np.float64]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Interaction:
    """A covariate by which the effects of variants may differ, with its values (n,) in the analysed samples.

    The null model lacks its own effect on every trait where it is ``to_add``: the scan then adds that.
    """

    name: str
    values: Array
    to_add: bool

    @property
    def scale(self) -> float:
        """Its standard deviation."""
        return float(np.std(self.values))

    @property
    def standardised(self) -> Array:
        """Mean 0 and standard deviation 1."""
        return np.asarray((self.values - self.values.mean()) / self.scale)


def read_interaction(name: str | None, path: str | None, null: NullFile) -> Interaction | None:
    """The covariate of this name, from a table of covariates or (None) from the null model; None for no name.

    Raises InputError where there is none of this name, it is constant or not known in a sample.
    """
    if name is None:
        return None
    values = _from_null(name, null) if path is None else _from_table(name, path, null)
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        raise InputError(f"--interaction {name}: is {values[0]:g} in every analysed sample; choose another covariate")
    X = null.description.own_covariates
    to_add = not any(one.column == X.shape[1] for one in dependencies(np.hstack([X, values[:, None]])))
    if to_add and null.description.reduced:
        logger.info("--interaction %s: its own effect on every trait is added, beside those of the trait design", name)
    elif to_add:
        logger.warning(
            "--interaction %s: its own effect on every trait is not in the null model; it is added with C0 and C1 as"
            " they are, and no variants are refitted; better give it to fit, too (fit --covar)",
            name,
        )
    return Interaction(name, values, to_add)


def _from_null(name: str, null: NullFile) -> Array:
    """A column of the null model's covariates."""
    levels = [name] if name in null.covariates else [each for each in null.covariates if each.startswith(f"{name}=")]
    if len(levels) == 1:  # of two levels, one column says all
        return np.asarray(null.description.X[:, null.covariates.index(levels[0])])
    if levels:
        raise InputError(
            f"--interaction {name}: has {len(levels) + 1} levels, and an interaction takes one column; name one of"
            f" {', '.join(levels)}, and scan once for each"
        )
    near = get_close_matches(name, null.covariates)
    advice = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(null.covariates) or 'none'}"
    raise InputError(
        f"--interaction {name}: the null model has no covariate of this name; {advice} (--covar FILE for one of a file)"
    )


def _from_table(name: str, path: str, null: NullFile) -> Array:
    """A column of a table of covariates."""
    table = read_sample_table(path, [name], kind="covariate")
    for warning in table.warnings:
        logger.warning(warning)
    rows = match(null.samples, table.samples)
    values = np.where(rows >= 0, table.values[rows, 0], np.nan)
    unknown = np.flatnonzero(np.isnan(values))
    if unknown.size:
        raise InputError(
            f"{path}: covariate '{name}' is not known in {unknown.size} of the {len(values)} analysed samples, such as"
            f" {null.samples.label(int(unknown[0]))}; fit the null model on the samples that have it (fit --keep)"
        )
    return np.asarray(values)


@dataclass(frozen=True)
class SecondColumn:
    """What the second column of every variant is.

    ``basis`` (n, c) is an orthonormal basis of the covariates, and of what the scan is conditioned on, in the precision
    of the scan. ``covariate`` (n,) is that of an interaction, with mean 0 and standard deviation 1; None for dominance
    deviations. Effects are divided by ``scale``, the standard deviation of the covariate, or 1. ``contrasts`` are those
    that the covariances in its tests rest on, where P depends on them.
    """

    basis: Floats
    covariate: Floats | None
    scale: float
    contrasts: EffectiveContrasts | None = None

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


def dominance_deviation(dosages: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 for a heterozygote and 0 for a homozygote of dosages 0 to 2, ``1 - |x - 1|`` between, NaN where missing.

    >>> dominance_deviation(np.array([0, 1, 2, 1.5], dtype=np.float32)).tolist()
    [0.0, 1.0, 0.0, 0.5]
    """
    deviation = dosages - np.float32(1)
    np.abs(deviation, out=deviation)
    np.subtract(np.float32(1), deviation, out=deviation)
    return deviation


def second_column(
    interaction: Interaction | None,
    genotypic: bool,
    X: NDArray[np.float64],
    dtype: np.dtype[np.floating],
    contrasts: EffectiveContrasts | None = None,
) -> SecondColumn | None:
    """The second column of variants beside covariates X (n, c), in this precision; None where they have none."""
    if interaction is None and not genotypic:
        return None
    basis = basis_of_covariates(X).astype(dtype)
    if interaction is None:
        return SecondColumn(basis, None, 1.0, contrasts)
    return SecondColumn(basis, interaction.standardised.astype(dtype), interaction.scale, contrasts)
