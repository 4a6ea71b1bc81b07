"""The estimates of a null model as a table for people."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.null_description import NullDescription
from kron2sum_cli.files.text import MISSING
from kron2sum_cli.model.climbing import Certificate
from kron2sum_cli.model.null_model import FitSummary
from kron2sum_cli.model.profile import Interval

WIDE = 8
"""Matrices over more traits than this are summed up on the screen."""

Array = NDArray[np.float64]


def screen_table(
    description: NullDescription,
    whole: FitSummary,
    chromosomes: Mapping[str, FitSummary],
    profile: Mapping[str, Interval],
) -> list[str]:
    """Lines for people: what was fitted, what it says, and why it is an optimum."""
    traits = description.traits
    lines = [_headline(description, whole), ""]
    lines += [*_heritabilities(description, whole, profile), "", *_correlations(traits, whole), ""]
    lines += [*_axes(traits, whole), "", *_fixed_effects(description, whole)]
    if chromosomes:
        lines += [*_without_chromosomes(traits, chromosomes), ""]
    return [*lines, *_boundary(whole, profile), *_certificate(whole.certificate)]


def effect_names(description: NullDescription) -> list[str]:
    """Names of the columns of B: the traits, or with a trait design A1, A2, ... for its columns."""
    p, a = description.A.shape
    if a == p and np.array_equal(description.A, np.eye(p)):
        return list(description.traits)
    return [f"A{k + 1}" for k in range(a)]


def _headline(description: NullDescription, whole: FitSummary) -> str:
    p, c = len(description.traits), len(description.covariates)
    return (
        f"{len(description.samples)} samples{_missing(description)}, {_count(p, 'trait')}, {_count(c, 'covariate')},"
        f" C0 of rank at most {whole.rank}; {description.method.upper()} log-likelihood {whole.lml:.6f}"
    )


def _missing(description: NullDescription) -> str:
    """How many of the samples lack traits, where some do."""
    if not description.has_missing:
        return ""
    partial = int(np.count_nonzero(np.isnan(description.Y).any(axis=1)))
    return f" ({partial} of them with some of the traits, {description.ncells} values missing)"


def _heritabilities(description: NullDescription, whole: FitSummary, profile: Mapping[str, Interval]) -> list[str]:
    e, traits = whole.estimates, description.traits
    header = ["trait", "genetic variance", "residual", "h2", "se"] + ["95% interval (profile)"] * bool(profile)
    rows = [header]
    for j, trait in enumerate(traits):
        variances = (f"{C[j, j]:.4g} ({_se(se[j, j])})" for C, se in ((e.C0, e.C0_se), (e.C1, e.C1_se)))
        row = [trait, *variances, _short(e.h2[j]), _short(e.h2_se[j])]
        if profile:
            found = profile.get(trait)
            row.append(f"{_short(found.low)} to {_short(found.high)}" if found else "")
        rows.append(row)
    definition = (
        f"h2 of trait j = C0_jj g / (C0_jj g + C1_jj), g = {whole.mean_diagonal:.6g} the mean diagonal of the centred"
        f" GGᵀ; se: delta method, {description.information} information"
    )
    return [*_aligned(rows), definition]


def _correlations(traits: Sequence[str], whole: FitSummary) -> list[str]:
    p, e = len(traits), whole.estimates
    if p == 1:
        return ["one trait: no correlations"]
    if p > WIDE:
        return [_extremes(name, traits, r) for name, r in (("genetic", e.rg), ("residual", e.re))]
    rows = [["correlation", *traits]]
    for i, trait in enumerate(traits):
        row = [trait]
        for j in range(p):
            r, se = (e.rg[i, j], e.rg_se[i, j]) if j < i else (e.re[i, j], e.re_se[i, j])
            row.append("" if i == j else f"{_short(r)} ({_short(se)})")
        rows.append(row)
    return [*_aligned(rows), "genetic below, residual above the diagonal (se)"]


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


def _axes(traits: Sequence[str], whole: FitSummary) -> list[str]:
    e, shown = whole.estimates, np.argsort(-whole.estimates.axis_share)[:WIDE]
    rows = [["trait axis", "share of variance", "genetic", "strongest traits"]]
    loadings = np.abs(whole.axes.Tinv) / np.sqrt(np.sum(whole.axes.Tinv**2, axis=1, keepdims=True))
    for j in shown:
        strongest = [traits[i] for i in np.argsort(-loadings[:, j])[:2]]
        rows.append([str(j + 1), f"{100 * e.axis_share[j]:.1f}%", f"{100 * e.axis_h2[j]:.1f}%", ", ".join(strongest)])
    more = len(traits) - len(shown)
    return _aligned(rows) + [f"and {more} more"] * (more > 0)


def _fixed_effects(description: NullDescription, whole: FitSummary) -> list[str]:
    e, names = whole.estimates, effect_names(description)
    if not description.covariates or max(len(names), len(description.covariates)) > WIDE:
        return []
    rows = [["effect of", *names]]
    for k, covariate in enumerate(description.covariates):
        rows.append([covariate, *(f"{b:.4g} ({_se(se)})" for b, se in zip(e.B[k], e.B_se[k], strict=True))])
    return [*_aligned(rows), ""]


def _without_chromosomes(traits: Sequence[str], chromosomes: Mapping[str, FitSummary]) -> list[str]:
    few = len(traits) <= WIDE
    rows = [["without", "log-likelihood", *(f"h2 of {trait}" for trait in traits if few)]]
    for name, summary in chromosomes.items():
        h2 = [_short(h) for h in summary.estimates.h2 if few]
        rows.append([name, f"{summary.lml:.4f}", *h2])
    return _aligned(rows)


def _boundary(whole: FitSummary, profile: Mapping[str, Interval]) -> list[str]:
    certificate, rank = whole.certificate, whole.rank
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
        return ["no boundary is active"]
    advice = "" if profile else "; --profile h2 gives intervals that hold there"
    return [f"boundary: {'; '.join(said)}. Standard errors are along the boundary{advice}"]


def _certificate(certificate: Certificate) -> list[str]:
    verdict = "optimum certified" if certificate.certified else "NOT CONVERGED"
    return [
        f"{verdict}: predicted gain {certificate.predicted_gain:.1e} (off the boundary {certificate.cone_gain:.1e}),"
        f" gradient {certificate.gradient_norm:.1e}, smallest eigenvalue of C0 {certificate.smallest_C0:.3g} and C1"
        f" {certificate.smallest_C1:.3g} (variance 1), {_count(certificate.steps, 'step')},"
        f" {_count(certificate.evaluations, 'evaluation')}"
    ]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns padded to one width: the first to the left, others to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _short(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.4f}"


def _se(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.2g}"
