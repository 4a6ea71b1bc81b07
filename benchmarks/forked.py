"""Commands in processes that are forked from this one, so that everything is imported once."""

import os
import resource
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kron2sum_cli.cli import main as kron2sum
from kron2sum_cli.export import export
from kron2sum_cli.fit import fit
from kron2sum_cli.scan import scan

IMPORTED = (export, fit, scan)  # before the processes fork


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative for a signal, None for none in time), and what it said."""

    code: int | None
    said: str


def run(arguments: Sequence[str], most_bytes: int | None = None, seconds: float = 60.0) -> Ended:
    """Run kron2sum in this folder, its standard output thrown away.

    Parameters
    ----------
    arguments : without the program's name
    most_bytes : no file may grow larger
    seconds : then it hangs, and is killed
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor, target in enumerate((nowhere, nowhere, writing)):
                os.dup2(target, descriptor)
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            kron2sum(list(arguments))  # which ends the process
        finally:
            os._exit(99)
    os.close(writing)
    said, in_time = _read(reading, time.monotonic() + seconds)
    os.close(reading)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(code if in_time else None, said.decode(errors="replace"))


def _read(pipe: int, end: float) -> tuple[bytes, bool]:
    """All that comes through a pipe until it is closed, and whether that was in time."""
    pieces: list[bytes] = []
    while (left := end - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            if not (piece := os.read(pipe, 65536)):
                return b"".join(pieces), True
            pieces.append(piece)
    return b"".join(pieces), False
