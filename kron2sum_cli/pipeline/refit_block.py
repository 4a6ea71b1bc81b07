"""Exact refits of the variants of a block whose tests are small."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.fitting import climb
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.model.refit import Refitter, refitter
from kron2sum_cli.model.tail_probability import chi2_mlog10p

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RefitPlan:
    """What is refitted under one null model.

    Attributes
    ----------
    refitter : the maximum likelihood fit without a variant, ready for refits
    mlog10p : variants with a test above it are refitted
    """

    refitter: Refitter
    mlog10p: float


@dataclass(frozen=True)
class BlockRefit:
    """Refits of h variants.

    Attributes
    ----------
    chisq, mlog10p : (h,) for every hypothesis, NaN where a refit did not converge
    beta, se : (h, p) of the refit with effects on all traits
    """

    chisq: Sequence[Array]
    mlog10p: Sequence[Array]
    beta: Array
    se: Array


def refit_plan(model: NullModel, threshold: float) -> RefitPlan | None:
    """The plan for a null model, whose ML fit is found from its REML fit; None where nothing is to be refitted."""
    if threshold <= 0:
        return None
    summary = model.summary
    null = climb(model.data, summary.axes, summary.rank, False)
    return RefitPlan(refitter(model.data, null), -float(np.log10(threshold)))


def refit_block(plan: RefitPlan, rotated: Array, outside: Array, hypotheses: Sequence[Hypothesis]) -> BlockRefit:
    """Refit variants (m, h) under every design that the hypotheses compare; the first is the any-effect one.

    ``outside`` (h,) is their squared length outside the rotation and the covariates.
    """
    done: dict[bytes, tuple[Array, Array, Array]] = {}

    def fitted(design: Array) -> tuple[Array, Array, Array]:
        if design.shape[1] == 0 or rotated.shape[1] == 0:
            nothing = np.empty((rotated.shape[1], design.shape[0]))
            return np.full(rotated.shape[1], plan.refitter.null.point.lml), nothing, nothing
        key = np.round(design @ design.T, 9).tobytes()  # the space it spans
        if key not in done:
            result = plan.refitter.refit(rotated, design, outside)
            done[key] = (result.lml, result.beta, result.se)
        return done[key]

    chisq = []
    for hypothesis in hypotheses:
        gain = fitted(hypothesis.full)[0] - fitted(hypothesis.base)[0]
        chisq.append(np.where(gain > -1e-6, np.maximum(2 * gain, 0.0), np.nan))
    mlog10p = [chi2_mlog10p(x, h.df) for x, h in zip(chisq, hypotheses, strict=True)]
    _, beta, se = fitted(hypotheses[0].full)
    return BlockRefit(chisq, mlog10p, beta, se)
