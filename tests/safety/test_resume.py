"""What --resume goes on with, and what it refuses."""

import fcntl
import os
import signal
from pathlib import Path

import pytest

from kron2sum_cli.cli import run
from tests.safety.command_server import CommandServer, work_files

SCAN = ("scan", "-q", "--refit", "0", "--out", "out.tsv")
BLOCKS = ".out.tsv.kron2sum-blocks"


MADE: dict[str, bytes] = {}
"""Files that are the same for all tests."""


@pytest.fixture
def interrupted(folder: Path, kron2sum: CommandServer) -> Path:
    """The finished blocks of a scan that found no room for its table: of all its variants."""
    if BLOCKS not in MADE:
        assert kron2sum(*SCAN, most_bytes=60_000).code == 1
        assert work_files(folder) == [BLOCKS]
        MADE[BLOCKS] = (folder / BLOCKS).read_bytes()
    (folder / BLOCKS).write_bytes(MADE[BLOCKS])
    return folder / BLOCKS


@pytest.fixture
def expected(folder: Path, kron2sum: CommandServer) -> bytes:
    """The table of a scan that nothing interrupts."""
    if "expected.tsv" not in MADE:
        assert kron2sum(*SCAN[:-1], "expected.tsv").code == 0
        MADE["expected.tsv"] = (folder / "expected.tsv").read_bytes()
    return MADE["expected.tsv"]


def log_of(folder: Path) -> str:
    return (folder / "out.tsv.log").read_text()


def test_resumed(expected: bytes, interrupted: Path, kron2sum: CommandServer) -> None:
    assert kron2sum(*SCAN, "--resume").code == 0
    assert "1 finished block of an interrupted scan taken over" in log_of(interrupted.parent)
    assert (interrupted.parent / "out.tsv").read_bytes() == expected
    assert not interrupted.exists()


def test_without_resume_it_begins_again(expected: bytes, interrupted: Path, kron2sum: CommandServer) -> None:
    assert kron2sum(*SCAN).code == 0
    assert "taken over" not in log_of(interrupted.parent)
    assert (interrupted.parent / "out.tsv").read_bytes() == expected


def test_any_damage_is_thrown_away(expected: bytes, interrupted: Path, kron2sum: CommandServer) -> None:
    """Cut or changed anywhere: what remains of it is right, and the result is the same."""
    content = interrupted.read_bytes()
    edges = [0, 1, 31, 32, 33, len(content) // 2, len(content) - 1]
    changed = [bytearray(content) for _ in range(8)]
    for number, copy in enumerate(changed):
        copy[number * (len(copy) - 1) // 7] ^= 1 << number
    for damaged in [*(content[:edge] for edge in edges), *changed, content + b"more", os.urandom(1000)]:
        interrupted.write_bytes(damaged)
        assert kron2sum(*SCAN, "--resume").code == 0
        assert (interrupted.parent / "out.tsv").read_bytes() == expected
        assert not interrupted.exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--maf", "0.1"), "the filters changed since the interrupted scan: filters: maf (0.1 instead of null)"),
        (("--stat", "f"), 'the options changed since the interrupted scan: settings: stat ("f" instead of "lr")'),
        (("--chr", "1"), "the shard or region changed"),
        (("--test", "common"), "the options changed"),
        (("--precision", "double"), "the options changed"),
        (("--null", "other.npz"), "the null model changed since the interrupted scan: null: "),
        (("--geno", "v.bed"), "the files read changed since the interrupted scan: inputs: geno"),
    ],
)
def test_refused_where_something_differs(
    interrupted: Path, kron2sum: CommandServer, options: tuple[str, ...], what: str
) -> None:
    folder = interrupted.parent
    other = ("fit", "-q", "--rank", "1", "--pheno", "y.csv", "--grm", "g.bed", "--out", "other.npz")
    assert "other.npz" not in options or kron2sum(*other).code == 0
    for suffix in ("bed", "bim", "fam"):
        (folder / f"v.{suffix}").write_bytes((folder / f"g.{suffix}").read_bytes().replace(b"v17\t", b"w17\t"))
    before = interrupted.read_bytes()
    done = kron2sum(*SCAN, "--resume", *options)
    assert done.code == 1
    assert done.line.startswith("kron2sum scan: error: out.tsv: cannot be resumed, as ")
    assert what in done.line
    assert done.line.endswith("; use the same, or scan without --resume")
    assert interrupted.read_bytes() == before


def test_another_version_is_refused(
    interrupted: Path, kron2sum: CommandServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kron2sum_cli.scan.table.__version__", "99")
    before = interrupted.read_bytes()
    assert run([*SCAN, "--resume"]) == 1
    assert "the version of kron2sum changed" in log_of(interrupted.parent)
    assert interrupted.read_bytes() == before


def test_two_scans_of_one_output_do_not_mix(folder: Path, kron2sum: CommandServer) -> None:
    """The second is refused while the first lives; a dead one is no obstacle."""
    reading = folder / "pipe"
    os.mkfifo(reading)
    first = kron2sum.start(*SCAN, "--extract", "pipe")
    with CommandServer() as second:
        second.folder = folder
        while not (folder / "out.tsv.log").exists():
            pass
        done = second(*SCAN)
        assert (done.code, "another run is writing it now" in done.line) == (1, True)
        os.kill(first, signal.SIGKILL)
        assert kron2sum.wait().code == -signal.SIGKILL
        assert second(*SCAN).code == 0


@pytest.mark.parametrize("name", [BLOCKS, ".out.tsv.kron2sum-work"])
def test_another_log_does_not_help(folder: Path, kron2sum: CommandServer, name: str) -> None:
    with open(folder / name, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = kron2sum(*SCAN, "--log", "other.log")
    assert done.line == (
        "kron2sum scan: error: out.tsv: another run is writing it now; wait for it to end or choose another name"
    )


def test_sets_are_resumed(folder: Path, kron2sum: CommandServer) -> None:
    """All their blocks were finished when the table found no room; other sets or another seed of lr are refused."""
    names = [line.split()[1] for line in (folder / "g.bim").read_text().splitlines()]
    text = "".join(f"s{k} {' '.join(names[k : k + 3])}\n" for k in range(0, 390, 2))
    (folder / "sets.txt").write_text(text)
    sets = ("scan", "-q", "--sets", "sets.txt", "--set-test", "skat", "--set-test", "fixed", "--test", "common")
    assert kron2sum(*sets, "--out", "expected.tsv").code == 0
    assert kron2sum(*sets, "--out", "out.tsv", most_bytes=40_000).code == 1
    assert work_files(folder) == [BLOCKS]
    (folder / "sets.txt").write_text(text.replace("s2 ", "s3 "))
    done = kron2sum(*sets, "--out", "out.tsv", "--resume")
    assert (done.code, "the files read changed since the interrupted scan: inputs: sets" in done.line) == (1, True)
    (folder / "sets.txt").write_text(text)
    assert kron2sum(*sets, "--out", "out.tsv", "--set-max-maf", "0.2", "--resume").code == 1
    assert kron2sum(*sets, "--out", "out.tsv", "--resume").code == 0
    assert "1 finished block of an interrupted scan taken over" in log_of(folder)
    assert (folder / "out.tsv").read_bytes() == (folder / "expected.tsv").read_bytes()
    assert work_files(folder) == []
