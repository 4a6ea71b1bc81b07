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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.outputs import FinishedWork, is_stream, open_locked, output_error
from kron2sum_cli.files.scan_parts import first_difference

SUFFIX = ".kron2sum-blocks"
_FRAME = struct.Struct("<QQ16s")
_DIGEST_BYTES = 16
_MOST_BYTES = 1 << 31
_WORDS = {
    "version": "the version of kron2sum",
    "null": "the null model",
    "inputs": "the genotypes",
    "filters": "the filters",
    "settings": "the options",
    "span": "the shard or region",
    "block": "the size of blocks (--memory)",
}
"""Parts of the identity of a scan, the first that differs is named."""


@dataclass(frozen=True)
class FinishedBlock:
    """Rows of a block and what became of its variants."""

    batch: pa.RecordBatch
    counts: Mapping[str, int]


class Checkpoint:
    """The finished blocks of one scan: those found, and those added."""

    def __init__(self, file: BinaryIO | None, path: str, start: int, end: int) -> None:
        self._file, self._path, self._start, self._end = file, path, start, end
        self.work = FinishedWork(path)

    def finished(self, schema: pa.Schema) -> Iterator[FinishedBlock]:
        """The blocks that an earlier run finished, in order.

        Raises
        ------
        InputError
            Where one is not a block of a table with this schema, which a checksum does not show.
        """
        if self._file is None or self._start == self._end:
            return
        self._file.seek(self._start)
        while self._file.tell() < self._end:
            content = _next(self._file)
            assert content is not None  # counted when the file was opened
            yield _unpack(content, schema, self._path)
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
        self.work.keep()


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
    work = target.with_name(f".{target.name}{SUFFIX}")
    path = str(work)
    try:
        file = os.fdopen(open_locked(work, out), "r+b")
    except OSError as error:
        raise output_error(path, error) from error
    with _closed(file):
        start, end = _recover(file, out, identity) if resume else (0, 0)
        kept = Checkpoint(file, path, start, end)
        if end > start:
            kept.work.keep()
        with kept.work.announced():
            try:
                if end == 0:
                    _begin(file, path, identity)
                yield kept
            except BaseException:
                if not kept.work.stays:
                    os.unlink(path)
                raise
        os.unlink(path)


@contextmanager
def _closed(file: BinaryIO) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):  # what could not be flushed has failed already
            file.close()


def _begin(file: BinaryIO, path: str, identity: Mapping[str, Any]) -> None:
    """Empty the file and write the identity."""
    content = _canonical(identity)
    try:
        file.seek(0)
        file.truncate()
        file.write(_FRAME.pack(len(content), 0, hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()))
        file.write(content)
        file.flush()
    except OSError as error:
        raise output_error(path, error) from error


def _recover(file: BinaryIO, out: str, identity: Mapping[str, Any]) -> tuple[int, int]:
    """Where the whole blocks of an earlier run begin and end; (0, 0) where there are none."""
    earlier, now = _identity(_next(file)), json.loads(_canonical(identity))
    if earlier is None:
        return 0, 0
    for key in (*_WORDS, *sorted((earlier.keys() | now.keys()) - _WORDS.keys())):
        difference = first_difference(earlier.get(key), now.get(key), key)
        if difference is not None:
            raise InputError(
                f"{out}: cannot be resumed, as {_WORDS.get(key, key)} changed since the interrupted scan:"
                f" {difference}; use the same, or scan without --resume"
            )
    start = end = file.tell()
    while _next(file) is not None:
        end = file.tell()
    file.truncate(end)
    file.seek(end)
    return start, end


def _identity(header: bytes | None) -> dict[str, Any] | None:
    """What the first frame says; None where it is not one of this program."""
    try:
        identity = json.loads(header or b"null")
    except (ValueError, RecursionError):
        return None
    return identity if isinstance(identity, dict) else None


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


def _unpack(content: bytes, schema: pa.Schema, path: str) -> FinishedBlock:
    try:
        (length,) = struct.unpack("<Q", content[:8])
        counts = json.loads(content[8 : 8 + length])
        with pa.ipc.open_stream(pa.BufferReader(content[8 + length :])) as stream:
            batch = stream.read_next_batch()
        batch.validate(full=True)
        if not batch.schema.equals(schema):
            raise ValueError("it has other columns than this scan")
        if not (isinstance(counts, dict) and all(type(number) is int for number in counts.values())):
            raise ValueError("its counts are no whole numbers")
    except (ValueError, RecursionError, StopIteration, struct.error, OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: is not what a scan keeps ({error}); scan without --resume") from error
    return FinishedBlock(batch, counts)


def _canonical(identity: Mapping[str, Any]) -> bytes:
    return json.dumps(identity, sort_keys=True).encode()
