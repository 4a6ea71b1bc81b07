"""Refits on the observed cells: C0 and C1 free again with a variant in the model."""

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.missing.fitting import ObservedFit, climb
from kron2sum_cli.model.missing.observed import with_added
from kron2sum_cli.model.refit import Refit
from kron2sum_cli.model.spectrum import Array


def refit(null: ObservedFit, G: Array, design: Array) -> Refit:
    """Maximum likelihood with effects of each variant in the span of ``design``, from the null model's fit.

    Each takes a few likelihoods of the size of the null model's.

    Parameters
    ----------
    null : fit by maximum likelihood (not restricted) without a variant
    G : (n, b) variants without missing values
    design : (p, e), full column rank

    Returns
    -------
    Log-likelihoods and effects; NaN for a variant whose refit did not converge, or that the covariates explain.
    """
    if null.point.reml:
        raise ValueError("refits need a null model by maximum likelihood")
    p, b, axes = null.point.data.ntraits, G.shape[1], null.point.axes
    basis = axes.well_conditioned(design)
    found = Refit(np.full(b, np.nan), np.full((b, p), np.nan), np.full((b, p), np.nan))
    for k in range(b):
        alternative = with_added(null.point.data, basis, G[:, [k]])
        try:
            fitted = climb(alternative, axes, null.rank, False)
        except (NumericalError, np.linalg.LinAlgError):
            continue
        if not fitted.certificate.certified:
            continue
        e = basis.shape[1]
        covariance = fitted.point.B_covariance[-e:, -e:]
        found.lml[k] = fitted.point.lml
        found.beta[k] = basis @ fitted.point.theta[-e:]
        found.se[k] = np.sqrt(np.einsum("te,ef,tf->t", basis, covariance, basis))
    return found
