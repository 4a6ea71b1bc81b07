"""Every command of the README and of the documentation runs, and prints what the page shows."""

from pathlib import Path

import pytest
from command_on_path import ROOT, copy_of_checkout
from page_runner import agrees, blocks, run_page

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text())], ids=lambda page: page.stem)
def test_commands_of_a_page(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    folder = copy_of_checkout(tmp_path / "checkout", "example_data")
    assert not (problems := run_page(page, folder, environment)), "\n\n".join(problems)


def test_a_page_may_shorten_numbers_and_leave_out_lines() -> None:
    printed = ["trait\th2", "height\t0.64291", "weight\t-3.996e-08", "done"]
    assert agrees(["trait h2", "height  0.643", "weight  -4.0e-8", "done"], printed)
    assert agrees(["trait h2", "...", "", "done"], printed)
    assert agrees(["trait ...", "height 0.6 ...", "..."], printed)
    assert not agrees(["trait h2", "height  0.645", "..."], printed)
    assert not agrees(["trait h2", "height  0.643"], printed)
    assert not agrees(["h2 ...", "..."], printed)
    assert not agrees(["trait h2", "weight  0.643", "..."], printed)


def test_blocks_of_a_page() -> None:
    fence = "```"
    page = f"{fence}sh\nmake test\n{fence}\n\n{fence}sh\necho 1\n{fence}\n\n{fence}text\n1\n{fence}\n\n"
    page += f"<!-- needs no-such-program -->\n{fence}sh\nno-such-program\n{fence}\n\n{fence}text\n2\n{fence}\n"
    (block,) = blocks(page)
    assert (block.line, block.commands, block.shown) == (6, "echo 1", ["1"])


def test_what_is_wrong_with_a_page_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\necho 2\n```\n\n```text\n1\n```\n\n```sh\nfalse\n```\n\n```sh\necho 3\n```\n")
    failed, wrong = run_page(page, tmp_path, environment)
    assert wrong == "page.md, line 2: prints\n2\nwithout (here) the line\n1"
    assert failed.startswith("page.md, line 10: exit code 1")
