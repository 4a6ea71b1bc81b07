"""PLINK 1 genotypes: ``.bed`` with its ``.bim`` and ``.fam``, through the package bed-reader."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

import bed_reader
import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.genotypes.sample_files import read_fam
from kron2sum_cli.genotypes.source import (
    PLINK,
    SAMPLE_MAJOR,
    VARIANT_MAJOR,
    SourceOfOneFile,
    Variants,
    require_positions,
)
from kron2sum_cli.genotypes.variants import read_bim

HEADER_BYTES = 3

CHECKED_VARIANTS = 1000
"""The unused bits of so many variants, evenly spread over the file, are checked when it is opened."""


@dataclass(frozen=True)
class BedSource(SourceOfOneFile):
    """The genotypes of a PLINK 1 file set (a `GenotypeSource`); made by `open_bed`."""

    has_dosages: ClassVar[bool] = False

    _reader: bed_reader.open_bed = field(repr=False, compare=False)

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele; see `GenotypeSource.read`."""
        require_positions(self, variants, rows)
        try:
            dosages: NDArray[np.float32] = self._reader.read((rows, variants), dtype="float32", order="F")
        except (OSError, ValueError):
            raise InputError(
                f"{self.path} can no longer be read at variant {variants[0] + 1} to {variants[-1] + 1}; "
                "did another program change it?"
            ) from None
        return dosages


def open_bed(path: str, bim: str | None = None, fam: str | None = None) -> BedSource:
    """Open a PLINK 1 file set, and refuse it where its three files cannot belong together.

    EA, the allele that dosages count, is the first allele of the ``.bim``. The ``.bim`` and ``.fam`` that are not given
    lie beside the ``.bed`` under the same name. Raises InputError where one of the files is missing or malformed, or
    the size of the ``.bed`` does not fit the other two.
    """
    stem = path[:-4] if path.lower().endswith(".bed") else path
    bim, fam = bim or f"{stem}.bim", fam or f"{stem}.fam"
    order = _read_order(path)
    for option, companion in (("--bim", bim), ("--fam", fam)):
        if not os.path.isfile(companion):
            raise InputError(
                f"{companion} is missing; the samples and variants of {path} are expected beside it (scan and export"
                f" also take {option} FILE)"
            )
    samples, variants = read_fam(fam), read_bim(bim)
    if order == VARIANT_MAJOR:
        _check_size(path, samples, variants)
        _check_unused_bits(path, samples, len(variants))
    elif (expected := HEADER_BYTES + -(-len(variants) // 4) * len(samples)) != os.path.getsize(path):
        raise InputError(
            f"{path} has {os.path.getsize(path)} bytes, but {bim} and {fam} make {expected} of genotypes sample by"
            " sample; the .bed is cut short, or the three files do not belong together"
        )
    reader = bed_reader.open_bed(
        path, iid_count=len(samples), sid_count=len(variants), properties={}, num_threads=1, skip_format_check=True
    )
    return BedSource(path, (path, bim, fam), samples, variants, reader)


def _read_order(path: str) -> bytes:
    """The third byte of a ``.bed``: whether it goes by variant or by sample."""
    try:
        with open(path, "rb") as file:
            start = file.read(HEADER_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from None
    if not start:
        raise InputError(f"{path} is empty; check the command that wrote it, or copy it again")
    if start not in (PLINK + VARIANT_MAJOR, PLINK + SAMPLE_MAJOR):
        raise InputError(
            f"{path} is not a PLINK 1 .bed: it starts with the bytes {start.hex(' ')}, "
            f"not {(PLINK + VARIANT_MAJOR).hex(' ')}; check the path, or make it with plink2 --make-bed"
        )
    return start[2:]


def _check_size(path: str, samples: Samples, variants: Variants) -> None:
    """Refuse a ``.bed`` of another size than its samples and variants make."""
    n, m, found = len(samples), len(variants), os.path.getsize(path)
    variant_bytes = -(-n // 4)
    expected = HEADER_BYTES + variant_bytes * m
    if found == expected:
        return
    fitting, rest = divmod(found - HEADER_BYTES, variant_bytes)
    n_variants = "no whole number of" if rest else f"{fitting}"
    fitting, rest = divmod(found - HEADER_BYTES, m)
    n_samples = "no number of" if rest or not fitting else f"{4 * fitting - 3} to {4 * fitting}"
    raise InputError(
        f"{path} has {found} bytes, but {n} samples in {samples.source} and {m} variants in {variants.source} make "
        f"{expected}: it would fit {n_variants} variants with these samples, or {n_samples} samples with these "
        "variants; the .bed is cut short, or the three files do not belong together"
    )


def _check_unused_bits(path: str, samples: Samples, n_variants: int) -> None:
    """Refuse a ``.fam`` that lacks one to three samples, which the size cannot show.

    A variant takes whole bytes of four samples each; PLINK writes 0 behind the last sample.
    """
    n = len(samples)
    genotypes = np.memmap(path, np.uint8, "r", offset=HEADER_BYTES, shape=(n_variants, -(-n // 4)))
    last_bytes = genotypes[:: max(n_variants // CHECKED_VARIANTS, 1), -1]
    if n % 4 and (last_bytes >> 2 * (n % 4)).any():
        raise InputError(
            f"{path} has genotypes of more samples than the {n} lines of {samples.source}; find the lines that are "
            "missing there (or the .bed is damaged)"
        )
