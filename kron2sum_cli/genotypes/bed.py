"""PLINK 1 genotypes: ``.bed`` with its ``.bim`` and ``.fam``.

Every byte of a variant has the genotypes of four samples, which one look into a table of 256 rows decodes. That takes
a fifth of the time of the bed-reader library, which for 1,200 samples takes a ninth of that of their rotation; the
tests compare with it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader, FileIO

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.genotypes.sample_files import read_fam
from kron2sum_cli.genotypes.source import PLINK, SAMPLE_MAJOR, VARIANT_MAJOR, Variants, refuse_positions_outside
from kron2sum_cli.genotypes.variants import read_bim

HEADER_BYTES = 3

CHECKED_WHOLE_BYTES = 64 << 20
"""Up to this size the last byte of every variant is checked when a file is opened."""
CHECKED_VARIANTS = 4096
"""Of larger files so many variants, evenly spread: one page of the disk each. The others are checked when
they are read."""
FEWEST_FOR_SURPLUS = 100
"""From so many variants on, a sample that is homozygous for allele 1 in all of them is taken for padding."""

_PAGE_BYTES = 4096
_STRETCH_BYTES = 1 << 20
_DECODED_BYTES = 1 << 16
"""Bytes of the file that are read and decoded at once: 1 MiB of dosages, for the cache."""

_GAP_BYTES = 1 << 14
"""Bytes between two variants that are rather read than passed over."""

_CODES = np.array([2, np.nan, 1, 0], dtype=np.float32)
"""Copies of allele 1 for the codes 00, 01 (missing), 10 and 11."""
_DOSAGES_OF_BYTE = _CODES[np.arange(256)[:, None] >> np.arange(0, 8, 2) & 3]
"""(256, 4) dosages of the samples of a byte, the first in its lowest bits."""


@dataclass(frozen=True)
class BedLayout:
    """Where the genotypes of a variant-major ``.bed`` lie: two bits a sample, whole bytes a variant.

    Attributes
    ----------
    path : the file
    n_samples, n_variants : what its ``.fam`` and ``.bim`` say
    """

    path: str
    n_samples: int
    n_variants: int

    @property
    def record_bytes(self) -> int:
        """Bytes of one variant."""
        return -(-self.n_samples // 4)

    @property
    def expected_bytes(self) -> int:
        """Bytes of the whole file."""
        return HEADER_BYTES + self.record_bytes * self.n_variants

    @property
    def in_last_byte(self) -> int:
        """How many samples share the last byte of a variant, 1 to 4."""
        return self.n_samples - 4 * (self.record_bytes - 1)

    def last_bytes(self, variants: NDArray[np.intp]) -> NDArray[np.uint8]:
        """The last byte of each of these variants (increasing positions), (len(variants),) uint8."""
        if not len(variants):
            return np.zeros(0, dtype=np.uint8)
        if self.record_bytes <= _PAGE_BYTES and variants[-1] - variants[0] < 4 * len(variants):
            return np.concatenate([records[:, -1].copy() for _, records in self.stretches(variants, _STRETCH_BYTES)])
        try:
            with open(self.path, "rb", buffering=0) as file:
                return np.array([self._last_byte(file, variant) for variant in variants], np.uint8)
        except (OSError, IndexError):
            raise self._unreadable(variants) from None

    def stretches(self, variants: NDArray[np.intp], size: int) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """All bytes of these variants (increasing positions), about ``size`` at once: which, and their records."""
        if not len(variants):
            return
        step = max(size // self.record_bytes, 1)
        try:
            with open(self.path, "rb") as file:
                for start in range(0, len(variants), step):
                    part = slice(start, start + step)
                    yield part, self._records(file, variants[part])
        except OSError:
            raise self._unreadable(variants) from None

    def _records(self, file: BufferedReader, variants: NDArray[np.intp]) -> NDArray[np.uint8]:
        parts = []
        far = 1 + _GAP_BYTES // self.record_bytes
        for run in np.split(variants, np.flatnonzero(np.diff(variants) > far) + 1):
            first, span = int(run[0]), int(run[-1] - run[0]) + 1
            content = np.empty(span * self.record_bytes, np.uint8)
            file.seek(HEADER_BYTES + first * self.record_bytes)
            if file.readinto(content.data) != len(content):
                raise self._unreadable(run)
            part = content.reshape(span, self.record_bytes)
            parts.append(part if (np.diff(run) == 1).all() else part.take(run - first, axis=0))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _unreadable(self, variants: NDArray[np.intp]) -> InputError:
        return InputError(
            f"{self.path} can no longer be read at variant {variants[0] + 1} to {variants[-1] + 1}; "
            "did another program change it?"
        )

    def _last_byte(self, file: FileIO, variant: int) -> int:
        file.seek(HEADER_BYTES + (int(variant) + 1) * self.record_bytes - 1)
        return file.read(1)[0]


@dataclass(frozen=True)
class BedSource:
    """The genotypes of a PLINK 1 file set (a `GenotypeSource`); made by `open_bed`.

    Attributes
    ----------
    path : the ``.bed``
    files : the ``.bed``, ``.bim`` and ``.fam``
    samples, variants : all of the file, in its order
    layout : where the genotypes lie in the ``.bed``
    """

    path: str
    files: tuple[str, ...]
    samples: Samples
    variants: Variants
    layout: BedLayout

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele, 0 to 2, NaN where missing.

        Every call opens the file by itself, so that several threads may read at once.

        Parameters
        ----------
        variants : positions of the variants in the file, increasing
        rows : positions of the samples in the file, in the order wanted

        Returns
        -------
        (len(rows), len(variants)) float32 in Fortran order

        Raises
        ------
        InputError : the file changed since it was opened, or has data behind its last sample
        IndexError : a position is not in the file
        """
        refuse_positions_outside(self.samples, self.variants, variants, rows)
        places = _places(rows, self.layout.record_bytes)
        dosages = np.empty((len(variants), len(rows)), np.float32)
        for part, records in self.layout.stretches(variants, _DECODED_BYTES):
            _refuse_missing_samples(self.layout, records[:, -1], self.files[2])
            places.decode(records, dosages[part])
        return dosages.T


@dataclass(frozen=True)
class _Places:
    """Where the genotypes of some samples are in the bytes of a variant.

    Attributes
    ----------
    used : (k,) positions of the bytes that have any of them; None for all bytes
    columns : (n,) position of each sample among the 4k genotypes of those bytes; None for the first n
    """

    used: NDArray[np.intp] | None
    columns: NDArray[np.intp] | None

    def decode(self, records: NDArray[np.uint8], dosages: NDArray[np.float32]) -> None:
        """Write the dosages (b, n) of these samples in the records (b, record_bytes) of variants."""
        if self.used is not None:
            records = records.take(self.used, axis=1)
        of_all = _DOSAGES_OF_BYTE.take(records, axis=0).reshape(len(records), -1)
        if self.columns is None:
            dosages[:] = of_all[:, : dosages.shape[1]]
        else:
            of_all.take(self.columns, axis=1, out=dosages, mode="clip")  # unlike "raise", straight into the output


def _places(rows: NDArray[np.intp], record_bytes: int) -> _Places:
    """Where samples are, given their positions in the file."""
    byte, within = np.divmod(rows, 4)
    has_any = np.zeros(record_bytes, dtype=np.bool_)
    has_any[byte] = True
    columns = 4 * (np.cumsum(has_any) - 1)[byte] + within
    in_order = np.array_equal(columns, np.arange(len(rows)))
    return _Places(None if has_any.all() else np.flatnonzero(has_any), None if in_order else columns)


def open_bed(path: str) -> BedSource:
    """Open a PLINK 1 file set, and refuse it where its three files cannot belong together.

    Parameters
    ----------
    path : the ``.bed``; its ``.bim`` and ``.fam`` lie beside it under the same name

    Returns
    -------
    The genotypes. EA, the allele that dosages count, is the first allele of the ``.bim``.

    Raises
    ------
    InputError : one of the files is missing or malformed, the magic number is wrong, the size of the
        ``.bed`` does not fit the other two, or the last byte of its variants shows that the ``.fam`` has
        one to three lines too few or too many
    """
    stem = path[:-4] if path.lower().endswith(".bed") else path
    bim, fam = f"{stem}.bim", f"{stem}.fam"
    _check_magic(path)
    for companion in (bim, fam):
        if not os.path.isfile(companion):
            raise InputError(f"{companion} is missing; the samples and variants of {path} are expected beside it")
    samples, variants = read_fam(fam), read_bim(bim)
    layout = BedLayout(path, len(samples), len(variants))
    _check_size(layout, bim, fam)
    _check_last_samples(layout, samples)
    return BedSource(path, (path, bim, fam), samples, variants, layout)


def _check_magic(path: str) -> None:
    try:
        with open(path, "rb") as file:
            start = file.read(HEADER_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from None
    if start == PLINK + SAMPLE_MAJOR:
        raise InputError(
            f"{path} is in sample-major order; write it in variant-major order with: "
            "plink1.9 --bfile OLD --make-bed --out NEW"
        )
    if start != PLINK + VARIANT_MAJOR:
        raise InputError(
            f"{path} is not a PLINK 1 .bed: it starts with the bytes {start.hex(' ') or '(none)'}, "
            f"not {(PLINK + VARIANT_MAJOR).hex(' ')}; check the path, or make it with plink2 --make-bed"
        )


def _check_size(layout: BedLayout, bim: str, fam: str) -> None:
    found = os.path.getsize(layout.path)
    if found == layout.expected_bytes:
        return
    genotype_bytes = found - HEADER_BYTES
    n_variants, rest = divmod(genotype_bytes, layout.record_bytes)
    variants = "no whole number of" if rest else f"{n_variants}"
    record_bytes, rest = divmod(genotype_bytes, layout.n_variants)
    samples = "no number of" if rest or not record_bytes else f"{4 * record_bytes - 3} to {4 * record_bytes}"
    raise InputError(
        f"{layout.path} has {found} bytes, but {layout.n_samples} samples in {fam} and {layout.n_variants} "
        f"variants in {bim} make {layout.expected_bytes}: it would fit {variants} variants with these "
        f"samples, or {samples} samples with these variants; the .bed is cut short, or the three files do "
        "not belong together"
    )


def _check_last_samples(layout: BedLayout, samples: Samples) -> None:
    """Look for a ``.fam`` that has one to three lines too few or too many, which the size cannot show."""
    if layout.expected_bytes <= CHECKED_WHOLE_BYTES:
        checked = np.arange(layout.n_variants)
    else:
        checked = np.unique(np.linspace(0, layout.n_variants - 1, CHECKED_VARIANTS).astype(np.intp))
    last_bytes = layout.last_bytes(checked)
    _refuse_missing_samples(layout, last_bytes, samples.source)
    if len(checked) >= FEWEST_FOR_SURPLUS:
        _refuse_surplus_samples(layout, last_bytes, samples)


def _refuse_missing_samples(layout: BedLayout, last_bytes: NDArray[np.uint8], fam: str) -> None:
    """The bits behind the last sample are 0 in a sound file."""
    used = int(np.bitwise_or.reduce(last_bytes, initial=0)) >> 2 * layout.in_last_byte
    if used:
        surplus = -(-used.bit_length() // 2)
        raise InputError(
            f"{layout.path} has genotypes of at least {layout.n_samples + surplus} samples, but {fam} "
            f"has {layout.n_samples} lines; find the lines that are missing there (or the .bed is damaged)"
        )


def _refuse_surplus_samples(layout: BedLayout, last_bytes: NDArray[np.uint8], samples: Samples) -> None:
    """Bits of padding read as homozygous for allele 1, which no real sample is everywhere."""
    used = int(np.bitwise_or.reduce(last_bytes))
    # The first sample of the byte must exist, else the file would be shorter.
    surplus = layout.in_last_byte - max(1, -(-used.bit_length() // 2))
    if surplus:
        labels = ", ".join(samples.label(layout.n_samples - i) for i in range(surplus, 0, -1))
        raise InputError(
            f"{layout.path}: the last {surplus} samples of {samples.source} ({labels}) are homozygous for "
            f"allele 1 in all {len(last_bytes)} variants checked, as if they were not in the .bed; find the "
            "lines that are too many in the .fam (or remove these samples from the file set with plink)"
        )
