"""The command ``kron2sum`` for shells and other programs that tests start."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment_with_command(folder: Path) -> dict[str, str]:
    """The environment, with ``kron2sum`` of this Python and this checkout on the path.

    Parameters
    ----------
    folder : where the command is put
    """
    folder.mkdir()
    command = folder / "kron2sum"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kron2sum_cli "$@"\n')
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KRON2SUM_")}
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT)}


def copy_of_checkout(folder: Path, *names: str) -> Path:
    """A folder with copies of some folders of the checkout, without what earlier runs left in them."""
    made = ("*.npz", "*.parquet", "*.log")
    for name in names:
        leftovers = shutil.ignore_patterns("__pycache__", "results", "work", "jars", ".snakemake", ".nextflow*", *made)
        shutil.copytree(ROOT / name, folder / name, ignore=leftovers)
    return folder


_SERVER = """
import json, os, signal, socket, sys, traceback
import kron2sum_cli.cli, kron2sum_cli.export.export, kron2sum_cli.fit.fit, kron2sum_cli.scan.scan
import matplotlib.pyplot

def run(caller):
    task, files, _, _ = socket.recv_fds(caller, 1 << 16, 3)
    while more := caller.recv(1 << 16):
        task += more
    arguments, folder, environment = json.loads(task)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, max(files) + 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    kron2sum_cli.cli.main(arguments)

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(99)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
print("ready", flush=True)
while True:
    caller, _ = listener.accept()
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        command = os.fork()
        if command == 0:
            try:
                run(caller)
            except BaseException:
                traceback.print_exc()
            os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        caller.send(b"%d" % (code if code >= 0 else 128 - code))
        os._exit(0)
    caller.close()
"""

_CALLER = """
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
task = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [task], [0, 1, 2])
server.shutdown(socket.SHUT_WR)
sys.exit(int(server.recv(9)))
"""


@contextmanager
def quick_environment(folder: Path) -> Iterator[dict[str, str]]:
    """As `environment_with_command`, with a ``kron2sum`` that need not start: one process that has loaded all
    libraries forks for each command, which has the caller's files, folder and environment.
    """
    environment = environment_with_command(folder)
    with tempfile.TemporaryDirectory() as short:  # names of sockets have 100 characters
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, f"{short}/socket"],
            env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
        )
        try:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            caller = [sys.executable, "-I", "-S", "-c", _CALLER, f"{short}/socket"]
            (folder / "kron2sum").write_text(f'#!/bin/sh\nexec {shlex.join(caller)} "$@"\n')
            yield environment
        finally:
            server.terminate()
            server.communicate()
