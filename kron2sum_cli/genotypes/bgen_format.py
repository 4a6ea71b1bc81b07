"""The layout of BGEN files of version 1.2 and 1.3: header, variants, and genotype blocks.

Specification: https://www.chg.ox.ac.uk/~gav/bgen_format/spec/v1.2.html
"""

import io
import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.source import BGEN, BGEN_AT, VARIANT_SCHEMA

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

    Attributes
    ----------
    path : str
        The file.
    n_samples, n_variants : int
        What it says that it has.
    compression : Compression
        Of its genotype blocks.
    first_variant : int
        Where the first variant begins, in bytes.
    iids : tuple of str or None
        Names of the samples, where there are some.
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

    Attributes
    ----------
    table : pyarrow.Table
        The columns of `VARIANT_SCHEMA`, M rows; EA is the first allele, NEA the second.
    starts, ends : NDArray (M,)
        First byte of each variant, and the one behind its last.
    n_alleles : NDArray (M,)
        How many alleles each has.
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

    Raises
    ------
    pyarrow.ArrowInvalid
        A name is not UTF-8.
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

    Raises
    ------
    InputError
        The file cannot be read, is not BGEN, or has another layout than 2 (BGEN 1.2 and 1.3).
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

    Raises
    ------
    InputError
        The file cannot be read, or is cut short or damaged.
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

    Raises
    ------
    struct.error
        The file ends too early.
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

    Raises
    ------
    ValueError
        The bytes are not those of one variant.
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
    writes it) is missing.

    Raises
    ------
    ValueError
        The block is damaged; it says what.
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
