"""Run every command where its output fits only in part, at many points; nothing must be left under its name.

    python -m benchmarks.full_disk --points 20

No file may grow beyond a limit (RLIMIT_FSIZE), which goes evenly from 0 to a byte less than the output has: to the
program that is a full disk. Counted are the runs that left a file under the name of the output, a work file, or ended
otherwise than with exit code 1 and one line that says that there is no space left for which file; and those that did
not give the same bytes when there was room again.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.forked import Ended, run
from benchmarks.simulated import write_genotypes, write_traits

SAMPLES, VARIANTS = 120, 2000
COMMANDS = {
    "fit": "fit -q --pheno y.csv --grm g.bed --out out.npz",
    "scan": "scan -q --out out.parquet",
    "scan to text": "scan -q --to tsv --out out.tsv",
    "export": "export -q --out out.tsv",
    "export to Parquet": "export -q --out out.parquet",
}
MAY_STAY = (".log", ".kron2sum-blocks")


@dataclass
class Tally:
    """Runs, and what must stay 0."""

    runs: int = 0
    partial: int = 0
    work_files: int = 0
    unclear: int = 0
    different: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.partial or self.work_files or self.unclear or self.different)


def is_clear(ended: Ended, out: str) -> bool:
    """Whether a run says in one line what there was no space for."""
    lines = ended.said.splitlines()
    return ended.code == 1 and len(lines) == 1 and out in lines[0] and "no space left to write it" in lines[0]


def fill_up(command: str, points: int) -> Tally:
    """Try one command at so many points."""
    arguments, tally = command.split(), Tally()
    out = Path(arguments[-1])
    before = set(os.listdir())
    if run(arguments).code:
        raise RuntimeError(command)
    expected = out.read_bytes()
    for point in range(points):
        out.unlink()
        limit = point * (len(expected) - 1) // (points - 1)
        ended = run(arguments, most_bytes=limit)
        left = {name for name in os.listdir() if not name.endswith(MAY_STAY)} - before
        tally.runs += 1
        tally.partial += out.name in left
        tally.work_files += bool(left - {out.name})
        tally.unclear += not is_clear(ended, out.name)
        again = run(arguments)
        tally.different += again.code != 0 or out.read_bytes() != expected
    for name in set(os.listdir()) - before:
        os.unlink(name)
    return tally


def main() -> int:
    """Run the commands and print what happened; the exit code is 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=20, help="for each command, at least 2")
    options = parser.parse_args()
    sound = True
    with tempfile.TemporaryDirectory(prefix="full_disk") as folder:
        os.chdir(folder)
        write_genotypes(Path("g"), SAMPLES, VARIANTS, missing=0.01)
        write_traits(Path("y.csv"), SAMPLES, 2)
        for command in ("fit -q --pheno y.csv --grm g.bed", "scan -q"):
            if run(command.split()).code:
                raise RuntimeError(command)
        for name, command in COMMANDS.items():
            tally = fill_up(command, options.points)
            sound = sound and tally.sound
            print(
                f"{name}: {tally.runs} points; partial files: {tally.partial}, work files: {tally.work_files},"
                f" unclear messages or other exit codes: {tally.unclear}, different afterwards: {tally.different}",
                flush=True,
            )
        os.chdir("/")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
