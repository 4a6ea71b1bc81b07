"""Feed damaged files to every reader: each must be read as it should be, or refused with one of the program's errors.

    python -m benchmarks.fuzz_readers [--seconds 60] [--only NAME ...] [--keep FOLDER]

Each reader starts from small valid files, made here and by plink2 where it is installed, and gets them with bytes,
words and lines changed; where checksums would stop it at the door, they are made anew, too. A reader runs in a process
of its own, with bounded memory and time, so that a crash is seen as well. Printed are the executions, the files that
were taken, and what must stay 0: exceptions of any other kind, crashes, hangs, and files taken for what they are not
(a result with other content, samples twice, infinities).
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from benchmarks import fuzz_targets
from kron2sum_cli.errors import Kron2SumError

MOST_MEMORY = 4 << 30
MOST_SECONDS = 20
PART_SECONDS = 20.0


@dataclass
class Tally:
    """What one reader did."""

    executions: int = 0
    taken: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Count another part."""
        self.executions += other.executions
        self.taken += other.taken
        self.wrong += other.wrong


class Hang(BaseException):
    """A reader took too long."""


def fuzz(target: fuzz_targets.Target, folder: Path, seconds: float, seed: int, keep: Path | None) -> Tally:
    """Fuzz one reader in processes of its own, each for a part of the time."""
    tally, part, end = Tally(), 0, time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        part += 1
        report = folder / "report.json"
        report.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            code = 1
            try:
                _child(target, folder, min(left, PART_SECONDS), f"{seed} {part}", keep, report)
                code = 0
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if report.exists():
            executions, taken, wrong = json.loads(report.read_text())
            tally.add(Tally(executions, taken, Counter(wrong)))
        if status:
            tally.wrong[f"the process ended with {status}"] += 1
            _keep(folder / target.name, keep, target)
    return tally


def _child(
    target: fuzz_targets.Target, folder: Path, seconds: float, seed: str, keep: Path | None, report: Path
) -> None:
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    signal.signal(signal.SIGALRM, _hang)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # what libraries say
    warnings.simplefilter("error")  # the user would see them
    rng, tally, end = random.Random(seed), Tally(), time.monotonic() + seconds
    path = folder / target.name
    while time.monotonic() < end:
        path.write_bytes(target.mutate(rng.choice(target.seeds), rng))
        tally.executions += 1
        if wrong := _tried(target, tally):
            tally.wrong[wrong] += 1
            _keep(path, keep, target)
        if tally.executions % 50 == 0 or time.monotonic() >= end:
            report.write_text(json.dumps([tally.executions, tally.taken, tally.wrong]))


def _tried(target: fuzz_targets.Target, tally: Tally) -> str | None:
    """What is wrong with how a reader takes the present file."""
    signal.alarm(MOST_SECONDS)
    try:
        wrong = target.read(target.name)
        tally.taken += 1
        return wrong
    except Kron2SumError as error:
        return None if str(error) else "an error without a message"
    except Hang:
        return "hang"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in place if "kron2sum_cli" in frame.filename] or place
        return f"{type(error).__name__} in {Path(ours[-1].filename).name}:{ours[-1].lineno}"
    finally:
        signal.alarm(0)


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


def _keep(path: Path, keep: Path | None, target: fuzz_targets.Target) -> None:
    if keep is not None:
        number = len(list(keep.glob(f"{target.reader}-*")))
        if number < 20:
            shutil.copy(path, keep / f"{target.reader}-{number}-{path.name}")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder, in memory where there is such a file system."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz", dir=place) as folder:
        yield Path(folder)


def main() -> int:
    """Fuzz the readers; the exit code is 1 where one did what it must not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each reader")
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=None, help="folder for files with which something went wrong")
    options = parser.parse_args()
    sound, total = True, 0
    with scratch() as folder:
        for target in fuzz_targets.targets(folder):
            if options.only is None or target.reader in options.only:
                tally = fuzz(target, folder, options.seconds, options.seed, options.keep)
                print(f"{target.reader}: {tally.executions} executions, {tally.taken} taken,", end=" ")
                print(f"{tally.wrong.total()} wrong", dict(tally.wrong) if tally.wrong else "", flush=True)
                sound, total = sound and not tally.wrong, total + tally.executions
    print(f"all: {total} executions")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
