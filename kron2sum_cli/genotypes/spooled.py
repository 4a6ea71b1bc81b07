"""Genotypes of text formats, which are read from the first line to the last: kept in a temporary file for any order."""

import os
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.genotypes.source import Variants, require_positions

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
    the descriptor of the file, which has no name and goes when this is closed.

    Raises
    ------
    InputError
        There is no room for them.
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
