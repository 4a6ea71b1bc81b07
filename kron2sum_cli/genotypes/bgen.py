"""BGEN genotypes (versions 1.2 and 1.3), with a ``.sample`` file beside them or names inside."""

import logging
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.genotypes.bgen_format import (
    BgenHeader,
    BgenRecords,
    collect_records,
    genotype_block,
    read_block,
    read_header,
    walk_records,
)
from kron2sum_cli.genotypes.sample_files import RENAME_DUPLICATE, read_oxford_sample
from kron2sum_cli.genotypes.source import Variants, require_positions
from kron2sum_cli.genotypes.variants import with_two_alleles

logger = logging.getLogger("kron2sum.genotypes")

_QUERY = (
    "SELECT chromosome, position, CASE rsid WHEN '' THEN '.' ELSE rsid END, allele1, COALESCE(allele2, ''), "
    "number_of_alleles, file_start_position, file_start_position + size_in_bytes "
    "FROM Variant ORDER BY file_start_position"
)


@dataclass(frozen=True)
class BgenSource:
    """The genotypes of a BGEN file (a `GenotypeSource`); made by `open_bgen`.

    Attributes
    ----------
    header : BgenHeader
        The beginning of the file.
    starts, ends : NDArray (M,)
        First byte of each of the M variants, and the one behind its last.
    """

    has_dosages: ClassVar[bool] = True
    ploidy: ClassVar[int] = 2

    path: str
    files: tuple[str, ...]
    samples: Samples
    variants: Variants
    header: BgenHeader
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele, the first of the file; see `GenotypeSource.read`.

        Every call opens the file by itself, and decompression lets other threads run.
        """
        require_positions(self, variants, rows)
        dosages = np.empty((len(rows), len(variants)), dtype=np.float32, order="F")
        try:
            with open(self.path, "rb", buffering=0) as file:
                for column, variant in enumerate(variants):
                    start = int(self.starts[variant])
                    record = os.pread(file.fileno(), int(self.ends[variant]) - start, start)
                    dosages[:, column] = self._dosages(record, int(variant)).take(rows)
        except OSError as error:
            raise InputError(f"{self.path} can no longer be read ({error.strerror}); check the path") from None
        return dosages

    def _dosages(self, record: bytes, variant: int) -> NDArray[np.float32]:
        try:
            return read_block(genotype_block(record), self.header.compression, self.header.n_samples)
        except ValueError as error:
            name = self.variants.table["SNPID"][variant].as_py()
            raise InputError(
                f"{self.path}, variant {variant + 1} ({name}): its genotypes are not readable, as {error}; leave "
                "the variant out with --exclude, or write the file again"
            ) from None


def open_bgen(path: str, sample: str | None = None) -> BgenSource:
    """Open a BGEN file of version 1.2 or 1.3 (layout 2).

    Parameters
    ----------
    path : str
        The file. ``.bgen.bgi``, the index of bgenix, is looked for beside it; it saves going through the file.
    sample : str or None
        The file of its samples; by default ``.sample`` in place of ``.bgen`` where there is such a file, else the
        names in the BGEN file itself.

    Returns
    -------
    BgenSource
        EA, the allele that dosages count, is the first of the two alleles of a variant, whichever of them is the
        reference: plink2 writes ALT first unless told ``ref-first``. SNPID is the rsid of the file. Variants with
        more than two alleles are left out, with a warning.

    Raises
    ------
    InputError
        The file is missing, malformed or of another layout, no variant has two alleles, there are no names of
        samples, or the ``.sample`` has another number or order of samples.
    """
    header = read_header(path)
    if not header.n_variants:
        raise InputError(f"{path} has no variant; check the command that wrote it")
    beside = f"{path[:-5] if path.lower().endswith('.bgen') else path}.sample"
    if sample is None and os.path.isfile(beside):
        sample = beside
    samples = _read_samples(header, sample, beside)
    records = read_index(header)
    index = [] if records is None else [index_path(path)]
    if records is None:
        records = walk_records(header)
    two_alleles = records.n_alleles == 2
    variants = with_two_alleles(Variants(records.table, path), two_alleles, "qctool or bcftools norm -m -")
    files = (path, *([sample] if sample is not None else []), *index)
    return BgenSource(path, files, samples, variants, header, records.starts[two_alleles], records.ends[two_alleles])


def index_path(bgen: str) -> str:
    """Where the index of a BGEN file lies, if there is one."""
    return f"{bgen}.bgi"


def read_index(header: BgenHeader) -> BgenRecords | None:
    """Find all variants through the index, which is much faster than through a large file on a slow disk.

    None where there is no index, or where it is older than the file or does not fit it: another number of variants, or
    places that leave gaps or end elsewhere than the file.
    """
    path = index_path(header.path)
    if not os.path.isfile(path):
        return None
    records = None
    if os.path.getmtime(path) >= os.path.getmtime(header.path):
        try:
            with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as connection:
                records = collect_records(connection.execute(_QUERY))
        except (sqlite3.Error, pa.ArrowException, OverflowError, ValueError, TypeError):
            records = None
    if records is None or not _fits(records, header):
        logger.warning(
            "%s: is not used, as it is older than %s or does not fit it; write it again with bgenix -index -clobber -g",
            path,
            header.path,
        )
        return None
    return records


def _fits(records: BgenRecords, header: BgenHeader) -> bool:
    edges = np.concatenate([[header.first_variant], records.ends])
    return (
        len(records.ends) == header.n_variants
        and np.array_equal(edges[:-1], records.starts)
        and int(edges[-1]) == os.path.getsize(header.path)
    )


def _read_samples(header: BgenHeader, sample: str | None, beside: str) -> Samples:
    """The samples of a ``.sample`` file, or those named in the BGEN file itself."""
    if sample is not None:
        samples = read_oxford_sample(sample)
        _refuse_other_samples(header, samples)
        return samples
    if header.iids is None:
        raise InputError(
            f"{header.path} has no names of samples in it, and {beside} is missing; put the .sample file there, or "
            "name it with --sample (for --grm: --grm-id)"
        )
    samples = Samples(None, header.iids, header.path)
    refuse_duplicates(samples, remedy=RENAME_DUPLICATE)
    return samples


def _refuse_other_samples(header: BgenHeader, samples: Samples) -> None:
    if len(samples) != header.n_samples:
        raise InputError(
            f"{header.path} has {header.n_samples} samples, but {samples.source} has {len(samples)}; they do not "
            "belong together"
        )
    if header.iids is None:
        return
    fids = samples.fids or ("0",) * len(samples)
    joined = tuple(f"{fid}_{iid}" for fid, iid in zip(fids, samples.iids, strict=True))
    for names in (samples.iids, joined):
        if names != header.iids and set(names) == set(header.iids):
            first = next(i for i, pair in enumerate(zip(names, header.iids, strict=True)) if pair[0] != pair[1])
            raise InputError(
                f"{samples.source} has the samples of {header.path} in another order: sample {first + 1} is "
                f"{names[first]!r} in the one and {header.iids[first]!r} in the other; use the .sample file that "
                "was written with the BGEN file"
            )
