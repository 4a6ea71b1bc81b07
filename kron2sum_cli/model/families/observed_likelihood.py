"""The likelihood of the observed cells of families at one point.

With V the covariance of the observed cells (`families.observed`), M the covariates' columns, ``H = MᵀV⁻¹M`` and
``P = V⁻¹ - V⁻¹M H⁻¹ MᵀV⁻¹``::

    2 lml(ML)   = -N log 2π - log|V| - yᵀPy,
    2 lml(REML) = -(N - e) log 2π + log|MᵀM| - log|V| - log|H| - yᵀPy,

N observed cells and e effects (LaMotte 2007). The score for a change ∂V is ``½ αᵀ∂Vα - ½ tr(P∂V)`` with ``α = Py``, V⁻¹
in place of P under ML.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import Any

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.families.observed import ObservedFamilies
from kron2sum_cli.model.likelihood import LOG2PI, Grams, row_grams
from kron2sum_cli.model.missing.design import SINGULAR_DESIGN
from kron2sum_cli.model.missing.observed import PointOfCells
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes

COLLINEAR_EFFECTS = (
    "the fixed effects are collinear over the observed cells: the samples of a trait do not tell its covariates apart"
)


@dataclass(frozen=True)
class ObservedFamilyPoint(PointOfCells):
    """The likelihood of the observed cells of families at one (C0, C1).

    ``inverses`` are V⁻¹ of every group of families and ``alpha`` (n, p) is ``Py`` over the samples and traits, both 0
    in missing cells. ``chol`` (e, e) is the lower Cholesky factor of H, and ``B`` (c, p) are effects of the orthonormal
    covariates, 0 where they are left out.
    """

    data: ObservedFamilies
    inverses: tuple[Array, ...]
    chol: Array
    B: Array
    alpha: Array

    @cached_property
    def scores(self) -> tuple[Array, Array]:
        """See `LikelihoodPoint.scores`."""
        data, alpha, Tinv = self.data, self.alpha, self.axes.Tinv
        pairs = list(zip(data.groups, self.inverses, strict=True))
        scores = np.stack([alpha.T @ data.related(alpha), alpha.T @ alpha])
        scores -= sum_of(group.traces(inverse) for group, inverse in pairs)
        if self.reml and data.kept.size:
            Hinv = self.effects_inverse
            scores += sum_of(group.leverage_traces(group.leverage(inverse, Hinv)) for group, inverse in pairs)
        along = Tinv.T @ scores @ Tinv
        score0, score1 = 0.25 * (along + along.transpose(0, 2, 1))
        return score0, score1

    def at(self, axes: TraitAxes) -> "ObservedFamilyPoint":
        """The same likelihood at other covariances; raises as `evaluate` does."""
        return evaluate(self.data, axes, self.reml)

    @property
    def quadratic(self) -> float:
        """``rᵀV⁻¹r`` of the observed cells."""
        return float(np.sum(self.alpha * self.data.Y))

    @cached_property
    def grams(self) -> Grams:
        """About twice the expected information of a pair of axes, for powers 0, 1, 2 of the eigenvalues: (p, p) each.

        As if V were diagonal in the axes and the families' eigenvectors, with the information that is left there: an
        error changes the speed of a search, not where it ends.
        """
        s = self.data.spectrum.s
        W = 1 / np.maximum(self.axes.variances(s), np.finfo(np.float64).tiny)
        return row_grams(np.sqrt(W * self.information_of_rows), s)

    @cached_property
    def information_of_rows(self) -> Array:
        """Diagonal of V⁻¹ in the axes and the families' eigenvectors, (n, p)."""
        found = np.empty(self.data.missing.shape)
        for group, inverse in zip(self.data.groups, self.inverses, strict=True):
            found[group.members] = group.along(inverse, self.axes.Tinv)
        return found

    @property
    def effects_inverse(self) -> Array:
        """H⁻¹ (p, c, p, c), 0 for effects that are left out."""
        p, c, kept = self.data.ntraits, self.data.ncovariates, self.data.kept
        inverse = np.zeros((p * c, p * c))
        inverse[np.ix_(kept, kept)] = linalg.cho_solve((self.chol, True), np.eye(kept.size))
        return inverse.reshape(p, c, p, c)

    def solve(self, F: Array) -> Array:
        """``V⁻¹F`` for F (n, p, k) over the samples and traits."""
        out = np.empty(F.shape)
        for group, inverse in zip(self.data.groups, self.inverses, strict=True):
            out[group.members] = group.apply(inverse, F)
        return out

    def project(self, F: Array) -> Array:
        """``PF`` for F (n, p, k) over the samples and traits."""
        solved = self.solve(F)
        kept, Q = self.data.kept, self.data.Q
        if not kept.size:
            return solved
        n, p, k = F.shape
        right = (Q.T @ solved.reshape(n, p * k)).reshape(-1, p, k).transpose(1, 0, 2).reshape(-1, k)
        effects = np.zeros_like(right)
        effects[kept] = linalg.cho_solve((self.chol, True), right[kept])
        fitted = Q @ effects.reshape(p, -1, k).transpose(1, 0, 2).reshape(-1, p * k)
        return np.asarray(solved - self.solve(fitted.reshape(n, p, k)))

    @property
    def alpha_along_axes(self) -> Array:
        """``Py`` over the samples along the axes, (n, p)."""
        return np.asarray(self.alpha @ self.axes.Tinv)

    def project_along_axes(self, F: Array) -> Array:
        """``PF`` for F (n, p, k) over the samples along the axes."""
        Tinv = self.axes.Tinv
        projected = self.project(np.asarray(np.einsum("tj,njk->ntk", Tinv, F)))
        return np.asarray(np.einsum("tj,ntk->njk", Tinv, projected))


def evaluate(data: ObservedFamilies, axes: TraitAxes, reml: bool) -> ObservedFamilyPoint:
    """The likelihood at one point; its work is linear in the number of families, and cubic in cells of a family.

    Raises NumericalError where V is singular, or covariates are collinear over the observed cells.
    """
    C0, C1 = axes.C0, axes.C1
    inverses, logdet = [], 0.0
    for group in data.groups:
        inverse, one = group.invert(C0, C1)
        inverses.append(inverse)
        logdet += one
    point = ObservedFamilyPoint(
        data, reml, axes, np.nan, tuple(inverses), _factor(data, inverses), *[np.empty((0, 0))] * 2
    )
    B, alpha = _residuals(point)
    ndof = data.nobserved
    if reml:
        ndof -= data.kept.size
        logdet += 2 * float(np.log(np.diag(point.chol)).sum()) - data.logdet_MtM
    lml = -0.5 * (ndof * LOG2PI + logdet + float(np.sum(alpha * data.Y)))
    return replace(point, lml=lml, B=B, alpha=alpha)


def _factor(data: ObservedFamilies, inverses: Sequence[Array]) -> Array:
    """Lower Cholesky factor of H."""
    H = sum_of(group.gram(inverse) for group, inverse in zip(data.groups, inverses, strict=True))
    size = data.ntraits * data.ncovariates
    H = H.reshape(size, size)[np.ix_(data.kept, data.kept)]
    try:
        chol = np.asarray(np.linalg.cholesky(H), np.float64)
    except np.linalg.LinAlgError:
        raise NumericalError(COLLINEAR_EFFECTS) from None
    if np.any(np.diag(chol) ** 2 <= SINGULAR_DESIGN * np.diag(H)):
        raise NumericalError(COLLINEAR_EFFECTS)
    return chol


def _residuals(point: ObservedFamilyPoint) -> tuple[Array, Array]:
    """B (c, p) and α (n, p)."""
    data, kept = point.data, point.data.kept
    solved = point.solve(data.Y[:, :, None])[:, :, 0]
    effects = np.zeros(data.ntraits * data.ncovariates)
    effects[kept] = linalg.cho_solve((point.chol, True), (solved.T @ data.Q).ravel()[kept])
    B = effects.reshape(data.ntraits, data.ncovariates).T
    return B, point.solve((data.Y - data.Q @ B)[:, :, None])[:, :, 0]


def sum_of(parts: Iterable[Any]) -> Any:
    """The sum of parts of one kind, of which there is at least one."""
    return reduce(add, parts)
