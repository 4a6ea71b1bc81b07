"""Choosing the rank of C0."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from kron2sum_cli.model.fitting import Fit
from kron2sum_cli.model.missing.fitting import ObservedFit

Fitted = TypeVar("Fitted", Fit, ObservedFit)


@dataclass(frozen=True)
class RankRow(Generic[Fitted]):
    """One rank tried.

    Attributes
    ----------
    rank : of C0
    fit : the fit
    nparameters : free parameters of C0 and C1
    aic : ``2 nparameters - 2 lml``
    """

    rank: int
    fit: Fitted
    nparameters: int
    aic: float


def ranks_by_aic(fit_rank: Callable[[int], Fitted], ntraits: int) -> list[RankRow[Fitted]]:
    """Fit every rank from 1 to p; the best is the row with the smallest AIC.

    C0 of rank k has ``pk - k(k-1)/2`` free parameters, C1 has ``p(p+1)/2``.

    Parameters
    ----------
    fit_rank : the fit with C0 of at most this rank
    ntraits : p
    """
    p = ntraits
    rows = []
    for rank in range(1, p + 1):
        fitted = fit_rank(rank)
        size = p * rank - rank * (rank - 1) // 2 + p * (p + 1) // 2
        rows.append(RankRow(rank, fitted, size, 2 * size - 2 * fitted.point.lml))
    return rows
