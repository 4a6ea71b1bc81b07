"""Random damage to the bytes of a file: of any file, of text, and of frames and archives that carry checksums."""

import random
from collections.abc import Callable, Sequence

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
ODD = ("", " ", "\t", ",", "\n", "\r\n", "\r", "\0", "\ufeff", "é", "１２", "\u2028", "\x1b[2J", "\x85")
LONG = ("a" * 5000, "9" * 400)
WORDS = """
    nan NaN NA inf -inf 1e999 -1e-999 1e308 -9 . - + 0x10 1_000 1,5 ' " "" \\ # | ; : = [ ] { } <a> null true
    FID IID #FID IID_1 #CHROM CHROM POS ID REF ALT ID_1 missing 0 1 -1 99999999999999999999 23 chrX MT
    f0 i0 f1 i1 v0 v1 t1 A G 1:5-1 s1
"""
TOKENS = (*WORDS.split(), *ODD, *LONG)
SEPARATORS = ",\t \n"


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to four kinds of damage that any file can have."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        _damage(changed, rng)
    return bytes(changed)


def _damage(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    length = min(rng.choice((1, 1, 2, 4, 8, 16, 100)), len(data) - start)
    kind = rng.randrange(8)
    if kind == 0 and length:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1 and length:
        data[start : start + length] = rng.randbytes(length)
    elif kind == 2:
        del data[start : start + length]
    elif kind == 3:
        data[start:start] = data[start : start + length] * rng.choice((1, 2, 50))
    elif kind == 4:
        size = rng.choice((1, 2, 4, 8))
        number = (rng.choice(NUMBERS) + rng.randint(-1, 1)) % 256**size
        data[start : start + size] = number.to_bytes(size, rng.choice(("little", "big")))
    elif kind == 5:
        del data[start:]
    elif kind == 6:
        data[start:start] = rng.randbytes(rng.choice((1, 3, 20)))
    else:
        other = rng.randrange(len(data) + 1)
        data[start:start] = data[other : other + length]


def text(data: bytes, rng: random.Random) -> bytes:
    """Damage to words and lines, or to bytes."""
    if rng.random() < 0.3:
        return damaged(data, rng)
    lines = data.decode(errors="surrogateescape").split("\n")
    for _ in range(rng.randint(1, 3)):
        _reword(lines, rng)
    return "\n".join(lines).encode("utf-8", errors="surrogatepass" if rng.random() < 0.5 else "replace")


def _reword(lines: list[str], rng: random.Random) -> None:
    k = rng.randrange(len(lines))
    kind = rng.randrange(7)
    if kind == 0:
        lines.insert(rng.randrange(len(lines) + 1), lines[k])
    elif kind == 1 and len(lines) > 1:
        del lines[k]
    elif kind == 2:
        lines[k] = lines[k].replace(rng.choice(SEPARATORS), rng.choice(SEPARATORS))
    elif kind == 3:
        lines[k] += rng.choice(TOKENS)
    else:
        separator = next((s for s in SEPARATORS if s in lines[k]), "\t")
        words = lines[k].split(separator)
        words[rng.randrange(len(words))] = rng.choice(TOKENS)
        if kind == 6:
            words.insert(rng.randrange(len(words) + 1), rng.choice(TOKENS))
        lines[k] = separator.join(words)


def one_of(mutations: Sequence[Mutation]) -> Mutation:
    """A random one of several."""
    return lambda data, rng: rng.choice(mutations)(data, rng)
