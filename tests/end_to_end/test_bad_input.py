"""What users get wrong: exit code 1, one message that names file and place, and no output."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from example_commands import EXAMPLE, kron2sum, scan


@dataclass
class Inputs:
    """A copy of example_data to spoil, and the options of a fit."""

    folder: Path

    def edit(self, name: str, change: Callable[[str], str]) -> Path:
        path = self.folder / name
        path.write_text(change(path.read_text()))
        return path

    def fit(self, *options: object) -> int:
        return kron2sum(
            "fit", "-q", "--pheno", self.folder / "phenotypes.csv", "--covar", self.folder / "covariates.csv",
            "--grm", self.folder / "genotypes.bed", "--out", self.folder / "null.npz", *options,
        )  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    for path in EXAMPLE.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return Inputs(tmp_path)


def refused(inputs: Inputs, code: int, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    message = capsys.readouterr().err
    assert code == 1, message
    assert "internal error" not in message
    assert "Traceback" not in message
    for word in words:
        assert word in message, message
    assert not (inputs.folder / "null.npz").exists()
    assert not list(inputs.folder.glob(".*kron2sum*"))


def column_edit(column: int, change: Callable[[list[str]], str]) -> Callable[[str], str]:
    """Replace a column of a CSV by a function of its row, the header kept."""

    def edit(text: str) -> str:
        header, *rows = text.splitlines()
        cells = [row.split(",") for row in rows]
        for row in cells:
            row[column] = change(row)
        return "\n".join([header, *(",".join(row) for row in cells)]) + "\n"

    return edit


def test_unknown_trait(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    refused(inputs, inputs.fit("--pheno-name", "heigth"), capsys, "phenotypes.csv", "heigth", "height")


def test_text_in_a_number_column(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.edit("phenotypes.csv", lambda text: "\n".join(
        line if k != 4 else line.rsplit(",", 1)[0] + ",tall" for k, line in enumerate(text.splitlines())
    ))  # fmt: skip
    refused(inputs, inputs.fit(), capsys, "phenotypes.csv", "line 5", "tall", "glucose")


def test_duplicate_sample(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.edit("phenotypes.csv", lambda text: text + text.splitlines()[1] + "\n")
    refused(inputs, inputs.fit(), capsys, "phenotypes.csv", "line 400", "line 2")


def test_no_samples_in_common(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.edit("phenotypes.csv", column_edit(1, lambda row: "x" + row[1]))
    inputs.edit("phenotypes.csv", column_edit(0, lambda row: "y" + row[0]))
    refused(inputs, inputs.fit(), capsys, "phenotypes.csv", "x", "genotypes.fam")


def test_constant_trait(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.edit("phenotypes.csv", column_edit(3, lambda row: "1.5"))
    refused(inputs, inputs.fit(), capsys, "phenotypes.csv", "weight", "constant")


def test_collinear_traits(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.edit("phenotypes.csv", column_edit(4, lambda row: "NA" if "NA" in row[2:4] else repr(
        2 * float(row[2]) - float(row[3]))))  # fmt: skip
    refused(inputs, inputs.fit(), capsys, "phenotypes.csv", "glucose", "height, weight", "linear combination")


def test_redundant_covariate(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.edit("covariates.csv", column_edit(3, lambda row: repr(3 - float(row[2]))))
    refused(inputs, inputs.fit(), capsys, "covariates.csv", "age", "intercept, sex", "--drop-redundant")
    assert inputs.fit("--drop-redundant") == 0


def test_wrong_magic_number(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    path = inputs.folder / "genotypes.bed"
    path.write_bytes(b"\x00" + path.read_bytes()[1:])
    refused(inputs, inputs.fit(), capsys, "genotypes.bed", "not a PLINK 1 .bed")


@pytest.mark.parametrize("cut", [1, 50, 100, 5000])
def test_cut_bed(inputs: Inputs, capsys: pytest.CaptureFixture[str], cut: int) -> None:
    path = inputs.folder / "genotypes.bed"
    path.write_bytes(path.read_bytes()[:-cut])
    refused(inputs, inputs.fit(), capsys, "genotypes.bed", str(path.stat().st_size))


@pytest.mark.parametrize("lines", [1, 2, 3, 4])
def test_fam_with_too_few_lines(inputs: Inputs, capsys: pytest.CaptureFixture[str], lines: int) -> None:
    inputs.edit("genotypes.fam", lambda text: "".join(text.splitlines(keepends=True)[:-lines]))
    refused(inputs, inputs.fit(), capsys, "genotypes.fam")


def test_bim_that_does_not_match(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.edit("genotypes.bim", lambda text: "".join(text.splitlines(keepends=True)[:-1]))
    refused(inputs, inputs.fit(), capsys, "genotypes.bed")


def test_more_columns_and_spaces_in_the_fam_are_fine(inputs: Inputs) -> None:
    inputs.edit("genotypes.fam", lambda text: "".join(
        " ".join(line.split()) + "   1.5 NA\n" for line in text.splitlines()))  # fmt: skip
    assert inputs.fit() == 0


def test_fewer_samples_than_parameters(inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.edit("phenotypes.csv", lambda text: "\n".join(text.splitlines()[:7]) + "\n")
    refused(inputs, inputs.fit(), capsys, "phenotypes.csv", "samples", "at least")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"text\n", np.random.default_rng(0).bytes(1000)])
def test_a_null_file_that_is_not_one(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "null.npz").write_bytes(content)
    assert scan(tmp_path / "null.npz", tmp_path / "out.parquet") == 1
    message = capsys.readouterr().err
    assert "null.npz" in message
    assert "internal error" not in message
    assert not (tmp_path / "out.parquet").exists()


def test_genotypes_that_lack_samples(example: Path, inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.edit("genotypes.fam", lambda text: "".join(
        line if k % 100 else line.replace(line.split()[1], "somebody", 1) for k, line in enumerate(
            text.splitlines(keepends=True))))  # fmt: skip
    out = inputs.folder / "out.parquet"
    code = kron2sum("scan", "-q", "--null", example / "null.npz", "--geno", inputs.folder / "genotypes.bed",
                    "--out", out)  # fmt: skip
    message = capsys.readouterr().err
    assert code == 1
    assert "lacks" in message
    assert "samples of the null model" in message
    assert not out.exists()
