"""A fitted null model as a value: everything that tests of variants need."""

from dataclasses import dataclass

from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.fitting import Certificate
from kron2sum_cli.model.generalised_least_squares import Metric, metric
from kron2sum_cli.model.likelihood import Point, evaluate
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
    """A fit with the data that tests of variants need.

    Attributes
    ----------
    summary : the fit
    data : rotated traits
    Qx : (n, c) orthonormal basis of the projected covariates
    """

    summary: FitSummary
    data: Contrasts
    Qx: Array

    def point(self) -> Point:
        """The likelihood at the fitted covariances."""
        return evaluate(self.data, self.summary.axes, self.summary.reml)

    def metric(self) -> Metric:
        """The metric of the fitted K⁻¹."""
        return metric(self.point(), self.Qx)
