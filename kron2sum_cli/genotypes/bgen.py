"""BGEN genotypes (versions 1.2 and 1.3), with a ``.sample`` file beside them or names inside."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.genotypes.bgen_format import (
    BATCH_VARIANTS,
    BgenHeader,
    BgenRecords,
    block_of,
    read_block,
    read_header,
    walk_records,
)
from kron2sum_cli.genotypes.sample_files import read_oxford_sample
from kron2sum_cli.genotypes.source import Variants, refuse_positions_outside
from kron2sum_cli.genotypes.variants import table_schema

_QUERY = (
    "SELECT chromosome, position, rsid, allele1, allele2, number_of_alleles, file_start_position, size_in_bytes "
    "FROM Variant ORDER BY file_start_position"
)


def index_path(bgen: str) -> str:
    """Where the index of a BGEN file lies, if there is one."""
    return f"{bgen}.bgi"


def read_index(header: BgenHeader) -> BgenRecords | None:
    """Find all variants through the index, which is much faster than through a large file on a slow disk.

    Parameters
    ----------
    header : of the BGEN file

    Returns
    -------
    The variants; None where there is no index, or where it does not fit the file: another number of
    variants, places that leave gaps or end elsewhere than the file. The same holds where a variant has not
    two alleles, so that going through the file can say which.
    """
    path = index_path(header.path)
    if not os.path.isfile(path):
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as connection:
            return _read(connection, header)
    except (sqlite3.Error, pa.ArrowException, OverflowError, ValueError):
        return None


def _read(connection: sqlite3.Connection, header: BgenHeader) -> BgenRecords | None:
    cursor = connection.execute(_QUERY)
    batches, starts, ends = [], [], []
    while rows := cursor.fetchmany(BATCH_VARIANTS):
        chromosome, position, name, first, second, n_alleles, start, size = zip(*rows, strict=True)
        if set(n_alleles) != {2}:
            return None
        columns = (chromosome, position, [text or "." for text in name], first, second)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, table_schema(), strict=True)]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=table_schema()))
        starts.append(np.array(start, dtype=np.int64))
        ends.append(starts[-1] + np.array(size, dtype=np.int64))
    edges = np.concatenate([[header.first_variant], *ends])
    fits = (
        len(edges) == header.n_variants + 1
        and np.array_equal(edges[:-1], np.concatenate(starts))
        and edges[-1] == os.path.getsize(header.path)
    )
    return BgenRecords(pa.Table.from_batches(batches, table_schema()), edges) if fits else None


@dataclass(frozen=True)
class BgenSource:
    """The genotypes of a BGEN file (a `GenotypeSource`); made by `open_bgen`.

    Attributes
    ----------
    path : the ``.bgen``
    files : the ``.bgen``, and the ``.sample`` and ``.bgi`` that were read
    samples, variants : all of the file, in its order
    header, records : the beginning of the file, and where the variants lie
    """

    path: str
    files: tuple[str, ...]
    samples: Samples
    variants: Variants
    header: BgenHeader
    records: BgenRecords

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele (the first of the file), 0 to 2, NaN where missing.

        Every call opens the file by itself, and decompression lets other threads run.

        Parameters
        ----------
        variants : positions of the variants in the file, increasing
        rows : positions of the samples in the file, in the order wanted

        Returns
        -------
        (len(rows), len(variants)) float32 in Fortran order

        Raises
        ------
        InputError : the file is damaged, or changed since it was opened, or has genotypes of more than two
            copies of a chromosome
        IndexError : a position is not in the file
        """
        refuse_positions_outside(self.samples, self.variants, variants, rows)
        dosages = np.empty((len(rows), len(variants)), dtype=np.float32, order="F")
        edges = self.records.edges
        try:
            with open(self.path, "rb", buffering=0) as file:
                for column, variant in enumerate(variants):
                    start, end = int(edges[variant]), int(edges[variant + 1])
                    record = os.pread(file.fileno(), end - start, start)
                    dosages[:, column] = self._dosages(record, int(variant)).take(rows)
        except OSError as error:
            raise InputError(f"{self.path} can no longer be read ({error.strerror}); check the path") from None
        return dosages

    def _dosages(self, record: bytes, variant: int) -> NDArray[np.float32]:
        try:
            return read_block(block_of(record), self.header.compression, self.header.n_samples)
        except ValueError as error:
            name = self.variants.table["SNPID"][variant].as_py()
            raise InputError(
                f"{self.path}, variant {variant + 1} ({name}): its genotypes are not readable, as {error}; leave "
                "the variant out with --exclude, or write the file again"
            ) from None


def open_bgen(path: str) -> BgenSource:
    """Open a BGEN file of version 1.2 or 1.3 (layout 2).

    Parameters
    ----------
    path : the file. ``.sample`` in place of ``.bgen`` is looked for beside it, and ``.bgen.bgi``, the
        index of bgenix, which saves going through the file and is only used where it fits

    Returns
    -------
    The genotypes. EA, the allele that dosages count, is the first of the two alleles of a variant, whichever
    of them is the reference: plink2 writes ALT first unless told ``ref-first``. SNPID is the rsid of the file.

    Raises
    ------
    InputError : the file is missing, malformed or of another layout, a variant has not two alleles, there
        are no names of samples, or the ``.sample`` has another number or order of samples
    """
    header = read_header(path)
    stem = path[:-5] if path.lower().endswith(".bgen") else path
    sample = f"{stem}.sample"
    companions = [sample] if os.path.isfile(sample) else []
    samples = _samples(header, sample)
    if not header.n_variants:
        raise InputError(f"{path} has no variant; check the command that wrote it")
    records = read_index(header)
    if records is not None:
        companions.append(index_path(path))
    else:
        records = walk_records(header)
    return BgenSource(path, (path, *companions), samples, Variants(records.table, path), header, records)


def _samples(header: BgenHeader, sample: str) -> Samples:
    if os.path.isfile(sample):
        samples = read_oxford_sample(sample)
        _refuse_other_samples(header, samples)
        return samples
    if header.iids is None:
        raise InputError(
            f"{header.path} has no names of samples in it, and {sample} is missing; put the .sample file there"
        )
    samples = Samples(None, header.iids, header.path)
    refuse_duplicates(samples)
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
