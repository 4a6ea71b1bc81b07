"""What the metadata of a result table says of a null model, and the scale of tests that follows from it."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np

from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.model.hypotheses import TestContext


def null_record(null: NullFile, chromosome: str | None) -> dict[str, Any]:
    """What the metadata of a result table says of one null model."""
    summary = null.whole if chromosome is None else null.chromosomes[chromosome]
    size = null.description.nobserved
    return {
        "chromosome": chromosome,
        "axes": summary.axes.T.tolist(),
        "quadratic": summary.quadratic,
        "size": size,
        "residual_df": size - null.description.neffects,
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
