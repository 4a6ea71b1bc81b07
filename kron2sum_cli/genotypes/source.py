"""What every genotype format offers to the rest: samples, variants, and blocks of dosages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.samples import Samples

if TYPE_CHECKING:
    import pyarrow as pa


PLINK = b"\x6c\x1b"
"""PLINK 1 and 2; the third byte says which, and the layout."""
VARIANT_MAJOR = b"\x01"
SAMPLE_MAJOR = b"\x00"

BGEN = b"bgen"
BGEN_AT = 16
"""Where it stands in the file."""


@dataclass(frozen=True)
class Variants:
    """The variants of one file, in its order.

    Attributes
    ----------
    table : Arrow table with the columns CHR (string), POS (int64), SNPID (string),
        EA (string, the effect allele: the one that dosages count) and NEA (string)
    source : the file they were read from, for messages
    """

    table: "pa.Table"
    source: str

    def __len__(self) -> int:
        return int(self.table.num_rows)


class GenotypeSource(Protocol):
    """One genotype file, whatever its format."""

    @property
    def path(self) -> str:
        """The genotype file."""

    @property
    def files(self) -> Sequence[str]:
        """Every file that belongs to it (for the log and for provenance)."""

    @property
    def samples(self) -> Samples:
        """All samples of the file, in its order."""

    @property
    def variants(self) -> Variants:
        """All variants of the file, in its order."""

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele, 0 to 2, NaN where missing.

        Parameters
        ----------
        variants : positions of the variants in the file, increasing
        rows : positions of the samples in the file, in the order wanted

        Returns
        -------
        (len(rows), len(variants)) float32 in Fortran order. Safe to call from several threads at once.
        """


@dataclass(frozen=True)
class Relationship:
    """GGᵀ over some samples, as G where that is the smaller, else as the matrix itself.

    Attributes
    ----------
    samples : the samples of the rows
    G : (n, r) float64, or None
    K : (n, n) float64 = GGᵀ, or None; exactly one of the two is there
    counts : what was read and left out, with reasons, for the log (in order)
    files : every file read
    """

    samples: Samples
    G: NDArray[np.float64] | None
    K: NDArray[np.float64] | None
    counts: Mapping[str, int]
    files: Sequence[str]


def refuse_positions_outside(
    samples: Samples, variants: Variants, wanted_variants: NDArray[np.intp], rows: NDArray[np.intp]
) -> None:
    """Raise IndexError where a position that `GenotypeSource.read` is asked for is not in the file."""
    for positions, count in ((wanted_variants, len(variants)), (rows, len(samples))):
        if len(positions) and not 0 <= positions.min() <= positions.max() < count:
            raise IndexError(f"positions {positions.min()} to {positions.max()} are not all below {count}")
