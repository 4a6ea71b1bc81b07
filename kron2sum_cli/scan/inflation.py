"""λ of every test of a scan, for the log, with what it may mean."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from kron2sum_cli.files.scan_columns import BOTH_COLUMNS, INTERACTION, MLOG10P
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.model.inflation import DEFLATED, INFLATED, MedianP, inflation
from kron2sum_cli.scan.inputs import ScanInputs

logger = logging.getLogger("kron2sum.scan")

FEWEST = 100
"""Variants with a statistic below which λ says nothing."""

MOST_NAMED = 8
"""Of more tests than this the log has the smallest and the largest λ."""


class Inflation:
    """λ of all tests of a scan, from its rows as they come.

    Parameters
    ----------
    tests : Sequence of Hypothesis
        That of an effect on any trait, then the others.
    traits : Sequence of str
        Names of the traits, each tested given effects on the others.
    second : str or None
        Name of the test of the second column of a variant; None where there is none.
    """

    def __init__(self, tests: Sequence[Hypothesis], traits: Sequence[str], second: str | None = None) -> None:
        self._df = {test.name: test.df for test in tests}
        if second is not None:
            self._df |= {second: len(traits), BOTH_COLUMNS: 2 * len(traits)}
        if len(traits) > 1:  # of a single one its test is that of any effect
            self._df |= dict.fromkeys(traits, 1)
        self._medians = MedianP(list(self._df))

    def add(self, rows: pa.RecordBatch) -> None:
        """Take some rows of the result table."""
        for name in self._df:
            mlog10p = rows.column(MLOG10P.named(name)).to_numpy(zero_copy_only=False)
            self._medians.add(name, np.asarray(mlog10p, np.float64))

    def lambdas(self) -> dict[str, float]:
        """λ of every test that enough variants have."""
        known = [name for name in self._df if self._medians.number(name) >= FEWEST]
        return {name: inflation(self._medians.of(name), self._df[name]) for name in known}

    def report(self, inputs: ScanInputs) -> None:
        """Say λ in the log, and what to do or look for where that of any effect is far from 1."""
        found = self.lambdas()
        if "any" not in found:
            return
        text = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        if len(found) > MOST_NAMED:
            text = f"any {found['any']:.3f}, others {min(found.values()):.3f} to {max(found.values()):.3f}"
        logger.info("λ (median χ² over that expected): %s", text)
        if found.get(INTERACTION, 1.0) > INFLATED:
            logger.info(
                "λ of interaction above 1: if the covariate changes the effects of many variants a little, or how much"
                " the traits vary, the null model does not hold that, and P of interaction are too small"
            )
        if found["any"] < DEFLATED and not inputs.null.chromosomes:
            if {record.hash for record in inputs.files} & {record.hash for record in inputs.null.grm.files}:
                logger.warning(
                    "λ is %.3f: the relationship matrix was made from the variants scanned, so that each competes with"
                    " itself in it and tests find too little: leave the chromosome out (fit --loco)",
                    found["any"],
                )
            else:
                logger.info("λ below 1: if the relationship matrix has the variants scanned in it, use fit --loco")
        elif found["any"] > INFLATED:
            logger.info(
                "λ above 1: many small effects over long disequilibrium, as in crosses and families, structure that the"
                " model does not hold, or traits far from normal; see the QQ plot"
            )
