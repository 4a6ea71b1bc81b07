"""What the fitted covariances mean, with standard errors."""

from dataclasses import dataclass

from kron2sum_cli.model.spectrum import Array


@dataclass(frozen=True)
class Estimates:
    """Estimates of a null model and their standard errors (NaN where there is none).

    Attributes
    ----------
    C0, C0_se, C1, C1_se : (p, p)
    h2, h2_se : (p,) heritabilities, ``C0_jj ḡ / (C0_jj ḡ + C1_jj)``, ḡ the mean diagonal of the centred GGᵀ
    rg, rg_se, re, re_se : (p, p) genetic and residual correlations
    B, B_se : (c, a) fixed effects
    axis_share : (p,) share of the total variance of the traits, each scaled to 1, that every trait axis carries
    axis_h2 : (p,) genetic share of variance of every trait axis
    """

    C0: Array
    C0_se: Array
    C1: Array
    C1_se: Array
    h2: Array
    h2_se: Array
    rg: Array
    rg_se: Array
    re: Array
    re_se: Array
    B: Array
    B_se: Array
    axis_share: Array
    axis_h2: Array
