"""The certificate of an optimum: the first-order conditions of the constrained problem, in figures."""

from dataclasses import dataclass

CERTIFIED_GAIN = 1e-6
"""A predicted gain above this is not an optimum."""

BOUNDARY = 1e-12
"""An axis whose genetic (or residual) share of variance is below this is on the boundary."""


@dataclass(frozen=True)
class Certificate:
    """Why a point is an optimum.

    Attributes
    ----------
    predicted_gain : what the best further Newton step is predicted to add to the log-likelihood
    cone_gain : what the best step from a face into the cone is predicted to add
    gradient_norm : norm of the projected gradient in the metric of the information
    smallest_C0, smallest_C1 : smallest eigenvalues, of the covariances scaled to total variance 1 on every axis
    active_C0, active_C1 : number of axes on the boundary of either cone
    steps, evaluations : Newton steps taken; likelihoods evaluated
    """

    predicted_gain: float
    cone_gain: float
    gradient_norm: float
    smallest_C0: float
    smallest_C1: float
    active_C0: int
    active_C1: int
    steps: int
    evaluations: int

    @property
    def certified(self) -> bool:
        """Whether the first-order conditions hold."""
        return max(self.predicted_gain, self.cone_gain) <= CERTIFIED_GAIN

    def complaint(self, lml: float) -> str:
        """Why a fit that ended at this log-likelihood is none."""
        return (
            f"the null model did not converge: after {self.steps} steps the log-likelihood is {lml:.6f},"
            f" and a gain of {max(self.predicted_gain, self.cone_gain):.3g} is still predicted"
        )
