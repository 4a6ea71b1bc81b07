"""Ctrl-C, termination and closed pipes, on whole processes."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from command_on_path import ROOT

from kron2sum_cli.__main__ import main as module_main
from kron2sum_cli.files.outputs import WORK_SUFFIX

PROGRAM = """
import signal, sys, threading, time, types
import numpy
from kron2sum_cli.cli import main
from kron2sum_cli.files.outputs import atomic_output

def sleeps(settings, progress):
    with atomic_output(settings.out) as file:
        file.write(b"x")
        print("ready", flush=True)
        time.sleep(60)

def computes(settings, progress):
    # A long call that minds no signal.
    matrix = numpy.eye(4000) + 1 / (1 + numpy.add.outer(numpy.arange(4000), numpy.arange(4000)))
    with atomic_output(settings.out) as file:
        file.write(b"x")
        print("ready", flush=True)
        while True:
            numpy.linalg.eigh(matrix)

def threads(settings, progress):
    # A worker that does not end, and is waited for.
    worker = threading.Thread(target=time.sleep, args=(60,))
    worker.start()
    print("ready", flush=True)
    worker.join()

def delays(settings, progress):
    # Both signals arrive, at another thread, before Python runs the handler of the first.
    with atomic_output(settings.out) as file:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        print("ready", flush=True)
        time.sleep(0.3)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        time.sleep(60)

class Destroyed:
    def __del__(self):
        # Python prints what is raised here, and goes on.
        print("ready", flush=True)
        time.sleep(60)

def destroys(settings, progress):
    with atomic_output(settings.out) as file:
        file.write(b"x")
        Destroyed()
        time.sleep(60)

module = sys.modules["kron2sum_cli.scan.scan"] = types.ModuleType("scan")
module.scan_variants = globals()[sys.argv[1]]
sys.exit(main(["scan"]))
"""


def stopped(folder: Path, how: str, *numbers: int) -> tuple[int, str, float]:
    """Start a scan, send signals, and return the exit code, the messages and the seconds until the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    started = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.01)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors, time.monotonic() - started


@pytest.mark.parametrize("how", ["sleeps", "computes", "threads", "destroys"])
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_one_line_soon_and_nothing_left(tmp_path, how, number, code, word):
    found, errors, seconds = stopped(tmp_path, how, number)
    assert (found, errors) == (code, f"kron2sum scan: {word}\n")
    assert seconds < 2  # one second, and room for a busy machine
    assert not (tmp_path / "scan.parquet").exists()
    assert not [path for path in tmp_path.iterdir() if WORK_SUFFIX in path.name]


@pytest.mark.skipif(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="hang-ups are ignored, as under nohup")
def test_hanging_up_ends_it_too(tmp_path):
    assert stopped(tmp_path, "sleeps", signal.SIGHUP)[0] == 129


@pytest.mark.parametrize("how", ["sleeps", "delays"])
def test_several_signals_are_as_good_as_one(tmp_path, how):
    found, errors, _ = stopped(tmp_path, how, *[signal.SIGINT] * 5, signal.SIGTERM)
    assert (found, errors) == (130, "kron2sum scan: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.parquet.log"]


def test_log_says_how_it_ended(tmp_path):
    stopped(tmp_path, "sleeps", signal.SIGTERM)
    assert "Stopped: terminated" in (tmp_path / "scan.parquet.log").read_text()


def test_ignored_signals_stay_ignored(tmp_path):
    """As under nohup."""
    program = PROGRAM.replace("time.sleep(60)", "time.sleep(1)")
    command = f"trap '' HUP; exec {sys.executable} -c \"$PROGRAM\" sleeps"
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"PROGRAM": program}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert (tmp_path / "scan.parquet").read_bytes() == b"x"


TESTS_AND_PROGRAM = os.pathsep.join(map(str, Path(__file__).resolve().parents[1:3]))

EXPORT = """
import sys, numpy, pyarrow as pa
from kron2sum_cli.cli import main
from kron2sum_cli.files.scan_columns import scan_schema
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.files.scan_table import ScanWriter, scan_batch
from scan_metadata_of import scan_metadata_of
metadata = scan_metadata_of(["a"], Span(((0, 50000),), ((0, 50000),), 50000))
schema = scan_schema(["a"], [])
columns = {f.name: ["x"] * 50000 if f.type == pa.string() else numpy.zeros(50000) for f in schema}
with open("scan.parquet", "wb") as file, ScanWriter(file, schema, metadata=metadata) as writer:
    writer.write(scan_batch(schema, columns))
sys.exit(main(["export", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("to", ["tsv", "json", "parquet"])
def test_reader_that_closes_early_ends_it_quietly(tmp_path, to):
    command = f'{sys.executable} -c "$PROGRAM" --to {to} | head -c 100 | wc -c; exit ${{PIPESTATUS[0]}}'
    environment = os.environ | {"PROGRAM": EXPORT, "PYTHONPATH": TESTS_AND_PROGRAM}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "100", "")


def test_full_device_under_standard_output(tmp_path):
    command = f'{sys.executable} -c "$PROGRAM" > /dev/full'
    environment = os.environ | {"PROGRAM": EXPORT, "PYTHONPATH": TESTS_AND_PROGRAM}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("kron2sum export: error: standard output: no space left")
    assert len(done.stderr.splitlines()) == 1


def test_closed_standard_output(tmp_path):
    command = f'{sys.executable} -c "$PROGRAM" >&-'
    environment = os.environ | {"PROGRAM": EXPORT, "PYTHONPATH": TESTS_AND_PROGRAM}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "standard output is closed" in done.stderr


LOADING = """
import os, runpy, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
runpy.run_module("kron2sum_cli", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["kron2sum_cli.cli", "click", "kron2sum_cli.settings"])
def test_interrupted_while_it_is_loaded(module):
    done = subprocess.run([sys.executable, "-c", LOADING, module], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "kron2sum: interrupted\n")


def test_the_command_is_the_module():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"kron2sum": f"kron2sum_cli.__main__:{module_main.__name__}"}
