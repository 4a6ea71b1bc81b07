"""Genotypes that lie in several files, such as one a chromosome, as one data set; and those of polyploids."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples, match
from kron2sum_cli.genotypes.chromosomes import encode_chromosomes
from kron2sum_cli.genotypes.source import GenotypeSource, Variants, require_positions

logger = logging.getLogger("kron2sum.genotypes")


ROUNDING = np.float32(1e-6)
"""Difference from a whole number that comes from rounding a dosage in single precision."""


@dataclass(frozen=True)
class SeveralFiles:
    """The genotypes of files with the same samples (a `GenotypeSource`); made by `join_files`.

    Variants of the ``sources`` follow one another, samples are in the order of the first file, and ``rows`` (n,) say
    where they are in each. ``ploidy`` is how many copies of a chromosome every sample has, to which dosages of 0 to 2
    in the files are stretched.
    """

    sources: tuple[GenotypeSource, ...]
    rows: tuple[NDArray[np.intp], ...]
    samples: Samples
    variants: Variants
    ploidy: int = 2

    @property
    def path(self) -> str:
        """The files, for messages."""
        return self.variants.source

    @property
    def files(self) -> Sequence[str]:
        """Every file that belongs to one of them, each once."""
        return tuple(dict.fromkeys(file for source in self.sources for file in source.files))

    @property
    def has_dosages(self) -> bool:
        """Whether one of the files may have genotypes other than 0, 1 and 2."""
        return any(source.has_dosages for source in self.sources)

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele; see `GenotypeSource.read`."""
        require_positions(self, variants, rows)
        dosages = np.empty((len(rows), len(variants)), dtype=np.float32, order="F")
        first = 0
        for source, rows_of_source in zip(self.sources, self.rows, strict=True):
            behind = first + len(source.variants)
            columns = slice(*np.searchsorted(variants, (first, behind)))
            if columns.start < columns.stop:
                dosages[:, columns] = source.read(variants[columns] - first, rows_of_source[rows])
            first = behind
        if self.ploidy == 2:
            return dosages
        dosages *= np.float32(self.ploidy / 2)
        whole = np.rint(dosages)
        # A third of 2 copies is rounded, and three of them are no whole number again.
        return np.where(np.abs(dosages - whole) < ROUNDING, whole, dosages)


def join_files(sources: Sequence[GenotypeSource], ploidy: int = 2) -> SeveralFiles:
    """Put genotype files of the same samples, in any order, together.

    Variants that are in more than one file are all kept, and counted in a warning. Raises InputError where a file lacks
    a sample of another.
    """
    samples = sources[0].samples
    rows = [np.arange(len(samples)), *(_rows_in(source, sources[0]) for source in sources[1:])]
    for number, source in enumerate(sources[1:], 1):
        for earlier in sources[:number]:
            _warn_of_duplicates(source.variants, earlier.variants)
    table = pa.concat_tables([source.variants.table for source in sources])
    more = len(sources) - 1
    names = sources[0].path + (f" and {more} more file{'s' * (more > 1)}" if more else "")
    left_out = frozenset[str]().union(*(source.variants.left_out for source in sources))
    return SeveralFiles(tuple(sources), tuple(rows), samples, Variants(table, names, left_out), ploidy)


def _rows_in(source: GenotypeSource, first: GenotypeSource) -> NDArray[np.intp]:
    """Where the samples of the first file are in another."""
    for of, other in ((first, source), (source, first)):
        positions = match(of.samples, other.samples)
        absent = np.flatnonzero(positions < 0)
        if len(absent):
            labels = ", ".join(f"'{of.samples.label(int(i))}'" for i in absent[:3])
            raise InputError(
                f"{other.path} lacks {len(absent)} of the {len(of.samples)} samples of {of.path}: {labels}"
                f"{', ...' if len(absent) > 3 else ''}; files that are one data set have the same samples, in any "
                "order: make them the same (plink2 --keep), or scan the files one by one"
            )
    return match(first.samples, source.samples)


def _warn_of_duplicates(variants: Variants, earlier: Variants) -> None:
    """Say which variants of a file are also in an earlier one: same chromosome, position, name and alleles."""
    if not set(encode_chromosomes(variants.table["CHR"])[0]) & set(encode_chromosomes(earlier.table["CHR"])[0]):
        return
    same_name = pc.is_in(variants.table["SNPID"], value_set=earlier.table["SNPID"])
    candidates = variants.table.filter(same_name).to_pylist()
    if not candidates:
        return
    names = pa.array({row["SNPID"] for row in candidates}, pa.string())
    keys = {tuple(row.values()) for row in earlier.table.filter(pc.is_in(earlier.table["SNPID"], names)).to_pylist()}
    duplicates = [row for row in candidates if tuple(row.values()) in keys]
    if duplicates:
        first = duplicates[0]
        logger.warning(
            "%d variants of %s are also in %s, first %r at %s:%d; all are kept, so that each is tested twice: leave one"
            " of the files out if that is not meant",
            len(duplicates),
            variants.source,
            earlier.source,
            first["SNPID"],
            first["CHR"],
            first["POS"],
        )
