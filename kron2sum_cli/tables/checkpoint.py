"""Finished blocks of a scan, kept beside its output until that is complete.

The file begins with what the scan is (its identity, as JSON); every finished block follows as its length, its
checksum, and its content: counts as JSON and rows as an Arrow stream. A tail that was cut or damaged is thrown away.
"""

import hashlib
import io
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from kron2sum_cli.errors import InputError
from kron2sum_cli.tables.outputs import is_stream, lock, output_error

SUFFIX = ".kron2sum-blocks"
_FRAME = struct.Struct("<QQ16s")
_DIGEST_BYTES = 16
_MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class FinishedBlock:
    """Rows of a block and what became of its variants."""

    batch: pa.RecordBatch
    counts: Mapping[str, int]


class Checkpoint:
    """The finished blocks of one scan: those found, and those added."""

    def __init__(self, file: BinaryIO | None, path: str, start: int, end: int) -> None:
        self._file, self._path, self._start, self._end = file, path, start, end

    def finished(self) -> Iterator[FinishedBlock]:
        """The blocks that an earlier run finished, in order."""
        if self._file is None:
            return
        self._file.seek(self._start)
        while self._file.tell() < self._end:
            content = _next(self._file)
            assert content is not None  # counted when the file was opened
            yield _unpack(content)
        self._file.seek(self._end)

    def add(self, block: FinishedBlock) -> None:
        """Keep a block."""
        if self._file is None:
            return
        counts = json.dumps(dict(block.counts)).encode()
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, block.batch.schema) as stream:
            stream.write_batch(block.batch)
        content = counts + sink.getvalue()
        digest = hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
        try:
            self._file.write(_FRAME.pack(len(content), len(counts), digest) + content)
            self._file.flush()
        except OSError as error:
            raise output_error(self._path, error) from error


@contextmanager
def checkpoint(out: str, identity: Mapping[str, Any], resume: bool) -> Iterator[Checkpoint]:
    """Keep the blocks of the scan that writes ``out``; they are removed when the block ends without an exception.

    Parameters
    ----------
    out : the output; nothing is kept for standard output, devices and pipes
    identity : what must agree between the run that began a scan and the one that goes on with it
    resume : go on with the blocks of an earlier run; otherwise they are thrown away

    Raises
    ------
    InputError
        Where an earlier run differs, naming in what.
    OutputError
        Where the file cannot be written, or another run is writing it.
    """
    if is_stream(out):
        yield Checkpoint(None, out, 0, 0)
        return
    target = Path(os.path.realpath(out))
    path = str(target.with_name(f".{target.name}{SUFFIX}"))
    try:
        file = open(path, "a+b")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise output_error(path, error) from error
    with file:
        lock(file.fileno(), out)
        start, end = _recover(file, path, out, identity) if resume else (0, 0)
        if end == 0:
            start = end = _begin(file, path, identity)
        yield Checkpoint(file, path, start, end)
        os.unlink(path)


def _begin(file: BinaryIO, path: str, identity: Mapping[str, Any]) -> int:
    """Empty the file and write the identity; returns where blocks begin."""
    content = _canonical(identity)
    try:
        file.truncate(0)
        file.write(_FRAME.pack(len(content), 0, hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()))
        file.write(content)
        file.flush()
    except OSError as error:
        raise output_error(path, error) from error
    return file.tell()


def _recover(file: BinaryIO, path: str, out: str, identity: Mapping[str, Any]) -> tuple[int, int]:
    """Where the whole blocks of an earlier run begin and end; (0, 0) where there are none."""
    file.seek(0)
    header = _next(file)
    if header is None:
        return 0, 0
    earlier, now = json.loads(header), json.loads(_canonical(identity))
    for key in sorted(earlier.keys() | now.keys()):
        if earlier.get(key) != now.get(key):
            raise InputError(
                f"{out}: cannot be resumed: the {key} differ from those of the interrupted scan"
                f" ({_short(earlier.get(key))}, now {_short(now.get(key))}); use the same, or scan without --resume"
            )
    start = end = file.tell()
    while _next(file) is not None:
        end = file.tell()
    file.truncate(end)
    file.seek(end)
    return start, end


def _next(file: BinaryIO) -> bytes | None:
    """The next whole frame's content, with its counts' length in front; None at the end or where it is damaged."""
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        return None
    length, counts_length, digest = _FRAME.unpack(frame)
    if length > _MOST_BYTES or counts_length > length:
        return None
    content = file.read(length)
    if len(content) < length or hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest() != digest:
        return None
    return content if counts_length == 0 else struct.pack("<Q", counts_length) + content


def _unpack(content: bytes) -> FinishedBlock:
    (length,) = struct.unpack("<Q", content[:8])
    counts = json.loads(content[8 : 8 + length])
    with pa.ipc.open_stream(pa.BufferReader(content[8 + length :])) as stream:
        batch = stream.read_next_batch()
    return FinishedBlock(batch, counts)


def _canonical(identity: Mapping[str, Any]) -> bytes:
    return json.dumps(identity, sort_keys=True).encode()


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."
