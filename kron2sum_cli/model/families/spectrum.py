"""A block-diagonal relationship matrix: families that are unrelated to each other.

Where GGᵀ falls into blocks, so does its eigendecomposition: ``GGᵀ = U diag(s) Uᵀ`` with U block-diagonal, a block for
every family, 1 for a sample without relatives. Row i of ``UᵀY`` then has covariance ``s_i C0 + C1``, independent of all
others, as in `contrasts`. Nothing of size n × n is made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import scipy
from numpy.typing import NDArray

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.spectrum import EPSILON, NEGATIVE_EIGENVALUE, Array, Floats, Indices

Sparse: TypeAlias = "scipy.sparse.csr_array[np.float64, tuple[int, int]]"
LARGEST_NEGATIVE = 0.1
"""A matrix whose smallest eigenvalue is below minus this share of its largest is refused."""

Precision = TypeVar("Precision", np.float32, np.float64)


@dataclass(frozen=True)
class FamiliesOfSize:
    """All f families of one size: their members (f, m), and their blocks' eigenvectors (f, m, m) in columns."""

    members: Indices
    U: Floats


@dataclass(frozen=True)
class FamilyRotation:
    """The block-diagonal U. Row i of ``UᵀM`` stands at the place of sample i, whose family has as many rows as members.

    Samples that are in none of the families, of two or more members, are their own row.
    """

    nsamples: int
    families: Sequence[FamiliesOfSize]

    @property
    def largest_family(self) -> int:
        """Members of the largest family."""
        return max((group.members.shape[1] for group in self.families), default=1)

    def to_rows(self, M: NDArray[Precision]) -> NDArray[Precision]:
        """``UᵀM`` for M (n, k), a new array in the precision of M."""
        rows = M.copy()
        for group in self.families:
            U = group.U.astype(M.dtype, copy=False)
            rows[group.members] = np.matmul(U.transpose(0, 2, 1), M[group.members])
        return rows

    def to_samples(self, rows: NDArray[Precision]) -> NDArray[Precision]:
        """``UR`` for R (n, k), a new array in the precision of R."""
        M = rows.copy()
        for group in self.families:
            M[group.members] = np.matmul(group.U.astype(rows.dtype, copy=False), rows[group.members])
        return M

    def in_precision(self, dtype: type[np.floating]) -> "FamilyRotation":
        """The same rotation with eigenvectors in another precision."""
        families = [FamiliesOfSize(group.members, group.U.astype(dtype)) for group in self.families]
        return FamilyRotation(self.nsamples, families)


@dataclass(frozen=True)
class FamilySpectrum:
    """The eigendecomposition of a block-diagonal GGᵀ: eigenvalues s (n,), not negative, each at the place of its row.

    ``mean_diagonal`` is that of GGᵀ centred over the samples, the factor of C0 in a heritability. ``nnegative``
    negative eigenvalues, the ``smallest`` of which was this, were set to 0.
    """

    rotation: FamilyRotation
    s: Array
    mean_diagonal: float
    nnegative: int = 0
    smallest: float = 0.0

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""
        return self.rotation.nsamples

    @property
    def independent(self) -> bool:
        """Whether no two samples are related, so that C0 cannot be told from C1 and is 0."""
        return not self.rotation.families


def family_spectrum(K: Sparse) -> FamilySpectrum:
    """Decompose a sparse symmetric relationship matrix K (n, n), family by family.

    Families are the connected components of the samples that have a relationship other than 0. Those of one size are
    decomposed together. Negative eigenvalues, which a cutoff can leave, are set to 0: that is the nearest positive
    semi-definite matrix. Raises NumericalError where an eigenvalue is below ``-LARGEST_NEGATIVE`` times the largest of
    the matrix.
    """
    n = K.shape[0]
    s = K.diagonal()
    families = []
    for members in families_by_size(K):
        U, values = _decompose(K, members)
        s[members] = values
        families.append(FamiliesOfSize(members, U))
    largest, smallest = float(s.max(initial=0.0)), float(s.min(initial=0.0))
    if smallest < -LARGEST_NEGATIVE * largest:
        raise NumericalError(
            f"the relationship matrix is not positive semi-definite: its eigenvalues go from {smallest:.3g} to"
            f" {largest:.3g}"
        )
    negative = int(np.count_nonzero(s < -NEGATIVE_EIGENVALUE * largest))
    s = np.where(s > n * EPSILON * largest, s, 0.0)
    rotation = FamilyRotation(n, families)
    ones = rotation.to_rows(np.ones((n, 1)))[:, 0]
    mean_diagonal = float(s.sum() - s @ ones**2 / n) / n
    return FamilySpectrum(rotation, s, mean_diagonal, negative, smallest)


def sizes_of_families(K: Sparse) -> Indices:
    """Number of samples of every family, those of one sample included."""
    return np.bincount(scipy.sparse.csgraph.connected_components(K, directed=False)[1])


def families_by_size(K: Sparse) -> Iterator[Indices]:
    """Members (f, m) of all families of m samples, for every m of at least 2 that occurs, small families first."""
    _, family = scipy.sparse.csgraph.connected_components(K, directed=False)
    sizes = np.bincount(family)
    order = np.argsort(family, kind="stable")
    of_sample = sizes[family[order]]
    for size in np.unique(sizes[sizes > 1]):
        yield order[of_sample == size].reshape(-1, size)


def _decompose(K: Sparse, members: Indices) -> tuple[Array, Array]:
    """Eigenvectors (f, m, m) and eigenvalues (f, m) of the blocks of families of one size."""
    f, m = members.shape
    position = np.full(K.shape[0], -1)
    position[members] = np.arange(m)
    number = np.full(K.shape[0], -1)
    number[members] = np.arange(f)[:, None]
    of_members = scipy.sparse.coo_array(K[members.reshape(-1)])
    row, column = members.reshape(-1)[of_members.row], of_members.col
    blocks = np.zeros((f, m, m))
    blocks[number[row], position[row], position[column]] = of_members.data
    values, U = np.linalg.eigh(0.5 * (blocks + blocks.transpose(0, 2, 1)))
    return U, values


def arrays_of_spectrum(spectrum: FamilySpectrum) -> dict[str, NDArray[Any]]:
    """Eigenvalues, and members and eigenvectors of the families of every size, as a file keeps them."""
    found: dict[str, NDArray[Any]] = {"s": spectrum.s}
    for group in spectrum.rotation.families:
        size = group.members.shape[1]
        found |= {f"members/{size}": group.members.astype(np.float64), f"U/{size}": group.U}
    return found


def restored_spectrum(arrays: Mapping[str, NDArray[Any]], mean_diagonal: float) -> FamilySpectrum:
    """The spectrum from what `arrays_of_spectrum` gave.

    Raises KeyError, ValueError where an array is absent, or their shapes do not go together.
    """
    s = np.asarray(arrays["s"], dtype=np.float64)
    n, families = len(s), []
    for size in sorted(int(name.partition("/")[2]) for name in arrays if name.startswith("members/")):
        members, U = arrays[f"members/{size}"], arrays[f"U/{size}"]
        if U.shape != (*members.shape, size) or members.min(initial=0) < 0 or members.max(initial=0) >= n:
            raise ValueError(f"the arrays of the families of {size} do not go together")
        families.append(FamiliesOfSize(members.astype(np.intp), U))
    return FamilySpectrum(FamilyRotation(n, families), s, mean_diagonal)
