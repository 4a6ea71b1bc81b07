"""A fitted model as a table or JSON of its estimates, or as a table of its predictions."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from kron2sum_cli.errors import UsageError
from kron2sum_cli.export.rows import rounded
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.files.null_file import NullFile, effect_names
from kron2sum_cli.files.table_writers import delimited_header, delimited_rows
from kron2sum_cli.files.text import EMPTY_CELL
from kron2sum_cli.model.null_model import FitSummary

ESTIMATE_COLUMNS = ("parameter", "trait", "trait2", "estimate", "se")

PREDICTIONS = ("observed", "genetic", "genetic_var", "predicted", "predicted_var")

_MATRICES = ("C0", "C1", "h2", "rg", "re", "B")

_Row = tuple[str, str, str, float, float]


def estimates_table(null: NullFile, separator: str = "\t", digits: int | None = None) -> bytes:
    """All estimates of the whole model, one a row.

    Columns: ``parameter``, ``trait``, ``trait2``, ``estimate``, ``se``. Of C0, C1, rg and re the lower triangle; of B
    the covariate stands in ``trait2``; ``h2_low`` and ``h2_high`` are the profile-likelihood interval; of T (axis in
    ``trait``, trait in ``trait2``) every entry; ``NA`` where there is nothing.
    """
    return _table(dict(zip(ESTIMATE_COLUMNS, zip(*_rows(null), strict=True), strict=True)), separator, digits)


def estimates_json(null: NullFile) -> bytes:
    """All estimates as one JSON object, matrices as nested lists, null where there is nothing."""
    content: dict[str, Any] = {"version": null.metadata.version, "method": null.metadata.method}
    content |= _fit_object(null.whole)
    content |= {"n": len(null.samples), "traits": list(null.traits), "covariates": list(null.covariates)}
    if null.description.has_missing:
        content["n_observed"] = np.isfinite(null.description.Y).sum(axis=0)
    content |= {"effects": effect_names(null.description), "information": null.description.information}
    content |= {"grm": to_json(null.grm), "profile": to_json(null.metadata.profile)}
    if null.chromosomes:
        content["loco"] = {name: _fit_object(summary) for name, summary in null.chromosomes.items()}
    objects = ({key: _plain(value)} for key, value in content.items())
    lines = (json.dumps(each, ensure_ascii=False, allow_nan=False)[1:-1] for each in objects)
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _rows(null: NullFile) -> Iterator[_Row]:
    traits, whole = null.traits, null.whole
    e, nothing = whole.estimates, float("nan")
    yield "lml", EMPTY_CELL, EMPTY_CELL, whole.lml, nothing
    for trait, h2, h2_se in zip(traits, e.h2, e.h2_se, strict=True):
        yield "h2", trait, EMPTY_CELL, float(h2), float(h2_se)
        if trait in null.metadata.profile:
            for end in ("low", "high"):
                yield f"h2_{end}", trait, EMPTY_CELL, getattr(null.metadata.profile[trait], end), nothing
    for name, include in (("rg", -1), ("re", -1), ("C0", 0), ("C1", 0)):
        values, errors = getattr(e, name), getattr(e, name + "_se")
        for i, j in zip(*np.tril_indices(len(traits), include), strict=True):
            yield name, traits[i], traits[j], float(values[i, j]), float(errors[i, j])
    for effect, b, se in zip(effect_names(null.description), e.B.T, e.B_se.T, strict=True):
        for k, covariate in enumerate(null.covariates):
            yield "B", effect, covariate, float(b[k]), float(se[k])
    for number, (share, genetic, loadings) in enumerate(
        zip(e.axis_share, e.axis_h2, whole.axes.T, strict=True), start=1
    ):
        axis = f"axis{number}"
        yield "axis_share", axis, EMPTY_CELL, float(share), nothing
        yield "axis_h2", axis, EMPTY_CELL, float(genetic), nothing
        for trait, loading in zip(traits, loadings, strict=True):
            yield "T", axis, trait, float(loading), nothing


def _fit_object(summary: FitSummary) -> dict[str, Any]:
    e = summary.estimates
    content: dict[str, Any] = {
        "lml": summary.lml,
        "converged": summary.certificate.certified,
        "rank": summary.rank,
        "mean_diagonal": summary.mean_diagonal,
    }
    for name in _MATRICES:
        content |= {name: getattr(e, name), f"{name}_se": getattr(e, f"{name}_se")}
    content["axes"] = {"T": summary.axes.T, "share": e.axis_share, "h2": e.axis_h2}
    content["certificate"] = asdict(summary.certificate) | {"certified": summary.certificate.certified}
    return content


def _plain(value: Any) -> Any:
    """Lists for arrays, and None for what is not a finite number."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def predictions_table(null: NullFile, separator: str = "\t", digits: int | None = None) -> bytes:
    """A row for each sample and trait, ``NA`` where there is nothing.

    Columns: ``FID`` (where samples have one), ``IID``, ``trait``, ``observed`` (the value that the model was fitted
    to), ``genetic`` and ``genetic_var`` (conditional mean and variance of the genetic value), ``predicted`` and
    ``predicted_var`` (the same of a trait that was not observed, with its fixed effects). Raises UsageError where the
    null model has no predictions.
    """
    predictions = null.predictions
    if predictions is None:
        raise UsageError(f"{null.samples.source}: has no predictions; fit it again with --predict")
    p, samples = len(null.traits), predictions.samples
    observed = np.full(predictions.genetic.shape, np.nan)
    observed[: len(null.samples)] = null.description.Y
    numbers = (
        observed,
        predictions.genetic,
        predictions.genetic_variance,
        predictions.cells,
        predictions.cells_variance,
    )
    columns: dict[str, Any] = {} if samples.fids is None else {"FID": np.repeat(np.array(samples.fids), p)}
    columns |= {"IID": np.repeat(np.array(samples.iids), p), "trait": np.tile(np.array(null.traits), len(samples))}
    columns |= {name: values.ravel() for name, values in zip(PREDICTIONS, numbers, strict=True)}
    return _table(columns, separator, digits)


def _table(columns: Mapping[str, Any], separator: str, digits: int | None) -> bytes:
    batch = pa.RecordBatch.from_arrays([pa.array(v, from_pandas=True) for v in columns.values()], names=list(columns))
    return delimited_header(list(columns), separator) + delimited_rows(rounded(batch, digits), separator)
