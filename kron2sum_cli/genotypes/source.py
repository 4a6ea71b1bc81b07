"""What every genotype format offers to the rest: samples, variants, and blocks of dosages."""

import os
import tempfile
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
    variants that the file has and that are not among them: those without two alleles.
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

    def named(self, names: Collection[str]) -> NDArray[np.bool_]:
        """Which variants have one of these names."""
        wanted = pa.array(list(names), pa.string())
        return np.asarray(pc.is_in(self.table["SNPID"], value_set=wanted), dtype=np.bool_)

    def positions(self, names: Collection[str]) -> dict[str, list[int]]:
        """Where the variants of these names are, by name; a name that no variant has is left out."""
        of_name = dict[str, list[int]]()
        found = np.flatnonzero(self.named(names))
        for position, name in zip(found.tolist(), self.table["SNPID"].take(found).to_pylist(), strict=True):
            of_name.setdefault(name, []).append(position)
        return of_name

    def not_found(self, names: frozenset[str]) -> int:
        """How many of these names no variant of the file has, of two alleles or not."""
        names = names - self.left_out
        found = self.table["SNPID"].filter(pa.array(self.named(names)))
        return len(names) - int(pc.count_distinct(found).as_py())


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
class SourceOfOneFile:
    """What the sources of all formats have; each reads in its own way, and says whether it `has_dosages`."""

    ploidy: ClassVar[int] = 2

    path: str
    files: tuple[str, ...]
    samples: Samples
    variants: Variants


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


def imputed_genotypes(
    source: GenotypeSource, positions: NDArray[np.intp], rows: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Genotypes (n, k) of the variants at some positions, in this order, missing ones at the mean (NaN if all are).

    Beside them, which are missing (n, k).
    """
    order = np.argsort(positions)
    G = np.empty((len(rows), len(positions)))
    G[:, order] = source.read(positions[order], rows)
    absent = np.isnan(G)
    called = np.maximum(np.count_nonzero(~absent, axis=0), 1)
    means = np.where(absent.all(axis=0), np.nan, np.nansum(G, axis=0) / called)
    return np.where(absent, means, G), absent


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
class SpooledSource(SourceOfOneFile):
    """Genotypes in a temporary file (a `GenotypeSource`), which goes with the process.

    It has dosages in single precision, other genotypes as a byte each.
    """

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
