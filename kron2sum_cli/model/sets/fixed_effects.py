"""Joint tests of the fixed effects of a set of variants."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from kron2sum_cli.model.generalised_least_squares import telling_columns
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, TestResult, compare, orthonormal
from kron2sum_cli.model.spectrum import Array, Indices


@dataclass(frozen=True)
class SetReduction:
    """The drop in ``rᵀK⁻¹r`` by the effects of a set of variants, of which ``rank`` are linearly independent."""

    chisq: float
    rank: int


@dataclass(frozen=True)
class SetScores:
    """Scores and information of q variants along the p trait axes.

    ``u`` (q, p) are scores ``g_aᵀP_jy_j``, and ``V`` is the information ``g_aᵀP_jg_b`` of every axis (p, q, q), or of
    every pair of axes (p, p, q, q) where fixed effects or missing cells couple them. ``sizes`` (p, q) are the diagonals
    of V before such fixed effects and cells take anything away.
    """

    u: Array
    V: Array
    sizes: Array

    @property
    def last(self) -> "SetScores":
        """Of the last variant alone."""
        return SetScores(self.u[-1:], self.V[..., -1:, -1:], self.sizes[:, -1:])


@dataclass(frozen=True)
class SetEffects:
    """Effects ``B Aᵀ`` of a set of q variants, B (q, e) free, of which those are kept that are linearly independent.

    ``D`` (p, e) is ``TA`` made orthonormal, and ``kept`` (k,) are the places of the effects kept among ``vec(B)``.
    ``size`` (k,) are roots of their information, and ``root`` (k, k) is the lower Cholesky factor of the information
    over these.
    """

    D: Array
    kept: Indices
    size: Array
    root: Array


def effects_of_set(scores: SetScores, design: Array, T: Array) -> SetEffects | None:
    """The effects for A = ``design`` (p, e) of full column rank, with ``H = Σ_j d_jd_jᵀ ⊗ V_j``; None without any."""
    q, e = scores.u.shape[0], design.shape[1]
    if q == 0 or e == 0:
        return None
    D = orthonormal(T @ design)
    H = between_directions(D, scores.V)
    kept = telling_columns(H, ((D**2).T @ scores.sizes).reshape(-1), 1e-8)
    if not kept.size:
        return None
    size = np.sqrt(np.diag(H)[kept])
    root = linalg.cholesky(H[np.ix_(kept, kept)] / (size[:, None] * size), lower=True)
    return SetEffects(D, kept, size, root)


def between_directions(F: Array, V: Array) -> Array:
    """``Σ_j f_jf_jᵀ ⊗ V_j`` (e q, e q) for directions F (p, e), or ``Σ_jl f_jf_lᵀ ⊗ V_jl`` where axes are coupled."""
    e, q = F.shape[1], V.shape[-1]
    if V.ndim == 4:
        H = np.einsum("je,lf,jlab->eafb", F, F, V, optimize=True)
    else:
        H = np.tensordot(F[:, :, None] * F[:, None, :], V, axes=(0, 0)).transpose(0, 2, 1, 3)
    return np.asarray(H.reshape(e * q, e * q), np.float64)


def reduce_set(scores: SetScores, design: Array, T: Array) -> SetReduction:
    """Effects ``B Aᵀ`` of the set, B (q, e) free and A = ``design`` (p, e) of full column rank.

    ``χ² = hᵀH⁻¹h`` with ``h = vec(uᵀ...)``; effects that are linear combinations of others count once.
    """
    effects = effects_of_set(scores, design, T)
    if effects is None:
        return SetReduction(0.0, 0)
    scaled = (effects.D.T @ scores.u.T).reshape(-1)[effects.kept] / effects.size
    return SetReduction(float(scaled @ linalg.cho_solve((effects.root, True), scaled)), int(effects.kept.size))


def test_set(scores: SetScores, tested: Hypothesis, context: TestContext) -> tuple[int, TestResult | None]:
    """The joint test (one value) of the effects of all variants, with its degrees of freedom.

    None where these are none, or as many as there are values: then nothing is left to test them with.
    """
    below, above = (reduce_set(scores, design, context.T) for design in (tested.base, tested.full))
    df, drops = above.rank - below.rank, (np.array([below.chisq]), np.array([above.chisq]))
    if df <= 0 or above.rank >= context.residual_df:
        return df, None
    return df, compare(*drops, below.rank, above.rank, context)


test_set.__test__ = False  # type: ignore[attr-defined]  # not a test of this code
