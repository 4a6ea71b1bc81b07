"""Columns that export computes from those of a scan: further tests, covariances of effects, P values."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.export.results import Array, column_values
from kron2sum_cli.files.inputs import file_records
from kron2sum_cli.files.scan_columns import (
    BETA,
    CHISQ,
    COV,
    DF,
    MLOG10P,
    PVE,
    SE,
    SET,
    TEST_COLUMNS,
    TRAIT_N,
    TRAIT_PVE,
    N,
    P,
    axis_columns,
    column_of,
    refuse_repeated,
)
from kron2sum_cli.files.scan_metadata import ScanMetadata
from kron2sum_cli.files.trait_design import asked_hypotheses
from kron2sum_cli.model.hypotheses import (
    Hypothesis,
    TestContext,
    effect_covariance,
    score_and_information,
    test,
    unpack_information,
)
from kron2sum_cli.option_values import TESTS_OF_SCAN, contrast_files, without_folders
from kron2sum_cli.settings import ExportSettings


def needed_columns(metadata: ScanMetadata) -> list[str]:
    """The columns that later tests are computed from: chromosomes, effects, and information along the axes."""
    traits = metadata.traits
    return ["CHR", *(BETA.named(trait) for trait in traits), *axis_columns(len(traits), metadata.coupled)]


def compute_tests(
    batch: pa.RecordBatch, metadata: ScanMetadata, hypotheses: Sequence[Hypothesis]
) -> dict[str, NDArray[Any]]:
    """``CHISQ.NAME``, ``DF.NAME`` and ``MLOG10P.NAME`` of every hypothesis, NaN where a variant has no statistics.

    The rows have the `needed_columns`.
    """
    names = [column.named(hypothesis.name) for hypothesis in hypotheses for column in TEST_COLUMNS]
    columns: dict[str, NDArray[Any]] = {name: np.full(len(batch), np.nan) for name in names}
    for rows, _, u, v, context in _scores(batch, metadata):
        for hypothesis in hypotheses:
            result = test(u, v, hypothesis, context)
            columns[CHISQ.named(hypothesis.name)][rows] = result.chisq
            columns[DF.named(hypothesis.name)][rows] = result.df
            columns[MLOG10P.named(hypothesis.name)][rows] = result.mlog10p
    return columns


def effect_covariances(batch: pa.RecordBatch, metadata: ScanMetadata) -> dict[str, Array]:
    """``COV.T1.T2``, the covariance of the effects on every two traits (T1 before or equal to T2).

    On the scale of the table's standard errors: ``COV.T.T`` is the square of ``SE.T``.
    """
    traits = metadata.traits
    p = len(traits)
    covariance = np.full((len(batch), p, p), np.nan)
    for rows, beta, u, v, context in _scores(batch, metadata):
        explained = np.sum(u * (beta @ context.T.T), axis=1)
        scale = context.left(explained) / context.size
        covariance[rows] = scale[:, None, None] * effect_covariance(v, np.asarray(np.linalg.inv(context.T)))
    return {COV.named(traits[i], traits[j]): covariance[:, i, j] for i in range(p) for j in range(i, p)}


def _scores(
    batch: pa.RecordBatch, metadata: ScanMetadata
) -> Iterator[tuple[NDArray[np.intp], Array, Array, Array, TestContext]]:
    """Of each null model the rows with statistics, their effects (b, p), scores u, information v, and its scale."""
    traits = metadata.traits
    beta = np.column_stack([column_values(batch, BETA.named(trait)) for trait in traits])
    axes = [column_values(batch, name) for name in axis_columns(len(traits), metadata.coupled)]
    information = unpack_information(np.column_stack(axes), len(traits))
    left_out = np.array([metadata.null_of_chr.get(name) for name in batch.column("CHR").to_pylist()], dtype=object)
    usable = np.isfinite(beta).all(axis=1)
    for null in metadata.nulls:
        rows = np.flatnonzero(usable & (left_out == null.chromosome))
        context = null.context(metadata.settings.stat, metadata.settings.precision)
        u, v = score_and_information(beta[rows], information[rows], context.T)
        yield rows, beta[rows], u, v, context


COVARIANCES = "cov"
"""The word in ``--columns`` that stands for the covariances of all effects."""

EXPLAINED = "pve"
"""The word in ``--columns`` that stands for the shares of variance that a variant explains."""

_MLOG10 = "MLOG10"


@dataclass(frozen=True)
class ComputedColumns:
    """Columns that are computed from those of a table.

    - ``hypotheses``: tests that the table does not have.
    - ``names``, ``needed``: the computed columns, and those that they are computed from.
    """

    metadata: ScanMetadata
    hypotheses: Sequence[Hypothesis]
    names: Sequence[str]
    needed: Sequence[str]

    def add_to(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the computed columns; a P is 0 below the smallest double."""
        columns: dict[str, NDArray[Any]] = {}
        if self.hypotheses:
            columns |= compute_tests(batch, self.metadata, self.hypotheses)
        if any(name.startswith(f"{COV.name}.") for name in self.names):
            columns |= effect_covariances(batch, self.metadata)
        if PVE.name in self.names:
            columns |= explained_variance(batch, self.metadata.traits, effects_of_a_trait(self.metadata))
        for name in self.names:
            if name.startswith(f"{P.name}."):
                mlog10p = _MLOG10 + name
                columns[name] = 10.0 ** -(columns[mlog10p] if mlog10p in columns else column_values(batch, mlog10p))
            values = pa.array(columns[name], mask=np.isnan(columns[name]))
            batch = batch.append_column(name, values.cast(type_of(name)))
        return batch


def effects_of_a_trait(metadata: ScanMetadata) -> float:
    """Fixed effects of a trait that the scale of the tests does not count, on average; none after ML."""
    observed = [metadata.null.observed.get(trait, metadata.null.samples) for trait in metadata.traits]
    return (sum(observed) - metadata.nulls[0].size) / len(observed)


def explained_variance(batch: pa.RecordBatch, traits: Sequence[str], neffects: float) -> dict[str, Array]:
    """``PVE.T`` of every trait and ``PVE`` of all of them: the share of the variance that a variant explains.

    ``PVE.T = β² / (β² + N se²)``, what an effect with this standard error explains of N values (Shim et al. 2015,
    PLoS ONE 10:e0120758), and ``PVE = 1 - exp(-χ²/N)`` with N of all traits: one less the ratio of the residual sums
    of squares that the likelihood ratio compares. N are the samples with a genotype and the trait less ``neffects``,
    so that shares are of what covariates leave.
    """
    columns: dict[str, Array] = {}
    total = np.zeros(len(batch))
    for trait in traits:
        beta, se = (column_values(batch, kind.named(trait)) for kind in (BETA, SE))
        own = TRAIT_N.named(trait)
        number = column_values(batch, own if own in batch.schema.names else N.name) - neffects
        columns[TRAIT_PVE.named(trait)] = beta**2 / (beta**2 + number * se**2)
        total += number
    columns[PVE.name] = -np.expm1(-column_values(batch, CHISQ.name) / total)
    return columns


def false_discovery_rates(mlog10p: Array) -> Array:
    """P (m,) adjusted for the false discovery rate (Benjamini and Hochberg 1995), NaN where there is no P.

    ``q_(i) = min_{j >= i} m p_(j) / j`` of m p-values in increasing order, at most 1: all variants with q at or below
    a level are discoveries of which no more than that share is expected to be false.

    >>> false_discovery_rates(-np.log10([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    known = np.flatnonzero(~np.isnan(mlog10p))
    order = known[np.argsort(-mlog10p[known], kind="stable")]
    log10 = np.log10(len(order) / np.arange(1, len(order) + 1)) - mlog10p[order]
    found = np.full(len(mlog10p), np.nan)
    found[order] = 10.0 ** np.minimum(np.minimum.accumulate(log10[::-1])[::-1], 0.0)
    return found


def type_of(name: str) -> pa.DataType:
    """The type that is declared for a column; float64 for one that is not."""
    column = column_of(name)
    return pa.float64() if column is None else column.type


def computed_columns(settings: ExportSettings, metadata: ScanMetadata, stored: Sequence[str]) -> ComputedColumns:
    """The columns that the options ask for and that are not ``stored`` in the table.

    Raises InputError where the table lacks the columns that they are computed from; UsageError where a test has the
    name of a trait, or of another test.
    """
    has_covariances = COVARIANCES in settings.columns
    has_explained = settings.leads or any(name == EXPLAINED or name.startswith(PVE.name) for name in settings.columns)
    traits = metadata.traits
    hypotheses: list[Hypothesis] = []
    names: list[str] = []
    needed: list[str] = []
    _check_tests_of_scan(settings.tests, stored)
    tests = [asked for asked in settings.tests if asked not in TESTS_OF_SCAN]
    if settings.plot is not None and SET.name in stored:
        tests = []  # only those that it has
    if tests or has_covariances:
        needed = needed_columns(metadata)
        _check_stored(needed, stored)
        hypotheses, names = _further_tests(tests, metadata, stored)
        refuse_repeated([*stored, *names])
    if has_covariances:
        pairs = [COV.named(a, b) for i, a in enumerate(traits) for b in traits[i:]]
        names += [name for name in pairs if name not in stored]
    if has_explained and SET.name not in stored:
        needed += _explained_from(traits, stored)
        shares = [PVE.name, *(TRAIT_PVE.named(trait) for trait in traits)]
        names += [name for name in shares if name not in stored]
    p_values = _p_values(settings.columns, [*stored, *names])
    needed += [_MLOG10 + name for name in p_values if _MLOG10 + name in stored]
    return ComputedColumns(metadata, hypotheses, [*names, *p_values], needed)


def _check_tests_of_scan(tests: Sequence[str], stored: Sequence[str]) -> None:
    """Refuse tests that the table lacks and that cannot be computed from it."""
    for asked in tests:
        if asked in TESTS_OF_SCAN and MLOG10P.named(asked) not in stored:
            option = "--coding genotypic" if asked == "dominance" else "--interaction COVARIATE"
            raise InputError(f"--test {asked}: is not in the table, nor computed from it; scan with {option}")


def _check_stored(needed: Sequence[str], stored: Sequence[str]) -> None:
    """Refuse a table that lacks what tests and covariances are computed from."""
    absent = [name for name in needed if name not in stored]
    if absent and SET.name in stored:
        raise InputError("a table of sets has no columns for --test and cov; give --test to kron2sum scan --sets")
    if absent:
        raise InputError(
            f"column {absent[0]} is not in the table, so --test and cov cannot be computed; export the whole scan"
        )


def _explained_from(traits: Sequence[str], stored: Sequence[str]) -> list[str]:
    """The columns that shares of variance are computed from; a table that lacks one is refused."""
    needed = [N.name, CHISQ.name, *(kind.named(trait) for trait in traits for kind in (BETA, SE))]
    absent = [name for name in needed if name not in stored]
    if absent:
        raise InputError(
            f"column {absent[0]} is not in the table, so that PVE cannot be computed; export the whole scan"
        )
    return needed + [TRAIT_N.named(trait) for trait in traits if TRAIT_N.named(trait) in stored]


def _further_tests(
    tests: Sequence[str], metadata: ScanMetadata, stored: Sequence[str]
) -> tuple[list[Hypothesis], list[str]]:
    """The hypotheses of which the table lacks a column, and the columns to add.

    A column of the table that has the name of another test, or of a trait, is not taken for one of the test.
    """
    traits, Tinv = metadata.traits, np.asarray(np.linalg.inv(metadata.nulls[0].axes))
    hypotheses: list[Hypothesis] = []
    names: list[str] = []
    for asked in tests:
        same = _is_test_of_scan(asked, metadata)
        for hypothesis in asked_hypotheses([asked], traits, Tinv):
            columns = [column.named(hypothesis.name) for column in TEST_COLUMNS]
            if same and hypothesis.name not in traits:
                columns = [column for column in columns if column not in stored]
            if columns:
                hypotheses.append(hypothesis)
                names += columns
    return hypotheses, names


def _is_test_of_scan(test: str, metadata: ScanMetadata) -> bool:
    """Whether a test of the scan that has this test's name is the same: a contrast is where its files are."""
    files = contrast_files(test)
    if not files:
        return True
    records = iter(metadata.inputs.get("tests", ()))
    of_test = {asked: tuple(islice(records, len(contrast_files(asked)))) for asked in metadata.settings.tests}
    return of_test.get(without_folders(test)) == file_records(files)


def _p_values(asked: Sequence[str], stored: Sequence[str]) -> list[str]:
    """The columns ``P.NAME`` that are asked for, by name or pattern, where there is ``MLOG10P.NAME``."""
    known = [name.removeprefix(_MLOG10) for name in stored if name.startswith(f"{_MLOG10}P.")]
    found = {name: [name] if name in known else fnmatch.filter(known, name) for name in asked if name.startswith("P.")}
    return list(dict.fromkeys(name for names in found.values() for name in names))
