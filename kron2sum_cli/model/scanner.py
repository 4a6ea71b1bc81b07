"""Tests of variants with C0 and C1 fixed at the null model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.arguments import matrix
from kron2sum_cli.model.block_scanner import block_scanner, squared_lengths
from kron2sum_cli.model.generalised_least_squares import LeastSquares, Metric, least_squares
from kron2sum_cli.model.hypotheses import Statistic, TestContext, TestResult, hypothesis, test, trait_effects
from kron2sum_cli.model.likelihood import LOG2PI
from kron2sum_cli.model.spectrum import Array


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
        block : what `scan_block` of this scanner returned
        A1 : (p, e) trait design; ones of shape (p, 1) for an effect that is common to all traits
        A0 : (p, e0) design that it is tested against; None for no effect
        statistic : "lr" for the likelihood ratio, "f" for the F test, which is exact for K known up to its scale

        Returns
        -------
        Statistics of every variant; NaN where the block has none.

        Raises
        ------
        ValueError
            Where a shape does not fit or a value is not finite.
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
        p = self.metric.point.data.ntraits
        given = [("A1", A1)] if A0 is None else [("A1", A1), ("A0", A0)]
        designs = [matrix(name, M) for name, M in given]
        for (name, _), M in zip(given, designs, strict=True):
            if M.shape[0] != p:
                raise ValueError(f"{name} must have one row a trait, ({p}, e); its shape is {M.shape}")
        return test(block.u, block.v, hypothesis("A1", *designs), self._context(statistic))

    def _context(self, statistic: Statistic) -> TestContext:
        point, residual_df = self.metric.point, self._size - self.A.shape[1] * self.X.shape[1]
        return TestContext(point.axes.T, point.quadratic, self._size, residual_df, statistic)


@dataclass(frozen=True)
class BlockScan:
    """Every variant of a block tested by itself, on all traits.

    Attributes
    ----------
    chisq, mlog10p : (b,) likelihood ratio of any effect, on p degrees of freedom, and its -log10 p
    beta, se, trait_mlog10p : (b, p) effect on every trait, its standard error, -log10 p given effects on the others
    u, v : score (b, p) and information (b, p), or (b, p, p) where the axes are coupled, along the trait axes: with
        them `FastScanner.test_block` answers every other hypothesis
    """

    chisq: Array
    mlog10p: Array
    beta: Array
    se: Array
    trait_mlog10p: Array
    u: Array
    v: Array
