"""PLINK 2 genotypes: ``.pgen`` with its ``.pvar`` and ``.psam``, through the package Pgenlib."""

import os
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.genotypes.sample_files import read_psam
from kron2sum_cli.genotypes.source import Variants, refuse_positions_outside
from kron2sum_cli.genotypes.variants import read_pvar

PVAR_SUFFIXES = (".pvar", ".pvar.zst", ".bim")
PSAM_SUFFIXES = (".psam", ".fam")
"""Where the variants and samples of a ``.pgen`` are looked for, in this order."""

PIECE_BYTES = 1 << 20
"""Dosages of so many bytes are read at once: they stay in the processor's cache until they are in place."""

_MISSING = -9
_HEADER_ELSEWHERE = (b"\x01", b"\x20", b"\x21")
"""Storage modes without counts: a ``.bed``, and those with an index in a file of its own."""


class PgenReader(Protocol):
    """What is used of ``pgenlib.PgenReader``."""

    def get_raw_sample_ct(self) -> int:
        """Samples of the file."""

    def get_variant_ct(self) -> int:
        """Variants of the file."""

    def read_dosages_list(self, variant_idxs: NDArray[np.uint32], floatarr_out: NDArray[np.float32]) -> None:
        """Dosages of ALT, a variant a row, -9 where missing."""


@dataclass(frozen=True)
class PgenSource:
    """The genotypes of a PLINK 2 file set (a `GenotypeSource`); made by `open_pgen`.

    Attributes
    ----------
    path : the ``.pgen``
    files : the ``.pgen`` (with its ``.pgen.pgi`` where there is one), ``.pvar`` and ``.psam``
    samples, variants : all of the file, in its order
    """

    path: str
    files: tuple[str, ...]
    samples: Samples
    variants: Variants
    _idle: deque[PgenReader] = field(repr=False, compare=False)

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele (ALT), 0 to 2, NaN where missing; hard calls where there is no dosage.

        A reader of Pgenlib serves one thread at a time. There are never more of them than calls were made
        at once. All samples are read and those wanted are taken, which is faster than Pgenlib's selection.

        Parameters
        ----------
        variants : positions of the variants in the file, increasing
        rows : positions of the samples in the file, in the order wanted

        Returns
        -------
        (len(rows), len(variants)) float32 in Fortran order

        Raises
        ------
        InputError : the file is damaged, or changed since it was opened
        IndexError : a position is not in the file
        """
        refuse_positions_outside(self.samples, self.variants, variants, rows)
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = _open_reader(self.path)
        try:
            by_variant = _read_rows(reader, variants.astype(np.uint32), rows, len(self.samples))
        except RuntimeError as error:
            raise InputError(
                f"{self.path} cannot be read in variants {variants[0] + 1} to {variants[-1] + 1} ({error}); "
                "check it with plink2 --validate, and whether another program changed it"
            ) from None
        self._idle.append(reader)
        return by_variant.T


def open_pgen(path: str) -> PgenSource:
    """Open a PLINK 2 file set, and refuse it where its three files cannot belong together.

    Parameters
    ----------
    path : the ``.pgen``. Beside it, under the same name, lie the variants (``.pvar``, ``.pvar.zst`` or
        ``.bim``) and the samples (``.psam`` or ``.fam``)

    Returns
    -------
    The genotypes. EA, the allele that dosages count, is ALT, and NEA is REF.

    Raises
    ------
    InputError : Pgenlib is not installed, one of the files is missing or malformed, their counts differ,
        or a variant has more than two alleles
    """
    claimed = _claimed_counts(path)
    stem = path[:-5] if path.lower().endswith(".pgen") else path
    pvar, psam = _companion(path, stem, PVAR_SUFFIXES), _companion(path, stem, PSAM_SUFFIXES)
    samples, variants = read_psam(psam), read_pvar(pvar)

    def refuse_other_counts(counts: tuple[int, int]) -> None:
        for what, companion, found, expected in zip(
            ("variants", "samples"), (pvar, psam), (len(variants), len(samples)), counts, strict=True
        ):
            if found != expected:
                raise InputError(
                    f"{path} has {expected} {what}, but {companion} has {found}; they do not belong together"
                )

    if claimed is not None:
        refuse_other_counts(claimed)  # before Pgenlib takes memory for what a damaged header claims
    reader = _open_reader(path)
    refuse_other_counts((reader.get_variant_ct(), reader.get_raw_sample_ct()))
    index = (f"{path}.pgi",) if os.path.isfile(f"{path}.pgi") else ()
    return PgenSource(path, (path, *index, pvar, psam), samples, variants, deque([reader]))


def _claimed_counts(path: str) -> tuple[int, int] | None:
    """The numbers of variants and samples in the header; None where that is in a ``.pgen.pgi``, or is none."""
    try:
        with open(path, "rb") as file:
            header = file.read(11)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from None
    if header[2:3] in _HEADER_ELSEWHERE:
        return None
    if len(header) < 11:
        raise InputError(f"{path} cannot be opened as a .pgen (its header is short); check it with plink2 --validate")
    n_variants, n_samples = struct.unpack("<2I", header[3:])
    return n_variants, n_samples


def _companion(path: str, stem: str, suffixes: tuple[str, ...]) -> str:
    names = [stem + suffix for suffix in suffixes]
    for name in names:
        if os.path.isfile(name):
            return name
    what = "variants" if suffixes == PVAR_SUFFIXES else "samples"
    raise InputError(f"{names[0]} is missing; the {what} of {path} are expected beside it")


def _open_reader(path: str) -> PgenReader:
    try:
        reader: PgenReader = _pgenlib(path).PgenReader(os.fsencode(path))
    except RuntimeError as error:
        raise InputError(
            f"{path} cannot be opened as a .pgen ({error}); check the path, and the file with plink2 --validate"
        ) from None
    return reader


def _pgenlib(path: str) -> Any:
    """The package, which is only installed with the extra ``pgen``."""
    try:
        import pgenlib
    except ImportError:
        stem = path.removesuffix(".pgen")
        raise InputError(
            f"{path}: the package Pgenlib reads .pgen files, and it is not installed; run: pip install "
            "'kron2sum-cli[pgen]'. Where there is none for this Python, convert the file (dosages become hard "
            f"calls): plink2 --pfile {stem} --make-bed --out {stem}"
        ) from None
    return pgenlib


def _read_rows(
    reader: PgenReader, variants: NDArray[np.uint32], rows: NDArray[np.intp], n_samples: int
) -> NDArray[np.float32]:
    """(len(variants), len(rows)) dosages in C order."""
    dosages = np.empty((len(variants), len(rows)), dtype=np.float32)
    everybody = np.array_equal(rows, np.arange(n_samples))
    size = max(1, PIECE_BYTES // (4 * n_samples))
    buffer = np.empty((0 if everybody else size, n_samples), dtype=np.float32)
    for start in range(0, len(variants), size):
        chosen = variants[start : start + size]
        target = dosages[start : start + size]
        piece = target if everybody else buffer[: len(chosen)]
        reader.read_dosages_list(chosen, piece)
        flat = piece.reshape(-1)
        flat[np.flatnonzero(flat == _MISSING)] = np.nan
        if not everybody:
            np.take(piece, rows, axis=1, out=target, mode="clip")  # positions are known to be in the file
    return dosages
