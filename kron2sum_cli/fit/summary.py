"""What a fit says to people: sentences and tables of its estimates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.null_file import NullDescription, effect_names
from kron2sum_cli.files.text import EMPTY_CELL
from kron2sum_cli.model.climbing import Certificate
from kron2sum_cli.model.null_model import FitSummary
from kron2sum_cli.model.uncertainty import Interval

MOST_TRAITS_SHOWN = 8
"""Matrices over more traits than this are summed up."""

Array = NDArray[np.float64]


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
        f"{len(description.samples)} samples{_missing(description)}, {_count(p, 'trait')}, {_count(c, 'covariate')},"
        f" C0 {f'of rank at most {whole.rank}' if whole.rank else 'of 0'};"
        f" {description.method.upper()} log-likelihood {whole.lml:.6f}"
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
            f" {_count(certificate.active_C0, 'combination')} of the traits without genetic variance"
        )
    if certificate.active_C1:
        said.append(
            f"C1 has rank {whole.axes.c1.size - certificate.active_C1}:"
            f" {_count(certificate.active_C1, 'combination')} of the traits all genetic"
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
        f" {certificate.smallest_C1:.3g} (variance 1), {_count(certificate.steps, 'step')},"
        f" {_count(certificate.evaluations, 'evaluation')}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _short(value: float) -> str:
    return EMPTY_CELL if np.isnan(value) else f"{value:.4f}"


def _se(value: float) -> str:
    return EMPTY_CELL if np.isnan(value) else f"{value:.2g}"
