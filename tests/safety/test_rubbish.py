"""Every input file of every command replaced by rubbish: one clear line, and nothing written."""

import gzip
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from kron2sum_cli.cli import run
from tests.safety.command_server import work_files
from tests.safety.conftest import SAMPLES

TABLE = b"FID,IID,a\n" + b"".join(b"f%d,i%d,%d\n" % (i, i, i * i % 7) for i in range(SAMPLES))

RUBBISH: dict[str, bytes] = {
    "nothing": b"",
    "a line end": b"\n",
    "blanks": b"  \n\t\n",
    "NUL bytes": b"\0" * 100,
    "a NUL byte in a table": TABLE.replace(b"i3,", b"i3,\0"),
    "random bytes": random.Random(1).randbytes(2000),
    "a byte order mark": b"\xef\xbb\xbf",
    "Latin-1": "FID IID é\nf0 i0 1\n".encode("latin1"),
    "UTF-16": TABLE.decode().encode("utf-16"),
    "UTF-32": TABLE.decode().encode("utf-32"),
    "a lone surrogate": b"FID,IID,a\nf0,i0,\xed\xa0\x80\n",
    "control characters": bytes(range(1, 32)) * 5 + b"\n",
    "an open quote": b'FID,IID,"a\nf0,i0,1\n',
    "a quote within": b'FID,IID,a\nf0,"i0"x,1\n',
    "a header": b"FID,IID,a\n",
    "a word": b"hello\n",
    "numbers": b"1 2 3\n4 5 6\n",
    "a long line": b"a" * 300_000,
    "many columns": b"FID,IID," + b",".join(b"c%d" % i for i in range(20_000)) + b"\nf0,i0,1\n",
    "old line ends": TABLE.replace(b"\n", b"\r"),
    "infinities": TABLE.replace(b"i3,2", b"i3,inf").replace(b"i4,2", b"i4,-inf"),
    "huge numbers": TABLE.replace(b"i3,2", b"i3,1e999"),
    "other digits": TABLE.replace(b"i3,2", "i3,１２".encode()),
    "a sample twice": TABLE + b"f0,i0,1\n",
    "a column twice": b"FID,IID,a,a\nf0,i0,1,2\n",
    "half a gzip": gzip.compress(TABLE)[:-20],
    "no gzip": b"\x1f\x8b" + b"junk" * 10,
    "half a zip": b"PK\x03\x04" + b"\0" * 50,
    "half a Parquet": b"PAR1" + b"\0" * 50 + b"PAR1",
    "half a .bed": b"\x6c\x1b\x01abc",
    "an old .bed": b"\x6c\x1b\x00abc",
    "half a .pgen": b"\x6c\x1b\x10" + b"abcdefgh",
    "half a BGEN": b"\x14\0\0\0" * 4 + b"bgen" + b"\0" * 20,
    "half a .npy": b"\x93NUMPY",
    "a .npy of objects": b"\x93NUMPY\x01\0\x46\0{'descr': '|O', 'fortran_order': False, 'shape': (60, 60), }      \n",
    "deep JSON": b"[" * 100_000,
}
NUMBERS = {"infinities", "huge numbers", "other digits", "a sample twice", "old line ends"}
"""Rubbish as numbers, that is right as a list of samples or of texts."""


@dataclass(frozen=True)
class Case:
    """A command whose file FILE is replaced; what it may take for right."""

    command: str
    taken: frozenset[str] = frozenset()


def case(command: str, *taken: str) -> Case:
    return Case(command, frozenset(taken))


FIT = "fit --grm g.bed --pheno y.csv --out out.npz"
SCAN = "scan --refit 0 --out out.parquet"
NOTHING = {"nothing", "a line end", "blanks", "a byte order mark"}

CASES = (
    case("fit --grm g.bed --out out.npz --pheno FILE", "old line ends"),
    case(f"{FIT} --covar FILE", "old line ends"),
    case(f"{FIT} --covar FILE --cat-covar a", *NUMBERS - {"a sample twice"}),
    case(f"{FIT} --keep FILE", *NUMBERS),
    case(f"{FIT} --grm-extract FILE"),
    case(f"{FIT} --trait-design FILE"),
    case(f"{FIT} --config FILE", *NOTHING),
    case("fit --pheno y.csv --out out.npz --grm FILE", "old line ends"),
    case("fit --pheno y.csv --out out.npz --grm K.txt --grm-id FILE", *NUMBERS - {"a sample twice"}),
    case("fit --pheno y.csv --out out.npz --grm FILE --grm-id K.id"),
    case(f"{SCAN} --null FILE"),
    case(f"{SCAN} --geno FILE"),
    case(f"{SCAN} --extract FILE"),
    case(f"{SCAN} --sets FILE"),
    case(f"{SCAN} --test c=FILE"),
    case(f"{SCAN} --config FILE", *NOTHING),
    case("export --out out.csv FILE"),
    case("export --out out.csv scan.parquet FILE"),
    case("export --out out.csv scan.parquet --test c=FILE"),
    case("export --report out.csv scan.parquet --null FILE"),
    case("export --check FILE"),
)
COMPANIONS = tuple(
    (command, suffix)
    for command in ("fit --pheno y.csv --out out.npz --grm r.bed", f"{SCAN} --geno r.bed")
    for suffix in ("bed", "bim", "fam")
) + tuple(("fit --pheno y.csv --out out.npz --grm r.grm.bin", suffix) for suffix in ("grm.bin", "grm.id"))


@pytest.fixture
def inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Further files of all kinds; fits of right ones make no profile intervals, which take most of their time."""
    monkeypatch.setattr("kron2sum_cli.fit.fit.CHEAP_PROFILE", 0)
    K = np.cov(np.random.default_rng(1).standard_normal((SAMPLES, 200)))
    np.savetxt(folder / "K.txt", K)
    K.astype("<f4")[np.tril_indices(SAMPLES)].tofile(folder / "r.grm.bin")
    for name in ("K.id", "r.grm.id"):
        (folder / name).write_text("".join(f"f{i} i{i}\n" for i in range(SAMPLES)))
    for suffix in ("bed", "bim", "fam"):
        shutil.copy(folder / f"g.{suffix}", folder / f"r.{suffix}")
    return folder


def problem(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with how a command that must fail ends; None for nothing, "taken" where it does not fail."""
    name = command.split()[0]
    code = run([*command.split(), "-q"])
    out, err = capsys.readouterr()
    written = [path.name for path in folder.glob("out.*") if path.suffix != ".log"]
    for path in folder.glob("out.*"):
        path.unlink()
    if code == 0:
        return "taken"
    lines = err.splitlines()
    if code == 2 and lines[-1] == f"Try 'kron2sum {name} --help'.":
        lines.pop()
    sound = (
        code in (1, 2, 3)
        and bool(lines)
        and lines[-1].startswith(f"kron2sum {name}: error: ")
        and all(line.startswith(f"kron2sum {name}: warning: ") for line in lines[:-1])
        and all(line.isprintable() and len(line) < 1100 for line in lines)
        and not any(word in err for word in ("Traceback", "internal error"))
    )
    return None if sound and not written and not out and not work_files(folder) else f"{code} {err} {written}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command.replace(" ", "_"))
def test_rubbish_in_the_place_of_a_file(inputs: Path, capsys: pytest.CaptureFixture[str], case: Case) -> None:
    problems = {}
    command = case.command.replace("FILE", "rubbish")
    for kind, content in RUBBISH.items():
        (inputs / "rubbish").write_bytes(content)
        problems[kind] = problem(command, inputs, capsys)
    (inputs / "rubbish").unlink()
    problems["no file"] = problem(command, inputs, capsys)
    (inputs / "rubbish").mkdir()
    problems["a folder"] = problem(command, inputs, capsys)
    wrong = {kind: text for kind, text in problems.items() if text is not None}
    assert wrong == dict.fromkeys(case.taken, "taken")


@pytest.mark.parametrize(("command", "suffix"), COMPANIONS)
def test_rubbish_in_the_place_of_a_companion(
    inputs: Path, capsys: pytest.CaptureFixture[str], command: str, suffix: str
) -> None:
    wrong = {}
    for kind, content in RUBBISH.items():
        (inputs / f"r.{suffix}").write_bytes(content)
        wrong[kind] = problem(command, inputs, capsys)
    (inputs / f"r.{suffix}").unlink()
    wrong["no file"] = problem(command, inputs, capsys)
    taken = NUMBERS - {"a sample twice"} if suffix == "grm.id" else set()
    assert {kind: text for kind, text in wrong.items() if text is not None} == dict.fromkeys(taken, "taken")


@contextmanager
def warned(capsys: pytest.CaptureFixture[str], text: str) -> Iterator[None]:
    yield
    lines = capsys.readouterr().err.splitlines()
    assert all("warning: " in line for line in lines)
    assert sum(text in line for line in lines) == 1


def test_lists_of_what_to_leave_out_may_name_nothing_that_is_there(
    inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list of people who withdrew serves many data sets; but it is said."""
    (inputs / "list").write_text("nobody nowhere\n")
    with warned(capsys, "--remove list: 1 of its 1 samples are not in g.fam"):
        assert run([*FIT.split(), "-q", "--remove", "list"]) == 0
    with warned(capsys, "--exclude list: 2 of its 2 names are in no variant"):
        assert run([*SCAN.split(), "-q", "--exclude", "list"]) == 0


def test_a_million_columns(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = b"".join(b",c%d" % i for i in range(1_000_000))
    (inputs / "wide").write_bytes(b"IID" + names + b"\ni0" + b",1" * 999_999 + b"\n")
    assert problem("fit --grm g.bed --out out.npz --pheno wide", inputs, capsys) is None
    assert run([*FIT.split(), "-q", "--covar", "wide", "--covar-name", "c1-c3"]) == 1
    assert "line 2: the row of sample 'i0' is too short: 1000000 fields" in capsys.readouterr().err


def test_names_of_what_is_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("/dev/zero", "/dev/urandom", "/dev/full", "/dev/null", "\x1b[2J", "x" * 5000, "a\nb", "a/b/../c"):
        without_pheno = FIT.replace("--pheno y.csv", "").split()
        for words in ([*FIT.split(), "--keep", name], [*without_pheno, "--pheno", name]):
            assert run([*words, "-q"]) == 1
            lines = capsys.readouterr().err.splitlines()
            assert lines[-1].startswith("kron2sum fit: error: ")
            assert all(line.isprintable() for line in lines)
