"""λ in the log of a scan, and what it advises."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from kron2sum_cli.model.hypotheses import named_hypothesis
from kron2sum_cli.scan.scan import FEWEST_VARIANTS, Inflation

TRAITS = ("a", "b")
TESTS = [named_hypothesis(name, TRAITS) for name in ("any", "common")]


def rows(inflation: float, number: int = 999) -> pa.RecordBatch:
    """Rows whose χ² are those of the distribution times a number."""
    share = (np.arange(number) + 0.5) / number
    columns = {}
    for name, df in (("MLOG10P", 2), ("MLOG10P.common", 1), ("MLOG10P.a", 1), ("MLOG10P.b", 1)):
        mlog10p = -np.log10(stats.chi2.sf(inflation * stats.chi2.ppf(share, df), df))
        columns[name] = pa.array([None, *mlog10p])
    return pa.RecordBatch.from_pydict(columns)


def report(
    inflation: float, same_files: bool = True, loco: bool = False, number: int = 999, reduced: bool = False
) -> dict[str, float]:
    found = Inflation(TESTS, TRAITS)
    for batch in (rows(inflation, number),):
        found.add(batch)
    record, other = SimpleNamespace(hash="h"), SimpleNamespace(hash="other")
    null = SimpleNamespace(
        chromosomes={"1": 0} if loco else {},
        grm=SimpleNamespace(files=(record if same_files else other,)),
        description=SimpleNamespace(reduced=reduced),
    )
    found.report(cast(Any, SimpleNamespace(null=null, files=(record,))))
    return found.lambdas()


@pytest.mark.parametrize("inflation", [0.7, 1.0, 1.3])
def test_lambda_of_every_test(inflation: float, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = report(inflation)
    assert list(found) == ["any", "common", "a", "b"]
    assert list(found.values()) == pytest.approx([inflation] * 4, abs=2e-3)
    assert f"λ (median χ² over that expected): any {found['any']:.3f}, common {found['common']:.3f}" in caplog.text


@pytest.mark.parametrize(
    ("inflation", "options", "said"),
    [
        (0.9, {}, "leave the chromosome out (fit --loco)"),
        (0.9, {"same_files": False}, "if the relationship matrix has the variants scanned in it, use fit --loco"),
        (1.2, {}, "λ above 1: many small effects"),
    ],
)
def test_advice(inflation: float, options: dict[str, bool], said: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report(inflation, **options)
    assert said in caplog.text
    assert (logging.WARNING in [record.levelno for record in caplog.records]) == (not options and inflation < 1)


@pytest.mark.parametrize(
    ("inflation", "options"),
    [
        *((0.9, {"loco": True}), (1.0, {}), (0.9, {"number": FEWEST_VARIANTS - 1}), (0.97, {})),
        *((0.5, {"reduced": True}), (9.0, {"reduced": True})),
    ],
)
def test_no_advice(inflation: float, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report(inflation, **options)
    assert "loco" not in caplog.text and "above" not in caplog.text
