"""Ctrl-C while real work is done, and readers that have seen enough."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scan_metadata_of import scan_metadata_of

from kron2sum_cli.files.scan_columns import scan_schema
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.files.scan_table import ScanWriter, scan_batch
from tests.safety.command_server import CommandServer, Done, work_files

SECONDS = 2.0
"""One second, and room for a busy machine."""


SLOW_BLOCKS = """
import time
import kron2sum_cli.scan.scan as scan, kron2sum_cli.scan.inputs as inputs
inputs.largest_block, test_block = lambda total: 16, scan.test_block
def slow(plan, block):
    time.sleep(0.02 if block.variants[0] < 200 else 60)
    return test_block(plan, block)
scan.test_block = slow
"""
"""The first blocks are quick; those after them are in work when Ctrl-C comes."""


def interrupted(
    kron2sum: CommandServer, ready: Callable[[], bool], *arguments: object, change: str = ""
) -> tuple[Done, float]:
    """Start a command, press Ctrl-C when it is ready; how it ended and after how many seconds."""
    child = kron2sum.start(*arguments, change=change)
    try:
        end = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < end
            time.sleep(0.01)
        began = time.monotonic()
        os.kill(child, signal.SIGINT)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        raise AssertionError(kron2sum.wait()) from error
    return kron2sum.wait(), time.monotonic() - began


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def test_eigendecomposition(folder: Path, kron2sum: CommandServer) -> None:
    n = 1800
    rng = np.random.default_rng(1)
    G = rng.standard_normal((n, n))
    np.save(folder / "K.npy", G @ G.T / n)
    (folder / "K.id").write_text("".join(f"i{i}\n" for i in range(n)))
    (folder / "Y.csv").write_text("IID,a\n" + "".join(f"i{i},{y:.4f}\n" for i, y in enumerate(G[:, 0])))
    log = folder / "out.npz.log"
    command = ("fit", "-q", "--pheno", "Y.csv", "--grm", "K.npy", "--grm-id", "K.id", "--out", "out.npz")
    done, seconds = interrupted(kron2sum, lambda: log.exists() and "samples read" in log.read_text(), *command)
    assert (done.code, done.err) == (130, "kron2sum fit: interrupted\n")
    assert seconds < SECONDS
    assert not (folder / "out.npz").exists()
    assert work_files(folder) == []


def test_scan(folder: Path, kron2sum: CommandServer) -> None:
    """The threads are in the middle of their blocks; those that are finished stay."""
    blocks = folder / ".out.parquet.kron2sum-blocks"
    command = ("scan", "-q", "--refit", "0", "--threads", "3", "--out", "out.parquet")
    done, seconds = interrupted(kron2sum, lambda: size(blocks) > 20_000, *command, change=SLOW_BLOCKS)
    assert (done.code, done.line) == (
        130,
        "kron2sum scan: interrupted; the blocks finished so far are kept: run it again with --resume to go on",
    )
    assert seconds < SECONDS
    assert not (folder / "out.parquet").exists()
    assert work_files(folder) == [blocks.name]


def test_scan_without_a_finished_block(folder: Path, kron2sum: CommandServer) -> None:
    work = folder / ".out.parquet.kron2sum-work"
    command = ("scan", "-q", "--refit", "0", "--out", "out.parquet")
    change = SLOW_BLOCKS.replace("200", "0")
    done, seconds = interrupted(kron2sum, work.exists, *command, change=change)
    assert (done.code, done.err) == (130, "kron2sum scan: interrupted\n")
    assert seconds < SECONDS
    assert sorted(path.name for path in folder.glob("*out.parquet*")) == ["out.parquet.log"]
    assert work_files(folder) == []


@pytest.fixture
def large(folder: Path) -> Path:
    """A table that takes seconds to export."""
    rows = 200_000
    metadata = scan_metadata_of(["a"], Span(((0, rows),), ((0, rows),), rows))
    schema = scan_schema(["a"], [])
    columns = {field.name: ["x"] * rows if field.type == pa.string() else np.zeros(rows) for field in schema}
    with open(folder / "large.parquet", "wb") as file, ScanWriter(file, schema, metadata=metadata) as writer:
        writer.write(scan_batch(schema, columns))
    return folder / "large.parquet"


def test_export(large: Path, kron2sum: CommandServer) -> None:
    folder = large.parent
    work = folder / ".out.json.kron2sum-work"
    done, seconds = interrupted(kron2sum, lambda: size(work) > 100_000, "export", "-q", large, "--out", "out.json")
    assert (done.code, done.err) == (130, "kron2sum export: interrupted\n")
    assert seconds < SECONDS
    assert sorted(path.name for path in folder.glob("*out.json*")) == ["out.json.log"]
    assert work_files(folder) == []


@pytest.mark.parametrize(
    "command",
    ["scan --refit 0 --out - --to tsv", "scan --refit 0 --out -", "export", "export --to json", "export null.npz"],
)
def test_head(folder: Path, command: str) -> None:
    line = f"{sys.executable} -m kron2sum_cli {command} -q | head -1 > head; echo ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert size(folder / "head") > 1
    assert work_files(folder) == []
