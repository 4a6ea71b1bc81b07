"""The null models of a scan: what is known of them before variants are tested, and the variants given in them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kron2sum_cli.errors import InputError, NumericalError, counted
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.scan_metadata import NullScale
from kron2sum_cli.genotypes.founders import variants_of_loci
from kron2sum_cli.genotypes.source import GenotypeSource, imputed_genotypes
from kron2sum_cli.model.collinearity import GenotypedCovariates, combination, dependencies
from kron2sum_cli.model.conditioning import GivenVariants, estimated_given, given_variants
from kron2sum_cli.model.hypotheses import Hypothesis, Statistic
from kron2sum_cli.model.null_model import FitSummary, NullModel, TraitData
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


def read_conditioned(
    asked: Sequence[str],
    founders: bool,
    covariate: NDArray[np.float64] | None,
    null: NullFile,
    genotypes: GenotypeSource,
    rows: NDArray[np.intp],
) -> ConditionedVariants | None:
    """The variants that are asked for, or all founders at loci, scanned or not, and a covariate (n,) beside them.

    None where there are none. ``rows`` (n,) are those of the analysed samples in the genotypes. A warning names
    variants that add nothing to the covariates and the variants before them; of founders one at a locus follows from
    the others, which the log alone says. Raises InputError where a variant is not there, is there twice, or has no
    genotype.
    """
    names = tuple(dict.fromkeys(asked))
    added = np.empty((len(rows), 0)) if covariate is None else covariate[:, None] - covariate.mean()
    if not names:
        return None if covariate is None else ConditionedVariants((), added)
    if founders:
        of_locus = variants_of_loci(genotypes.variants.table)
        names = tuple(dict.fromkeys(variant for name in names for variant in of_locus.get(name, [name])))
    of_name = genotypes.variants.positions(names)
    for name in names:
        number = len(of_name.get(name, []))
        if not number:
            raise InputError(
                f"--condition {name}: no variant of {genotypes.path} has this name; name its file with --geno, too, and"
                " choose what to scan with --chr, --region or --extract"
            )
        if number > 1:
            raise InputError(
                f"--condition {name}: {number} variants of {genotypes.path} have this name; give them names of their"
                " own"
            )
    G, absent = imputed_genotypes(genotypes, np.fromiter((of_name[name][0] for name in names), np.intp), rows)
    for k in np.flatnonzero(np.isnan(G).any(axis=0)):
        raise InputError(f"--condition {names[k]}: has no genotype in the analysed samples; leave it out")
    X = null.description.own_covariates
    c = X.shape[1]
    of_columns = [f"covariate {k + 1}" for k in range(c)] if len(null.covariates) != c else list(null.covariates)
    found = {one.column - c: one for one in dependencies(np.hstack([X, G]), ROUNDING) if one.column >= c}
    for one in found.values():
        level = logging.DEBUG if founders else logging.WARNING
        logger.log(level, "--condition %s: it adds nothing and is left out", combination([*of_columns, *names], one))
    kept = [k for k in range(len(names)) if k not in found]
    logger.info("conditioned on %s: %s", counted(len(kept), "variants"), ", ".join(names[k] for k in kept))
    called = where_called(absent[:, kept])
    return ConditionedVariants(tuple(names[k] for k in kept), np.hstack([G[:, kept], added]), called)


def where_called(absent: NDArray[np.bool_], others: NDArray[np.bool_] | None = None) -> NDArray[np.bool_] | None:
    """Where variants with missing genotypes (n, k) were genotyped, after those of others: (n, q); None for q = 0."""
    called = ~absent[:, absent.any(axis=0)]
    if others is not None:
        called = np.hstack([others, called])
    return called if called.size else None


def genotyped_covariates(data: TraitData, conditioned: ConditionedVariants | None) -> GenotypedCovariates:
    """The covariates and what a scan is conditioned on, to judge variants over the samples with their genotypes."""
    observed = np.isfinite(data.Y) if data.has_missing and not data.reduced else None
    if conditioned is None:
        return GenotypedCovariates(data.X, observed)
    return GenotypedCovariates(np.hstack([data.X, conditioned.G]), observed, conditioned.called)


@dataclass(frozen=True)
class KnownNull:
    """What is known of a null model before variants are tested: its ``summary``, and the ``scale`` of the tests.

    Both are given the variants of the scan: the scale always, C0 and C1 with ``--stat satterthwaite``.
    """

    summary: FitSummary
    scale: NullScale


@dataclass(frozen=True)
class LoadedNull:
    """A null model, and the scale of its tests, with what the variants that the scan is conditioned on explain."""

    model: NullModel
    scale: NullScale
    given: GivenVariants | None


def known_nulls(
    null: NullFile,
    tests: Sequence[Hypothesis],
    conditioned: ConditionedVariants | None,
    statistic: Statistic,
    dtype: type[np.floating],
) -> dict[str | None, KnownNull]:
    """What is known of every null model, by the chromosome that it leaves out; one of them is in memory at a time.

    Where P values depend on the contrasts that covariances rest on they are said; raises NumericalError where those of
    a test are too few.
    """
    fits: list[tuple[str | None, FitSummary]] = [(None, null.whole), *null.chromosomes.items()]
    if conditioned is None and statistic != "satterthwaite":
        return {name: KnownNull(fit, null_scale(null.description, fit, name)) for name, fit in fits}
    with threadpool_limits(limits=1, user_api="blas"):  # so that no digit depends on their number
        known = {name: _known_null(null, name, conditioned, statistic, dtype) for name, _ in fits}
    for name, one in known.items():
        check_known_contrasts(contrasts_of_tests(one.scale, tests, null.traits), name)
    return known


def _known_null(
    null: NullFile,
    chromosome: str | None,
    conditioned: ConditionedVariants | None,
    statistic: Statistic,
    dtype: type[np.floating],
) -> KnownNull:
    """What is known of a null model, with C0 and C1 estimated given variants where the statistic rests on that."""
    data, model, contrasts, given = null.description, null.load(chromosome, dtype), None, None
    if statistic == "satterthwaite" and conditioned is None:
        contrasts = model.effective_contrasts()
    elif statistic == "satterthwaite" and conditioned is not None:
        model, contrasts = estimated_given(model, conditioned.G, data.own_covariates)
    if conditioned is not None:
        given = given_variants(model, conditioned.G, data.own_covariates)
    return KnownNull(model.summary, null_scale(data, model.summary, chromosome, contrasts, given))


def null_scale(
    data: TraitData,
    summary: FitSummary,
    chromosome: str | None,
    contrasts: EffectiveContrasts | None = None,
    given: GivenVariants | None = None,
) -> NullScale:
    """What tests of variants take from the null model without a chromosome, or (None) from the whole one.

    ``contrasts`` are those that its covariances rest on, where P depends on them; ``given`` are variants in the model.
    """
    rank, quadratic = (0, 0.0) if given is None else (given.rank, given.quadratic)
    residual_df = data.nobserved - data.neffects - rank
    return NullScale(
        chromosome=chromosome,
        axes=summary.axes.T,
        quadratic=summary.quadratic - quadratic,
        size=residual_df if summary.reml else data.nobserved,
        residual_df=residual_df,
        contrasts=contrasts,
    )


def check_known_contrasts(known: Sequence[tuple[str, int, float]], chromosome: str | None) -> None:
    """Say names and contrasts of tests under the null model without a chromosome, or the whole; refuse too few."""
    refuse_few_contrasts(known, chromosome)
    if known:
        text = ", ".join(f"{name} {contrasts:.1f}" for name, _, contrasts in known)
        logger.info("contrasts on which covariances%s rest, by test: %s", _without(chromosome), text)


def refuse_few_contrasts(known: Sequence[tuple[str, int, float]], chromosome: str | None) -> None:
    """Raise NumericalError where a test, by name, degrees of freedom and contrasts, has no more of these than those."""
    for name, df, contrasts in known:
        if contrasts <= df:
            raise NumericalError(
                f"--stat satterthwaite: covariances of the null model{_without(chromosome)} rest on {contrasts:.1f}"
                f" contrasts of samples, too few for test {name} with {df} effect{'s' * (df > 1)} a variant; analyse"
                " fewer traits, or use --stat lr"
            )


def _without(chromosome: str | None) -> str:
    return f" without chromosome {chromosome}" if chromosome else ""


def contrasts_of_tests(
    scale: NullScale, tests: Sequence[Hypothesis], traits: Sequence[str]
) -> list[tuple[str, int, float]]:
    """Name, degrees of freedom and contrasts of every test and trait; nothing where P values do not depend on them."""
    if scale.contrasts is None:
        return []
    context = scale.context("satterthwaite", "double")
    known = [(test.name, test.df, context.contrasts_of(test) or 0.0) for test in tests]
    of_traits = scale.contrasts.of_traits(np.asarray(np.linalg.inv(scale.axes)))
    return known + [(trait, 1, contrasts) for trait, contrasts in zip(traits, of_traits, strict=True)]
