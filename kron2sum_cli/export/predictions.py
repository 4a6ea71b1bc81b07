"""Predictions of a null model as a table: genetic values, and traits where they were not observed."""

import numpy as np
import pyarrow as pa

from kron2sum_cli.errors import UsageError
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.table_writers import delimited_header, delimited_rows

NUMBERS = ("observed", "genetic", "genetic_var", "predicted", "predicted_var")


def predictions_tsv(null: NullFile) -> str:
    """A row for each sample and trait, ``NA`` where there is nothing.

    Columns: ``FID`` (where samples have one), ``IID``, ``trait``, ``observed`` (the value that the model was fitted
    to), ``genetic`` and ``genetic_var`` (conditional mean and variance of the genetic value), ``predicted`` and
    ``predicted_var`` (the same of a trait that was not observed, with its fixed effects).

    Raises
    ------
    UsageError
        Where the null model has no predictions.
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
    columns = {} if samples.fids is None else {"FID": np.repeat(np.array(samples.fids), p)}
    columns |= {"IID": np.repeat(np.array(samples.iids), p), "trait": np.tile(np.array(null.traits), len(samples))}
    columns |= {name: values.ravel() for name, values in zip(NUMBERS, numbers, strict=True)}
    batch = pa.RecordBatch.from_arrays([pa.array(v, from_pandas=True) for v in columns.values()], names=list(columns))
    return (delimited_header(list(columns), "\t") + delimited_rows(batch, "\t")).decode()
