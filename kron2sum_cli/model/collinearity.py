"""Columns that are linear combinations of others, found before a fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg

from kron2sum_cli.model.spectrum import Array, Floats, Indices, Mask, parts_of

TOLERANCE = 1e-7
"""Smallest share of its length that a column may have outside the span of the columns before it; below it the column
counts as dependent on them."""

CLEAR_SHARE = 1e-6
"""Share of the squared length of a column outside the others above which products of the columns tell it."""

COLLINEAR = 1e-6
"""Smallest share of a variant's variance that the covariates may leave unexplained; below it the variant counts as
collinear and is not tested."""

SAFE_SHARE = 1e-3
"""A variant of which covariates leave more than this share cannot be taken for a collinear one by rounding."""

NULL_EIGENVALUE = 1e-9
"""Covariates are collinear over some samples where their Gram matrix there has an eigenvalue below this, if it is the
identity over all."""

UNEXPLAINED = 1e-10
"""Smallest share of a variant's squared length outside the covariates that may lie outside the traits, too; below it a
combination of the traits counts as one of the variant and the covariates."""

ENOUGH = 2
"""With fewer samples a covariate, those in which a variant given was genotyped do not tell what it explains."""

NAME_AT_MOST = 20
"""Of more columns that a column follows from, a message names the first ones."""

AT_ONCE = 64
"""Number of variants that are judged at once."""


@dataclass(frozen=True)
class Dependency:
    """A column in the span of columns before it.

    ``others`` are positions of the columns of which it is a linear combination; none where it is zero.
    """

    column: int
    others: tuple[int, ...]


def dependencies(M: Array, tolerance: float = TOLERANCE) -> list[Dependency]:
    """Every column of M (n, q) that lies in the span of the columns before it, up to ``tolerance``; O(nq²)."""
    found: list[Dependency] = []
    if clear_root(M.T @ M) is not None:
        return found
    norms = np.linalg.norm(M, axis=0)
    kept: list[int] = []
    basis = np.empty((M.shape[0], 0))
    for k in range(M.shape[1]):
        if norms[k] == 0:
            found.append(Dependency(k, ()))
            continue
        column = M[:, k] / norms[k]
        left = column - basis @ (basis.T @ column)
        left = left - basis @ (basis.T @ left)
        size = np.linalg.norm(left)
        if size > tolerance:
            kept.append(k)
            basis = np.hstack([basis, (left / size)[:, None]])
        else:
            weights = linalg.lstsq(M[:, kept] / norms[kept], column)[0]
            found.append(Dependency(k, tuple(kept[i] for i in np.flatnonzero(np.abs(weights) > 1e-5))))
    return found


def kept_columns(M: Array) -> Indices:
    """Indices of the columns of M (n, q) that do not lie in the span of the columns before them."""
    return np.setdiff1d(np.arange(M.shape[1]), [dependency.column for dependency in dependencies(M)])


def clear_root(gram: Array) -> Array | None:
    """Lower Cholesky factor of the products of columns; None where rounding may be felt in it.

    That is where a column has less of its squared length outside the columns before it than `CLEAR_SHARE`.
    """
    lengths = np.sqrt(np.diag(gram))
    if not np.all(lengths > 0):
        return None
    try:
        L = np.linalg.cholesky(gram / np.outer(lengths, lengths))
    except np.linalg.LinAlgError:
        return None
    return lengths[:, None] * L if np.all(np.diag(L) ** 2 > CLEAR_SHARE) else None


def combination(names: Sequence[str], dependency: Dependency) -> str:
    """``x is a linear combination of a, b`` in words; of very many others the first."""
    others = ", ".join(names[i] for i in dependency.others[:NAME_AT_MOST])
    if len(dependency.others) > NAME_AT_MOST:
        others += f" and {len(dependency.others) - NAME_AT_MOST} more"
    name = names[dependency.column]
    if not dependency.others:
        return f"{name} is zero"
    if len(dependency.others) == 1:
        return f"{name} is a multiple of {others}"
    return f"{name} is a linear combination of {others}"


@dataclass(frozen=True)
class GenotypedCovariates:
    """Covariates, for judging variants over the samples in which they were genotyped.

    A missing genotype is replaced by the mean of the others, which can hide that a variant is a combination of the
    covariates wherever it was seen: its "effect" would be that of the samples in which it was not.

    ``observed`` (n, p) says which cells of the traits were observed; None where all were. ``called`` (n, k) says where
    variants among the covariates X (n, c) were genotyped, of those with missing genotypes; None without any.
    """

    X: Array
    observed: Mask | None
    called: Mask | None = None

    def judges(self, incomplete: Mask) -> Mask:
        """Which variants are to be judged: those with missing genotypes, and all where variants given have some."""
        return incomplete if self.called is None else np.ones_like(incomplete)

    @cached_property
    def patterns(self) -> tuple[tuple[tuple[Mask, Array], ...], ...]:
        """Of each trait, or all that have the same samples, these and an orthonormal basis of X over them, 0 elsewhere.

        Where variants among X have missing genotypes, also the samples in which each was genotyped, if that is enough
        to tell. Made when the first variant to be judged comes.
        """
        columns = np.ones((len(self.X), 1), np.bool_) if self.observed is None else np.unique(self.observed, axis=1)
        found = []
        for of_trait in columns.T[:, :, None]:
            if self.called is not None:
                both = of_trait & self.called
                of_trait = np.hstack([of_trait, both[:, both.sum(axis=0) > ENOUGH * self.X.shape[1]]])
            found.append(tuple((samples, _basis_over(self.X, samples)) for samples in np.unique(of_trait, axis=1).T))
        return tuple(found)

    def explain(
        self,
        G: Floats,
        incomplete: Indices,
        absent: Mask,
        beside: Floats | None = None,
        of_every_trait: bool = False,
    ) -> Mask:
        """Whether the covariates explain a variant wherever it was genotyped, of some or of every trait: (k,).

        With Q the basis, b = Qᵀg and N = QᵀQ over the samples without a genotype, the squared length of g outside the
        covariates, over the others, is ``gᵀg - bᵀ(I - N)⁻¹b``. N is at most its trace, which clears nearly all
        variants at once.

        G (n, b) is centred where the covariates span a constant. ``incomplete`` (k,) are to be judged, as they have
        missing genotypes, ``absent`` (n, k), whatever G has there. ``beside`` (n, b) is one more covariate a variant;
        None for none.
        """
        explained = np.zeros(len(incomplete), dtype=np.bool_)
        combine = np.logical_and if of_every_trait else np.logical_or
        for some in parts_of(len(incomplete), AT_ONCE):
            own = None if beside is None else beside[:, incomplete[some]]
            g, gaps = G[:, incomplete[some]], absent[:, some]
            explained[some] = combine.reduce([self._explain(g, gaps, own, of_trait) for of_trait in self.patterns])
        return explained

    def _explain(
        self, G: Floats, absent: Mask, beside: Floats | None, patterns: tuple[tuple[Mask, Array], ...]
    ) -> Mask:
        """Whether they explain a variant in some of the patterns: (k,)."""
        known = np.where(absent, G.dtype.type(0), G)
        squares, gaps = known * known, absent.astype(G.dtype)
        explained = np.zeros(G.shape[1], dtype=np.bool_)
        for samples, Q in patterns:
            basis = Q.astype(G.dtype)
            fitted = np.sum((basis.T @ known) ** 2, axis=0)
            total, trace = samples.astype(G.dtype) @ squares, np.sum(basis * basis, axis=1) @ gaps
            own = None if beside is None else _outside(beside, samples, Q)
            if own is not None:
                fitted += np.sum(own * known, axis=0) ** 2
                trace += np.sum(own * own * gaps, axis=0)
            left = total - fitted
            clear = (trace < 1) & (left > SAFE_SHARE * total) & (2 * fitted * trace < left * (1 - trace))
            for k in np.flatnonzero(~clear & ~explained):
                joint = Q if own is None else np.column_stack([Q, own[:, k]])
                explained[k] = _explains(joint, known[:, k].astype(np.float64), samples, absent[:, k])
        return explained


@dataclass(frozen=True)
class ExplainedTraits:
    """Traits, for telling which variants leave nothing of some combination of them, beside the covariates.

    Its residual variance is 0 with such a variant, so that the likelihood with C0 and C1 free has no maximum. With
    missing cells each trait is judged by itself, over its samples.

    Traits Y (n, p) are NaN where missing; covariates X are (n, c).
    """

    Y: Array
    X: Array

    @cached_property
    def bases(self) -> tuple[tuple[Mask, Array, Array], ...]:
        """Samples of traits, and over them orthonormal bases of X and of what it leaves of the traits.

        Made when the first variants to be judged come.
        """
        observed, p = ~np.isnan(self.Y), self.Y.shape[1]
        found = []
        for traits in [np.arange(p)] if observed.all() else np.arange(p)[:, None]:
            samples: Mask = np.all(observed[:, traits], axis=1)
            Q = _basis_over(self.X, samples)
            E = linalg.qr(_left_by(Q, self.Y[:, traits], samples), mode="economic")[0]
            found.append((samples, Q, np.asarray(E, np.float64)))
        return tuple(found)

    def by(self, G: Floats) -> Mask:
        """Which of the variants G (n, k) leave nothing of some combination: (k,)."""
        found = np.zeros(G.shape[1], dtype=np.bool_)
        for samples, Q, E in self.bases if G.shape[1] else ():
            for some in parts_of(G.shape[1], AT_ONCE):
                left = _left_by(Q, G[:, some], samples)
                outside = left - E @ (E.T @ left)
                found[some] |= np.sum(outside**2, axis=0) <= UNEXPLAINED * np.sum(left**2, axis=0)
        return found


def _left_by(Q: Array, M: Floats, samples: Mask) -> Array:
    """What an orthonormal basis Q over some samples leaves of columns M (n, k) there; 0 in the others."""
    left = np.where(samples[:, None], M, 0).astype(np.float64)
    for _ in range(2):  # the first leaves rounding of what it takes
        left = left - Q @ (Q.T @ left)
    return np.asarray(left)


def _basis_over(X: Array, samples: Mask) -> Array:
    """Orthonormal basis of covariates X (n, c) over some samples, 0 in the others."""
    Q = np.zeros(X.shape)
    kept = kept_columns(X[samples])
    if kept.size:
        Q[np.ix_(samples, kept)] = linalg.qr(X[np.ix_(samples, kept)], mode="economic")[0]
    return Q


def _outside(G: Floats, samples: Mask, Q: Array) -> Array:
    """What some samples have of variants G (n, k) outside the basis Q over them, at length 1; 0 where there is none."""
    left = _left_by(Q, G, samples)
    sizes, total = np.linalg.norm(left, axis=0), np.linalg.norm(np.where(samples[:, None], G, 0), axis=0)
    return np.asarray(np.where(sizes > np.sqrt(COLLINEAR) * total, left / np.where(sizes > 0, sizes, 1.0), 0.0))


def _explains(Q: Array, g: Array, samples: Mask, absent: Mask) -> bool:
    """Whether a variant g (n,), 0 where it is absent, is a combination of the covariates in the other samples."""
    rows = Q[absent]
    values, vectors = np.linalg.eigh(np.eye(Q.shape[1]) - rows.T @ rows)
    along = vectors.T @ (Q.T @ g)
    regular = values > NULL_EIGENVALUE
    total = float(np.sum(g[samples] ** 2))
    return total - float(np.sum(along[regular] ** 2 / values[regular])) <= COLLINEAR * total


def spans_constant(Q: Floats) -> bool:
    """Whether a constant lies in the span of the orthonormal columns of Q (n, c)."""
    return bool(np.sum(Q.sum(axis=0) ** 2) > Q.shape[0] * (1 - 1e-9))
