"""What a fit says to people: which samples and variants it does not use, and sentences and tables of its estimates."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import counted
from kron2sum_cli.files.null_file import NullDescription, effect_names
from kron2sum_cli.files.sample_table import SampleTable
from kron2sum_cli.files.samples import Samples, match
from kron2sum_cli.files.text import EMPTY_CELL
from kron2sum_cli.fit.samples import DROPPED_WITH_SOME, AnalysedSamples
from kron2sum_cli.model.climbing import Certificate
from kron2sum_cli.model.null_model import FitSummary
from kron2sum_cli.model.uncertainty import Interval
from kron2sum_cli.settings import FitSettings

MOST_TRAITS_SHOWN = 8
"""Matrices over more traits than this are summed up."""

Array = NDArray[np.float64]

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


@dataclass(frozen=True)
class Table:
    """A table for people; the first cells of its rows name them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def summarise(
    description: NullDescription,
    whole: FitSummary,
    chromosomes: Mapping[str, FitSummary],
    profile: Mapping[str, Interval],
) -> Iterator[str | Table]:
    """What was fitted, what it says, and why it is an optimum: sentences, empty ones between sections, and tables.

    There are fits without a chromosome with ``--loco``, and profile-likelihood intervals where they were computed.
    """
    traits = description.traits
    yield from (_headline(description, whole), "")
    yield from (_heritabilities(traits, whole, profile), _definition(description, whole), "")
    yield from (*_correlations(traits, whole), "")
    yield from (*_axes(traits, whole), "")
    names = effect_names(description)
    if description.covariates and max(len(names), len(description.covariates)) <= MOST_TRAITS_SHOWN:
        yield from (_fixed_effects(names, description.covariates, whole), "")
    if chromosomes:
        yield from (_without_chromosomes(traits, chromosomes), "")
    yield from (_boundary(whole, profile), _verdict(whole.certificate))


def _headline(description: NullDescription, whole: FitSummary) -> str:
    p, c = len(description.traits), len(description.covariates)
    return (
        f"{len(description.samples)} samples{_missing(description)}, {counted(p, 'traits')},"
        f" {counted(c, 'covariates')}, C0 {f'of rank at most {whole.rank}' if whole.rank else 'of 0'};"
        f" {description.metadata.method.upper()} log-likelihood {whole.lml:.6f}"
    )


def _missing(description: NullDescription) -> str:
    """How many of the samples lack traits, where some do."""
    if not description.has_missing:
        return ""
    partial = int(np.count_nonzero(np.isnan(description.Y).any(axis=1)))
    return f" ({partial} of them with some of the traits, {description.ncells} values missing)"


def _heritabilities(traits: Sequence[str], whole: FitSummary, profile: Mapping[str, Interval]) -> Table:
    e = whole.estimates
    header = ("trait", "genetic variance", "residual", "h2", "se") + ("95% interval (profile)",) * bool(profile)
    rows = []
    for j, trait in enumerate(traits):
        variances = (f"{C[j, j]:.4g} ({_se(se[j, j])})" for C, se in ((e.C0, e.C0_se), (e.C1, e.C1_se)))
        row = (trait, *variances, _short(e.h2[j]), _short(e.h2_se[j]))
        if profile:
            found = profile.get(trait)
            row += (f"{_short(found.low)} to {_short(found.high)}" if found else "",)
        rows.append(row)
    return Table(header, tuple(rows))


def _definition(description: NullDescription, whole: FitSummary) -> str:
    return (
        f"h2 of trait j = C0_jj g / (C0_jj g + C1_jj), g = {whole.mean_diagonal:.6g} the mean diagonal of the centred"
        f" GGᵀ; se: delta method, {description.information} information"
    )


def _correlations(traits: Sequence[str], whole: FitSummary) -> Iterator[str | Table]:
    p, e = len(traits), whole.estimates
    if p == 1:
        yield "one trait: no correlations"
    elif p > MOST_TRAITS_SHOWN:
        yield from (_extremes(name, traits, r) for name, r in (("genetic", e.rg), ("residual", e.re)))
    else:
        rows = []
        for i, trait in enumerate(traits):
            pairs = ((e.rg[i, j], e.rg_se[i, j]) if j < i else (e.re[i, j], e.re_se[i, j]) for j in range(p))
            cells = (f"{_short(r)} ({_short(se)})" for r, se in pairs)
            rows.append((trait, *("" if i == j else cell for j, cell in enumerate(cells))))
        yield Table(("correlation", *traits), tuple(rows))
        yield "genetic below, residual above the diagonal (se)"


def _extremes(name: str, traits: Sequence[str], r: Array) -> str:
    i, j = np.tril_indices(len(traits), -1)
    values = r[i, j]
    if np.all(np.isnan(values)):
        return f"{name} correlations: none is defined"
    low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
    return (
        f"{name} correlations: from {_short(values[low])} ({traits[i[low]]}, {traits[j[low]]}) to"
        f" {_short(values[high])} ({traits[i[high]]}, {traits[j[high]]}), median of the absolute values"
        f" {_short(float(np.nanmedian(np.abs(values))))}; all of them: kron2sum export"
    )


def _axes(traits: Sequence[str], whole: FitSummary) -> Iterator[str | Table]:
    e, shown = whole.estimates, np.argsort(-whole.estimates.axis_share)[:MOST_TRAITS_SHOWN]
    rows = []
    loadings = np.abs(whole.axes.Tinv) / np.sqrt(np.sum(whole.axes.Tinv**2, axis=1, keepdims=True))
    for j in shown:
        strongest = ", ".join(traits[i] for i in np.argsort(-loadings[:, j])[:2])
        rows.append((str(j + 1), f"{100 * e.axis_share[j]:.1f}%", f"{100 * e.axis_h2[j]:.1f}%", strongest))
    yield Table(("trait axis", "share of variance", "genetic", "strongest traits"), tuple(rows))
    if len(traits) > len(shown):
        yield f"and {len(traits) - len(shown)} more"


def _fixed_effects(names: Sequence[str], covariates: Sequence[str], whole: FitSummary) -> Table:
    e = whole.estimates
    rows = (
        (covariate, *(f"{b:.4g} ({_se(se)})" for b, se in zip(e.B[k], e.B_se[k], strict=True)))
        for k, covariate in enumerate(covariates)
    )
    return Table(("effect of", *names), tuple(rows))


def _without_chromosomes(traits: Sequence[str], chromosomes: Mapping[str, FitSummary]) -> Table:
    few = len(traits) <= MOST_TRAITS_SHOWN
    rows = (
        (name, f"{summary.lml:.4f}", *(_short(h) for h in summary.estimates.h2 if few))
        for name, summary in chromosomes.items()
    )
    return Table(("without", "log-likelihood", *(f"h2 of {trait}" for trait in traits if few)), tuple(rows))


def _boundary(whole: FitSummary, profile: Mapping[str, Interval]) -> str:
    certificate, rank = whole.certificate, whole.rank
    if rank == 0:
        return "C0 is 0: no two samples are related"
    said = []
    if certificate.active_C0:
        said.append(
            f"C0 has rank {rank - certificate.active_C0}:"
            f" {counted(certificate.active_C0, 'combinations')} of the traits without genetic variance"
        )
    if certificate.active_C1:
        said.append(
            f"C1 has rank {whole.axes.c1.size - certificate.active_C1}:"
            f" {counted(certificate.active_C1, 'combinations')} of the traits all genetic"
        )
    if not said:
        return "no boundary is active"
    advice = "" if profile else "; --profile h2 gives intervals that hold there"
    return f"boundary: {'; '.join(said)}. Standard errors are along the boundary{advice}"


def _verdict(certificate: Certificate) -> str:
    """Whether the fit is an optimum, and how that was told."""
    verdict = "optimum certified" if certificate.certified else "NOT CONVERGED"
    return (
        f"{verdict}: predicted gain {certificate.predicted_gain:.1e} (off the boundary {certificate.cone_gain:.1e}),"
        f" gradient {certificate.gradient_norm:.1e}, smallest eigenvalue of C0 {certificate.smallest_C0:.3g} and C1"
        f" {certificate.smallest_C1:.3g} (variance 1), {counted(certificate.steps, 'steps')},"
        f" {counted(certificate.evaluations, 'evaluations')}"
    )


def _short(value: float) -> str:
    return EMPTY_CELL if np.isnan(value) else f"{value:.4f}"


def _se(value: float) -> str:
    return EMPTY_CELL if np.isnan(value) else f"{value:.2g}"


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
        logger.log(logging.INFO if count else logging.DEBUG, "%s%s", of, counted(count, reason))


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
        logger.info(
            "%s with some of the traits dropped: --missing exact would use what was observed of them",
            counted(partial, "samples"),
        )


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
