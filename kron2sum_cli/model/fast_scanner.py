"""Tests of variants with C0 and C1 fixed at the null model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.block_scanner import block_scanner, inner_products
from kron2sum_cli.model.collinearity import kept_columns
from kron2sum_cli.model.covariance import matrix
from kron2sum_cli.model.generalised_least_squares import LeastSquares, Metric, least_squares
from kron2sum_cli.model.hypotheses import Statistic, TestContext, TestResult, hypothesis, test, trait_effects
from kron2sum_cli.model.likelihood import LOG2PI
from kron2sum_cli.model.spectrum import Array

NOTHING_LEFT = "the effects explain the traits completely: there is nothing left to test them with"


@dataclass(frozen=True)
class FixedEffects:
    """The design ``A ⊗ X`` of fixed effects, A (p, a) and X (n, c), whose columns may be redundant.

    Independent columns are those that are no linear combinations of columns before them; ``combination`` (a'c', ac) has
    all columns of ``A ⊗ X`` as combinations of the independent ones.
    """

    A: Array
    X: Array
    independent_A: Array
    independent_X: Array
    combination: Array

    @staticmethod
    def of(A: Array, X: Array) -> "FixedEffects":
        """Find the redundant columns of A (p, a) and X (n, c)."""
        (independent_A, of_A), (independent_X, of_X) = _independent(A), _independent(X)
        if independent_A.shape[1] == 0:
            independent_X = X[:, :0]  # without effects on any trait, covariates explain nothing
        return FixedEffects(A, X, independent_A, independent_X, np.asarray(np.kron(of_A, of_X), float))

    @property
    def rank(self) -> int:
        """Rank of ``A ⊗ X``."""
        return int(self.combination.shape[0])

    def fit(self, K: Metric, added: tuple[Array, Array] | None = None) -> LeastSquares:
        """Generalised least squares of these effects, and of added ones; of minimum norm where columns are redundant.

        ``added`` are ``A1`` (p, e) and ``X1`` (n, m) of effects ``(A1 ⊗ X1) vec(B1)``.
        """
        own = (self.independent_A, self.independent_X)
        fitted = least_squares(K, [own] if added is None else [own, added])
        shapes = ((self.X.shape[1], self.A.shape[1]), *fitted.shapes[1:])
        return _minimum_norm(fitted, self.combination, shapes)


def _independent(M: Array) -> tuple[Array, Array]:
    """The independent columns (n, k) of M (n, q), and all of its columns as combinations (k, q) of them."""
    kept = kept_columns(M)
    redundant = np.setdiff1d(np.arange(M.shape[1]), kept)
    combination = np.zeros((kept.size, M.shape[1]))
    combination[:, kept] = np.eye(kept.size)
    if redundant.size and kept.size:
        size = np.linalg.norm(M[:, kept], axis=0)
        combination[:, redundant] = linalg.lstsq(M[:, kept] / size, M[:, redundant])[0] / size[:, None]
    return M[:, kept], combination


def _minimum_norm(fitted: LeastSquares, of_null: Array, shapes: tuple[tuple[int, int], ...]) -> LeastSquares:
    """Estimates for all columns of a design from those of its independent columns: the shortest with the same mean.

    With ``M = M' T``, M' the independent columns, estimates ``β'`` of theirs with covariance S are the mean of
    ``β = T⁺β'`` with covariance ``T⁺ S T⁺ᵀ``, the pseudo-inverse of ``MᵀK⁻¹M``. ``fitted`` has the independent columns
    of the null effects, and all of the added ones; ``of_null`` (k, ca) are the columns of the null effects as
    combinations of the independent ones.
    """
    k, size = of_null.shape
    if fitted.rank == size + fitted.beta.size - k:
        return fitted
    T = np.hstack([np.vstack([of_null, np.zeros((fitted.rank - k, size))]), fitted.combination[:, k:]])
    estimated = np.flatnonzero(~np.isnan(fitted.beta))
    Q, R = linalg.qr(T.T, mode="economic")
    inverse = np.asarray(linalg.solve_triangular(R, Q.T, trans="N").T) if R.size else Q
    covariance = inverse @ fitted.covariance[np.ix_(estimated, estimated)] @ inverse.T
    beta = inverse @ fitted.beta[estimated]
    return LeastSquares(beta, covariance, fitted.quadratic, fitted.rank, shapes, T)


@dataclass(frozen=True)
class FastScanner:
    """Maximum likelihood of added fixed effects and of a common scale s, at fixed K.

    ``log p(Y) = log N(vec(Y) | (A ⊗ X) vec(B) + (A1 ⊗ X1) vec(B1), s K)``, so that
    ``lml = -(np/2)(log 2πs + 1) - log|K|/2`` with ``s = rᵀK⁻¹r / (np)``. Made by `Kron2Sum.get_fast_scanner`.

    The scale counts np values, as glimix-core's ``KronFastScanner`` does, whether the model is restricted or not: s
    is the maximum likelihood estimate, and 1 at the maximum of an unrestricted fit. (``kron2sum scan`` counts the
    (n - c)p contrasts after a restricted fit.)

    Attributes
    ----------
    metric : Metric
        The metric of K⁻¹.
    design : FixedEffects
        The fixed effects ``A ⊗ X`` of the null model.
    logdet_K : float
        ``log|K|``.
    """

    metric: Metric
    design: FixedEffects
    logdet_K: float

    @property
    def _size(self) -> int:
        """The number of values, np."""
        return self.metric.point.data.nsamples * self.metric.point.data.ntraits

    def _lml(self, scale: float) -> float:
        if scale <= 0:
            return np.inf
        return -0.5 * (self._size * (LOG2PI + float(np.log(scale)) + 1) + self.logdet_K)

    @property
    def _explained(self) -> float:
        """Smallest ``rᵀK⁻¹r`` that is more than rounding of the traits."""
        data, T = self.metric.point.data, self.metric.point.axes.T
        return 1e-24 * float(np.sum((np.vstack([data.Z, data.Yx]) @ T.T) ** 2))

    def null_lml(self) -> float:
        """Log-likelihood without added effects, at its own scale; infinite where that is 0 or K is singular."""
        return self._lml(self.null_scale)

    @property
    def null_scale(self) -> float:
        """``s = rᵀK⁻¹r / (np)`` without added effects; 0 where the fixed effects explain the traits completely."""
        quadratic = self.metric.point.quadratic
        return quadratic / self._size if quadratic > self._explained else 0.0

    @property
    def null_beta(self) -> Array:
        """vec(B) without added effects, (ca,)."""
        return self.design.fit(self.metric).beta

    @property
    def null_beta_covariance(self) -> Array:
        """``s (MᵀK⁻¹M)⁻¹``, (ca, ca)."""
        return np.asarray(self.null_scale * self.design.fit(self.metric).covariance)

    @property
    def null_beta_se(self) -> Array:
        """Square roots of the diagonal of ``null_beta_covariance``."""
        return np.asarray(self.design.fit(self.metric).effects(0, self.null_scale).se.T.reshape(-1))

    def scan(self, A1: ArrayLike, X1: ArrayLike) -> dict[str, float | int | Array]:
        """Fit ``(A1 ⊗ X1) vec(B1)`` beside the null model's fixed effects.

        Columns of ``A1 ⊗ X1`` may be linear combinations of each other and of ``A ⊗ X``. The effects are then those
        of minimum norm, all columns together, which give the same mean.

        Parameters
        ----------
        A1 : array_like (p, e)
            Trait design, e ≥ 0.
        X1 : array_like (n, m)
            A variant or a set of variants.

        Returns
        -------
        dict
            ``lml``; ``effsizes0`` and ``effsizes0_se`` (c, a); ``effsizes1`` and ``effsizes1_se`` (m, e), but (0,)
            where e is 0; ``scale``; and ``rank``, the number of columns of ``A1 ⊗ X1`` that are linearly independent
            of each other and of ``A ⊗ X``.

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
        fitted = self.design.fit(self.metric, (a1, x1))
        scale = fitted.quadratic / self._size
        if fitted.quadratic <= max(1e-12 * self.metric.point.quadratic, self._explained):
            raise NumericalError(NOTHING_LEFT)
        null, added = fitted.effects(0, scale), fitted.effects(1, scale)
        nothing = a1.shape[1] == 0
        return {
            "lml": self._lml(scale),
            "effsizes0": null.B,
            "effsizes0_se": null.se,
            "effsizes1": np.empty(0) if nothing else added.B,
            "effsizes1_se": np.empty(0) if nothing else added.se,
            "scale": scale,
            "rank": fitted.rank - self.design.rank,
        }

    def scan_block(self, G: ArrayLike) -> "BlockScan":
        """Test every variant of a block for effects on the traits, in double precision.

        Parameters
        ----------
        G : array_like (n, b)
            Variants, without missing values.

        Returns
        -------
        BlockScan
            Statistics of every variant by itself; NaN where it does not vary given the covariates.

        Raises
        ------
        ValueError
            Where the shape does not fit or a value is not finite.
        NumericalError
            Where the covariates explain the traits completely.

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
        if self.null_scale == 0:
            raise NumericalError(NOTHING_LEFT)
        statistics = block_scanner(point, self.metric.Qx, np.float64).statistics(variants)
        varies = statistics.length > 1e-10 * inner_products(variants.T, variants.T)
        context = self._context("lr")
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

    def test_block(
        self, block: "BlockScan", A1: ArrayLike, A0: ArrayLike | None = None, statistic: Statistic = "lr"
    ) -> TestResult:
        """Test another hypothesis on scanned variants: effects ``[A0, A1]`` against effects ``A0``.

        Parameters
        ----------
        block : BlockScan
            What `scan_block` of this scanner returned.
        A1 : array_like (p, e)
            Trait design; ones of shape (p, 1) for an effect that is common to all traits.
        A0 : array_like (p, e0) or None
            Design that it is tested against; None for no effect.
        statistic : {"lr", "f"}
            The likelihood ratio, or the F test, which is exact for K known up to its scale.

        Returns
        -------
        TestResult
            Statistics of every variant; NaN where the block has none.

        Raises
        ------
        ValueError
            Where a shape does not fit, a value is not finite, or the statistic is neither.
        NumericalError
            Where A1 adds no rank to A0.

        Examples
        --------
        >>> import numpy as np
        >>> from kron2sum_cli import Kron2Sum
        >>> rng = np.random.default_rng(0)
        >>> model = Kron2Sum(rng.normal(size=(60, 2)), np.eye(2), np.ones((60, 1)), rng.normal(size=(60, 80)))
        >>> scanner = model.get_fast_scanner()
        >>> block = scanner.scan_block(rng.binomial(2, 0.3, size=(60, 5)))
        >>> common = scanner.test_block(block, np.ones((2, 1)))
        >>> specific = scanner.test_block(block, np.eye(2), np.ones((2, 1)))
        >>> bool(np.allclose(common.chisq + specific.chisq, block.chisq)), specific.df
        (True, 1)
        """
        if statistic not in ("lr", "f"):
            raise ValueError(f'statistic must be "lr" or "f"; it is {statistic!r}')
        p = self.metric.point.data.ntraits
        given = [("A1", A1)] if A0 is None else [("A1", A1), ("A0", A0)]
        designs = [matrix(name, M) for name, M in given]
        for (name, _), M in zip(given, designs, strict=True):
            if M.shape[0] != p:
                raise ValueError(f"{name} must have one row a trait, ({p}, e); its shape is {M.shape}")
        return test(block.u, block.v, hypothesis("A1", *designs), self._context(statistic))

    def _context(self, statistic: Statistic) -> TestContext:
        point = self.metric.point
        return TestContext(point.axes.T, point.quadratic, self._size, self._size - self.design.rank, statistic)


@dataclass(frozen=True)
class BlockScan:
    """Every variant of a block tested by itself, on all traits.

    Attributes
    ----------
    chisq, mlog10p : Array (b,)
        Likelihood ratio of any effect, on p degrees of freedom, and its -log10 p.
    beta, se, trait_mlog10p : Array (b, p)
        Effect on every trait, its standard error, and its -log10 p given effects on the others.
    u : Array (b, p)
        Score along the trait axes.
    v : Array (b, p) or (b, p, p)
        Information along the trait axes, a matrix where the fixed effects couple them. From score and information
        `FastScanner.test_block` answers every other hypothesis.
    """

    chisq: Array
    mlog10p: Array
    beta: Array
    se: Array
    trait_mlog10p: Array
    u: Array
    v: Array
