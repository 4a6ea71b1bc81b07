"""Columns of an exported table that its scan did not write: further tests and covariances of effects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kron2sum_cli.errors import InputError
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.pipeline.settings import ExportSettings
from kron2sum_cli.pipeline.tests_asked import asked_hypotheses
from kron2sum_cli.reports.later_tests import effect_covariances, later_tests, needed_columns
from kron2sum_cli.tables.scan_table import TEST_COLUMNS

COVARIANCES = "cov"
"""The word in ``--columns`` that stands for the covariances of all effects."""


@dataclass(frozen=True)
class LaterColumns:
    """What is computed from the columns of a table.

    Attributes
    ----------
    metadata : of the table
    hypotheses : tests that the table does not have
    covariances : whether the covariances of the effects are asked for
    names : the new columns
    needed : the columns that they are computed from
    """

    metadata: Mapping[str, Any]
    hypotheses: Sequence[Hypothesis]
    covariances: bool
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
        columns = later_tests(batch, self.metadata, self.hypotheses)
        if self.covariances:
            columns |= effect_covariances(batch, self.metadata)
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
        return LaterColumns(metadata, (), False, (), ())
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
    return LaterColumns(metadata, hypotheses, covariances, names, needed)
