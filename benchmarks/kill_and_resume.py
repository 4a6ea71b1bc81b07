"""Kill scans of shards and of sets with SIGKILL, resume them, and compare every byte with those of undisturbed ones.

    python -m benchmarks.kill_and_resume --kills 100

A scan in many small blocks is killed in three ways: after a random time; when a file that it writes reaches a random
size or appears under its final name; and by itself, at a chosen step of its own writing (a write of the table, of its
metadata or of the finished blocks, which may be cut in the middle, a flush, the rename, the removal of the finished
blocks), for which the functions of the system are wrapped in the killed process. A result that is there after a kill
must be the right one; after one to three kills the scan is resumed to its end, and the shards are joined.

Everything is imported once, and every scan is a process forked from that one, so that the time goes into writing.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.simulated import write_genotypes, write_traits
from kron2sum_cli.cli import run as kron2sum
from kron2sum_cli.export import export
from kron2sum_cli.files import outputs, table_writers
from kron2sum_cli.fit import fit
from kron2sum_cli.scan import inputs as scan_inputs
from kron2sum_cli.scan import resume as checkpoint
from kron2sum_cli.scan import scan, sets

IMPORTED = (export, fit, scan, sets)  # before the processes fork
SAMPLES, VARIANTS, TRAITS, SHARDS = 120, 3000, 2, 3
BLOCK = 16
TIMEOUT = 60.0
SAID = "said.txt"


@dataclass
class Tally:
    """What happened: kills by kind, resumed blocks, and what must stay 0."""

    kills: Counter[str] = field(default_factory=Counter)
    survived: int = 0
    blocks_taken_over: int = 0
    lost: int = 0
    wrong: int = 0
    different: int = 0
    left_over: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.lost or self.wrong or self.different or self.left_over)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.kills.items()))
        return (
            f"kills: {self.kills.total()} ({kinds}); scans that ended before their kill: {self.survived}\n"
            f"finished blocks taken over: {self.blocks_taken_over}\n"
            f"results lost: {self.lost}, wrong under the final name: {self.wrong}, different after --resume:"
            f" {self.different}, files left over: {self.left_over}"
        )


class Steps:
    """Counts the steps of writing in the process it is installed in, and kills the process at one of them.

    Parameters
    ----------
    target : the name of a step and its number among those of that name; None to kill nothing
    share : of the bytes of the last write that are still written
    """

    def __init__(self, target: tuple[str, int] | None = None, share: float = 0.0) -> None:
        self.seen: Counter[str] = Counter()
        self._target, self._share = target, share

    def step(self, name: str) -> None:
        """Note a step, or end in it."""
        if self._is_last(name):
            die()

    def write(self, name: str, file: Any, data: Any) -> int:
        """Write, or write a part and end."""
        if self._is_last(name):
            file.write(bytes(data)[: int(len(data) * self._share)])
            file.flush()
            die()
        return int(file.write(data))

    def install(self) -> None:
        """Wrap what writes in this process."""
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, self._around(name, getattr(os, name)))
        make = table_writers._Counted.__init__
        begin, add = checkpoint._begin, checkpoint.FinishedBlocks.add

        def make_wrapped(counted: Any, file: Any) -> None:
            make(counted, _Wrapped(file, self, "table"))  # type: ignore[arg-type]

        def begin_wrapped(file: Any, *args: Any) -> None:
            begin(_Wrapped(file, self, "blocks"), *args)  # type: ignore[arg-type]

        def add_wrapped(kept: Any, block: Any) -> None:
            kept._work.file, file = _Wrapped(kept._work.file, self, "blocks"), kept._work.file
            add(kept, block)
            kept._work.file = file

        table_writers._Counted.__init__ = make_wrapped  # type: ignore[method-assign]
        checkpoint._begin, checkpoint.FinishedBlocks.add = begin_wrapped, add_wrapped  # type: ignore[method-assign]

    def _is_last(self, name: str) -> bool:
        number, self.seen[name] = self.seen[name], self.seen[name] + 1
        return (name, number) == self._target

    def _around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            self.step(f"before {name}")
            result = function(*args, **options)
            self.step(f"after {name}")
            return result

        return wrapped


class _Wrapped:
    """A file whose writes are steps."""

    def __init__(self, file: Any, steps: Steps, name: str) -> None:
        self._file, self._steps, self._name = file, steps, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        return self._steps.write(self._name, self._file, data)


def die() -> None:
    """End as a machine that loses its power does."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(TIMEOUT)


def start(arguments: list[str], steps: Steps | None = None, noted: Path | None = None) -> int:
    """Fork a process that runs kron2sum, silently; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        nowhere, said = os.open(os.devnull, os.O_RDWR), os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor, target in enumerate((nowhere, nowhere, said)):
            os.dup2(target, descriptor)
        if steps is not None:
            steps.install()
        code = kron2sum(arguments)
        if steps is not None and noted is not None:
            noted.write_text("\n".join(steps.seen.elements()))
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """The exit code; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(*arguments: str) -> None:
    """Run kron2sum to its end, which must be a success."""
    code = wait(start(list(arguments)))
    if code:
        raise RuntimeError(f"kron2sum {' '.join(arguments)}: exit code {code}\n{Path(SAID).read_text()}")


@dataclass
class Shard:
    """A scan with the result that it must have, and what an undisturbed scan takes and writes."""

    arguments: list[str]
    out: Path
    expected: bytes = b""
    seconds: float = 0.0
    steps: Counter[str] = field(default_factory=Counter)

    @property
    def work(self) -> Path:
        """The work file of the table."""
        return self.out.with_name(f".{self.out.name}{outputs.WORK_SUFFIX}")

    @property
    def blocks(self) -> Path:
        """The finished blocks."""
        return self.out.with_name(f".{self.out.name}{checkpoint.SUFFIX}")

    def learn(self) -> None:
        """Scan undisturbed: the expected result, the time, and the steps."""
        began = time.perf_counter()
        run(*self.arguments)
        self.seconds = time.perf_counter() - began
        self.expected = self.out.read_bytes()
        noted = self.out.with_suffix(".steps")
        wait(start(self.arguments, Steps(), noted))
        self.steps = Counter(noted.read_text().split("\n"))
        noted.unlink()
        self.out.unlink()

    def check(self, tally: Tally) -> None:
        """After a kill: no result, or the right one."""
        if self.out.exists() and self.out.read_bytes() != self.expected:
            tally.wrong += 1

    def finish(self, tally: Tally) -> None:
        """Resume to the end, and compare."""
        run(*self.arguments)
        log = self.out.with_name(self.out.name + ".log").read_text()
        taken = [line.split() for line in log.splitlines() if "taken over" in line]
        tally.blocks_taken_over += int(taken[0][taken[0].index("finished") - 1]) if taken else 0
        if not self.out.exists():
            tally.lost += 1
        elif self.out.read_bytes() != self.expected:
            tally.different += 1
        tally.left_over += self.work.exists() + self.blocks.exists()


def kill_after_time(shard: Shard, rng: random.Random, tally: Tally) -> None:
    """Kill at a random moment between start and end."""
    child = start(shard.arguments)
    time.sleep(rng.uniform(0, shard.seconds))
    _kill(child, "after a time", tally)


def kill_on_files(shard: Shard, rng: random.Random, tally: Tally) -> None:
    """Kill when the finished blocks reach a size, the table is being written, or the result appears."""
    kind = rng.choice(("finished blocks grow", "work file is there", "result appears"))
    size = rng.randrange(20_000, 160_000)
    is_so = {
        "finished blocks grow": lambda: _size(shard.blocks) >= size,
        "work file is there": lambda: _size(shard.work) > 0,
        "result appears": shard.out.exists,
    }[kind]
    child = start(shard.arguments)
    end = time.monotonic() + TIMEOUT
    while not is_so() and time.monotonic() < end:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    _kill(child, f"as {kind}", tally)


def kill_at_step(shard: Shard, rng: random.Random, tally: Tally) -> None:
    """Kill at a random step, all names of steps with the same probability; of the table one of the last."""
    name = rng.choice(sorted(shard.steps))
    most = shard.steps[name] if name == "table" else max(1, shard.steps[name] // 2)  # fewer in a resumed scan
    number = most - 1 - rng.randrange(min(most, 3)) if name == "table" else rng.randrange(most)
    child = start(shard.arguments, Steps((name, number), rng.random()))
    killed = wait(child) == -signal.SIGKILL
    _count(killed, f"in a write of the {name}" if name in ("table", "blocks") else name, tally)


def _kill(child: int, kind: str, tally: Tally) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _count(wait(child) == -signal.SIGKILL, kind, tally)


def _count(killed: bool, kind: str, tally: Tally) -> None:
    if killed:
        tally.kills[kind] += 1
    else:
        tally.survived += 1


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


WAYS = (kill_after_time, kill_on_files, kill_at_step, kill_at_step)


@contextlib.contextmanager
def small_blocks() -> Iterator[None]:
    """Blocks of a few variants, so that a small scan has many."""
    former = scan_inputs.largest_block
    scan_inputs.largest_block = lambda total: BLOCK
    try:
        yield
    finally:
        scan_inputs.largest_block = former


def harness(folder: Path, kills: int, seed: int) -> Tally:
    """Kill so many times, at least, in an empty folder."""
    rng, tally = random.Random(seed), Tally()
    write_genotypes(folder / "g", SAMPLES, VARIANTS, missing=0.01)
    write_traits(folder / "y.csv", SAMPLES, TRAITS)
    os.chdir(folder)
    run("fit", "--pheno", "y.csv", "--grm", "g.bed", "--out", "null.npz")
    with small_blocks():
        run("scan", "--null", "null.npz", "--refit", "0", "--out", "whole.parquet")
        shards = [_shard(i + 1) for i in range(SHARDS)]
        scans = [*shards, _windows()]
        for shard in scans:
            shard.learn()
        while tally.kills.total() < kills:
            for shard in scans:
                for _ in range(rng.randint(1, 3)):
                    rng.choice(WAYS)(shard, rng, tally)
                    shard.check(tally)
                shard.finish(tally)
            run("export", *(str(shard.out) for shard in shards), "--out", "joined.parquet")
            tally.different += Path("joined.parquet").read_bytes() != Path("whole.parquet").read_bytes()
            for shard in scans:
                shard.out.unlink()
    return tally


def _windows() -> Shard:
    """A scan of sets: windows that overlap."""
    out = Path("windows.parquet")
    how = ("--windows", "1kb,500", "--set-test", "skat", "--set-test", "fixed")
    return Shard(["scan", "--null", "null.npz", *how, "--resume", "--out", str(out)], out)


def _shard(number: int) -> Shard:
    out = Path(f"shard{number}.parquet")
    common = ["scan", "--null", "null.npz", "--refit", "0", "--resume", "--threads", str(1 + number % 2)]
    return Shard([*common, "--shard", f"{number}/{SHARDS}", "--out", str(out)], out)


def main() -> int:
    """Run the harness and print what happened; the exit code is 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill_and_resume"))
    try:
        tally = harness(folder, options.kills, options.seed)
    finally:
        os.chdir("/")
        shutil.rmtree(folder)
    print(tally)
    return 0 if tally.sound else 1


if __name__ == "__main__":
    sys.exit(main())
