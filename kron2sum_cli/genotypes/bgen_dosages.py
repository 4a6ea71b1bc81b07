"""Genotype blocks of BGEN (layout 2), from probabilities to dosages of the first allele."""

import zlib
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
