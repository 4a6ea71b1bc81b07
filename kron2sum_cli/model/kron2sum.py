"""The public model."""

import warnings
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.climbing import Certificate, nparameters
from kron2sum_cli.model.collinearity import combination, dependencies
from kron2sum_cli.model.contrasts import Contrasts, rotate_coupled, rotate_traits
from kron2sum_cli.model.covariance import RIDGE, CholeskyCovariance, LowRankCovariance, matrix
from kron2sum_cli.model.fast_scanner import FastScanner, FixedEffects
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.generalised_least_squares import Metric
from kron2sum_cli.model.likelihood import Point, evaluate, logdet_covariance
from kron2sum_cli.model.spectrum import Array, spectrum_of_features
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors, factor

MISSING_TRAITS = "; leave out samples with a missing trait, or fit them with kron2sum fit --missing exact"


class Kron2Sum:
    """Multi-trait linear mixed model, fitted by (restricted) maximum likelihood.

    ``vec(Y) ~ N((A ⊗ X) vec(B), K = C0 ⊗ GGᵀ + C1 ⊗ I)``. The interface is that of ``glimix_core.lmm.Kron2Sum``
    (Casale et al. 2015, Nature Methods 12:755); the numbers are computed in coordinates in which samples and traits
    are independent, with C0 of any rank.

    Before `fit` C0 and C1 are those from which glimix-core starts: with g the largest entry of G, C0 is the matrix of
    ones times rank/g², and C1 is LLᵀ plus a small ridge, L lower triangular with ones. (`fit` starts elsewhere.)

    Few samples and linearly dependent columns of Y, A or X cause a warning. All numbers at the present C0 and C1 are
    there all the same, with the fixed effects of minimum norm, but `fit` raises an error where the likelihood has no
    maximum.

    The scale of the fast scanner and of its standard errors counts np values, as in glimix-core, whether the model is
    restricted or not; see `FastScanner`.

    Parameters
    ----------
    Y : array_like (n, p)
        Traits, none missing: ``kron2sum fit --missing exact`` fits what was observed where some are.
    A : array_like (p, a)
        Trait design, a at most p; usually the identity.
    X : array_like (n, c)
        Covariates; c may be 0.
    G : array_like (n, r)
        Relatedness is GGᵀ.
    rank : int
        Largest rank of C0, 1 to p.
    restricted : bool
        REML if true.

    Raises
    ------
    ValueError
        Where shapes do not fit, a value is not finite, or the rank is out of range.

    Warns
    -----
    UserWarning
        Where columns of A, X or Y are linear combinations of others, where there are as many parameters as values,
        or where GGᵀ is zero given the covariates.

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
        self._rank, self._restricted, self._name = int(rank), bool(restricted), "Kron2Sum"
        self._check_shapes()
        self._design = FixedEffects.of(self._A, self._X)
        self._data, self._Qx = self._rotated()
        self._no_maximum = self._without_maximum()
        for message in self._complaints():
            warnings.warn(message, UserWarning, stacklevel=2)
        self._certificate: Certificate | None = None
        self._set_start()

    def _check_shapes(self) -> None:
        n, p = self._Y.shape
        if n == 0 or p == 0:
            raise ValueError(f"Y must have samples and traits; its shape is {self._Y.shape}")
        for name, M in (("X", self._X), ("G", self._G)):
            if M.shape[0] != n:
                raise ValueError(f"{name} has {M.shape[0]} rows and Y has {n}: both must have one a sample")
        if self._A.shape[0] != p or self._A.shape[1] > p:
            raise ValueError(f"A must be ({p}, a) with a at most {p}; its shape is {self._A.shape}")
        if not 1 <= self._rank <= p:
            raise ValueError(f"rank must be from 1 to the number of traits, {p}; it is {self._rank}")

    def _rotated(self) -> tuple[Contrasts, Array]:
        """The traits in independent rows, and the basis (n, c) of the covariates that are projected out.

        Covariates are projected out where they have an effect on every trait of its own and leave any contrasts.
        """
        A, X, n = self._design.independent_A, self._design.independent_X, self.nsamples
        if A.shape[1] == self.ntraits and X.shape[1] < n:
            spectrum = spectrum_of_features(self._G, X)
            return rotate_traits(spectrum, self._Y), spectrum.Qx
        spectrum = spectrum_of_features(self._G, np.empty((n, 0)))
        return rotate_coupled(spectrum, self._Y, A, X), spectrum.Qx

    def _without_maximum(self) -> str | None:
        """Why the likelihood has no maximum, whatever G is; None where it may have one."""
        X, (n, p) = self._design.independent_X, self._Y.shape
        if n - X.shape[1] < p:
            return (
                f"{n} samples are too few for {p} traits and {X.shape[1]} covariates:"
                f" at least {p + X.shape[1]} are needed"
            )
        given = self._X[:, : self.ncovariates if self._design.rank else 0]
        names = _column_names("X", given) + _column_names("Y", self._Y)
        found = dependencies(np.hstack([given, self._Y]))
        redundant = [combination(names, each) for each in found if each.column >= given.shape[1]]
        return f"{'; '.join(redundant)}: leave it out" if redundant else None

    def _complaints(self) -> list[str]:
        """What is redundant or too little in the arguments, in words."""
        found = []
        for name, M in (("A", self._A), ("X", self._X)):
            redundant = [combination(_column_names(name, M), each) for each in dependencies(M)]
            if redundant:
                found.append(f"{'; '.join(redundant)}: effects are those of minimum norm")
        effects, covariances = self._design.rank, nparameters(self.ntraits, self._rank)
        if self._no_maximum:
            found.append(f"the likelihood has no maximum: {self._no_maximum}")
        elif effects + covariances >= self._Y.size:
            found.append(
                f"{self.nsamples} samples of {self.ntraits} traits are few for {effects} fixed effects and"
                f" {covariances} parameters of C0 and C1: estimates are not reliable"
            )
        if self._data.mean_eigenvalue == 0:
            found.append("the relationship matrix is zero given the covariates: C0 cannot be estimated")
        return found

    def _set_start(self) -> None:
        """Go to the C0 and C1 from which glimix-core starts."""
        largest = float(self._G.max(initial=-np.inf))
        largest = largest if np.isfinite(largest) and largest != 0 else 1.0
        p, self._unit = self.ntraits, largest
        C0, C1 = LowRankCovariance(np.ones((p, self._rank))), CholeskyCovariance(np.tril(np.ones((p, p))), RIDGE)
        axes = axes_of_factors(C0.L / largest, linalg.cholesky(C1.value(), lower=True), self._mean_eigenvalue)
        self._point = evaluate(self._data, axes.truncated(self._rank), self._restricted)
        self._factors = C0, C1

    @property
    def _mean_eigenvalue(self) -> float:
        """The measure of GGᵀ in the trait axes; 1 where GGᵀ is zero, for then any will do."""
        return self._data.mean_eigenvalue or 1.0

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
        L0, size = factor(c0), np.sqrt(np.where(np.diag(c0) > 0, np.diag(c0), 1.0))
        lengths = np.linalg.norm(L0 / size[:, None], axis=0)  # increasing
        if np.any(lengths[: -self._rank] > 1e-6 * lengths[-1]):
            raise ValueError(f"C0 has rank above {self._rank}, the largest of this model")
        axes = axes_of_factors(L0[:, -self._rank :], factor(c1), self._mean_eigenvalue)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._move(evaluate(self._data, axes.truncated(self._rank), self._restricted), None)
        return other

    def _move(self, point: Point, certificate: Certificate | None) -> None:
        axes = point.axes
        L0 = (axes.Tinv * axes.c0)[:, : self._rank]
        L0 = L0 * np.where(L0.sum(axis=0) < 0, -1.0, 1.0)
        R = np.asarray(np.linalg.qr((axes.Tinv * axes.c1).T, mode="r"))
        L1 = (R * np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]).T
        self._point, self._certificate = point, certificate
        self._factors = LowRankCovariance(self._unit * L0), CholeskyCovariance(L1)

    def fit(self, verbose: bool = True) -> None:
        """Maximise the likelihood over C0 and C1.

        Where the likelihood grows without bound as C1 becomes singular (under ML, with GGᵀ centred on the samples),
        the highest local maximum found is taken, and without any the fit fails.

        Parameters
        ----------
        verbose : bool
            Print one line with the log-likelihood and the certificate of the optimum.

        Raises
        ------
        NumericalError
            Where the likelihood has no maximum because samples are too few or traits are linear combinations of others.
        ConvergenceError
            Where the optimum cannot be certified, or the likelihood has no maximum for another reason.
        """
        if self._no_maximum:
            raise NumericalError(f"the likelihood has no maximum: {self._no_maximum}")
        result = fit(self._data, self._rank, self._restricted)
        self._move(result.point, result.certificate)
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
        """Name of this function, which can be set."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

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
        """Factor ``C0 = L0 L0ᵀ``, (p, rank)."""
        return self._factors[0].L / self._unit

    @property
    def L1(self) -> Array:
        """Lower Cholesky factor ``C1 = L1 L1ᵀ``, (p, p)."""
        C1 = self._factors[1]
        return np.asarray(linalg.cholesky(C1.value(), lower=True)) if C1.ridge else C1.L

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
        return self._design.fit(Metric(self._point, self._Qx)).effects(0, 1.0).B

    @property
    def beta(self) -> Array:
        """``vec(B)``, (ca,)."""
        return self._design.fit(Metric(self._point, self._Qx)).beta

    @property
    def beta_covariance(self) -> Array:
        """``(MᵀK⁻¹M)⁻¹``, (ca, ca); the pseudo-inverse where columns of M are redundant."""
        return self._design.fit(Metric(self._point, self._Qx)).covariance

    def lml(self) -> float:
        """Log marginal likelihood, with all constants (restricted if the model is)."""
        return self._point.lml

    def value(self) -> float:
        """The same as `lml`."""
        return self.lml()

    def gradient(self) -> dict[str, Array]:
        """Gradient of the log marginal likelihood by the parameters of glimix-core.

        Returns
        -------
        dict
            ``C0.Lu``, (p·rank,): by the entries of ``g L0`` row by row, g the largest entry of G. ``C1.Lu``,
            (p(p+1)/2,): by the entries of L below its diagonal row by row, then by the logarithms of its diagonal,
            where L is `L1`; before a fit C1 is LLᵀ plus its ridge.
        """
        point, T = self._point, self._point.axes.T
        of_C0, of_C1 = T.T @ point.score0 @ T, T.T @ point.score1 @ T
        C0, C1 = self._factors
        return {"C0.Lu": C0.chain(of_C0 / self._unit**2), "C1.Lu": C1.chain(of_C1)}

    def mean(self) -> Array:
        """``(A ⊗ X) vec(B)``, (pn,)."""
        return np.asarray((self._X @ self.B @ self._A.T).T.reshape(-1))

    def covariance(self) -> Array:
        """``K = C0 ⊗ GGᵀ + C1 ⊗ I``, (pn, pn): large."""
        return np.asarray(np.kron(self.C0, self._G @ self._G.T) + np.kron(self.C1, np.eye(self.nsamples)))

    def get_fast_scanner(self) -> FastScanner:
        """Scanner of fixed effects with C0 and C1 as they are now."""
        K = Metric(self._point, self._Qx)
        return FastScanner(K, self._design, logdet_covariance(self._point))


def _column_names(name: str, M: Array) -> list[str]:
    return [f"{name}[:, {k}]" for k in range(M.shape[1])]
