"""Tests of a finished scan: any hypothesis from a result table, without genotypes.

A table has, for every variant, the effects on the traits and the information along the axes of its null model; its
metadata has the axes T and the scale of every null model (``nulls``: the whole one's, then with LOCO that of each
chromosome). Score and information follow, and with them every statistic that a scan would have written.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.model.hypotheses import (
    Hypothesis,
    TestContext,
    effect_covariance,
    score_and_information,
    test,
    unpack_information,
)
from kron2sum_cli.tables.null_file import NullFile
from kron2sum_cli.tables.scan_table import information_columns

Array = NDArray[np.float64]


def null_record(null: NullFile, chromosome: str | None) -> dict[str, Any]:
    """What the metadata of a result table says of one null model."""
    summary = null.whole if chromosome is None else null.chromosomes[chromosome]
    size = null.description.nobserved
    return {
        "chromosome": chromosome,
        "axes": summary.axes.T.tolist(),
        "quadratic": summary.quadratic,
        "size": size,
        "residual_df": size - null.description.A.shape[1] * len(null.covariates),
        "coupled": null.description.coupled,
    }


def test_context(record: Mapping[str, Any], statistic: str) -> TestContext:
    """The context of tests under the null model of such a record."""
    return TestContext(
        T=np.array(record["axes"]),
        quadratic=float(record["quadratic"]),
        size=int(record["size"]),
        residual_df=int(record["residual_df"]),
        statistic=cast(Literal["lr", "f"], statistic),
    )


test_context.__test__ = False  # type: ignore[attr-defined]  # not a test of this code


def needed_columns(metadata: Mapping[str, Any]) -> list[str]:
    """The columns that later tests are computed from."""
    traits = metadata["traits"]
    return ["CHR", *(f"BETA.{trait}" for trait in traits), *_information_of(metadata)]


def _information_of(metadata: Mapping[str, Any]) -> list[str]:
    return information_columns(len(metadata["traits"]), bool(metadata["nulls"][0]["coupled"]))


def later_tests(
    batch: pa.RecordBatch, metadata: Mapping[str, Any], hypotheses: Sequence[Hypothesis]
) -> dict[str, NDArray[Any]]:
    """``CHISQ.NAME``, ``DF.NAME`` and ``MLOG10P.NAME`` of every hypothesis, NaN where a variant has no statistics.

    Parameters
    ----------
    batch : rows of a result table, with `needed_columns`
    metadata : of the table
    hypotheses : see `model.hypotheses`
    """
    size = len(batch)
    columns: dict[str, NDArray[Any]] = {}
    for hypothesis in hypotheses:
        for kind in ("CHISQ", "DF", "MLOG10P"):
            columns[f"{kind}.{hypothesis.name}"] = np.full(size, np.nan)
    beta, information = _effects(batch, metadata)
    for record, rows in _rows_by_null(batch, metadata, np.asarray(np.isfinite(beta).all(axis=1))):
        context = test_context(record, metadata["settings"]["stat"])
        u, v = score_and_information(beta[rows], information[rows], context.T)
        for hypothesis in hypotheses:
            result = test(u, v, hypothesis, context)
            columns[f"CHISQ.{hypothesis.name}"][rows] = result.chisq
            columns[f"DF.{hypothesis.name}"][rows] = result.df
            columns[f"MLOG10P.{hypothesis.name}"][rows] = result.mlog10p
    return columns


def effect_covariances(batch: pa.RecordBatch, metadata: Mapping[str, Any]) -> dict[str, Array]:
    """``COV.T1.T2``, the covariance of the effects on every two traits (T1 before or equal to T2).

    On the scale of the table's standard errors: ``COV.T.T`` is the square of ``SE.T``.
    """
    traits = metadata["traits"]
    p = len(traits)
    beta, information = _effects(batch, metadata)
    covariance = np.full((len(batch), p, p), np.nan)
    for record, rows in _rows_by_null(batch, metadata, np.asarray(np.isfinite(beta).all(axis=1))):
        context = test_context(record, metadata["settings"]["stat"])
        u, v = score_and_information(beta[rows], information[rows], context.T)
        explained = np.sum(u * (beta[rows] @ context.T.T), axis=1)
        scale = (context.quadratic - explained) / context.size
        covariance[rows] = scale[:, None, None] * effect_covariance(v, np.asarray(np.linalg.inv(context.T)))
    return {f"COV.{traits[i]}.{traits[j]}": covariance[:, i, j] for i in range(p) for j in range(i, p)}


def _effects(batch: pa.RecordBatch, metadata: Mapping[str, Any]) -> tuple[Array, Array]:
    """Effects on the traits (b, p) and information along the axes, NaN where empty."""

    def stack(names: Sequence[str]) -> Array:
        columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
        return np.column_stack(columns).astype(float)

    traits = metadata["traits"]
    beta = stack([f"BETA.{trait}" for trait in traits])
    return beta, unpack_information(stack(_information_of(metadata)), len(traits))


def _rows_by_null(
    batch: pa.RecordBatch, metadata: Mapping[str, Any], usable: NDArray[np.bool_]
) -> list[tuple[Mapping[str, Any], NDArray[np.intp]]]:
    """The usable rows of every null model of the table."""
    records = metadata["nulls"]
    of_chromosome = {record["chromosome"]: k for k, record in enumerate(records)}
    spelling = metadata.get("null_of_chr", {})
    if len(records) == 1:
        return [(records[0], np.flatnonzero(usable))]
    codes = np.array([of_chromosome[spelling.get(name)] for name in batch.column("CHR").to_pylist()])
    return [(record, np.flatnonzero(usable & (codes == k))) for k, record in enumerate(records)]
