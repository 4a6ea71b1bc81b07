"""A second column beside every variant: its product with a covariate (an interaction), or its dominance deviation.

The columns ``[g, h]`` of a variant have scores ``(u, u_h)`` and information ``[V, C; Cᵀ, V_h]`` along the trait axes,
with one number, or for coupled axes one matrix, in every place. Those of h given effects of g on all traits are::

    u(h | g) = u_h - Cᵀ V⁻¹ u,    V(h | g) = V_h - Cᵀ V⁻¹ C,

and the drops in ``rᵀK⁻¹r`` add up: ``χ²(g, h) = χ²(g) + χ²(h | g)``. So the effect of h is tested given that of g, and
both together (`joint`), by the same likelihood ratio as other hypotheses.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from kron2sum_cli.model.block_scanner import BlockStatistics, Scanner, inner_products
from kron2sum_cli.model.collinearity import COLLINEAR, kept_columns
from kron2sum_cli.model.hypotheses import (
    Hypothesis,
    TestContext,
    TestResult,
    TraitEffects,
    compare,
    reduction,
    trait_effects,
)
from kron2sum_cli.model.satterthwaite import EffectiveContrasts, mlog10p_of_both
from kron2sum_cli.model.spectrum import Array, Floats, Mask

UNITS_OF_ROUNDING = 256
"""Smallest share of the information of a second column, in units of rounding, that the first may leave; below it the
second counts as collinear with it."""


@dataclass(frozen=True)
class SecondStatistics:
    """Score and information of two columns a variant, the second given the first.

    ``H`` (n, b) is the second, less the multiple of the first that is nearest, and ``regression`` (b, p) or (b, p, p)
    that of H on the first (`PairStatistics.regression`). ``u`` (b, p) and ``v`` (b, p) or (b, p, p) are of the second
    given the first, and ``identifiable`` (b,) says whether it varies given the first and the covariates.
    """

    first: BlockStatistics
    H: Floats
    regression: Array
    u: Array
    v: Array
    identifiable: Mask

    def take(self, variants: Mask) -> "SecondStatistics":
        """The statistics of some variants."""
        return SecondStatistics(
            self.first.take(variants),
            self.H.T[variants].T,
            self.regression[variants],
            self.u[variants],
            self.v[variants],
            self.identifiable[variants],
        )


@dataclass(frozen=True)
class SecondTests:
    """Tests of b second columns on p traits.

    ``second``: their effects given those of the first, p degrees of freedom; ``joint``: effects of both columns, 2p.
    ``effects`` are those of the second in the model with both.
    """

    second: TestResult
    joint: TestResult
    effects: TraitEffects


def pair_hypotheses(second: str, joint: str, p: int) -> tuple[Hypothesis, Hypothesis]:
    """Effects of the second column on p traits given those of the first, and of both, as designs (2p, e) of refits."""
    everything = np.eye(2 * p)
    first = everything[:, :p]
    return Hypothesis(second, first, everything), Hypothesis(joint, first[:, :0], everything)


def basis_of_covariates(X: Array) -> Array:
    """Orthonormal basis (n, c') of covariates X (n, c), of which some may be combinations of others."""
    kept = kept_columns(X)
    return np.asarray(linalg.qr(X[:, kept], mode="economic")[0]) if kept.size else np.empty((len(X), 0))


def second_statistics(scanner: Scanner, G: Floats, H: Floats, Q: Floats) -> SecondStatistics:
    """Statistics of variants G (n, b), and of second columns H (n, b) given them, in the precision of the scanner.

    The multiple of g that is nearest to h outside the covariates, of orthonormal basis Q (n, c), is taken off first,
    which changes nothing but rounding.
    """
    size = inner_products(H.T, H.T)
    of_G, of_H = (Q.T @ G).T, (Q.T @ H).T
    own = inner_products(G.T, G.T) - inner_products(of_G, of_G)
    shared = inner_products(G.T, H.T) - inner_products(of_G, of_H)
    multiple = np.divide(shared, own, out=np.zeros_like(own), where=own > 0)
    H = H - G * multiple.astype(G.dtype)
    pair = scanner.pair_statistics(G, H)
    u, v, left = pair.given_first()
    rounding = UNITS_OF_ROUNDING * float(np.finfo(scanner.dtype).eps)
    varies = (pair.second.length > COLLINEAR * size) & (left > rounding)
    return SecondStatistics(pair.first, H, pair.regression(), u, v, varies)


def test_second(
    found: SecondStatistics, Tinv: Array, context: TestContext, contrasts: EffectiveContrasts | None
) -> SecondTests:
    """Tests of second columns that vary given the first.

    ``contrasts`` are those that the covariances in tests of second columns rest on, where P depends on them: P of both
    columns then comes from those of the first, and of the second given it.
    """
    p = found.u.shape[1]
    nothing, everything = np.empty((p, 0)), np.eye(p)
    below = reduction(found.first.u, found.first.v, everything, context.T)
    above = below + reduction(found.u, found.v, everything, context.T)
    of_second = replace(context, contrasts=contrasts)
    number = None if contrasts is None else contrasts.of_effects(nothing, everything)
    second = compare(below, above, p, 2 * p, of_second, number)
    joint = compare(np.zeros_like(below), above, 0, 2 * p, context)
    if context.contrasts is not None:
        of_first = context.contrasts.of_effects(nothing, everything)
        first = compare(np.zeros_like(below), below, 0, p, context, of_first)
        joint = replace(joint, mlog10p=mlog10p_of_both(first.mlog10p, second.mlog10p, p))
    return SecondTests(second, joint, trait_effects(found.u, found.v, Tinv, of_second, below, p))


test_second.__test__ = False  # type: ignore[attr-defined]  # not a test of this code
