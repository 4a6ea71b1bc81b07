"""Columns of an exported table that its scan did not write: further tests, covariances of effects, P values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.pipeline.settings import ExportSettings
from kron2sum_cli.pipeline.tests_asked import asked_hypotheses
from kron2sum_cli.reports.later_tests import effect_covariances, later_tests, needed_columns
from kron2sum_cli.reports.scan_view import numbers
from kron2sum_cli.tables.scan_table import TEST_COLUMNS

COVARIANCES = "cov"
"""The word in ``--columns`` that stands for the covariances of all effects."""

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
    """
    covariances = COVARIANCES in settings.columns
    if not settings.tests and not covariances:
        p_values = _p_values(settings.columns, there)
        return LaterColumns(metadata, (), False, p_values, p_values, [_MLOG10 + name for name in p_values])
    traits = metadata["traits"]
    needed = needed_columns(metadata)
    absent = [name for name in needed if name not in there]
    if absent:
        raise InputError(
            f"column {absent[0]} is not in the table, so --test and cov cannot be computed; export the whole scan"
        )
    Tinv = np.linalg.inv(np.array(metadata["axes"]))
    asked = asked_hypotheses(settings.tests, traits, Tinv)
    hypotheses = [h for h in asked if f"MLOG10P.{h.name}" not in there]
    names = [f"{kind}.{h.name}" for h in hypotheses for kind in TEST_COLUMNS]
    if covariances:
        names += [f"COV.{a}.{b}" for i, a in enumerate(traits) for b in traits[i:]]
    p_values = _p_values(settings.columns, [*there, *names])
    needed = [*needed, *(_MLOG10 + name for name in p_values if _MLOG10 + name in there)]
    return LaterColumns(metadata, hypotheses, covariances, p_values, [*names, *p_values], needed)


def _p_values(asked: Sequence[str], there: Sequence[str]) -> list[str]:
    """The columns ``P.NAME`` that are asked for where there is ``MLOG10P.NAME``."""
    return [name for name in dict.fromkeys(asked) if name.startswith("P.") and _MLOG10 + name in there]
