"""Runs kron2sum in processes of its own, quickly: one process imports everything, and forks for each command.

with CommandServer() as kron2sum:
    kron2sum.folder = folder
    done = kron2sum("scan", "--null", "null.npz", most_bytes=1000)
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = """
import json, os, resource, sys
from kron2sum_cli.cli import main
import kron2sum_cli.export.export, kron2sum_cli.fit.fit, kron2sum_cli.scan.scan

def run(task, err):
    os.dup2(os.open(task["in"], os.O_RDONLY), 0)
    os.dup2(os.open(task["out"], os.O_WRONLY), 1)
    os.dup2(err, 2)
    os.chdir(task["folder"])
    exec(task["change"], {})
    if task["most_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["most_bytes"],) * 2)
    return main(task["arguments"])

for line in sys.stdin:
    task = json.loads(line)
    said, err = os.pipe()  # no file: its size is limited, too
    child = os.fork()
    if not child:
        code = 99
        try:
            code = run(task, err)
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(err)
    print(child, flush=True)
    with os.fdopen(said, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), text]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (negative for a signal), what it printed and said."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that it said, beside warnings."""
        (line,) = (line for line in self.err.splitlines() if ": warning: " not in line)
        return line


class CommandServer:
    """Runs commands in `folder`; `before` goes before the Python that runs them."""

    def __init__(self, before: Sequence[str] = ()) -> None:
        self.folder = Path()
        self._captured = tempfile.TemporaryDirectory()
        self._out = Path(self._captured.name, "out")
        self._process = subprocess.Popen(
            [*before, sys.executable, "-c", PROGRAM],
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)
        self._captured.cleanup()

    def __call__(self, *arguments: object, **options: Any) -> Done:
        """Run a command to its end."""
        self.start(*arguments, **options)
        return self.wait()

    def start(
        self, *arguments: object, stdin: str = os.devnull, most_bytes: int | None = None, change: str = ""
    ) -> int:
        """Start a command; returns the number of its process.

        Parameters
        ----------
        arguments : of kron2sum
        stdin : a file
        most_bytes : no file may grow larger
        change : a program that runs first, in the same process
        """
        self._out.write_bytes(b"")
        task: dict[str, Any] = {"arguments": [str(argument) for argument in arguments], "change": change}
        task["most_bytes"] = most_bytes
        task |= {"folder": str(self.folder), "in": stdin, "out": str(self._out)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> Done:
        """Wait for the command that was started."""
        code, err = json.loads(self._line())
        return Done(code, self._out.read_text(errors="replace"), err)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def work_files(folder: Path) -> list[str]:
    """Files that only unfinished commands have."""
    return [path.name for path in folder.iterdir() if path.name.endswith((".kron2sum-work", ".kron2sum-blocks"))]
