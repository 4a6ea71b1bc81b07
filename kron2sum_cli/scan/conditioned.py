"""Variants that a scan is conditioned on: their effects on every trait are in the model."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.scan_metadata import NullScale
from kron2sum_cli.genotypes.filters import positions_by_name
from kron2sum_cli.genotypes.founders import variants_of_loci
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.model.collinearity import GenotypedCovariates, combination, dependencies
from kron2sum_cli.model.conditioning import GivenVariants, estimated_given, given_variants
from kron2sum_cli.model.null_model import NullModel, TraitData
from kron2sum_cli.model.satterthwaite import EffectiveContrasts

logger = logging.getLogger("kron2sum.scan")

ROUNDING = 1e-5
"""Largest share of its length that rounding to single precision may put between dosages and the combination of others
that they are."""


@dataclass(frozen=True)
class ConditionedVariants:
    """Variants whose effects on every trait are in the model of a scan, in the order asked for.

    ``G`` (n, k) are their genotypes in the analysed samples, missing ones at the mean, and after them a covariate that
    was added. ``called`` (n, q) is where those with missing genotypes were genotyped; None where none has any.
    """

    names: tuple[str, ...]
    G: NDArray[np.float64]
    called: NDArray[np.bool_] | None = None

    def under(self, model: NullModel, data: TraitData) -> GivenVariants:
        """These variants in a null model of some traits."""
        return given_variants(model, self.G, own_covariates(data))

    def estimated(self, model: NullModel, data: TraitData) -> tuple[NullModel, EffectiveContrasts]:
        """A null model with C0 and C1 estimated given these variants, and on how many contrasts they then rest."""
        return estimated_given(model, self.G, own_covariates(data))


def read_conditioned(
    asked: Sequence[str], founders: bool, null: NullFile, genotypes: GenotypeSource, rows: NDArray[np.intp]
) -> ConditionedVariants | None:
    """The variants that are asked for, or all founders at loci, scanned or not; None where there are none.

    ``rows`` (n,) are those of the analysed samples in the genotypes. Raises InputError where a variant is not there, is
    there twice, or has no genotype.
    """
    names = tuple(dict.fromkeys(asked))
    if not names:
        return None
    if founders:
        of_locus = variants_of_loci(genotypes.variants.table)
        names = tuple(dict.fromkeys(variant for name in names for variant in of_locus.get(name, [name])))
    of_name = positions_by_name(genotypes.variants, names)
    positions = _one_of_each(names, of_name, genotypes.path)
    G, absent = imputed_genotypes(genotypes, positions, rows)
    for k in np.flatnonzero(np.isnan(G).any(axis=0)):
        raise InputError(f"--condition {names[k]}: has no genotype in the analysed samples; leave it out")
    kept = _independent(names, G, null, of_loci=founders)
    logger.info("conditioned on %d variants: %s", len(kept), ", ".join(names[k] for k in kept))
    return ConditionedVariants(tuple(names[k] for k in kept), G[:, kept], where_called(absent[:, kept]))


def where_called(absent: NDArray[np.bool_], others: NDArray[np.bool_] | None = None) -> NDArray[np.bool_] | None:
    """Where variants with missing genotypes (n, k) were genotyped, after those of others: (n, q); None for q = 0."""
    called = ~absent[:, absent.any(axis=0)]
    if others is not None:
        called = np.hstack([others, called])
    return called if called.size else None


def imputed_genotypes(
    genotypes: GenotypeSource, positions: NDArray[np.intp], rows: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Genotypes (n, k) of the variants at some positions, in this order, missing ones at the mean (NaN if all are).

    Beside them, which are missing (n, k).
    """
    order = np.argsort(positions)
    G = np.empty((len(rows), len(positions)))
    G[:, order] = genotypes.read(positions[order], rows)
    absent = np.isnan(G)
    called = np.maximum(np.count_nonzero(~absent, axis=0), 1)
    means = np.where(absent.all(axis=0), np.nan, np.nansum(G, axis=0) / called)
    return np.where(absent, means, G), absent


def _one_of_each(names: Sequence[str], of_name: Mapping[str, Sequence[int]], path: str) -> NDArray[np.intp]:
    """The positions of the variants of these names in a file, of which there is one each."""
    for name in names:
        positions = of_name.get(name, [])
        if not positions:
            raise InputError(
                f"--condition {name}: no variant of {path} has this name; name its file with --geno, too, and"
                " choose what to scan with --chr, --region or --extract"
            )
        if len(positions) > 1:
            raise InputError(
                f"--condition {name}: {len(positions)} variants of {path} have this name; give them names of their own"
            )
    return np.fromiter((of_name[name][0] for name in names), np.intp)


def _independent(names: Sequence[str], G: NDArray[np.float64], null: NullFile, of_loci: bool) -> list[int]:
    """The variants that add to the covariates and the variants before them; a warning names the others.

    Of founders (``of_loci``), one at a locus follows from the others, of which only the log speaks.
    """
    X = own_covariates(null.description)
    c = X.shape[1]
    found = [one for one in dependencies(np.hstack([X, G]), ROUNDING) if one.column >= c]
    of_columns = [f"covariate {k + 1}" for k in range(c)] if len(null.covariates) != c else list(null.covariates)
    for one in found:
        level = logging.DEBUG if of_loci else logging.WARNING
        logger.log(level, "--condition %s: it adds nothing and is left out", combination([*of_columns, *names], one))
    return [k for k in range(len(names)) if c + k not in {one.column for one in found}]


def own_covariates(data: TraitData) -> NDArray[np.float64]:
    """Covariates that have an effect on every trait of its own."""
    return data.X[:, :0] if data.reduced else data.X


def genotyped_covariates(data: TraitData, conditioned: ConditionedVariants | None) -> GenotypedCovariates:
    """The covariates and what a scan is conditioned on, to judge variants over the samples with their genotypes."""
    observed = np.isfinite(data.Y) if data.has_missing and not data.reduced else None
    if conditioned is None:
        return GenotypedCovariates(data.X, observed)
    return GenotypedCovariates(np.hstack([data.X, conditioned.G]), observed, conditioned.called)


def scale_given(scale: NullScale, given: GivenVariants, reml: bool) -> NullScale:
    """The scale of tests under a null model with further variants in it."""
    return replace(
        scale,
        quadratic=scale.quadratic - given.quadratic,
        size=scale.size - given.rank if reml else scale.size,
        residual_df=scale.residual_df - given.rank,
    )
