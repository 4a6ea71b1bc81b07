"""PLINK 1 genotypes: ``.bed`` with its ``.bim`` and ``.fam``."""

import os
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import bed_reader
import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.bim import read_bim
from kron2sum_cli.genotypes.fam import read_fam
from kron2sum_cli.genotypes.signatures import PLINK, SAMPLE_MAJOR, VARIANT_MAJOR
from kron2sum_cli.genotypes.source import Variants, refuse_positions_outside
from kron2sum_cli.tables.samples import Samples

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
        first, span = int(variants[0]), int(variants[-1]) - int(variants[0]) + 1
        try:
            with open(self.path, "rb", buffering=0) as file:
                if self.record_bytes <= _PAGE_BYTES and span <= 4 * len(variants):
                    return self._last_bytes_of_run(file, first, span).take(variants - first)
                return np.array([self._last_byte(file, variant) for variant in variants], np.uint8)
        except (OSError, ValueError, IndexError):
            raise InputError(
                f"{self.path} can no longer be read at variant {first + 1} to {first + span}; "
                "did another program change it?"
            ) from None

    def _last_bytes_of_run(self, file: FileIO, first: int, count: int) -> NDArray[np.uint8]:
        """The last byte of each of consecutive variants, of which a stretch is read at a time."""
        ends = np.empty(count, np.uint8)
        file.seek(HEADER_BYTES + first * self.record_bytes)
        step = max(_STRETCH_BYTES // self.record_bytes, 1)
        for start in range(0, count, step):
            part = ends[start : start + step]
            records = np.fromfile(file, np.uint8, len(part) * self.record_bytes)
            part[:] = records.reshape(len(part), self.record_bytes)[:, -1]
        return ends

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
    _reader: bed_reader.open_bed = field(repr=False, compare=False)

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele, 0 to 2, NaN where missing.

        Every call opens the file by itself, so that several threads may read at once. bed-reader says
        nothing of bits that are set behind the last sample, so they are looked at here.

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
        _refuse_missing_samples(self.layout, self.layout.last_bytes(variants), self.files[2])
        # Given the counts, bed-reader never parses the .fam and .bim.
        dosages: NDArray[np.float32] = self._reader.read((rows, variants), dtype="float32", order="F", num_threads=1)
        return dosages


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
    reader = bed_reader.open_bed(
        Path(path), iid_count=len(samples), sid_count=len(variants), num_threads=1, skip_format_check=True
    )
    return BedSource(path, (path, bim, fam), samples, variants, layout, reader)


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
