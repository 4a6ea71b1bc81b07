"""BGEN genotypes (versions 1.2 and 1.3), with a ``.sample`` file beside them or names inside.

Specification: https://www.chg.ox.ac.uk/~gav/bgen_format/spec/v1.2.html
"""

import io
import itertools
import logging
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.genotypes.sample_files import RENAME_DUPLICATE, read_oxford_sample
from kron2sum_cli.genotypes.source import BGEN, BGEN_AT, VARIANT_SCHEMA, SourceOfOneFile, Variants, require_positions
from kron2sum_cli.genotypes.variants import with_two_alleles

logger = logging.getLogger("kron2sum.genotypes")

Compression = Literal["none", "zlib", "zstd"]

BATCH_VARIANTS = 1 << 16
"""So many variants at a time are turned into Arrow arrays, which need a tenth of the memory of lists."""

_COMPRESSIONS: dict[int, Compression] = {0: "none", 1: "zlib", 2: "zstd"}
_LAYOUT = 2
_HAS_IDS = 1 << 31
_MISSING_BIT = 0x80
_PLOIDY_BITS = 0x3F
_FIXED_BYTES = 10
"""Bytes of an uncompressed block beside the ploidies and the probabilities."""
_MOST_BITS = 32
_EXACT_IN_SINGLE_BITS = 16
"""Up to so many bits a probability, sums of three of them are exact in single precision."""


@dataclass(frozen=True)
class BgenHeader:
    """The beginning of a BGEN file.

    The numbers are what it says that it has; ``first_variant`` is where the first variant begins, in bytes, and
    ``iids`` are names of the samples, where there are some.
    """

    path: str
    n_samples: int
    n_variants: int
    compression: Compression
    first_variant: int
    iids: tuple[str, ...] | None


@dataclass(frozen=True)
class BgenRecords:
    """Where the M variants of a BGEN file lie, and what they are.

    The table has the columns of `VARIANT_SCHEMA`, M rows; EA is the first allele, NEA the second. ``starts`` and
    ``ends`` (M,) are the first byte of each variant, and the one behind its last.
    """

    table: pa.Table
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    n_alleles: NDArray[np.int64]


@dataclass(frozen=True)
class VariantIdentity:
    """What stands before the genotypes of a variant.

    Its names are chromosome, position, name, first allele and second allele, empty where there is none.
    """

    names: tuple[bytes, int, bytes, bytes, bytes]
    n_alleles: int
    block_bytes: int


def collect_records(rows: Iterator[tuple[Any, ...]]) -> BgenRecords:
    """Put variants together from their chromosome, position, name, two alleles, number of alleles, start and end.

    Raises pyarrow.ArrowInvalid where a name is not UTF-8.
    """
    batches, numbers = [], [np.zeros((3, 0), np.int64)]
    while batch := list(itertools.islice(rows, BATCH_VARIANTS)):
        columns = list(zip(*batch, strict=True))
        arrays = [pa.array(column, field.type) for column, field in zip(columns[:5], VARIANT_SCHEMA, strict=True)]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=VARIANT_SCHEMA))
        numbers.append(np.array(columns[5:], dtype=np.int64))
    n_alleles, starts, ends = np.concatenate(numbers, axis=1)
    return BgenRecords(pa.Table.from_batches(batches, VARIANT_SCHEMA), starts, ends, n_alleles)


def read_header(path: str) -> BgenHeader:
    """Read the beginning of a BGEN file.

    Raises InputError where the file cannot be read, is not BGEN, or has another layout than 2 (BGEN 1.2 and 1.3).
    """
    try:
        with open(path, "rb") as file:
            return _parse_header(file, path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from None
    except (struct.error, UnicodeDecodeError):
        raise InputError(f"{path} ends within its header or is damaged there; copy the file again") from None


def _parse_header(file: BinaryIO, path: str) -> BgenHeader:
    offset, header_bytes, n_variants, n_samples = struct.unpack("<4I", file.read(BGEN_AT))
    if file.read(len(BGEN)) != BGEN:
        raise InputError(f"{path} is not BGEN: its bytes 17 to 20 are not 'bgen'; check the path")
    file.seek(header_bytes)
    (flags,) = struct.unpack("<I", file.read(4))
    layout, compression = flags >> 2 & 15, _COMPRESSIONS.get(flags & 3)
    if layout != _LAYOUT or compression is None:
        raise InputError(
            f"{path} has BGEN layout {layout} and compression {flags & 3}; layout 2 (BGEN 1.2 and 1.3) is read. "
            "Convert it: plink2 --bgen OLD ref-first --sample OLD.sample --export bgen-1.2 ref-first --out NEW"
        )
    iids = None
    if flags & _HAS_IDS:
        _, n_names = struct.unpack("<2I", file.read(8))
        if n_names != n_samples:
            raise InputError(f"{path} is damaged: it has {n_samples} samples, but {n_names} names of samples")
        iids = tuple(_read_text(file, "<H").decode() for _ in range(n_samples))
    return BgenHeader(path, n_samples, n_variants, compression, offset + 4, iids)


def walk_records(header: BgenHeader) -> BgenRecords:
    """Find all variants by going through the file from one to the next.

    Raises InputError where the file cannot be read, or is cut short or damaged.
    """
    try:
        records = collect_records(_walk(header))
    except pa.ArrowInvalid:
        raise InputError(f"{header.path} has names of variants that are not UTF-8; is the file damaged?") from None
    surplus = os.path.getsize(header.path) - int(records.ends[-1])
    if surplus:
        raise InputError(
            f"{header.path} has {surplus} bytes behind the last of the {header.n_variants} variants in its header; "
            "write the file again"
        )
    return records


def _walk(header: BgenHeader) -> Iterator[tuple[Any, ...]]:
    """Rows for `collect_records`."""
    size, start = os.path.getsize(header.path), header.first_variant
    with open(header.path, "rb", buffering=512) as file:
        for number in range(1, header.n_variants + 1):
            file.seek(start)
            try:
                identity = read_identity(file)
                end = file.tell() + identity.block_bytes
                if end > size:
                    raise struct.error
            except struct.error:
                raise InputError(
                    f"{header.path} is cut short or damaged in variant {number} of {header.n_variants} (byte {start} "
                    f"of {size}); copy the file again"
                ) from None
            yield (*identity.names, identity.n_alleles, start, end)
            start = end


def read_identity(file: BinaryIO) -> VariantIdentity:
    """Read what identifies a variant, up to its genotypes.

    Raises struct.error where the file ends too early.
    """
    _read_text(file, "<H")  # a second name
    name, chromosome = _read_text(file, "<H"), _read_text(file, "<H")
    position, n_alleles = struct.unpack("<IH", file.read(6))
    alleles = [_read_text(file, "<I") for _ in range(n_alleles)] + [b"", b""]
    (block_bytes,) = struct.unpack("<I", file.read(4))
    return VariantIdentity((chromosome, position, name or b".", alleles[0], alleles[1]), n_alleles, block_bytes)


def _read_text(file: BinaryIO, length: str) -> bytes:
    """A text behind its length."""
    (size,) = struct.unpack(length, file.read(struct.calcsize(length)))
    text = file.read(size)
    if len(text) < size:
        raise struct.error
    return text


def genotype_block(record: bytes) -> bytes:
    """The genotypes of a variant, without what stands before them.

    Raises ValueError where the bytes are not those of one variant.
    """
    file = io.BytesIO(record)
    try:
        identity = read_identity(file)
    except struct.error:
        raise ValueError("the file ends there") from None
    if file.tell() + identity.block_bytes != len(record):
        raise ValueError("the file was changed after it was opened")
    return record[file.tell() :]


def read_block(block: bytes, compression: Compression, n_samples: int) -> NDArray[np.float32]:
    """Dosages of the first allele (n_samples,) from one genotype block, NaN where missing.

    A diploid genotype counts its expected copies, 0 to 2. One of z copies of the chromosome counts 2/z times: a haploid
    one 0 or 2 where it is certain, as plink2 stores it. A sample with ploidy 0 (a woman on chromosome Y, as plink2
    writes it) is missing. Raises ValueError where the block is damaged; it says what.
    """
    data = block if compression == "none" else _decompress(block, compression, n_samples)
    if len(data) < _FIXED_BYTES + n_samples:
        raise ValueError(f"it has {len(data)} bytes, too few for {n_samples} samples")
    found = int.from_bytes(data[:4], "little")
    if found != n_samples:
        raise ValueError(f"it has {found} samples, and the file {n_samples}")
    ploidy = np.frombuffer(data, np.uint8, n_samples, offset=8)
    phased, bits = data[8 + n_samples], data[9 + n_samples]
    if not 1 <= bits <= _MOST_BITS or phased > 1:
        raise ValueError(f"it claims {bits} bits a probability and {phased} as a sign of phase")
    if ((ploidy & _PLOIDY_BITS) == 2).all():
        dosages = _diploid(_probabilities(data, 2 * n_samples, n_samples, bits), bool(phased), bits)
    else:
        dosages = _any_ploidy(data, ploidy & _PLOIDY_BITS, bool(phased), bits)
    dosages[ploidy >= _MISSING_BIT] = np.nan
    return dosages


def _decompress(block: bytes, compression: Compression, n_samples: int) -> bytes:
    size = int.from_bytes(block[:4], "little")
    if len(block) < 4 or size > _FIXED_BYTES + n_samples + _PLOIDY_BITS * n_samples * _MOST_BITS // 8:
        raise ValueError(f"it claims {size} bytes, more than the probabilities of {n_samples} samples can take")
    try:
        if compression == "zlib":
            data = zlib.decompress(block[4:], bufsize=max(size, 1))
        else:
            data = pa.decompress(block[4:], size, codec="zstd", asbytes=True)
    except (zlib.error, OSError, pa.ArrowException) as error:
        raise ValueError(f"it cannot be decompressed ({error})") from None
    if len(data) != size:
        raise ValueError(f"it has {len(data)} bytes decompressed, not {size}")
    return data


def _probabilities(data: bytes, number: int, n_samples: int, bits: int) -> NDArray[Any]:
    """The whole numbers that stand for probabilities, of 2**bits - 1."""
    start = _FIXED_BYTES + n_samples
    if len(data) - start != -(-number * bits // 8):
        raise ValueError(f"it has {len(data) - start} bytes for {number} probabilities of {bits} bits")
    if bits in (8, 16, 32):
        return np.frombuffer(data, f"<u{bits // 8}", number, offset=start)
    single = np.unpackbits(np.frombuffer(data, np.uint8, offset=start), count=number * bits, bitorder="little")
    padded = np.zeros((number, _MOST_BITS), dtype=np.uint8)
    padded[:, :bits] = single.reshape(number, bits)
    return np.packbits(padded, axis=1, bitorder="little").view("<u4").reshape(number)


def _diploid(stored: NDArray[Any], phased: bool, bits: int) -> NDArray[np.float32]:
    """Unphased: P(two copies), P(one copy) of each sample. Phased: P(first allele) on either chromosome."""
    kind = np.float32 if bits <= _EXACT_IN_SINGLE_BITS else np.float64
    first: NDArray[Any] = stored[0::2].astype(kind)
    copies: NDArray[Any] = stored[1::2].astype(kind)
    copies += first
    if not phased:
        if copies.max(initial=0) > 2**bits - 1:
            raise ValueError(f"the probabilities of sample {int(np.argmax(copies)) + 1} add up to more than 1")
        copies += first
    copies /= 2**bits - 1
    return copies.astype(np.float32, copy=False)


def _any_ploidy(data: bytes, ploidy: NDArray[np.integer], phased: bool, bits: int) -> NDArray[np.float32]:
    """A sample of ploidy z has z probabilities: of z, z - 1 ... 1 copies, or phased of one on each chromosome."""
    ends = np.cumsum(ploidy, dtype=np.intp)
    stored = _probabilities(data, int(ends[-1]), len(ploidy), bits)
    dosages = np.full(len(ploidy), np.nan, dtype=np.float32)
    for z in np.unique(ploidy[ploidy > 0]).tolist():
        own = ploidy == z
        of_sample = stored[ends[own][:, None] - np.arange(z, 0, -1)]
        if z == 2:
            dosages[own] = _diploid(of_sample.reshape(-1), phased, bits)
        else:
            copies = of_sample @ (np.ones(z) if phased else np.arange(z, 0.0, -1))
            dosages[own] = 2 * copies / (z * (2**bits - 1))
    return dosages


_QUERY = (
    "SELECT chromosome, position, CASE rsid WHEN '' THEN '.' ELSE rsid END, allele1, COALESCE(allele2, ''), "
    "number_of_alleles, file_start_position, file_start_position + size_in_bytes "
    "FROM Variant ORDER BY file_start_position"
)


@dataclass(frozen=True)
class BgenSource(SourceOfOneFile):
    """The genotypes of a BGEN file (a `GenotypeSource`); made by `open_bgen`.

    ``starts``, ``ends`` (M,) are the first byte of each of the M variants, and the one behind its last.
    """

    has_dosages: ClassVar[bool] = True

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

    ``.bgen.bgi``, the index of bgenix, is looked for beside it; it saves going through the file. The samples are those
    of ``sample``, by default ``.sample`` in place of ``.bgen`` where there is such a file, else the names in the BGEN
    file itself. EA, the allele that dosages count, is the first of the two alleles of a variant, whichever of them is
    the reference: plink2 writes ALT first unless told ``ref-first``. SNPID is the rsid of the file. Variants with
    another number of alleles are left out, with a warning. Raises InputError where the file is missing, malformed or of
    another layout, no variant has two alleles, there are no names of samples, or the ``.sample`` has another number or
    order of samples.
    """
    header = read_header(path)
    if not header.n_variants:
        raise InputError(f"{path} has no variant; check the command that wrote it")
    beside = f"{path[:-5] if path.lower().endswith('.bgen') else path}.sample"
    if sample is None and os.path.isfile(beside):
        sample = beside
    samples = _read_samples(header, sample, beside)
    records = read_index(header)
    index = [] if records is None else [f"{path}.bgi"]
    if records is None:
        records = walk_records(header)
    two_alleles = records.n_alleles == 2
    variants = with_two_alleles(Variants(records.table, path), records.n_alleles, "qctool or bcftools norm -m -")
    files = (path, *([sample] if sample is not None else []), *index)
    return BgenSource(path, files, samples, variants, header, records.starts[two_alleles], records.ends[two_alleles])


def read_index(header: BgenHeader) -> BgenRecords | None:
    """Find all variants through the index, which is much faster than through a large file on a slow disk.

    None where there is no index, or where it is older than the file or does not fit it: another number of variants, or
    places that leave gaps or end elsewhere than the file.
    """
    path = f"{header.path}.bgi"
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
