"""A disk that fills up: one message, exit code 1, and no file under the output's name."""

import subprocess
from pathlib import Path

import pytest

from tests.safety.command_server import CommandServer, work_files

FIT = ("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed", "--out", "out.npz")
SCAN = ("scan", "-q", "--refit", "0", "--out", "out.parquet")
SCAN_TEXT = ("scan", "-q", "--refit", "0", "--to", "tsv", "--out", "out.tsv")
EXPORT = ("export", "-q", "--out", "out.tsv")
EXPORT_TABLE = ("export", "-q", "--out", "out.parquet")
COMMANDS = (FIT, SCAN, SCAN_TEXT, EXPORT, EXPORT_TABLE)

SHARES = (0.0, 0.001, 0.02, 0.3, 0.7, 1.0)
"""How much of the output fits; the last leaves room for all but a byte of it."""

SIZES: dict[tuple[str, ...], int] = {}
"""Of the outputs that commands have made."""


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join((command[0], command[-1])))
def test_file_that_cannot_grow(folder: Path, kron2sum: CommandServer, command: tuple[str, ...], share: float) -> None:
    out = folder / command[-1]
    if command not in SIZES:
        assert kron2sum(*command).code == 0
        SIZES[command] = out.stat().st_size
        for path in (out, folder / f"{out.name}.log"):
            path.unlink()
    size = SIZES[command]
    before = sorted(folder.iterdir())
    done = kron2sum(*command, most_bytes=min(int(size * share), size - 1))
    assert done.code == 1
    assert "no space left to write it" in done.line
    assert not out.exists()
    left = {path.name for path in folder.iterdir() if path not in before}
    assert left <= {f"{out.name}.log", f".{out.name}.kron2sum-blocks"}
    assert ("--resume" in done.line) == (f".{out.name}.kron2sum-blocks" in left)
    # With room again the next run needs no help, and leaves nothing aside.
    assert kron2sum(*command).code == 0
    assert work_files(folder) == []


def test_room_again_for_a_scan_that_goes_on(folder: Path, kron2sum: CommandServer) -> None:
    done = kron2sum(*SCAN_TEXT, most_bytes=60_000)
    assert (done.code, work_files(folder)) == (1, [".out.tsv.kron2sum-blocks"])
    assert kron2sum(*SCAN_TEXT, "--resume").code == 0
    resumed = (folder / "out.tsv").read_bytes()
    assert kron2sum(*SCAN_TEXT).code == 0
    assert (folder / "out.tsv").read_bytes() == resumed


def test_full_file_system(folder: Path, tmp_path: Path) -> None:
    """A small file system of its own, where the system allows one: outputs, work files and logs share its room."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    mount = f'mount -t tmpfs -o size=24k tmpfs {mounted} && exec "$@"'
    namespace = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts in a name space here")
    with CommandServer(namespace) as kron2sum:
        kron2sum.folder = folder
        for command in COMMANDS:
            out = f"{mounted}/{command[-1]}"
            done = kron2sum(*command[:-1], out)
            assert (done.code, f"{out}: " in done.line or "kron2sum-blocks: " in done.line) == (1, True)
            assert "no space left to write it" in done.line
            # The folder can be seen only from inside: what is not there cannot be exported.
            assert "there is no such file" in kron2sum("export", out).line
