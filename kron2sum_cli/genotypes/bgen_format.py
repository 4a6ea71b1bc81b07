"""Where the variants of a BGEN file (layout 2) lie, and what they are called."""

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
from kron2sum_cli.genotypes.source import BGEN, BGEN_AT
from kron2sum_cli.genotypes.variants import table_schema

Compression = Literal["none", "zlib", "zstd"]

_MISSING_BIT = 0x80
_PLOIDY_BITS = 0x3F
_FIXED_BYTES = 10
"""Bytes of an uncompressed block beside the ploidies and the probabilities."""
_MOST_BITS = 32
_EXACT_IN_SINGLE_BITS = 16
"""Up to so many bits a probability, sums of three of them are exact in single precision."""


def read_block(block: bytes, compression: Compression, n_samples: int) -> NDArray[np.float32]:
    """Dosages of the first allele from one genotype block.

    A diploid genotype counts its expected copies, 0 to 2. A haploid one counts twice its probability, 0 or 2
    where it is certain, as plink2 stores it. A sample with ploidy 0 (a woman on chromosome Y, as plink2
    writes it) is missing.

    Parameters
    ----------
    block : what follows the length of the block in the file
    compression : of the file
    n_samples : of the file

    Returns
    -------
    (n_samples,) float32, NaN where missing

    Raises
    ------
    ValueError : the block is damaged, or a sample has more than two copies of the chromosome; it says what
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
    largest = _FIXED_BYTES + n_samples + 2 * n_samples * _MOST_BITS // 8
    if len(block) < 4 or size > largest:
        raise ValueError(f"it claims {size} bytes, more than two probabilities a sample can take")
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
    """A sample of ploidy z has z probabilities, phased or not."""
    if ploidy.max() > 2:
        raise ValueError(
            f"sample {int(np.argmax(ploidy > 2)) + 1} has {ploidy.max()} copies of the chromosome; only haploid "
            "and diploid genotypes are read"
        )
    ends = np.cumsum(ploidy, dtype=np.intp)
    stored = _probabilities(data, int(ends[-1]), len(ploidy), bits)
    dosages = np.full(len(ploidy), np.nan, dtype=np.float32)
    haploid, diploid = ploidy == 1, ploidy == 2
    dosages[haploid] = 2 * stored[ends[haploid] - 1].astype(np.float64) / (2**bits - 1)
    pairs = np.stack([stored[ends[diploid] - 2], stored[ends[diploid] - 1]], axis=1)
    dosages[diploid] = _diploid(pairs.reshape(-1), phased, bits)
    return dosages


BATCH_VARIANTS = 1 << 16
"""So many variants at a time are turned into Arrow arrays, which need a tenth of the memory of lists."""

_COMPRESSIONS: dict[int, Compression] = {0: "none", 1: "zlib", 2: "zstd"}
_LAYOUT = 2
_HAS_IDS = 1 << 31
_USUAL_BYTES = 512
"""Read at first for what identifies a variant; more where alleles are long."""
_LARGEST_BYTES = 1 << 26
_SMALLEST_RECORD = 24
"""Bytes of a variant of which all names are empty, without its block."""


@dataclass(frozen=True)
class BgenHeader:
    """The beginning of a BGEN file.

    Attributes
    ----------
    path : the file
    n_samples, n_variants : how many there are
    compression : of genotype blocks
    first_variant : where the first variant starts, in bytes
    iids : the names of samples in the file itself, None where there are none
    """

    path: str
    n_samples: int
    n_variants: int
    compression: Compression
    first_variant: int
    iids: tuple[str, ...] | None


@dataclass(frozen=True)
class BgenRecords:
    """All variants of a BGEN file.

    Attributes
    ----------
    table : as in `Variants`
    edges : (M + 1,) int64; variant i lies in the bytes ``edges[i]`` to ``edges[i + 1]`` of the file
    """

    table: pa.Table
    edges: NDArray[np.int64]


@dataclass(frozen=True)
class _Record:
    """What identifies a variant, and the number of bytes before the block of its genotypes and after it."""

    names: tuple[bytes, int, bytes, bytes, bytes]
    block_at: int
    end: int


def read_header(path: str) -> BgenHeader:
    """Read the beginning of a BGEN file.

    Raises
    ------
    InputError : the file cannot be read, is not BGEN, or has another layout than 2 (BGEN 1.2 and 1.3)
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
    iids = _parse_ids(file, path, n_samples) if flags & _HAS_IDS else None
    return BgenHeader(path, n_samples, n_variants, compression, offset + 4, iids)


def _parse_ids(file: BinaryIO, path: str, n_samples: int) -> tuple[str, ...]:
    size, found = struct.unpack("<2I", file.read(8))
    if found != n_samples or size < 8 + 2 * n_samples:
        raise InputError(f"{path} is damaged: it has {n_samples} samples, but {found} names of samples")
    data = file.read(size - 8)
    iids, at = [], 0
    for _ in range(n_samples):
        name, at = _text(data, at, "<H")
        iids.append(name.decode())
    return tuple(iids)


def walk_records(header: BgenHeader) -> BgenRecords:
    """Find all variants by going through the file from one to the next.

    Raises
    ------
    InputError : the file cannot be read, is cut short or damaged, or a variant has not two alleles
    """
    size = os.path.getsize(header.path)
    if size < header.first_variant + header.n_variants * _SMALLEST_RECORD:
        raise _cut_short(header, 1, header.first_variant, size)
    edges = np.empty(header.n_variants + 1, dtype=np.int64)
    edges[0] = header.first_variant
    rows: list[tuple[bytes, int, bytes, bytes, bytes]] = []
    batches = []
    for number, record in enumerate(_iter_records(header, size), 1):
        edges[number] = record.end
        rows.append(record.names)
        if len(rows) == BATCH_VARIANTS or number == header.n_variants:
            batches.append(_batch(rows, header.path))
            rows = []
    surplus = size - int(edges[-1])
    if surplus:
        raise InputError(
            f"{header.path} has {surplus} bytes behind the last of the {header.n_variants} variants in its "
            "header; write the file again"
        )
    return BgenRecords(pa.Table.from_batches(batches, table_schema()), edges)


def block_of(record: bytes) -> bytes:
    """The genotype block of a variant, behind the number that says how long it is.

    Raises
    ------
    ValueError : the record is not that of one variant; it says why
    """
    try:
        parsed = parse_record(record, 0)
    except struct.error:
        raise ValueError("the file ends there") from None
    if parsed.end != len(record):
        raise ValueError("the file was changed after it was opened")
    return record[parsed.block_at :]


def parse_record(data: bytes, start: int) -> _Record:
    """Read what identifies a variant.

    Parameters
    ----------
    data : begins with the variant
    start : where that is in the file

    Raises
    ------
    struct.error : the data end too early
    ValueError : the variant has not two alleles; it says how many
    """
    _, at = _text(data, 0, "<H")
    snpid, at = _text(data, at, "<H")
    chromosome, at = _text(data, at, "<H")
    position, n_alleles = struct.unpack_from("<IH", data, at)
    if n_alleles != 2:
        name = snpid.decode("utf-8", "replace")
        raise ValueError(f"{name!r} at {chromosome.decode('utf-8', 'replace')}:{position} has {n_alleles} alleles")
    first, at = _text(data, at + 6, "<I")
    second, at = _text(data, at, "<I")
    (block_bytes,) = struct.unpack_from("<I", data, at)
    names = (chromosome, position, snpid or b".", first, second)
    return _Record(names, at + 4, start + at + 4 + block_bytes)


def _text(data: bytes, at: int, length: str) -> tuple[bytes, int]:
    """A text behind its length, and where it ends."""
    (size,) = struct.unpack_from(length, data, at)
    start = at + struct.calcsize(length)
    end = start + size
    if end > len(data):
        raise struct.error
    return data[start:end], end


def _iter_records(header: BgenHeader, size: int) -> Iterator[_Record]:
    start = header.first_variant
    with open(header.path, "rb", buffering=0) as file:
        for number in range(1, header.n_variants + 1):
            try:
                record = _read_record(file.fileno(), start)
            except ValueError as error:
                raise InputError(
                    f"{header.path}, variant {number}: {error}; leave out such variants with plink2 --max-alleles "
                    "2, or split them (qctool and bcftools can)"
                ) from None
            if record is None or record.end > size:
                raise _cut_short(header, number, start, size)
            yield record
            start = record.end


def _cut_short(header: BgenHeader, number: int, start: int, size: int) -> InputError:
    return InputError(
        f"{header.path} is cut short or damaged in variant {number} of {header.n_variants} (byte {start} of "
        f"{size}); copy the file again"
    )


def _read_record(descriptor: int, start: int) -> _Record | None:
    """The record at a place in the file, None where it has no end."""
    wanted = _USUAL_BYTES
    while wanted <= _LARGEST_BYTES:
        data = os.pread(descriptor, wanted, start)
        try:
            return parse_record(data, start)
        except struct.error:
            if len(data) < wanted:
                return None
            wanted *= 8
    return None


def _batch(rows: list[tuple[bytes, int, bytes, bytes, bytes]], path: str) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    try:
        arrays = [pa.array(column, field.type) for column, field in zip(columns, table_schema(), strict=True)]
    except pa.ArrowInvalid:
        raise InputError(f"{path} has names of variants that are not UTF-8; is the file damaged?") from None
    return pa.RecordBatch.from_arrays(arrays, schema=table_schema())
