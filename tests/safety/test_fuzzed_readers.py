"""A short run of the fuzzer of readers, and what longer runs have found."""

import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz_readers
from benchmarks.fuzz_targets import Target, targets
from kron2sum_cli.cli import run
from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.relationship import open_relationship

EXECUTIONS = 25


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Target]]:
    """A folder, and the readers with their files in it."""
    folder = tmp_path_factory.mktemp("fuzzed")
    return folder, list(targets(folder))


def test_every_reader_refuses_or_reads(fuzzed: tuple[Path, list[Target]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, readers = fuzzed
    monkeypatch.chdir(folder)
    wrong = {}
    for target in readers:
        whole = (folder / target.name).read_bytes() if (folder / target.name).exists() else None
        rng, tally = random.Random(7), fuzz_readers.Tally()
        for _ in range(EXECUTIONS):
            (folder / target.name).write_bytes(target.mutate(rng.choice(target.seeds), rng))
            if found := fuzz_readers._tried(target, tally):
                wrong[target.reader] = found
        if whole is not None:
            (folder / target.name).write_bytes(whole)
    assert wrong == {}


def test_valid_files_are_read(fuzzed: tuple[Path, list[Target]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fuzzer starts from is taken, so that it tries more than the door."""
    folder, readers = fuzzed
    monkeypatch.chdir(folder)
    for target in readers:
        before = (folder / target.name).read_bytes() if (folder / target.name).exists() else None
        for seed in target.seeds:
            (folder / target.name).write_bytes(seed)
            assert target.read(target.name) is None, target.reader
        if before is not None:
            (folder / target.name).write_bytes(before)


def matrix(folder: Path, content: np.ndarray | bytes) -> str:
    """A .npy, and its names."""
    if isinstance(content, bytes):
        (folder / "K.npy").write_bytes(content)
    else:
        np.save(folder / "K.npy", content)
    return str(folder / "K.npy")


@pytest.mark.parametrize("header", [b"{'descr': '<f8', (\n", b"'''", b"(" * 300, b"{'shape': 1e9999}", b"\xff\x00"])
def test_headers_that_python_cannot_parse(folder: Path, header: bytes) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(InputError, match="is not a readable .npy"):
        open_relationship(matrix(folder, content), "g.fam")


def test_names_for_genotypes_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They have their own, which would be used instead."""
    assert run(["fit", "-q", "--pheno", "y.csv", "--grm", "g.bed", "--grm-id", "g.fam"]) == 2
    assert "g.bed has names of its own: leave out --grm-id g.fam" in capsys.readouterr().err


def test_devices_that_never_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device in ("/dev/zero", "/dev/urandom"):
        assert run(["scan", "--null", device]) == 1
        assert "not a null model of kron2sum fit" in capsys.readouterr().err
