"""Exact refits of the variants of a block whose tests are small."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.block_scanner import Scanner
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.model.null_model import NullModel, Refits
from kron2sum_cli.model.tail_probability import chi2_mlog10p

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RefitPlan:
    """What is refitted under one null model.

    Attributes
    ----------
    refits : Refits
        Those of the null model.
    mlog10p : float
        Variants with a test above it are refitted.
    """

    refits: Refits
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


def refit_plan(model: NullModel, scanner: Scanner, threshold: float) -> RefitPlan | None:
    """The plan for a null model, whose ML fit is found from its REML fit; None where nothing is to be refitted.

    Raises
    ------
    NumericalError
        Where there is no such fit: under ML the likelihood can grow without bound, where under REML it does not.
    """
    return RefitPlan(model.refits(scanner), -float(np.log10(threshold))) if threshold > 0 else None


def refit_block(
    plan: RefitPlan, G: NDArray[np.floating], outside: Array, hypotheses: Sequence[Hypothesis]
) -> BlockRefit:
    """Refit variants G (n, h) under every design that the hypotheses compare; the first is the any-effect one.

    ``outside`` (h,) is their squared length outside the rotation and the covariates.
    """
    done: dict[bytes, tuple[Array, Array, Array]] = {}
    h, refit = G.shape[1], plan.refits.prepare(G, outside)

    def fitted(design: Array) -> tuple[Array, Array, Array]:
        if design.shape[1] == 0 or h == 0:
            nothing = np.empty((h, design.shape[0]))
            return np.full(h, plan.refits.null_lml), nothing, nothing
        key = np.round(design @ design.T, 9).tobytes()  # the space it spans
        if key not in done:
            result = refit(design)
            done[key] = (result.lml, result.beta, result.se)
        return done[key]

    chisq = []
    for hypothesis in hypotheses:
        gain = fitted(hypothesis.full)[0] - fitted(hypothesis.base)[0]
        chisq.append(np.where(gain > -1e-6, np.maximum(2 * gain, 0.0), np.nan))
    mlog10p = [chi2_mlog10p(x, h.df) for x, h in zip(chisq, hypotheses, strict=True)]
    _, beta, se = fitted(hypotheses[0].full)
    return BlockRefit(chisq, mlog10p, beta, se)
