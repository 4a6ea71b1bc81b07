"""Choosing the rank of C0."""

from dataclasses import dataclass

from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.fitting import Fit, fit


@dataclass(frozen=True)
class RankRow:
    """One rank tried.

    Attributes
    ----------
    rank : of C0
    fit : the fit
    nparameters : free parameters of C0 and C1
    aic : ``2 nparameters - 2 lml``
    """

    rank: int
    fit: Fit
    nparameters: int
    aic: float


def ranks_by_aic(data: Contrasts, reml: bool) -> list[RankRow]:
    """Fit every rank from 1 to p; the best is the row with the smallest AIC.

    C0 of rank k has ``pk - k(k-1)/2`` free parameters, C1 has ``p(p+1)/2``.
    """
    p = data.ntraits
    rows = []
    for rank in range(1, p + 1):
        fitted = fit(data, rank, reml)
        size = p * rank - rank * (rank - 1) // 2 + p * (p + 1) // 2
        rows.append(RankRow(rank, fitted, size, 2 * size - 2 * fitted.point.lml))
    return rows
