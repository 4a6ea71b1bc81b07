"""The command ``kron2sum`` for shells and other programs that tests start."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent

CLIENT = """
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b"."], [0, 1, 2])
server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
server.shutdown(socket.SHUT_WR)
sys.exit(int(server.recv(9)))
"""
"""Hands its arguments, folder, environment and streams to the server, and ends with the exit code."""

SERVER = """
import json, os, socket, sys
from kron2sum_cli.cli import main
import kron2sum_cli.export.export, kron2sum_cli.fit.fit, kron2sum_cli.scan.scan

def serve(client):
    streams = socket.recv_fds(client, 1, 3)[1]
    arguments, folder, environment = json.loads(client.makefile().read())
    if command := os.fork():
        os.closerange(min(streams), max(streams) + 1)  # a pipe ends with its last reader and writer
        client.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(command, 0)[1]))
        os._exit(0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, max(streams) + 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    main(arguments)

listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    client, _ = listener.accept()
    if not os.fork():
        serve(client)
    client.close()
"""


def environment_with_command(folder: Path, program: str = "-m kron2sum_cli") -> dict[str, str]:
    """The environment, with ``kron2sum`` of this Python and this checkout on the path.

    Parameters
    ----------
    folder : where the command is put
    program : what Python runs
    """
    folder.mkdir()
    command = folder / "kron2sum"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {program} "$@"\n')
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KRON2SUM_")}
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT)}


@contextmanager
def forked_command() -> Iterator[dict[str, str]]:
    """The same, where one process imports everything, and forks for each command."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        client, address = Path(folder, "client.py"), f"{folder}/socket"
        client.write_text(CLIENT.format(address=address))
        listener.bind(address)
        listener.listen()
        environment = environment_with_command(Path(folder, "bin"), f'-I -S "{client}"')
        server = [sys.executable, "-c", SERVER, str(listener.fileno())]
        with subprocess.Popen(server, env=environment, pass_fds=[listener.fileno()]) as process:
            try:
                yield environment
            finally:
                process.terminate()


def copy_of_checkout(folder: Path, *names: str) -> Path:
    """A folder with copies of some folders of the checkout, without what earlier runs left in them."""
    made = ("*.npz", "*.parquet", "*.log")
    for name in names:
        leftovers = shutil.ignore_patterns("__pycache__", "results", "work", "jars", ".snakemake", ".nextflow*", *made)
        shutil.copytree(ROOT / name, folder / name, ignore=leftovers)
    return folder
