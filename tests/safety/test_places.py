"""Outputs in wrong places, odd names, and files that belong to an input."""

import os
import shutil
from pathlib import Path

import pytest

from kron2sum_cli.cli import run

FIT = "fit -q --pheno y.csv --grm g.bed --out"
SCAN = "scan -q --refit 0 --out"


def line_of(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line and ": warning: " not in line)
    return line


@pytest.mark.parametrize("companion", ["g.bed", "g.bim", "g.fam"])
def test_what_belongs_to_an_input_is_never_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str], companion: str
) -> None:
    content = (folder / companion).read_bytes()
    (folder / "link").symlink_to(companion)
    for command in (f"{FIT} {companion}", f"{FIT} link"):
        assert run(command.split()) == 1
        assert "is also an input" in line_of(capsys)
        assert (folder / companion).read_bytes() == content


def test_names_of_a_matrix_are_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = "".join(f"f{i} i{i}\n" for i in range(60))
    (folder / "K.rel.id").write_text(ids)
    (folder / "K.rel").write_text("\n".join(" ".join(str(float(i == j)) for j in range(60)) for i in range(60)) + "\n")
    assert run(["fit", "-q", "--pheno", "y.csv", "--grm", "K.rel", "--out", "K.rel.id"]) == 1
    assert "is also an input" in line_of(capsys)
    assert (folder / "K.rel.id").read_text() == ids


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{FIT} nowhere/x.npz --log x.log", "nowhere/x.npz: the folder nowhere does not exist; make it first"),
        (f"{FIT} folder", "folder: is a folder; name a file in it"),
        (f"{FIT} x.npz --log folder", "folder: is a folder; name a file in it"),
        (f"{FIT} x.npz --log y.csv", "y.csv: is also an input (y.csv), which is never overwritten"),
        (f"{FIT} x.npz --log g.fam", "g.fam: is there and is not a log of kron2sum; choose another --log"),
        (f"{FIT} y.csv/x --log x.log", "y.csv/x: y.csv is not a folder"),
        (f"{SCAN} x.parquet --log null.npz", "null.npz: is also an input (null.npz)"),
        ("export -q --out scan.parquet", "scan.parquet: is also an input (scan.parquet)"),
        ("export -q scan.parquet --to parquet --out ./scan.parquet", "./scan.parquet: is also an input (scan.parquet)"),
        ("export -q --to ssf --out folder", "folder: is a folder; name a file in it"),
        ("export -q --report nowhere/x.html", "nowhere/x.html: the folder nowhere does not exist; make it first"),
    ],
)
def test_outputs_in_wrong_places(folder: Path, capsys: pytest.CaptureFixture[str], command: str, said: str) -> None:
    (folder / "folder").mkdir()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert run(command.split()) == 1
    assert said in line_of(capsys)
    after = {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}
    assert after == before.keys()
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("command", [f"{FIT} c.toml", "export --report c.toml"])
def test_a_configuration_is_an_input(folder: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    (folder / "c.toml").write_text("[scan]\nmaf = 0.1\n")
    assert run([*command.split(), "--config", "c.toml"]) == 1
    assert "c.toml: is also an input (c.toml), which is never overwritten" in line_of(capsys)
    assert (folder / "c.toml").read_text() == "[scan]\nmaf = 0.1\n"


def test_no_file_of_a_trait_overwrites_an_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scan.parquet").rename(folder / "scan.t1.tsv")
    content = (folder / "scan.t1.tsv").read_bytes()
    assert run(["export", "-q", "scan.t1.tsv", "--to", "ssf", "--out", "scan.tsv"]) == 1
    assert "scan.t1.tsv: is also an input (scan.t1.tsv), which is never overwritten" in line_of(capsys)
    assert (folder / "scan.t1.tsv").read_bytes() == content


@pytest.mark.parametrize(
    ("options", "named"), [("--report x.html", "--report"), ("--plot qq --out x.png", "--plot qq")]
)
def test_what_a_null_model_has_not_is_not_written(
    folder: Path, capsys: pytest.CaptureFixture[str], options: str, named: str
) -> None:
    assert run(["export", "-q", "null.npz", *options.split()]) == 2
    assert f"null.npz: is a null model, to which {named} does not apply" in line_of(capsys)
    assert not {path.suffix for path in folder.iterdir()} & {".html", ".png"}


@pytest.mark.parametrize("command", [FIT, SCAN, "export -q --out", "export -q --to ssf --out", "export --report"])
def test_a_folder_for_an_output(folder: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    (folder / "folder").mkdir()
    assert run([*command.split(), "folder/"]) in (1, 2)
    assert "folder/: is a folder; name a file in it" in line_of(capsys)
    assert list((folder / "folder").iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("command", [f"{FIT} /dev/full", f"{SCAN} /dev/full", "export -q --out /dev/full"])
def test_a_full_device(folder: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(command.split()) == 1
    assert "/dev/full: no space left to write it" in line_of(capsys)


def test_who_opens_a_file_finds_whether_it_may_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error of usage (exit code 2), whatever is asked of the system before."""
    monkeypatch.setattr(os, "access", lambda path, mode, **options: mode != os.R_OK)
    (folder / "c.toml").write_text("[fit]\n")
    assert run([*FIT.split(), "x.npz", "--config", "c.toml"]) == 0


def test_blanks_and_letters_in_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder / "a b" / "ünï'\"$x;"
    place.mkdir(parents=True)
    for name in ("g.bed", "g.bim", "g.fam", "y.csv"):
        shutil.copy(folder / name, place / f"é {name}")
    null, scan, table = (str(place / name) for name in ("nü ll.npz", "sc an.parquet", "tä b.tsv"))
    genotypes = str(place / "é g.bed")
    assert run(["fit", "-q", "--pheno", str(place / "é y.csv"), "--grm", genotypes, "--out", null]) == 0
    assert run(["scan", "-q", "--refit", "0", "--null", null, "--geno", genotypes, "--out", scan]) == 0
    assert run(["export", "-q", scan, "--out", table]) == 0
    assert not [line for line in capsys.readouterr().err.splitlines() if ": warning: " not in line]
    assert len(Path(table).read_text().splitlines()) == 401


def test_long_names_of_samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are read; in a message they are cut."""
    long = "i" * 20_000
    for name in ("g.fam", "y.csv"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("i7\t", f"{long}\t").replace(",i7,", f",{long},"))
    assert run([*FIT.split(), "long.npz"]) == 0
    assert run([*SCAN.split(), "long.parquet", "--null", "long.npz"]) == 0
    assert not [line for line in capsys.readouterr().err.splitlines() if ": warning: " not in line]
    (folder / "y.csv").write_text((folder / "y.csv").read_text() + f"f7,{long},1,2\n")
    assert run([*FIT.split(), "long.npz"]) == 1
    assert len(line_of(capsys)) < 1200


def test_more_traits_than_samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "FID,IID," + ",".join(f"t{j}" for j in range(3000))
    rows = (f"f{i},i{i}," + ",".join(str((i * 7919 + j * 104729) % 1009) for j in range(3000)) for i in range(60))
    (folder / "wide.csv").write_text("\n".join([header, *rows]) + "\n")
    assert run(["fit", "-q", "--pheno", "wide.csv", "--grm", "g.bed", "--out", "wide.npz"]) == 1
    assert "60 samples" in (line := line_of(capsys))
    assert "3000 traits" in line
    assert not (folder / "wide.npz").exists()
