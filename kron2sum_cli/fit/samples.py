"""The samples that an analysis is made of: everybody who is in all files with all values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, NumericalError, counted
from kron2sum_cli.files.sample_table import CodedCovariates, SampleTable, code_covariates
from kron2sum_cli.files.samples import Samples, count_absent, match

Missing = Literal["drop", "exact"]

KEPT_WITH_SOME = "samples kept with some of the traits"
DROPPED_WITH_SOME = "of these with some of the traits"


@dataclass(frozen=True)
class AnalysedSamples:
    """The n analysed samples, in the order of the relationship file, with their values.

    - ``relationship_rows``, ``pheno_rows`` (n,): their positions in these files.
    - ``not_analysed_rows``: positions in the relationship file of the samples that are not analysed, without those that
      ``keep`` and ``remove`` leave out.
    - ``traits``: the p traits.
    - ``Y`` (n, p): their values; NaN only if missing cells are kept.
    - ``covariates``: the q covariates; the indicator of a level is named ``name=level``.
    - ``X_values`` (n, q): their values, without an intercept.
    - ``levels``: for every categorical covariate the number of samples in each of its levels.
    - ``counts``: how many samples each step left, to be read as "<number> <key>", in order.
    """

    samples: Samples
    relationship_rows: NDArray[np.intp]
    pheno_rows: NDArray[np.intp]
    not_analysed_rows: NDArray[np.intp]
    traits: tuple[str, ...]
    Y: NDArray[np.float64]
    covariates: tuple[str, ...]
    X_values: NDArray[np.float64]
    levels: Mapping[str, Mapping[str, int]]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class _Positions:
    """Positions of the same samples in each file; ``covar`` is None without a covariate file."""

    relationship: NDArray[np.intp]
    pheno: NDArray[np.intp]
    covar: NDArray[np.intp] | None

    def where(self, kept: NDArray[np.bool_]) -> "_Positions":
        """The positions of some of the samples."""
        covar = None if self.covar is None else self.covar[kept]
        return _Positions(self.relationship[kept], self.pheno[kept], covar)


def analysed_samples(
    pheno: SampleTable,
    covar: SampleTable | None,
    relationship: Samples,
    keep: Samples | None = None,
    remove: Samples | None = None,
    missing: Missing = "drop",
) -> AnalysedSamples:
    """Match the files and drop who cannot be analysed.

    Starting from the relationship file, in this order: ``keep`` and ``remove``, samples that the phenotype file or the
    covariate file lacks, missing phenotypes (``drop``: any of a sample's traits, ``exact``: all of them), missing
    covariates. Raises InputError where no sample is left after a step; no sample has a trait; samples of two files
    cannot be told apart; NumericalError where a trait or a categorical covariate is constant over the analysed samples.
    """
    counts = _file_counts(pheno, covar, relationship)
    listed = _listed(relationship, keep, remove, counts)
    found = _matched(pheno, covar, relationship, listed, counts)
    found = found.where(_with_phenotypes(pheno, found.pheno, missing, counts))
    coded = CodedCovariates((), np.empty((len(found.pheno), 0)), {})
    if covar is not None and found.covar is not None:
        complete = _with_covariates(covar, found.covar, counts)
        coded = code_covariates(covar, found.covar[complete])
        found = found.where(complete)
    counts["samples analysed"] = len(found.pheno)
    Y = pheno.values[found.pheno]
    _refuse_constant(Y, pheno, counts)
    return AnalysedSamples(
        samples=relationship.take(found.relationship),
        relationship_rows=found.relationship,
        pheno_rows=found.pheno,
        not_analysed_rows=np.setdiff1d(listed, found.relationship, assume_unique=True),
        traits=pheno.names,
        Y=Y,
        covariates=coded.names,
        X_values=coded.values,
        levels=coded.levels,
        counts=counts,
    )


def _file_counts(pheno: SampleTable, covar: SampleTable | None, relationship: Samples) -> dict[str, int]:
    counts = {
        **pheno.counts,
        "samples in the relationship file": len(relationship),
        "samples in the phenotype file": len(pheno.samples),
        "phenotyped samples not in the relationship file": count_absent(pheno.samples, relationship),
    }
    if covar is not None:
        counts["samples in the covariate file"] = len(covar.samples)
    return counts


def _listed(
    relationship: Samples, keep: Samples | None, remove: Samples | None, counts: dict[str, int]
) -> NDArray[np.intp]:
    """Positions of the samples that ``--keep`` and ``--remove`` leave."""
    rows = np.arange(len(relationship))
    for option, listed, wanted in (("--keep", keep, True), ("--remove", remove, False)):
        if listed is None:
            continue
        before = len(rows)
        rows = rows[(match(relationship.take(rows), listed) >= 0) == wanted]
        counts[f"samples removed by {option}"] = before - len(rows)
        counts[f"samples remaining after {option}"] = len(rows)
        if not len(rows):
            raise InputError(
                f"{option} {listed.source} leaves no sample of {relationship.source} "
                f"({_examples(relationship, listed)}); check the list"
            )
    return rows


def _matched(
    pheno: SampleTable,
    covar: SampleTable | None,
    relationship: Samples,
    rows: NDArray[np.intp],
    counts: dict[str, int],
) -> _Positions:
    """The samples among ``rows`` that every file has."""
    in_pheno = _positions(relationship.take(rows), pheno.samples, "phenotype", counts)
    found = _Positions(rows, in_pheno, None).where(in_pheno >= 0)
    if covar is None:
        return found
    in_covar = _positions(relationship.take(found.relationship), covar.samples, "covariate", counts)
    return _Positions(found.relationship, found.pheno, in_covar).where(in_covar >= 0)


def _positions(candidates: Samples, other: Samples, name: str, counts: dict[str, int]) -> NDArray[np.intp]:
    """Where another file has the candidates, -1 where it lacks one; it has at least one."""
    positions = match(candidates, other)
    absent = int((positions < 0).sum())
    counts[f"samples not in the {name} file"] = absent
    if absent == len(candidates):
        raise InputError(
            f"{other.source} and {candidates.source} have no samples in common "
            f"({_examples(candidates, other)}); {_fid_advice(candidates, other)}"
        )
    return positions


def _examples(reference: Samples, other: Samples) -> str:
    shown = [f"{samples.source} has for example '{samples.label(0)}'" for samples in (reference, other) if len(samples)]
    return ", ".join(shown)


def _fid_advice(reference: Samples, other: Samples) -> str:
    if set(reference.iids).isdisjoint(other.iids):
        return "check that both files use the same IDs"
    return (
        "some IIDs are in both, with other FIDs: correct the FIDs, or remove the FID column of "
        f"{other.source} to match on IID alone"
    )


def _with_phenotypes(
    pheno: SampleTable, rows: NDArray[np.intp], missing: Missing, counts: dict[str, int]
) -> NDArray[np.bool_]:
    """Which samples have the phenotypes that they need."""
    absent = np.isnan(pheno.values[rows])
    some: NDArray[np.bool_] = np.any(absent, axis=1)
    every: NDArray[np.bool_] = np.all(absent, axis=1)
    partial = int(np.count_nonzero(some & ~every))
    dropped = every if missing == "exact" else some
    counts["samples dropped for missing phenotype"] = int(dropped.sum())
    if partial:
        counts[KEPT_WITH_SOME if missing == "exact" else DROPPED_WITH_SOME] = partial
    _refuse_all_missing(absent, dropped, pheno, "trait")
    return ~dropped


def _with_covariates(covar: SampleTable, rows: NDArray[np.intp], counts: dict[str, int]) -> NDArray[np.bool_]:
    """Which samples have all covariates."""
    absent = np.isnan(covar.values[rows])
    dropped: NDArray[np.bool_] = np.any(absent, axis=1)
    counts["samples dropped for missing covariate"] = int(dropped.sum())
    _refuse_all_missing(absent, dropped, covar, "covariate")
    return ~dropped


def _refuse_all_missing(absent: NDArray[np.bool_], dropped: NDArray[np.bool_], table: SampleTable, kind: str) -> None:
    if not dropped.all():
        return
    missing = absent.sum(axis=0)
    worst = int(missing.argmax())
    raise InputError(
        f"{table.samples.source}: no sample is left without a missing {kind}; {kind} '{table.names[worst]}' "
        f"is missing in {missing[worst]} of {len(absent)} samples: leave it out, or check the missing codes"
    )


def _refuse_constant(Y: NDArray[np.float64], pheno: SampleTable, counts: Mapping[str, int]) -> None:
    """Every trait varies over the samples that have it, which some have."""
    for name, values in zip(pheno.names, Y.T, strict=True):
        if np.isnan(values).all():
            raise InputError(
                f"{pheno.samples.source}: trait '{name}' is missing in all {len(Y)} analysed samples: leave it out "
                "(--pheno-name), or check the missing codes"
            )
    constant = np.flatnonzero(np.fmax.reduce(Y, axis=0) == np.fmin.reduce(Y, axis=0))
    if not constant.size:
        return
    observed = np.count_nonzero(~np.isnan(Y), axis=0)
    fewest = int(observed[constant].min())
    names = [f"'{pheno.names[k]}'" for k in constant if observed[k] == fewest]
    what = f"trait {names[0]} is" if len(names) == 1 else f"traits {', '.join(names)} are"
    who = (
        "analysed sample"
        + "s" * (fewest > 1)
        + (f" that ha{'s' if fewest == 1 else 've'} it" if fewest < len(Y) else "")
    )
    lost = ", ".join(counted(count, reason) for reason, count in counts.items() if count and " dropped for " in reason)
    raise NumericalError(
        f"{pheno.samples.source}: {what} constant over the {fewest} {who}{f' ({lost})' if lost else ''}; leave"
        f" {_worth_leaving_out(pheno, names, counts)} out (--pheno-name), or check the missing codes"
    )


def _worth_leaving_out(pheno: SampleTable, names: Sequence[str], counts: Mapping[str, int]) -> str:
    """Constant traits, or the trait that most of the dropped samples lack."""
    lacking = np.isnan(pheno.values).sum(axis=0)
    worst = int(lacking.argmax())
    these = "it" if len(names) == 1 else "them"
    if counts["samples dropped for missing phenotype"] == 0 or [f"'{pheno.names[worst]}'"] == list(names):
        return these
    return f"{these}, or '{pheno.names[worst]}', which {lacking[worst]} samples lack,"
