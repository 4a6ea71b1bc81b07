"""The page of errors has every message of the program, and no other, each with what to do."""

import re
import subprocess
from pathlib import Path

import pytest
from command_on_path import ROOT

from kron2sum_cli.cli import run
from tests.safety.messages_in_source import VALUE, messages

PAGE = (ROOT / "docs" / "errors.md").read_text()
SECTION = re.compile(r"^###? .*?(?=^##|\Z)", re.MULTILINE | re.DOTALL)
LISTED = re.compile(r"^- `(.+)`$", re.MULTILINE)


def as_pattern(message: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, message.split(VALUE))), re.DOTALL)


def test_every_message_is_on_the_page() -> None:
    missing = {message: sorted(places) for message, places in messages().items() if message not in LISTED.findall(PAGE)}
    assert missing == {}, "put each into docs/errors.md where it belongs, with its cause and remedy"


def test_the_page_has_no_message_that_the_program_lost() -> None:
    listed = LISTED.findall(PAGE)
    assert len(set(listed)) == len(listed)
    assert sorted(set(listed) - messages().keys()) == []


def test_every_group_of_messages_says_what_to_do() -> None:
    for section in SECTION.findall(PAGE):
        if LISTED.search(section):
            said = LISTED.sub("", section.partition("\n")[2]).split()
            assert len(said) > 10, section


@pytest.mark.parametrize(
    "arguments",
    [
        "fit",
        "scan --maf 2",
        "scan --chr 5-3 --region 6",
        "scan --test cov",
        "scan --null y.csv",
        "scan --null missing.npz",
        "scan --geno y.csv",
        "scan --out nowhere/scan.parquet",
        "scan --out null.npz",
        "scan --config y.csv",
        "fit --pheno g.bed --grm g.bed",
        "fit --pheno y.csv --grm y.csv --grm-id g.fam",
        "fit --pheno y.csv --grm g.bed --rank 9",
        "fit --pheno y.csv --grm g.bed --pheno-name t9",
        "export null.npz --top 3",
        "export g.bim",
        "export scan.parquet scan.parquet",
        "export scan.parquet --columns NOTHING",
    ],
)
def test_what_the_commands_say_is_on_the_page(folder: Path, capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    assert run(arguments.split()) in (1, 2)
    patterns = [as_pattern(message) for message in LISTED.findall(PAGE) if sum(map(str.isalpha, message)) > 12]
    said = [line.partition(": error: ")[2] for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert said
    assert [line for line in said if not any(pattern.fullmatch(line) for pattern in patterns)] == []


def test_a_message_is_read_as_what_it_can_be() -> None:
    """A name, a call and a choice are followed; see `messages_in_source`."""
    found = messages()
    assert "…: the folder … does not exist; make it first" in found
    assert "test …: its design has no rank beyond the design it is tested against" in found
    assert found["only one input can come from standard input (-)"] == {"pipeline/settings_rules.py"}
    raised = subprocess.run(
        ["grep", "-rhoE", r"raise (Input|Usage|Output|Numerical)Error\(", ROOT / "kron2sum_cli"],
        capture_output=True, text=True, check=True,
    ).stdout.count("raise")  # fmt: skip
    assert len(found) > raised
