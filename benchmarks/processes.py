"""Whole processes: their time and their largest memory."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

KRON2SUM = (sys.executable, "-m", "kron2sum_cli")


def environment(threads: int) -> dict[str, str]:
    """The environment with so many BLAS threads."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {**os.environ, **limits}


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
