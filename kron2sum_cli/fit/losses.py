"""What a fit says of samples and variants that it does not use, and what would bring them back."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.sample_table import SampleTable
from kron2sum_cli.files.samples import Samples, match
from kron2sum_cli.fit.samples import DROPPED_WITH_SOME, AnalysedSamples
from kron2sum_cli.settings import FitSettings

logger = logging.getLogger("kron2sum.fit")

WARN_ABOVE = 0.1
"""A warning is given where more than this share of the samples or variants is not used."""

FEW_GENOTYPES = 0.2
"""A sample whose relatedness to itself is below this share of the median has hardly any genotypes."""

_OPTIONS = {
    "left out: missing": "--grm-geno keeps variants with more missing genotypes",
    "left out: rare": "--grm-maf keeps rarer ones",
}
"""Why variants are left out, and what would keep them; what does not vary or is not asked for is no loss."""


def report_samples(
    settings: FitSettings,
    pheno: SampleTable,
    covar: SampleTable | None,
    relationship: Samples,
    lists: Mapping[str, Samples | None],
    found: AnalysedSamples,
) -> None:
    """Say how many samples each step left; warn where a step took more than a tenth.

    The lists are those of ``--keep`` and ``--remove``.
    """
    report_counts(found.counts)
    for option, listed in lists.items():
        if listed is not None:
            _report_list(option, listed, relationship)
    counts = found.counts
    _warn_of_samples_without_relationship(pheno.samples, relationship, counts)
    there = counts["samples analysed"] + counts["samples dropped for missing phenotype"]
    there += counts.get("samples dropped for missing covariate", 0)
    lacking_covariates = counts.get("samples not in the covariate file", 0)
    if covar is not None and lacking_covariates > WARN_ABOVE * (there + lacking_covariates):
        logger.warning(
            "%s lacks %d of %d samples that have traits and a relationship; add them, with NA where a value is unknown",
            covar.path,
            lacking_covariates,
            there + lacking_covariates,
        )
    _warn_of_missing_traits(settings, pheno, counts, there)
    if covar is not None and counts["samples dropped for missing covariate"] > WARN_ABOVE * there:
        name, lacking = _most_missing(covar)
        logger.warning(
            "%d of %d samples are dropped for a missing covariate; without %s (--covar-name), which %d samples of %s"
            " lack, there would be more",
            counts["samples dropped for missing covariate"],
            there,
            name,
            lacking,
            covar.path,
        )


def report_counts(counts: Mapping[str, int], of: str = "") -> None:
    """Say what was counted; what is 0 in the log alone."""
    for reason, count in counts.items():
        logger.log(logging.INFO if count else logging.DEBUG, "%s%d %s", of, count, reason)


def _report_list(option: str, listed: Samples, relationship: Samples) -> None:
    """Say how many names of a list are no sample of the relationship matrix."""
    rows = match(listed, relationship)
    absent = np.flatnonzero(rows < 0)
    if not absent.size:
        return
    logger.log(
        logging.WARNING if absent.size > WARN_ABOVE * len(listed) else logging.INFO,
        "%s %s: %d of its %d samples are not in %s, such as %s%s",
        option,
        listed.source,
        absent.size,
        len(listed),
        relationship.source,
        listed.label(int(absent[0])),
        _other_fids(listed, relationship, absent),
    )


def _warn_of_samples_without_relationship(samples: Samples, relationship: Samples, counts: Mapping[str, int]) -> None:
    """Warn where the relationship matrix lacks more than a tenth of the samples with traits."""
    absent = counts["phenotyped samples not in the relationship file"]
    if absent <= WARN_ABOVE * len(samples):
        return
    lacking = np.flatnonzero(match(samples, relationship) < 0)
    logger.warning(
        "%d of the %d samples of %s are not in %s, such as %s%s",
        absent,
        len(samples),
        samples.source,
        relationship.source,
        samples.label(int(lacking[0])),
        _other_fids(samples, relationship, lacking)
        or "; if they should be there, check that both files use the same IDs",
    )


def _other_fids(samples: Samples, relationship: Samples, absent: NDArray[np.intp]) -> str:
    """How many of the absent samples have the IID of one that is there, with another FID."""
    row_of = {iid: row for row, iid in enumerate(relationship.iids)}
    alike = [int(i) for i in absent if samples.iids[i] in row_of]
    if not alike:
        return ""
    first = alike[0]
    pair = f"{samples.label(first)} and {relationship.label(row_of[samples.iids[first]])}"
    return (
        f"; {len(alike)} of them have the IID of one that is there, with another FID ({pair}): correct the FIDs, or"
        f" leave them out of {samples.source} to match on IID alone"
    )


def _warn_of_missing_traits(settings: FitSettings, pheno: SampleTable, counts: Mapping[str, int], there: int) -> None:
    """Warn where more than a tenth of the samples are dropped for a missing trait, and say what would keep them."""
    dropped = counts["samples dropped for missing phenotype"]
    partial = 0 if settings.missing == "exact" else counts.get(DROPPED_WITH_SOME, 0)
    if dropped > WARN_ABOVE * there:
        name, lacking = _most_missing(pheno)
        ways = [f"--missing exact would use the {partial} of them that have some of the traits"] if partial else []
        if len(pheno.names) > 1:
            ways.append(
                f"without {name} (--pheno-name), which {lacking} samples of {pheno.path} lack, there would be more"
            )
        logger.warning(
            "%d of %d samples are dropped for missing traits%s",
            dropped,
            there,
            f"; {'; '.join(ways)}" if ways else "",
        )
    elif partial:
        logger.info("%d samples were dropped that have some of the traits: --missing exact would use them", partial)


def _most_missing(table: SampleTable) -> tuple[str, int]:
    """The column with the most missing values, and how many."""
    missing = np.isnan(table.values).sum(axis=0)
    worst = int(missing.argmax())
    return table.names[worst], int(missing[worst])


def report_two_values(Y: NDArray[np.float64], traits: Sequence[str]) -> None:
    """Say once which traits have two values only, such as cases and controls."""
    binary = [trait for trait, y in zip(traits, Y.T, strict=True) if np.unique(y[~np.isnan(y)]).size == 2]
    if binary:
        logger.info(
            "note: %s: two values, as of cases and controls; analysed as a quantitative trait by a linear model, which"
            " is sound for common variants and not too few cases (see Case-control traits in the documentation)",
            ", ".join(binary),
        )


def report_variants(counts: Mapping[str, int]) -> None:
    """Say what a relationship matrix was made of; warn where more than a tenth of the variants were left out."""
    report_counts(counts, "relationship matrix: ")
    used = counts.get("variants used")
    left_out = {reason: count for reason, count in counts.items() if count and reason in _OPTIONS}
    lost = sum(left_out.values())
    if used is None or lost <= WARN_ABOVE * (used + lost):
        return
    worst = max(left_out, key=lambda reason: left_out[reason])
    logger.warning(
        "the relationship matrix is made of %d of %d variants that vary: %d were %s; %s",
        used,
        used + lost,
        left_out[worst],
        worst.replace(": ", " as "),
        _OPTIONS[worst],
    )


def warn_of_few_genotypes(diagonal: NDArray[np.float64], samples: Samples) -> None:
    """Warn of samples with hardly a genotype: their relatedness to themselves, which is about 1, is near 0."""
    few = np.flatnonzero(diagonal < FEW_GENOTYPES * np.median(diagonal))
    if few.size:
        logger.warning(
            "%d sample%s hardly any genotypes in the relationship matrix, such as %s (relatedness to itself %.2g,"
            " the median is %.2g); this bends the heritabilities: use --remove",
            few.size,
            " has" if few.size == 1 else "s have",
            samples.label(int(few[0])),
            diagonal[few[0]],
            np.median(diagonal),
        )
