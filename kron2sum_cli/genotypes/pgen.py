"""PLINK 2 genotypes: ``.pgen`` with its ``.pvar`` and ``.psam``, through the package Pgenlib."""

import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.sample_files import read_psam
from kron2sum_cli.genotypes.source import SourceOfOneFile, require_positions
from kron2sum_cli.genotypes.variants import read_pvar, with_two_alleles

PVAR_SUFFIXES = (".pvar", ".pvar.zst", ".bim")
PSAM_SUFFIXES = (".psam", ".fam")
"""Where the variants and samples of a ``.pgen`` are looked for, in this order."""

PIECE_BYTES = 1 << 20
"""Dosages of so many bytes are read at once: they stay in the processor's cache until they are in place."""

_MISSING = -9


@dataclass(frozen=True)
class PgenSource(SourceOfOneFile):
    """The genotypes of a PLINK 2 file set (a `GenotypeSource`); made by `open_pgen`.

    ``in_file`` (M,) are positions of the M variants among all of the file, which have ``n_alleles``.
    """

    has_dosages: bool
    in_file: NDArray[np.uint32]
    n_alleles: NDArray[np.integer] = field(repr=False)
    _idle: deque[Any] = field(repr=False, compare=False)

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele (ALT), or hard calls where there is no dosage; see `GenotypeSource.read`.

        A reader of Pgenlib serves one thread at a time, and there are never more of them than calls were made at once.
        All samples are read and those wanted are taken, which is faster than Pgenlib's selection.
        """
        require_positions(self, variants, rows)
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = _open_reader(self.path, self.n_alleles)
        try:
            by_variant = _read_rows(reader, self.in_file[variants], rows, len(self.samples))
        except RuntimeError as error:
            raise InputError(
                f"{self.path} cannot be read in variants {variants[0] + 1} to {variants[-1] + 1} ({error}); "
                "check it with plink2 --validate, and whether another program changed it"
            ) from None
        self._idle.append(reader)
        return by_variant.T


def open_pgen(path: str) -> PgenSource:
    """Open a PLINK 2 file set, and refuse it where its three files cannot belong together.

    Beside the ``.pgen``, under the same name, lie the variants (``.pvar``, ``.pvar.zst`` or ``.bim``) and the samples
    (``.psam`` or ``.fam``). EA, the allele that dosages count, is ALT, and NEA is REF. Variants with several ALT
    alleles are left out, with a warning. Raises InputError where pgenlib is not installed, one of the files is missing
    or malformed, their counts differ, or no variant has two alleles.
    """
    stem = path[:-5] if path.lower().endswith(".pgen") else path
    pvar, psam = _companion(path, stem, PVAR_SUFFIXES), _companion(path, stem, PSAM_SUFFIXES)
    samples, variants = read_psam(psam), read_pvar(pvar)
    reader = _open_reader(path)
    for what, companion, found, expected in (
        ("variants", pvar, len(variants), reader.get_variant_ct()),
        ("samples", psam, len(samples), reader.get_raw_sample_ct()),
    ):
        if found != expected:
            raise InputError(f"{path} has {expected} {what}, but {companion} has {found}; they do not belong together")
    n_alleles = 2 + np.asarray(pc.count_substring(variants.table["EA"], ","))
    if (n_alleles > 2).any():
        reader = _open_reader(path, n_alleles)
    variants = with_two_alleles(
        variants, n_alleles, f"a recent plink2 --pfile {stem} --make-pgen multiallelics=- --out NEW"
    )
    index = (f"{path}.pgi",) if os.path.isfile(f"{path}.pgi") else ()
    in_file = np.flatnonzero(n_alleles == 2).astype(np.uint32)
    files = (path, *index, pvar, psam)
    return PgenSource(path, files, samples, variants, _may_have_dosages(path), in_file, n_alleles, deque([reader]))


def _may_have_dosages(path: str) -> bool:
    """Whether the header leaves room for dosages or phases.

    The third byte is the storage mode: 02 has hard calls only. In mode 10, half of byte 11 says how records are
    described: below 4 in four bits, which only hard calls fit into (plink2's pgen_spec, section 4).
    """
    with open(path, "rb") as file:
        start = file.read(12)
    return start[2] != 0x02 and (start[2] != 0x10 or start[11] & 15 >= 4)


def _companion(path: str, stem: str, suffixes: tuple[str, ...]) -> str:
    names = [stem + suffix for suffix in suffixes]
    for name in names:
        if os.path.isfile(name):
            return name
    what = "variants" if suffixes == PVAR_SUFFIXES else "samples"
    raise InputError(f"{names[0]} is missing; the {what} of {path} are expected beside it")


def _open_reader(path: str, n_alleles: NDArray[np.integer] | None = None) -> Any:
    """A ``PgenReader`` of the package Pgenlib, which is only installed with the extra ``pgen``.

    Before it reads, it must be told the numbers of alleles where some variant has more than two, and does not check how
    many there are unless it is told the number of variants, too.
    """
    try:
        import pgenlib

        if n_alleles is None or (n_alleles == 2).all():
            return pgenlib.PgenReader(os.fsencode(path))
        starts = np.concatenate([[0], np.cumsum(n_alleles)]).astype(np.uintp)
        return pgenlib.PgenReader(os.fsencode(path), variant_ct=len(n_alleles), allele_idx_offsets=starts)
    except RuntimeError as error:
        raise InputError(
            f"{path} cannot be opened as a .pgen ({error}); check the path, and the file with plink2 --validate"
        ) from None
    except ImportError:
        stem = path.removesuffix(".pgen")
        raise InputError(
            f"{path}: the package Pgenlib reads .pgen files, and it is not installed; run: pip install "
            "'kron2sum-cli[pgen]'. Where there is none for this Python, convert the file (dosages become hard "
            f"calls): plink2 --pfile {stem} --make-bed --out {stem}"
        ) from None


def _read_rows(
    reader: Any, variants: NDArray[np.uint32], rows: NDArray[np.intp], n_samples: int
) -> NDArray[np.float32]:
    """(len(variants), len(rows)) dosages in C order."""
    dosages = np.empty((len(variants), len(rows)), dtype=np.float32)
    size = max(1, PIECE_BYTES // (4 * n_samples))
    buffer = np.empty((size, n_samples), dtype=np.float32)
    for start in range(0, len(variants), size):
        wanted = variants[start : start + size]
        piece = buffer[: len(wanted)]
        reader.read_dosages_list(wanted, piece)
        piece[piece == _MISSING] = np.nan
        np.take(piece, rows, axis=1, out=dosages[start : start + size], mode="clip")  # rows are known to be there
    return dosages
