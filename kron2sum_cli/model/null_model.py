"""A fitted null model as a value: everything that tests of variants need."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from kron2sum_cli.model.block_scanner import BlockScanner, CoupledBlockScanner, block_scanner
from kron2sum_cli.model.certificate import Certificate
from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.missing.likelihood import ObservedPoint
from kron2sum_cli.model.missing.likelihood import evaluate as evaluate_observed
from kron2sum_cli.model.missing.observed import ObservedCells, without_missing
from kron2sum_cli.model.missing.scanner import ObservedScanner, observed_scanner
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import Estimates


@dataclass(frozen=True)
class FitSummary:
    """What a fit of one relationship matrix says (the whole genome's, or the one without a chromosome).

    Attributes
    ----------
    axes : trait axes of the fitted C0 and C1
    reml : fitted by restricted likelihood
    rank : largest rank of C0 allowed
    lml : log-likelihood with all constants
    mean_diagonal : mean diagonal of the centred GGᵀ
    quadratic : ``rᵀK⁻¹r``, from which tests of variants measure
    certificate : why it is an optimum
    estimates : what it says, with standard errors
    """

    axes: TraitAxes
    reml: bool
    rank: int
    lml: float
    mean_diagonal: float
    quadratic: float
    certificate: Certificate
    estimates: Estimates


@dataclass(frozen=True)
class NullModel:
    """A fit of complete traits with the data that tests of variants need.

    Attributes
    ----------
    summary : the fit
    data : rotated traits
    Qx : (n, c) orthonormal basis of the projected covariates
    rows : (m + p, n) of which the first m are ``Vᵀ`` of the data, and the others room for a scanner, so that there is
        one copy of V; None where V was not read for a scan
    """

    summary: FitSummary
    data: Contrasts
    Qx: Array
    rows: NDArray[np.floating] | None = None

    def point(self) -> Point:
        """The likelihood at the fitted covariances."""
        return evaluate(self.data, self.summary.axes, self.summary.reml)

    def observed_point(self, X: Array) -> ObservedPoint:
        """The same as a likelihood of observed cells, of which none is missing; X (n, c) are the covariates."""
        return evaluate_observed(without_missing(self.data, X), self.summary.axes, self.summary.reml)

    def scanner(self, dtype: type[np.floating]) -> BlockScanner | CoupledBlockScanner:
        """The scanner of blocks of variants, in single or double precision."""
        return block_scanner(self.point(), self.Qx, dtype, self.rows)


@dataclass(frozen=True)
class ObservedNullModel:
    """A fit of the observed cells with the data that tests of variants need.

    Attributes
    ----------
    summary : the fit
    data : rotated traits and their missing cells
    """

    summary: FitSummary
    data: ObservedCells

    def point(self) -> ObservedPoint:
        """The likelihood at the fitted covariances."""
        return evaluate_observed(self.data, self.summary.axes, self.summary.reml)

    @property
    def _reduced(self) -> bool:
        return bool(self.data.A.shape[1] < self.data.ntraits)

    @property
    def Qx(self) -> Array:
        """(n, c) orthonormal basis of the covariates that have an effect on every trait of its own."""
        X = self.data.X[:, :0] if self._reduced else self.data.X
        return np.asarray(linalg.qr(X, mode="economic")[0]) if X.shape[1] else X

    def scanner(self, dtype: type[np.floating]) -> ObservedScanner:
        """The scanner of blocks of variants, in single or double precision (double where they cannot be centred)."""
        return observed_scanner(self.point(), np.float64 if self._reduced else dtype)
