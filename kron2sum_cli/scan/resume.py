"""Finished blocks of a scan, kept beside its output until that is complete.

The file holds frames: a length, a checksum, and so many bytes. The first frame is the identity of the scan, as JSON;
every other is a block, its rows as an Arrow stream with the counts in the metadata of its columns. What follows a frame
that was cut or damaged is thrown away.
"""

import hashlib
import json
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa

from kron2sum_cli.errors import InputError, OutputError, counted
from kron2sum_cli.files.outputs import FinishedWork, output_error, work_beside
from kron2sum_cli.files.scan_metadata import first_difference
from kron2sum_cli.scan.block import BlockResult

logger = logging.getLogger("kron2sum.scan")

SUFFIX = ".kron2sum-blocks"
_FRAME = struct.Struct("<Q16s")
_COUNTS, _REFIT_FACTORS, _LARGEST = b"counts", b"refit_factors", b"largest"
_WORDS = {
    "version": "the version of kron2sum",
    "null": "the null model",
    "inputs": "the files read",
    "filters": "the filters",
    "settings": "the options",
    "span": "the shard or region",
    "block": "the size of blocks (--memory, --threads)",
}
"""What the parts of the identity of a scan are; the first that differs is named."""


class FinishedBlocks:
    """The finished blocks of one scan, those of an earlier run and those added.

    The file stands at its first block; None keeps no blocks.
    """

    def __init__(self, work: FinishedWork | None) -> None:
        self._work = work
        self._first = self._last = 0

    @property
    def are_kept(self) -> bool:
        """Whether blocks are kept in a file."""
        return self._work is not None

    def read(self) -> Iterator[BlockResult]:
        """The blocks that an earlier run finished, in order; what follows them is cut off."""
        if self._work is None:
            return
        file = self._work.file
        self._first = self._last = file.tell()
        number = 0
        for block in self._blocks(file):
            number += 1
            yield block
        file.truncate(self._last)
        file.seek(self._last)
        if number:
            logger.info("%s of an interrupted scan taken over", counted(number, "finished blocks"))

    def read_again(self) -> Iterator[BlockResult]:
        """All blocks, in order, once the last was added; raises OutputError where what was kept is no longer there."""
        if self._work is None:
            return
        end = self._work.file.tell()
        self._work.file.seek(self._first)
        yield from self._blocks(self._work.file)
        if self._last != end:
            raise OutputError(f"{self._work.path}: was damaged while the scan ran; scan again with --resume")

    def _blocks(self, file: BinaryIO) -> Iterator[BlockResult]:
        """Blocks from here on."""
        while (content := _next_frame(file)) is not None:
            self._last = file.tell()
            with pa.ipc.open_stream(content) as stream:
                notes = (json.loads(stream.schema.metadata[key]) for key in (_COUNTS, _REFIT_FACTORS, _LARGEST))
                yield BlockResult(stream.read_next_batch().replace_schema_metadata(None), *notes)

    def add(self, result: BlockResult) -> None:
        """Keep a block."""
        if self._work is None:
            return
        notes = {
            _COUNTS: dict(result.counts),
            _REFIT_FACTORS: dict(result.refit_factors),
            _LARGEST: dict(result.largest),
        }
        rows = result.rows.replace_schema_metadata({key: json.dumps(value) for key, value in notes.items()})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_batch(rows)
        try:
            _write_frame(self._work.file, sink.getvalue().to_pybytes())
        except OSError as error:
            raise output_error(self._work.path, error) from error
        self._work.keep()


@contextmanager
def finished_blocks(out: str, identity: Mapping[str, Any], resume: bool) -> Iterator[FinishedBlocks]:
    """Keep the blocks of the scan that writes ``out``; they are removed when the context ends without an exception.

    With ``resume`` those of an earlier run are kept, whose ``identity`` must be the same; otherwise they are thrown
    away. Nothing is kept for standard output, devices and pipes. Raises InputError where an earlier run differs, naming
    in what; OutputError where the file cannot be written, or another run is writing it.
    """
    with work_beside(out, SUFFIX) as work:
        if work is None:
            yield FinishedBlocks(None)
            return
        known = resume and _check_identity(work.file, out, identity)
        if known and os.fstat(work.file.fileno()).st_size > work.file.tell():
            work.keep()
        with work.announced():
            try:
                if not known:
                    _begin(work.file, work.path, identity)
                yield FinishedBlocks(work)
            except BaseException:
                if not work.stays:
                    os.unlink(work.path)
                raise
        os.unlink(work.path)


def _begin(file: BinaryIO, path: str, identity: Mapping[str, Any]) -> None:
    """Empty the file and write the identity."""
    try:
        file.seek(0)
        file.truncate()
        _write_frame(file, json.dumps(identity, sort_keys=True).encode())
    except OSError as error:
        raise output_error(path, error) from error


def _check_identity(file: BinaryIO, out: str, identity: Mapping[str, Any]) -> bool:
    """Whether the file has an identity, which must be the one given."""
    content = _next_frame(file)
    if content is None:
        return False
    earlier, now = json.loads(content), json.loads(json.dumps(identity))
    for key in (*_WORDS, *sorted((earlier.keys() | now.keys()) - _WORDS.keys())):
        difference = first_difference(earlier.get(key), now.get(key), key)
        if difference is not None:
            raise InputError(
                f"{out}: cannot be resumed, as {_WORDS.get(key, key)} changed since the interrupted scan:"
                f" {difference}; use the same, or scan without --resume"
            )
    return True


def _write_frame(file: BinaryIO, content: bytes) -> None:
    file.write(_FRAME.pack(len(content), _digest(content)) + content)
    file.flush()


def _next_frame(file: BinaryIO) -> bytes | None:
    """The content of the next whole frame; None at the end, or where it was cut or damaged."""
    head = file.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return None
    length, digest = _FRAME.unpack(head)
    here = file.tell()
    if length > file.seek(0, os.SEEK_END) - here:
        return None
    file.seek(here)
    content = file.read(length)
    return content if _digest(content) == digest else None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
