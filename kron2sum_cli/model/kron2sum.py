"""The public model."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.arguments import matrix
from kron2sum_cli.model.certificate import Certificate
from kron2sum_cli.model.collinearity import combination, dependencies
from kron2sum_cli.model.contrasts import Contrasts, rotate_coupled, rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.generalised_least_squares import LeastSquares, Metric, least_squares, metric
from kron2sum_cli.model.likelihood import Point, evaluate, logdet_covariance
from kron2sum_cli.model.scanner import FastScanner
from kron2sum_cli.model.spectrum import Array, spectrum_of_features
from kron2sum_cli.model.starts import starting_axes
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances

MISSING_TRAITS = "; leave out samples with a missing trait, or fit them with kron2sum fit --missing exact"


class Kron2Sum:
    """Multi-trait linear mixed model, fitted by (restricted) maximum likelihood.

    ``vec(Y) ~ N((A ⊗ X) vec(B), K = C0 ⊗ GGᵀ + C1 ⊗ I)``. The interface is that of ``glimix_core.lmm.Kron2Sum``
    (Casale et al. 2015, Nature Methods 12:755); the numbers are computed in coordinates in which samples and traits
    are independent, with C0 of any rank.

    Parameters
    ----------
    Y : (n, p) traits, none missing: ``kron2sum fit --missing exact`` fits what was observed where some are
    A : (p, a) trait design, full column rank; usually the identity
    X : (n, c) covariates, full column rank; c may be 0
    G : (n, r) with relatedness GGᵀ
    rank : largest rank of C0, 1 to p
    restricted : REML if true

    Raises
    ------
    ValueError
        Where shapes do not fit, a value is not finite, or the rank is out of range.
    NumericalError
        Where A or X is collinear, traits are linear combinations of each other, or there are fewer samples than
        the fixed effects and traits need.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> G = rng.normal(size=(60, 80)) / np.sqrt(80)
    >>> Y = G @ rng.normal(size=(80, 2)) + rng.normal(size=(60, 2))
    >>> model = Kron2Sum(Y, np.eye(2), np.ones((60, 1)), G, rank=2, restricted=True)
    >>> model.fit(verbose=False)
    >>> result = model.get_fast_scanner().scan(np.eye(2), rng.normal(size=(60, 1)))
    >>> sorted(result)
    ['effsizes0', 'effsizes0_se', 'effsizes1', 'effsizes1_se', 'lml', 'rank', 'scale']
    """

    def __init__(
        self, Y: ArrayLike, A: ArrayLike, X: ArrayLike, G: ArrayLike, rank: int = 1, restricted: bool = False
    ) -> None:
        self._Y = matrix("Y", Y, MISSING_TRAITS)
        self._A, self._X, self._G = (matrix(name, M) for name, M in (("A", A), ("X", X), ("G", G)))
        if rank != int(rank):
            raise ValueError(f"rank must be a whole number; it is {rank}")
        self._rank, self._restricted = int(rank), bool(restricted)
        self._check()
        coupled = self._A.shape[1] < self.ntraits
        projected = np.empty((self.nsamples, 0)) if coupled else self._X
        spectrum = spectrum_of_features(self._G, projected)
        self._Qx = spectrum.Qx
        self._data: Contrasts = (
            rotate_coupled(spectrum, self._Y, self._A, self._X) if coupled else rotate_traits(spectrum, self._Y)
        )
        start = starting_axes(self._data, 0.5)
        self._certificate: Certificate | None = None
        self._point = evaluate(self._data, start.truncated(self._rank), self._restricted)

    def _check(self) -> None:
        n, p = self._Y.shape
        for name, M in (("X", self._X), ("G", self._G)):
            if M.shape[0] != n:
                raise ValueError(f"{name} has {M.shape[0]} rows and Y has {n}: both must have one a sample")
        if self._A.shape[0] != p or self._A.shape[1] > p:
            raise ValueError(f"A must be ({p}, a) with a at most {p}; its shape is {self._A.shape}")
        if not 1 <= self._rank <= p:
            raise ValueError(f"rank must be from 1 to the number of traits, {p}; it is {self._rank}")
        if n - self._X.shape[1] < p + 1:
            raise NumericalError(
                f"{n} samples are too few for {p} traits and {self._X.shape[1]} covariates:"
                f" at least {p + self._X.shape[1] + 1} are needed"
            )
        _require_independent("A", self._A)
        _require_independent("X", self._X, "Y", self._Y)

    def at(self, C0: ArrayLike, C1: ArrayLike) -> Self:
        """The same model at given covariances C0 and C1 (p, p).

        Raises
        ------
        ValueError
            Where shapes do not fit, or C0 has a higher rank than the model's.
        NumericalError
            Where a matrix is not symmetric and positive semi-definite, or K is singular.
        """
        c0, c1, shape = matrix("C0", C0), matrix("C1", C1), (self.ntraits, self.ntraits)
        if c0.shape != shape or c1.shape != shape:
            raise ValueError(f"C0 and C1 must be {shape}; their shapes are {c0.shape} and {c1.shape}")
        axes = axes_of_covariances(c0, c1, self._data.mean_eigenvalue)
        if np.any(axes.c0[self._rank :] > 1e-6 * axes.c0[0]):
            raise ValueError(f"C0 has rank above {self._rank}, the largest of this model")
        return self._moved(evaluate(self._data, axes.truncated(self._rank), self._restricted), None)

    def _moved(self, point: Point, certificate: Certificate | None) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _point=point, _certificate=certificate)
        return other

    def fit(self, verbose: bool = True) -> None:
        """Maximise the likelihood over C0 and C1.

        Parameters
        ----------
        verbose : print one line with the log-likelihood and the certificate of the optimum

        Raises
        ------
        ConvergenceError
            Where the optimum cannot be certified.
        """
        result = fit(self._data, self._rank, self._restricted)
        self._point, self._certificate = result.point, result.certificate
        if verbose:
            certificate = result.certificate
            print(
                f"lml {result.point.lml:.6f} after {certificate.steps} steps,"
                f" predicted gain of a further one {certificate.predicted_gain:.2g}"
            )

    @property
    def certificate(self) -> Certificate | None:
        """Why the fitted point is an optimum; None before `fit`."""
        return self._certificate

    @property
    def point(self) -> Point:
        """The likelihood at the present C0 and C1, in the trait axes."""
        return self._point

    @property
    def covariate_basis(self) -> Array:
        """Orthonormal basis of the covariates that the contrasts leave out, (n, c)."""
        return self._Qx

    @property
    def axes(self) -> TraitAxes:
        """The trait axes of the present C0 and C1."""
        return self._point.axes

    @property
    def name(self) -> str:
        """Name of this function."""
        return "Kron2Sum"

    @property
    def A(self) -> Array:
        """Trait design, (p, a)."""
        return self._A

    @property
    def X(self) -> Array:
        """Covariates, (n, c)."""
        return self._X

    @property
    def M(self) -> Array:
        """``A ⊗ X``, (pn, ac)."""
        return np.asarray(np.kron(self._A, self._X))

    @property
    def C0(self) -> Array:
        """Genetic covariance, (p, p)."""
        return self._point.axes.C0

    @property
    def C1(self) -> Array:
        """Residual covariance, (p, p)."""
        return self._point.axes.C1

    @property
    def L0(self) -> Array:
        """Factor ``C0 = L0 L0ᵀ``, (p, rank): the trait axes' genetic loadings."""
        axes = self._point.axes
        return np.asarray((axes.Tinv * axes.c0)[:, : self._rank])

    @property
    def L1(self) -> Array:
        """Lower Cholesky factor ``C1 = L1 L1ᵀ``, (p, p)."""
        axes = self._point.axes
        R = np.asarray(np.linalg.qr((axes.Tinv * axes.c1).T, mode="r"))
        return np.asarray((R * np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]).T)

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""
        return int(self._Y.shape[0])

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""
        return int(self._Y.shape[1])

    @property
    def ncovariates(self) -> int:
        """Number of covariates, c."""
        return int(self._X.shape[1])

    @property
    def B(self) -> Array:
        """Fixed effects, (c, a), at the present C0 and C1."""
        return self._least_squares().effects(0, 1.0).B

    @property
    def beta(self) -> Array:
        """``vec(B)``, (ca,)."""
        return self._least_squares().beta

    @property
    def beta_covariance(self) -> Array:
        """``(MᵀK⁻¹M)⁻¹``, (ca, ca)."""
        return self._least_squares().covariance

    def lml(self) -> float:
        """Log marginal likelihood, with all constants (restricted if the model is)."""
        return self._point.lml

    def value(self) -> float:
        """The same as `lml`."""
        return self.lml()

    def gradient(self) -> dict[str, Array]:
        """Gradient of the log marginal likelihood.

        Returns
        -------
        dict with ``C0.Lu``, (p·rank,), with respect to the entries of `L0` row by row, and ``C1.Lu``, (p(p+1)/2,), with
        respect to the lower triangle of `L1` row by row.
        """
        point, T = self._point, self._point.axes.T
        of_C0, of_C1 = T.T @ point.score0 @ T, T.T @ point.score1 @ T
        return {
            "C0.Lu": (2 * of_C0 @ self.L0).reshape(-1),
            "C1.Lu": (2 * of_C1 @ self.L1)[np.tril_indices(self.ntraits)],
        }

    def mean(self) -> Array:
        """``(A ⊗ X) vec(B)``, (pn,)."""
        return np.asarray((self._X @ self.B @ self._A.T).T.reshape(-1))

    def covariance(self) -> Array:
        """``K = C0 ⊗ GGᵀ + C1 ⊗ I``, (pn, pn): large."""
        return np.asarray(np.kron(self.C0, self._G @ self._G.T) + np.kron(self.C1, np.eye(self.nsamples)))

    def get_fast_scanner(self) -> FastScanner:
        """Scanner of fixed effects with C0 and C1 as they are now."""
        return FastScanner(self._metric(), self._A, self._X, logdet_covariance(self._point))

    def _metric(self) -> Metric:
        return metric(self._point, self._Qx)

    def _least_squares(self) -> LeastSquares:
        return least_squares(self._metric(), [(self._A, self._X)])


def _require_independent(name: str, M: Array, name2: str = "", M2: Array | None = None) -> None:
    both = M if M2 is None else np.hstack([M, M2])
    names = [f"{name}[:, {k}]" for k in range(M.shape[1])]
    names += [f"{name2}[:, {k}]" for k in range(both.shape[1] - M.shape[1])]
    found = dependencies(both)
    if found:
        raise NumericalError(f"{combination(names, found[0])}: leave it out")
