"""Tests of variants with C0 and C1 fixed at the null model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.arguments import matrix
from kron2sum_cli.model.generalised_least_squares import LeastSquares, Metric, least_squares
from kron2sum_cli.model.hypotheses import TestContext, hypothesis, test, trait_effects
from kron2sum_cli.model.likelihood import LOG2PI, Point, normalised_effects
from kron2sum_cli.model.spectrum import Array

LEFT_BY_EFFECTS = 1e-9
"""A variant of whose information the coupled fixed effects leave less than this share, in some direction of the
traits, counts as lying in their span."""

STRETCH = 512
"""Squares that are added in single precision before they go into a sum in double."""


@dataclass(frozen=True)
class FastScanner:
    """Maximum likelihood of added fixed effects and of a common scale s, at fixed K.

    ``log p(Y) = log N(vec(Y) | (A ⊗ X) vec(B) + (A1 ⊗ X1) vec(B1), s K)``, so that
    ``lml = -(np/2)(log 2πs + 1) - log|K|/2`` with ``s = rᵀK⁻¹r / (np)``. Made by `Kron2Sum.get_fast_scanner`.

    Attributes
    ----------
    metric : the metric of K⁻¹
    A : (p, a), X : (n, c), the design of the null model
    logdet_K : ``log|K|``
    """

    metric: Metric
    A: Array
    X: Array
    logdet_K: float

    @property
    def _size(self) -> int:
        return self.metric.point.data.nsamples * self.metric.point.data.ntraits

    def _null(self) -> LeastSquares:
        return least_squares(self.metric, [(self.A, self.X)])

    def _lml(self, scale: float) -> float:
        return -0.5 * (self._size * (LOG2PI + float(np.log(scale)) + 1) + self.logdet_K)

    def null_lml(self) -> float:
        """Log-likelihood without added effects, at its own scale; infinite where K is singular."""
        return self._lml(self.null_scale)

    @property
    def null_scale(self) -> float:
        """``s = rᵀK⁻¹r / (np)`` without added effects."""
        return self._null().quadratic / self._size

    @property
    def null_beta(self) -> Array:
        """vec(B) without added effects, (ca,)."""
        return self._null().beta

    @property
    def null_beta_covariance(self) -> Array:
        """``s (MᵀK⁻¹M)⁻¹``, (ca, ca)."""
        null = self._null()
        return np.asarray(null.quadratic / self._size * null.covariance)

    @property
    def null_beta_se(self) -> Array:
        """Square roots of the diagonal of ``null_beta_covariance``."""
        null = self._null()
        return np.asarray(null.effects(0, null.quadratic / self._size).se.T.reshape(-1))

    def scan(self, A1: ArrayLike, X1: ArrayLike) -> dict[str, float | int | Array]:
        """Fit ``(A1 ⊗ X1) vec(B1)`` beside the null model's fixed effects.

        Parameters
        ----------
        A1 : (p, e) trait design, e ≥ 0
        X1 : (n, m) a variant or a set of variants

        Returns
        -------
        dict with ``lml``, ``effsizes0`` and ``effsizes0_se`` (c, a), ``effsizes1`` and ``effsizes1_se`` (m, e),
        ``scale``, and ``rank``, the number of columns of ``A1 ⊗ X1`` that are linearly independent of each other and
        of ``A ⊗ X``. Effects of the other columns are NaN, as in R's ``lm``.

        Raises
        ------
        ValueError
            Where shapes do not fit or a value is not finite.
        NumericalError
            Where the effects explain the traits completely.
        """
        a1, x1 = matrix("A1", A1), matrix("X1", X1)
        p, n = self.metric.point.data.ntraits, self.metric.point.data.nsamples
        if a1.shape[0] != p:
            raise ValueError(f"A1 must have one row a trait, ({p}, e); its shape is {a1.shape}")
        if x1.shape[0] != n:
            raise ValueError(f"X1 must have one row a sample, ({n}, m); its shape is {x1.shape}")
        fitted = least_squares(self.metric, [(self.A, self.X), (a1, x1)])
        scale = fitted.quadratic / self._size
        if fitted.quadratic <= 1e-12 * self.metric.quadratic():
            raise NumericalError("the effects explain the traits completely: there is nothing left to test them with")
        null, added = fitted.effects(0, scale), fitted.effects(1, scale)
        return {
            "lml": self._lml(scale),
            "effsizes0": null.B,
            "effsizes0_se": null.se,
            "effsizes1": added.B,
            "effsizes1_se": added.se,
            "scale": scale,
            "rank": fitted.rank - self.A.shape[1] * self.X.shape[1],
        }

    def scan_block(self, G: ArrayLike) -> "BlockScan":
        """Test every variant of a block for effects on the traits, in double precision.

        Parameters
        ----------
        G : (n, b) variants, without missing values

        Returns
        -------
        Statistics of every variant by itself; NaN where it does not vary given the covariates.

        Raises
        ------
        ValueError
            Where the shape does not fit or a value is not finite.

        Examples
        --------
        >>> import numpy as np
        >>> from kron2sum_cli import Kron2Sum
        >>> rng = np.random.default_rng(0)
        >>> kinship_factor = rng.normal(size=(60, 80)) / np.sqrt(80)
        >>> model = Kron2Sum(rng.normal(size=(60, 2)), np.eye(2), np.ones((60, 1)), kinship_factor, rank=2)
        >>> model.fit(verbose=False)
        >>> result = model.get_fast_scanner().scan_block(rng.binomial(2, 0.3, size=(60, 5)))
        >>> result.beta.shape, result.mlog10p.shape
        ((5, 2), (5,))
        """
        variants = matrix("G", G)
        point = self.metric.point
        n, p = point.data.nsamples, point.data.ntraits
        if variants.shape[0] != n:
            raise ValueError(f"G must have one row a sample, ({n}, b); its shape is {variants.shape}")
        statistics = block_scanner(point, self.metric.Qx, np.float64).statistics(variants)
        varies = statistics.length > 1e-10 * squared_lengths(variants.T)
        context = TestContext(point.axes.T, point.quadratic, self._size, self._size - self.A.shape[1] * self.X.shape[1])
        u, v = statistics.u[varies], statistics.v[varies]
        effects = trait_effects(u, v, point.axes.Tinv, context)
        any_effect = test(u, v, hypothesis("any", np.eye(p)), context)

        def spread(values: Array) -> Array:
            whole = np.full((len(varies), *values.shape[1:]), np.nan)
            whole[varies] = values
            return whole

        return BlockScan(
            chisq=spread(any_effect.chisq),
            mlog10p=spread(any_effect.mlog10p),
            beta=spread(effects.beta),
            se=spread(effects.se),
            trait_mlog10p=spread(effects.mlog10p),
            u=spread(u),
            v=spread(v),
        )


@dataclass(frozen=True)
class BlockScan:
    """Every variant of a block tested by itself, on all traits.

    Attributes
    ----------
    chisq, mlog10p : (b,) likelihood ratio of any effect, on p degrees of freedom, and its -log10 p
    beta, se, trait_mlog10p : (b, p) effect on every trait, its standard error, -log10 p given effects on the others
    u, v : score (b, p) and information (b, p), or (b, p, p) where the axes are coupled, along the trait axes: with
        them `hypotheses.test` answers every other hypothesis
    """

    chisq: Array
    mlog10p: Array
    beta: Array
    se: Array
    trait_mlog10p: Array
    u: Array
    v: Array


@dataclass(frozen=True)
class BlockStatistics:
    """Score and information of every variant of a block along the trait axes.

    Attributes
    ----------
    u : (b, p) ``gᵀ P_j y_j``
    v : (b, p) ``gᵀ P_j g``, the information; the effect on axis j is u/v with variance 1/v. Where the fixed effects of
        the null model couple the axes, (b, p, p)
    length : (b,) squared length of g outside the span of X
    outside : (b,) the part of it outside the rotation too, where GGᵀ is 0
    """

    u: Array
    v: Array
    length: Array
    outside: Array


@dataclass(frozen=True)
class BlockScanner:
    """``u`` and ``v`` of blocks of variants for A = I (or any invertible A): thin products after one rotation.

    The score needs no rotated variant, ``u = gᵀ(Vα)``: its p columns ride along as further rows of the rotation.

    Attributes
    ----------
    rotation : (m + p, n) ``[V, Vα]ᵀ`` in the precision of the scan, α = K⁻¹r of the null model
    weights : (m, p + 1) inverse variances W, and a column of ones
    silent_weight : (p,) inverse variances outside V and X; None where there is nothing outside
    Qx : (n, c) basis of X, needed for what is outside
    """

    rotation: NDArray[np.floating]
    weights: NDArray[np.floating]
    silent_weight: Array | None
    Qx: NDArray[np.floating]

    def rotate(self, G: NDArray[np.floating]) -> Array:
        """Rotated variants ``VᵀG`` (m, b) in double precision, for refits."""
        return np.asarray(self.rotation[: self.weights.shape[0]] @ G, dtype=np.float64)

    def statistics(self, G: NDArray[np.floating]) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the rotation.

        Where X has an intercept, centre G first: that changes nothing but rounding.
        """
        m = self.weights.shape[0]
        rotated = self.rotation @ G
        u = rotated[m:].T.astype(np.float64)
        squares = rotated[:m]
        np.multiply(squares, squares, out=squares)
        sums = (squares.T @ self.weights).astype(np.float64)
        v, length = sums[:, :-1], sums[:, -1]
        outside = np.zeros(len(length))
        if self.silent_weight is not None:
            projected = squared_lengths((self.Qx.T @ G).T)
            outside = np.maximum(squared_lengths(G.T) - length - projected, 0.0)
            v, length = v + np.multiply.outer(outside, self.silent_weight), length + outside
        return BlockStatistics(u, v, length, outside)


def squared_lengths(rows: NDArray[np.floating]) -> Array:
    """Sums of squares of the rows of (b, n), short stretches in their own precision and these in double."""
    b, n = rows.shape
    total = np.zeros(b)
    for start in range(0, n, STRETCH):
        part = rows[:, start : start + STRETCH]
        total += np.einsum("bi,bi->b", part, part)
    return total


@dataclass(frozen=True)
class CoupledBlockScanner:
    """``u`` and ``V`` (p, p) of blocks of variants for a trait design A of rank below p.

    ``P = K⁻¹ - FFᵀ`` with ``F = K⁻¹M H^-½``, so that ``V_jl = δ_jl Σ_i g̃_i² w_ij - Σ_q (g̃ᵀF_jq)(g̃ᵀF_lq)``. In double
    precision, because variants cannot be centred.

    Attributes
    ----------
    diagonal : of ``K⁻¹``: the scanner without the fixed effects
    F : (m, pq)
    """

    diagonal: BlockScanner
    F: Array

    @property
    def rotation(self) -> NDArray[np.floating]:
        """The rotation of the variants."""
        return self.diagonal.rotation

    def rotate(self, G: NDArray[np.floating]) -> Array:
        """Rotated variants ``VᵀG`` (m, b)."""
        return self.diagonal.rotate(G)

    def statistics(self, G: NDArray[np.floating]) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values."""
        plain = self.diagonal.statistics(G)
        b, p = plain.u.shape
        explained = (self.rotate(G).T @ self.F).reshape(b, p, -1)
        V = plain.v[:, :, None] * np.eye(p) - explained @ explained.transpose(0, 2, 1)
        size = np.sqrt(np.where(plain.v > 0, plain.v, 1.0))
        left = np.linalg.eigvalsh(V / (size[:, :, None] * size[:, None, :]))[:, 0]
        return BlockStatistics(plain.u, V, np.where(left > LEFT_BY_EFFECTS, plain.length, 0.0), plain.outside)


def block_scanner(point: Point, Qx: Array, dtype: type[np.floating] = np.float32) -> BlockScanner | CoupledBlockScanner:
    """The scanner of blocks at a null model, in single or double precision (double where the axes are coupled)."""
    data = point.data
    if point.coupled is not None and data.design is not None:
        effects = normalised_effects(data, point.coupled, point.W)
        F = effects.transpose(1, 0, 2).reshape(effects.shape[1], -1)
        return CoupledBlockScanner(_diagonal_scanner(point, Qx, np.float64), F)
    return _diagonal_scanner(point, Qx, dtype)


def _diagonal_scanner(point: Point, Qx: Array, dtype: type[np.floating]) -> BlockScanner:
    data = point.data
    m, p = point.W.shape
    rotation = np.empty((m + p, data.nsamples), dtype=dtype)
    rotation[:m] = data.V.T
    rotation[m:] = (data.V @ point.alpha).T
    return BlockScanner(
        rotation=rotation,
        weights=np.hstack([point.W, np.ones((m, 1))]).astype(dtype),
        silent_weight=point.silent_weight if data.nsilent else None,
        Qx=Qx.astype(dtype),
    )
