"""A small fitted model and a scan of it, and a server that runs commands."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.simulated import write_genotypes, write_traits
from tests.safety.command_server import CommandServer

SAMPLES, VARIANTS = 60, 400


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with g.bed, y.csv, null.npz and scan.parquet."""
    folder = tmp_path_factory.mktemp("made")
    write_genotypes(folder / "g", SAMPLES, VARIANTS, missing=0.02)
    write_traits(folder / "y.csv", SAMPLES, 2)
    with CommandServer() as kron2sum:
        kron2sum.folder = folder
        fit = kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed")
        scan = kron2sum("scan", "-q", "--refit", "0")
    assert (fit.code, scan.code, scan.err) == (0, 0, "")
    for log in folder.glob("*.log"):
        log.unlink()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of `made`, in which the test runs."""
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="session")
def shared_server() -> Iterator[CommandServer]:
    """One server for all tests."""
    with CommandServer() as server:
        yield server


@pytest.fixture
def kron2sum(folder: Path, shared_server: CommandServer) -> CommandServer:
    """Runs commands in `folder`."""
    shared_server.folder = folder
    return shared_server
