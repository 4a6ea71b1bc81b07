"""Columns of an exported table that its scan did not write: further tests, covariances of effects, P values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.pipeline.export_settings import ExportSettings
from kron2sum_cli.pipeline.hypothesis_names import contrast_files, without_folders
from kron2sum_cli.pipeline.tests_asked import asked_hypotheses
from kron2sum_cli.reports.later_tests import effect_covariances, later_tests, needed_columns
from kron2sum_cli.reports.scan_view import numbers
from kron2sum_cli.tables.provenance import file_records
from kron2sum_cli.tables.scan_table import SET, TEST_COLUMNS, refuse_repeated

COVARIANCES = "cov"
"""The word in ``--columns`` that stands for the covariances of all effects."""

COVARIANCE = "COV."
"""How the names of these begin."""

_MLOG10 = "MLOG10"


@dataclass(frozen=True)
class LaterColumns:
    """What is computed from the columns of a table.

    Attributes
    ----------
    metadata : of the table
    hypotheses : tests that the table does not have
    covariances : whether the covariances of the effects are asked for
    p_values : ``P.NAME`` that are asked for, 10 to the power of -``MLOG10P.NAME``; 0 below the smallest double
    names : the new columns
    needed : the columns that they are computed from
    """

    metadata: Mapping[str, Any]
    hypotheses: Sequence[Hypothesis]
    covariances: bool
    p_values: Sequence[str]
    names: Sequence[str]
    needed: Sequence[str]

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The table's columns and the new ones."""
        for name in self.names:
            schema = schema.append(pa.field(name, pa.int32() if name.startswith("DF.") else pa.float64()))
        return schema

    def add_to(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the new columns."""
        if not self.names:
            return batch
        columns: dict[str, NDArray[np.float64]] = {}
        if self.hypotheses:
            columns |= later_tests(batch, self.metadata, self.hypotheses)
        if self.covariances:
            columns |= effect_covariances(batch, self.metadata)
        for name in self.p_values:
            mlog10p = _MLOG10 + name
            columns[name] = 10.0 ** -(columns[mlog10p] if mlog10p in columns else numbers(batch, mlog10p))
        for name in self.names:
            values = pa.array(columns[name], mask=np.isnan(columns[name]))
            batch = batch.append_column(name, values.cast(pa.int32()) if name.startswith("DF.") else values)
        return batch


def later_columns(settings: ExportSettings, metadata: Mapping[str, Any], there: Sequence[str]) -> LaterColumns:
    """The columns that the options ask for and the table does not have.

    Raises
    ------
    InputError
        Where the table lacks the columns that they are computed from.
    UsageError
        Where a test has the name of a trait, or of another test.
    """
    covariances = COVARIANCES in settings.columns
    if not settings.tests and not covariances:
        p_values = _p_values(settings.columns, there)
        return LaterColumns(metadata, (), False, p_values, p_values, [_MLOG10 + name for name in p_values])
    traits = metadata["traits"]
    needed = needed_columns(metadata)
    absent = [name for name in needed if name not in there]
    if absent and SET in there:
        raise InputError("a table of sets has no columns for --test and cov; give --test to kron2sum scan --sets")
    if absent:
        raise InputError(
            f"column {absent[0]} is not in the table, so --test and cov cannot be computed; export the whole scan"
        )
    hypotheses, names = _further_tests(settings.tests, metadata, there)
    refuse_repeated([*there, *names])
    if covariances:
        pairs = [f"{COVARIANCE}{a}.{b}" for i, a in enumerate(traits) for b in traits[i:]]
        names += [name for name in pairs if name not in there]
    p_values = _p_values(settings.columns, [*there, *names])
    needed = [*needed, *(_MLOG10 + name for name in p_values if _MLOG10 + name in there)]
    return LaterColumns(metadata, hypotheses, covariances, p_values, [*names, *p_values], needed)


def _further_tests(
    tests: Sequence[str], metadata: Mapping[str, Any], there: Sequence[str]
) -> tuple[list[Hypothesis], list[str]]:
    """The hypotheses of which the table lacks a column, and the columns to add.

    A column of the table that has the name of another test, or of a trait, is not taken for one of the test.
    """
    traits, Tinv = metadata["traits"], np.linalg.inv(np.array(metadata["axes"]))
    hypotheses: list[Hypothesis] = []
    names: list[str] = []
    for test in tests:
        same = _is_test_of_scan(test, metadata)
        for hypothesis in asked_hypotheses([test], traits, Tinv):
            columns = [f"{kind}.{hypothesis.name}" for kind in TEST_COLUMNS]
            if same and hypothesis.name not in traits:
                columns = [column for column in columns if column not in there]
            if columns:
                hypotheses.append(hypothesis)
                names += columns
    return hypotheses, names


def _is_test_of_scan(test: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a test of the scan that has this test's name is the same: a contrast is where its files are."""
    files = contrast_files(test)
    if not files:
        return True
    records = iter(metadata.get("inputs", {}).get("tests", ()))
    of_test = {asked: list(islice(records, len(contrast_files(asked)))) for asked in metadata["settings"]["tests"]}
    return of_test.get(without_folders(test)) == file_records(files)


def _p_values(asked: Sequence[str], there: Sequence[str]) -> list[str]:
    """The columns ``P.NAME`` that are asked for where there is ``MLOG10P.NAME``."""
    return [name for name in dict.fromkeys(asked) if name.startswith("P.") and _MLOG10 + name in there]
