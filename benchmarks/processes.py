"""Whole processes, their time and their largest memory, and the table that the measurements make."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import chain
from pathlib import Path

KRON2SUM = (sys.executable, "-m", "kron2sum_cli")
WIDTHS = (58, 12, 22, 8, 8)


@dataclass(frozen=True)
class Row:
    """One measurement: ours, that of a peer, their ratio, what is asked of the ratio (or of ours without a peer)."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    asked: str = ""


def print_table(rows: Iterable[Row]) -> None:
    """A header and the rows, each as soon as it is measured."""
    for row in chain([Row("measured", "kron2sum", "peer", "ratio", "at most")], rows):
        what, *numbers = (f"{cell:>{width}}" for cell, width in zip(astuple(row), WIDTHS, strict=True))
        print(f"{what.strip():<{WIDTHS[0]}}", *numbers, flush=True)


def environment(threads: int) -> dict[str, str]:
    """The environment with so many BLAS threads and this copy of the program; bytecode is kept, as if installed."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), kept.get("PYTHONPATH"))))
    return {**kept, **limits, "PYTHONPATH": paths}


def seconds(command: Sequence[str | Path], threads: int = 2, folder: Path | None = None) -> float:
    """Wall time of one run, which has to succeed."""
    start = time.perf_counter()
    subprocess.run(
        [str(word) for word in command],
        check=True,
        cwd=folder,
        env=environment(threads),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def peak_mib(command: Sequence[str | Path], threads: int = 2) -> float:
    """Largest resident memory of one run, by the system's own accounting."""
    program = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = [sys.executable, "-c", program, *(str(word) for word in command)]
    done = subprocess.run(words, check=True, env=environment(threads), capture_output=True, text=True)
    return int(done.stdout) / (1024 if sys.platform != "darwin" else 2**20)


def paired(
    a: Sequence[Sequence[str | Path]],
    b: Sequence[Sequence[str | Path]],
    runs: int,
    threads: int = 2,
    folder: Path | None = None,
) -> tuple[float, float, float]:
    """Median seconds of two sequences of commands run in turn, and the median of the ratio a/b pair by pair."""
    pairs = []
    for run in range(runs + 1):
        pair = tuple(sum(seconds(command, threads, folder) for command in side) for side in (a, b))
        if run:  # the first warms the caches
            pairs.append(pair)
    ours, theirs = zip(*pairs, strict=True)
    return statistics.median(ours), statistics.median(theirs), statistics.median(x / y for x, y in pairs)


def user_seconds(command: Sequence[str | Path]) -> float:
    """User time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    seconds(command)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def cpu_seconds(command: Sequence[str | Path], threads: int = 1) -> float:
    """User and system time of one run."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    seconds(command, threads)
    return spent() - before
