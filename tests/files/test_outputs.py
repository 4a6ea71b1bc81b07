"""Outputs appear whole or not at all."""

import errno
import fcntl
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kron2sum_cli.errors import OutputError
from kron2sum_cli.files import outputs
from kron2sum_cli.files.outputs import WORK_SUFFIX, atomic_output, guard_inputs


def work_files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if WORK_SUFFIX in path.name]


def test_appears_only_at_the_end(tmp_path):
    out = tmp_path / "scan.parquet"
    with atomic_output(str(out)) as file:
        file.write(b"abc")
        assert not out.exists()
        assert work_files(tmp_path) == [".scan.parquet.kron2sum-work"]
    assert out.read_bytes() == b"abc"
    assert work_files(tmp_path) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [(os.ST_RDONLY, "lies on a file system that can only be read"), (0, "cannot be written .*check the permissions")],
)
def test_a_folder_that_cannot_be_written_says_why(tmp_path, monkeypatch, flags, said):
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=flags))
    with pytest.raises(OutputError, match=said):
        outputs.check_output(str(tmp_path / "scan.parquet"))


def test_permissions_follow_the_umask(tmp_path):
    out = tmp_path / "x"
    old = os.umask(0o027)
    try:
        with atomic_output(str(out)):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


def test_a_private_file_stays_private(tmp_path):
    out = tmp_path / "x"
    out.touch()
    for mode in (0o600, 0o664):
        out.chmod(mode)
        with atomic_output(str(out)) as file:
            file.write(b"abc")
        assert (stat.S_IMODE(out.stat().st_mode), out.read_bytes()) == (mode, b"abc")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_leaves_the_old_file(tmp_path, error):
    out = tmp_path / "x"
    out.write_bytes(b"old")

    def fail():
        with atomic_output(str(out)) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert out.read_bytes() == b"old"
    assert work_files(tmp_path) == []


def test_replaces_a_former_output(tmp_path):
    out = tmp_path / "x"
    for content in (b"a much longer first content", b"second"):
        with atomic_output(str(out)) as file:
            file.write(content)
    assert out.read_bytes() == b"second"


def test_link_keeps_being_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "target")
    with atomic_output(str(link)) as file:
        file.write(b"abc")
    assert link.is_symlink()
    assert (tmp_path / "far" / "target").read_bytes() == b"abc"


def test_second_run_is_refused_while_the_first_lives(tmp_path):
    out = tmp_path / "x"
    with atomic_output(str(out)) as file:
        file.write(b"first")
        with pytest.raises(OutputError, match="another run is writing it"), atomic_output(str(out)):
            pass
    assert out.read_bytes() == b"first"


def test_stale_work_file_is_taken_over(tmp_path):
    (tmp_path / ".x.kron2sum-work").write_bytes(b"left behind by a killed run")
    with atomic_output(str(tmp_path / "x")) as file:
        file.write(b"abc")
    assert (tmp_path / "x").read_bytes() == b"abc"
    assert work_files(tmp_path) == []


def _write_forever(path: str) -> None:
    with atomic_output(path) as file:
        while True:
            file.write(b"x" * 1000)
            file.flush()
            time.sleep(0.001)


def test_killed_run_leaves_no_output_and_blocks_nobody(tmp_path):
    out = tmp_path / "x"
    process = multiprocessing.get_context("fork").Process(target=_write_forever, args=(str(out),))
    process.start()
    deadline = time.monotonic() + 10
    while not work_files(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not out.exists()
    assert work_files(tmp_path) == [".x.kron2sum-work"]
    with atomic_output(str(out)) as file:
        file.write(b"abc")
    assert out.read_bytes() == b"abc"
    assert work_files(tmp_path) == []


def test_lock_lost_to_a_rename_is_taken_again(tmp_path, monkeypatch):
    """Another run publishes between our opening of the work file and our lock on it."""
    out, work = tmp_path / "x", tmp_path / ".x.kron2sum-work"
    work.write_bytes(b"of the other run")
    real, calls = fcntl.flock, []

    def flock(descriptor, operation):
        if not calls:
            os.replace(work, out)
        calls.append(descriptor)
        real(descriptor, operation)

    monkeypatch.setattr(outputs.fcntl, "flock", flock)
    with atomic_output(str(out)) as file:
        assert out.read_bytes() == b"of the other run"
        file.write(b"ours")
    assert out.read_bytes() == b"ours"
    assert len(calls) == 2


def test_file_system_without_locks_still_works(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(outputs.fcntl, "flock", flock)
    with atomic_output(str(tmp_path / "x")) as file:
        file.write(b"abc")
    assert (tmp_path / "x").read_bytes() == b"abc"


def test_missing_folder_folder_and_file_as_folder(tmp_path):
    missing = str(tmp_path / "nowhere" / "x")
    with pytest.raises(OutputError, match="nowhere/x: the folder .*nowhere does not"), atomic_output(missing):
        pass
    (tmp_path / "link").symlink_to(missing)
    with pytest.raises(OutputError, match="link: the folder .*nowhere does not"), atomic_output(str(tmp_path / "link")):
        pass
    with (
        pytest.raises(OutputError, match="is too long .* choose a shorter"),
        atomic_output(str(tmp_path / ("x" * 250))),
    ):
        pass
    with pytest.raises(OutputError, match="is a folder"), atomic_output(str(tmp_path)):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is not a folder"), atomic_output(str(tmp_path / "file" / "x")):
        pass


def test_write_protected_file_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "x"
    out.write_text("old")
    monkeypatch.setattr(outputs.os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="write-protected"), atomic_output(str(out)):
        pass
    assert out.read_text() == "old"


_LIMITED = """
import resource, sys
from kron2sum_cli.errors import OutputError
from kron2sum_cli.files.outputs import atomic_output
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with atomic_output(sys.argv[1]) as file:
        for _ in range(100):
            file.write(b"x" * 1000)
except OutputError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.parametrize("limit", [0, 1, 999, 50_000, 99_999])
def test_no_space_left(tmp_path, limit):
    out = tmp_path / "x"
    done = subprocess.run([sys.executable, "-c", _LIMITED, str(out), str(limit)], capture_output=True, text=True)
    assert done.returncode == 1
    assert str(out) in done.stdout and "no space left" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_errors_of_reading_keep_their_own_file(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_output(str(tmp_path / "x")):
        (tmp_path / "input").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_standard_output(capfdbinary):
    with atomic_output("-") as file:
        file.write(b"abc")
    with atomic_output("/dev/stdout") as file:
        file.write(b"def")
    assert capfdbinary.readouterr().out == b"abcdef"


def test_redirected_dev_stdout_is_not_renamed(tmp_path):
    code = (
        "from kron2sum_cli.files.outputs import atomic_output\nwith atomic_output('/dev/stdout') as f: f.write(b'abc')"
    )
    with open(tmp_path / "x", "wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "x").read_bytes() == b"abc"
    assert work_files(tmp_path) == []


def test_closed_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="standard output is closed"), atomic_output("-"):
        pass


def test_device_and_pipe(tmp_path):
    with atomic_output("/dev/null") as file:
        file.write(b"abc")
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    with atomic_output(str(fifo)) as file:
        file.write(b"abc")
    reader.join()
    assert read == [b"abc"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_full_device_is_named():
    with pytest.raises(OutputError, match="/dev/full: no space left"), atomic_output("/dev/full") as file:
        file.write(b"abc")


def test_inputs_are_guarded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("y.csv").write_text("")
    Path("hard").hardlink_to("y.csv")
    Path("soft").symlink_to("y.csv")
    for out in ("y.csv", "./y.csv", str(tmp_path / "y.csv"), "hard", "soft"):
        with pytest.raises(OutputError, match="also an input"):
            guard_inputs(out, ["-", "not there", "y.csv"])
    guard_inputs("z.csv", ["y.csv"])
    guard_inputs("-", ["-", "y.csv"])
    guard_inputs("/dev/null", ["/dev/null"])
    with pytest.raises(OutputError):
        guard_inputs("not there", ["not there"])


def test_unfinished_files_can_be_discarded(tmp_path):
    with pytest.raises(OutputError), atomic_output(str(tmp_path / "x")):
        outputs.discard_unfinished()
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_finished_parts_stays_once_there_are_some(tmp_path: Path) -> None:
    path = tmp_path / "blocks"
    for finished in (False, True):
        path.touch()
        with path.open("r+b") as file, (work := outputs.FinishedWork(file, str(path))).announced():
            if finished:
                work.keep()
            outputs.discard_unfinished()
            assert path.exists() == finished
