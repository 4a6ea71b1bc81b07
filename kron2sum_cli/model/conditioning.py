"""Statistics of variants given others, whose effects on every trait are fixed effects beside those of the null model.

With P the null model's ``K⁻¹ - K⁻¹M(MᵀK⁻¹M)⁻¹MᵀK⁻¹``, S (n, k) the given variants, ``H = (I ⊗ S)ᵀP(I ⊗ S) = LLᵀ`` in
the trait axes, h the score of their effects, and M1 the columns of a variant g, one an axis::

    F = P(I ⊗ S)L⁻ᵀ,    z = L⁻¹h,    u(g | S) = u - M1ᵀF z,    V(g | S) = V - M1ᵀF FᵀM1,    q0(S) = q0 - zᵀz.

C0 and C1 stay as they are, or are those of `estimated_given`. Where no fixed effects or missing cells couple the axes,
H is one matrix an axis.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics, Scanner, least_left
from kron2sum_cli.model.collinearity import kept_columns
from kron2sum_cli.model.generalised_least_squares import telling_columns
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.model.satterthwaite import EffectiveContrasts
from kron2sum_cli.model.sets.fixed_effects import SetScores
from kron2sum_cli.model.sets.scanner import SetScanner
from kron2sum_cli.model.spectrum import Array, Floats

UNITS_OF_ROUNDING = 256
"""Smallest share of a variant's information, in units of rounding, that the given variants may leave; below it the
variant counts as collinear with them."""

LEAST_LEFT = 1e-12
"""Smallest share of ``rᵀK⁻¹r`` that the effects of given variants may leave."""

DEPENDENT = 1e-10
"""Smallest share of the information of an effect of a given variant that the other effects may leave; below it the
effect counts as a combination of theirs."""


@dataclass(frozen=True)
class GivenVariants:
    """Variants whose effects on every trait are in the model, at the null model's C0 and C1.

    ``S`` (n, k) is an orthonormal basis of the variants outside ``X`` (n, c), that of the covariates where these have
    an effect on every trait, too (else of no columns). ``F`` is ``P(I ⊗ S)L⁻ᵀ``, (n, p, k) or, for coupled axes with a
    column for each of the e effects, (n, p, e), and ``z`` the normalised scores ``L⁻¹h``, (p, k) or (e,). ``rank``
    effects are told apart by the traits.
    """

    X: Array
    S: Array
    F: Array
    z: Array
    rank: int

    @property
    def quadratic(self) -> float:
        """By how much the effects lower ``rᵀK⁻¹r``."""
        return float(np.sum(self.z**2))


def given_variants(model: NullModel, G: Array, X: Array) -> GivenVariants:
    """Take variants G (n, k), without missing values, into a null model.

    ``X`` (n, c) are covariates that have an effect on every trait of its own; none where a trait design couples them.
    Raises NumericalError where the variants explain the traits completely.
    """
    of_covariates, S = bases(G, X)
    F, z, rank = _coupled(model, S) if model.coupled else _along_axes(model, S)
    given = GivenVariants(of_covariates, S, F, z, rank)
    if given.quadratic >= (1 - LEAST_LEFT) * model.summary.quadratic:
        raise NumericalError("the variants that are conditioned on explain the traits completely; leave them out")
    return given


def estimated_given(model: NullModel, G: Array, X: Array) -> tuple[NullModel, EffectiveContrasts]:
    """A null model with C0 and C1 as REML estimates them given variants G (n, k), and on how many contrasts they rest.

    X is as in `given_variants`. Raises ConvergenceError where the likelihood given them has no certified maximum.
    """
    try:
        return model.estimated_given(bases(G, X)[1])
    except ConvergenceError as error:
        raise ConvergenceError(
            f"C0 and C1 could not be estimated given {G.shape[1]} variants ({error}); use --stat lr", error.result
        ) from error


def bases(G: Array, X: Array) -> tuple[Array, Array]:
    """Orthonormal bases of the columns of X (n, c), and of the part of those of G (n, k) outside their span."""
    joint = np.hstack([X, G])
    kept = kept_columns(joint)
    if not kept.size:
        return np.empty((len(G), 0)), np.empty((len(G), 0))
    sizes = np.linalg.norm(joint[:, kept], axis=0)
    Q = linalg.qr(joint[:, kept] / sizes, mode="economic")[0]
    of_covariates = np.count_nonzero(kept < X.shape[1])
    return Q[:, :of_covariates], Q[:, of_covariates:]


def _along_axes(model: NullModel, S: Array) -> tuple[Array, Array, int]:
    """``F``, ``z`` and the rank of `GivenVariants` of axes that are not coupled."""
    (n, k), u = S.shape, S.T @ model.scores()
    p = u.shape[1]
    if not k:
        return np.empty((n, p, 0)), np.empty((p, 0)), 0
    projected = model.project(np.repeat(S[:, None, :], p, axis=1))
    F, z = np.empty((n, p, k)), np.empty((p, k))
    for j in range(p):
        L = np.linalg.cholesky(S.T @ projected[:, j])
        F[:, j] = linalg.solve_triangular(L, projected[:, j].T, lower=True).T
        z[j] = linalg.solve_triangular(L, u[:, j], lower=True)
    return F, z, p * k


def _coupled(model: NullModel, S: Array) -> tuple[Array, Array, int]:
    """As `_along_axes` of coupled axes; effects that the observed cells do not tell from others are left out."""
    (n, k), u = S.shape, S.T @ model.scores()
    p = u.shape[1]
    axis, variant = np.divmod(np.arange(p * k), k)
    data = np.zeros((n, p, p * k))
    data[:, axis, np.arange(p * k)] = S[:, variant]
    projected = model.project(data)
    H = np.einsum("na,njx->jax", S, projected, optimize=True).reshape(p * k, p * k)
    kept = telling_columns(H, np.diag(H), DEPENDENT)
    if not kept.size:
        return np.empty((n, p, 0)), np.empty(0), 0
    L = np.linalg.cholesky(H[np.ix_(kept, kept)])
    F = linalg.solve_triangular(L, projected[:, :, kept].reshape(n * p, kept.size).T, lower=True).T
    z = linalg.solve_triangular(L, u.T.reshape(-1)[kept], lower=True)
    return F.reshape(n, p, kept.size), z, int(kept.size)


@dataclass(frozen=True)
class _InPrecision:
    """`GivenVariants` in the precision of a scan.

    ``span`` (n, c + k) is an orthonormal basis of covariates and variants, and in ``F`` (n, pe) the columns of an axis
    stand side by side.
    """

    span: Floats
    F: Floats
    z: Array
    ntraits: int

    @staticmethod
    def of(given: GivenVariants, dtype: np.dtype[np.floating]) -> "_InPrecision":
        """Variants given, in this precision."""
        n, p = given.F.shape[:2]
        span, F = np.hstack([given.X, given.S]), given.F.reshape(n, -1)
        return _InPrecision(span.astype(dtype), F.astype(dtype), given.z, p)

    def apart(self, G: Floats) -> Floats:
        """Variants less the combination of covariates and given variants that is nearest.

        As with centring, that changes nothing but rounding.
        """
        return G - self.span @ (self.span.T @ G)

    def explained(self, G: Floats) -> Array:
        """``M1ᵀF`` of variants G (n, b): (b, p, k) or (b, p, e)."""
        p = self.ntraits
        return (G.T @ self.F).astype(np.float64).reshape(G.shape[1], p, self.F.shape[1] // p)


@dataclass(frozen=True)
class ConditionedScanner:
    """Score and information of blocks of variants given others."""

    plain: Scanner
    given: _InPrecision

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """That of the null model's scanner."""
        return self.plain.dtype

    def statistics(self, G: Floats) -> BlockStatistics:
        """Statistics of a block of variants G (n, b); ``length`` is that outside the given variants, too."""
        G = self.given.apart(G)
        return self._given(self.plain.statistics(G), self.given.explained(G))

    def pair_statistics(self, G: Floats, H: Floats) -> PairStatistics:
        """Statistics of two columns a variant, those of G (n, b) and of H (n, b)."""
        G, H = self.given.apart(G), self.given.apart(H)
        plain = self.plain.pair_statistics(G, H)
        of_G, of_H = self.given.explained(G), self.given.explained(H)
        shared = of_G @ of_H.transpose(0, 2, 1) if plain.cross.ndim == 3 else np.sum(of_G * of_H, axis=2)
        return PairStatistics(self._given(plain.first, of_G), self._given(plain.second, of_H), plain.cross - shared)

    def _given(self, plain: BlockStatistics, explained: Array) -> BlockStatistics:
        """Statistics with the effects of the given variants in the model."""
        return statistics_given(plain, explained, self.given.z, float(np.finfo(self.given.F.dtype).eps))


def statistics_given(plain: BlockStatistics, explained: Array, z: Array, rounding: float) -> BlockStatistics:
    """Statistics of b variants given others, from those without them, whose unit of ``rounding`` this is.

    ``explained`` is ``M1ᵀF`` of every variant, (b, p, k) or (b, p, e), and z that of `GivenVariants`. ``length``
    becomes 0 for variants that are combinations of the given ones.
    """
    u = plain.u - np.sum(explained * z, axis=2)
    if plain.v.ndim == 3:
        v = plain.v - explained @ explained.transpose(0, 2, 1)
        left = least_left(v, np.einsum("bjj->bj", plain.v))
    else:
        v = plain.v - np.sum(explained**2, axis=2)
        left = np.min(np.divide(v, plain.v, out=np.zeros_like(v), where=plain.v > 0), axis=1)
    length = np.where(left > UNITS_OF_ROUNDING * rounding, plain.length, 0.0)
    return replace(plain, u=u, v=v, length=length)


def conditioned_scanner(plain: Scanner, given: GivenVariants) -> ConditionedScanner:
    """The scanner of a null model, given further variants, in its precision."""
    return ConditionedScanner(plain, _InPrecision.of(given, plain.dtype))


@dataclass(frozen=True)
class ConditionedSetScanner(SetScanner):
    """Sets of variants given others.

    Of a block there are the arrays of the null model's scanner, for variants of which combinations of the given ones
    were taken off, and their ``M1ᵀF`` (pk, b) or (pe, b).
    """

    plain: SetScanner
    given: _InPrecision

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """That of the null model's scanner."""
        return self.plain.dtype

    def arrays(self, G: Floats) -> tuple[Floats, ...]:
        """See `SetScanner.arrays`."""
        G = self.given.apart(G)
        return *self.plain.arrays(G), self.given.explained(G).reshape(G.shape[1], self.given.F.shape[1]).T

    def length(self, *arrays: Floats) -> Array:
        """Squared length (b,) of every variant outside the covariates and the given variants."""
        return self.plain.length(*arrays[:-1])

    def scores(self, *arrays: Floats) -> SetScores:
        """See `SetScanner.scores`."""
        plain, (pk, q) = self.plain.scores(*arrays[:-1]), arrays[-1].shape
        p = self.given.ntraits
        explained = np.asarray(arrays[-1].T, np.float64).reshape(q, p, pk // p)
        u = plain.u - np.sum(explained * self.given.z, axis=2)
        if plain.V.ndim == 4:
            return replace(plain, u=u, V=plain.V - np.einsum("aje,ble->jlab", explained, explained, optimize=True))
        of_axes = explained.transpose(1, 0, 2)
        return replace(plain, u=u, V=plain.V - of_axes @ of_axes.transpose(0, 2, 1))


def conditioned_set_scanner(plain: SetScanner, given: GivenVariants) -> ConditionedSetScanner:
    """The scanner of sets of a null model, given further variants, in its precision."""
    return ConditionedSetScanner(plain, _InPrecision.of(given, plain.dtype))
