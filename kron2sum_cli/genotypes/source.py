"""What every genotype format offers to the rest: samples, variants, and blocks of dosages."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import pyarrow as pa
import scipy
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples

PLINK = b"\x6c\x1b"
"""First bytes of PLINK 1 and 2 files; the third byte says which, and the layout."""
VARIANT_MAJOR = b"\x01"
SAMPLE_MAJOR = b"\x00"

BGEN = b"bgen"
BGEN_AT = 16
"""Where these bytes stand in a BGEN file."""

VARIANT_SCHEMA = pa.schema(
    [("CHR", pa.string()), ("POS", pa.int64()), ("SNPID", pa.string()), ("EA", pa.string()), ("NEA", pa.string())]
)
"""Columns of the table of `Variants`."""


@dataclass(frozen=True)
class Variants:
    """The variants of one file, in its order.

    The table has columns CHR (string), POS (int64), SNPID (string), EA (string, the effect allele: the one that dosages
    count) and NEA (string). ``source`` is the file they were read from, for messages, and ``left_out`` are names of
    variants that the file has and that are not among them: those of more than two alleles.
    """

    table: pa.Table
    source: str
    left_out: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[str, int, str, str, str]], source: str) -> "Variants":
        """Variants from the values of `VARIANT_SCHEMA`, one or more."""
        columns = zip(VARIANT_SCHEMA.names, zip(*rows, strict=True), strict=True)
        return cls(pa.Table.from_pydict(dict(columns), VARIANT_SCHEMA), source)


class GenotypeSource(Protocol):
    """The genotypes of one file, whatever its format, or of several files that are one data set."""

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
        """All variants of the file that have two alleles, in its order."""

    @property
    def has_dosages(self) -> bool:
        """Whether genotypes may be other than 0, 1 and 2; where they are not, this costs only time."""

    @property
    def ploidy(self) -> int:
        """How many copies of a chromosome a sample has, which is the largest dosage."""

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele, 0 to `ploidy`, NaN where missing; several threads may call it at once.

        Positions are increasing among `variants`, and in the order wanted among `samples` (``rows``). Returns float32
        in Fortran order. Raises InputError where the file is damaged, or changed since it was opened; IndexError where
        a position is not in the file.
        """


@dataclass(frozen=True)
class Relationship:
    """GGᵀ over some samples: as G where that is the smaller, as the matrix itself, or as a sparse matrix.

    Exactly one of G (n, r), K = GGᵀ (n, n), and ``sparse`` (n, n), GGᵀ where most pairs of samples are unrelated, is
    there; rows are the ``samples``. ``counts`` are what was read and left out, with reasons, for the log (in order).
    """

    samples: Samples
    G: NDArray[np.float64] | None
    K: NDArray[np.float64] | None
    counts: Mapping[str, int]
    files: Sequence[str]
    sparse: "scipy.sparse.csr_array[np.float64, tuple[int, int]] | None" = None


def require_positions(source: GenotypeSource, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> None:
    """Raise IndexError where `GenotypeSource.read` is asked for a variant or sample that is not in the file."""
    for positions, count in ((variants, len(source.variants)), (rows, len(source.samples))):
        if len(positions) and not 0 <= positions.min() <= positions.max() < count:
            raise IndexError(f"positions {positions.min()} to {positions.max()} are not all below {count}")


STEPS = 60
"""Genotypes are kept in such parts of a copy, which is exact for 1 to 6, 8, 10 and 12 copies of a chromosome."""

MISSING_BYTE = 255
"""A missing genotype among them."""


@dataclass(frozen=True)
class SpooledSource:
    """Genotypes in a temporary file (a `GenotypeSource`), which goes with the process.

    It has dosages in single precision, other genotypes as a byte each.
    """

    ploidy: ClassVar[int] = 2

    path: str
    files: tuple[str, ...]
    samples: Samples
    variants: Variants
    has_dosages: bool
    _descriptor: int = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele; see `GenotypeSource.read`."""
        require_positions(self, variants, rows)
        dtype = _dtype(self.has_dosages)
        variant_bytes = len(self.samples) * dtype.itemsize
        dosages = np.empty((len(rows), len(variants)), dtype=np.float32, order="F")
        for column, variant in enumerate(variants):
            stored = np.frombuffer(os.pread(self._descriptor, variant_bytes, int(variant) * variant_bytes), dtype)
            dosages[:, column] = stored.take(rows)
        if not self.has_dosages:
            dosages[dosages == MISSING_BYTE] = np.nan
            dosages /= STEPS
        return dosages


def spool(genotypes: Iterable[NDArray[np.float32]], has_dosages: bool, path: str) -> int:
    """Write the dosages (n,) of one variant after the other, NaN where missing, to a temporary file.

    They keep single precision where they are dosages; else they are numbers of copies over the ploidy, times 2. Returns
    the descriptor of the file, which has no name and goes when this is closed. Raises InputError where there is no room
    for them.
    """
    try:
        with tempfile.TemporaryFile(prefix="kron2sum-") as file:
            for dosages in genotypes:
                stored = dosages if has_dosages else np.nan_to_num(np.rint(STEPS * dosages), nan=MISSING_BYTE)
                file.write(stored.astype(_dtype(has_dosages)).tobytes())
            file.flush()
            return os.dup(file.fileno())
    except OSError as error:
        raise InputError(
            f"{path}: its genotypes do not fit into {tempfile.gettempdir()} ({error.strerror}); set TMPDIR to a folder "
            "with more room, or convert the file with plink2 --make-pgen"
        ) from None


def _dtype(has_dosages: bool) -> np.dtype[np.float32] | np.dtype[np.uint8]:
    return np.dtype(np.float32) if has_dosages else np.dtype(np.uint8)
