"""Runs the commands of a Markdown page and compares what they print with what the page shows.

Fenced blocks that begin with ```` ```sh ```` are run, in order and in one shell, in a copy of the checkout's
example_data. Every command must succeed. Where a ```` ```text ```` block follows, it shows what the commands print,
on either stream: a line ``...`` stands for any lines, and ``...`` at the end of a line for its rest; columns may be
aligned, and numbers shortened.
``<!-- needs NAME -->`` in the line before a block leaves it out where no program or Python package of that name is
installed.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

INSTALLERS = ("make", "pip")
"""Blocks of these alone are not run: whoever runs the tests has installed what they need."""

ROUNDED = Decimal(1)
"""A number shown may differ by so much in its last digit: half for rounding, the rest for other processors."""

_FENCE = re.compile(r"```(\w*)\s*")
_NEEDS = re.compile(r"<!-- needs (\S+) -->")
_NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


@dataclass(frozen=True)
class Block:
    """Commands of a page, from a line on, and what the page says they print (None: nothing is said)."""

    line: int
    commands: str
    shown: Sequence[str] | None


def blocks(page: str) -> list[Block]:
    """The blocks of a page that can be run here."""
    found: list[Block] = []
    last = ""
    for line, language, content, before in _fenced(page.splitlines()):
        if language == "text" and last == "sh" and found:
            found[-1] = Block(found[-1].line, found[-1].commands, content)
        needed = _NEEDS.fullmatch(before)
        runs = language == "sh" and (needed is None or _is_installed(needed[1]))
        if runs and not all(command.startswith(INSTALLERS) for command in content if command):
            found.append(Block(line, "\n".join(content), None))
            last = "sh"
        else:
            last = ""
    return found


def _is_installed(name: str) -> bool:
    """Whether a program or a module is there; a folder of a package's sources, as pgenlib's `plink2`, is none."""
    if shutil.which(name) is not None:
        return True
    module = find_spec(name) if name.isidentifier() else None
    return module is not None and module.origin is not None


def _fenced(lines: Sequence[str]) -> Iterator[tuple[int, str, list[str], str]]:
    """Number of the first line, language, content, and the line before, of every fenced block."""
    start, language = -1, ""
    for number, line in enumerate(lines):
        fence = _FENCE.fullmatch(line)
        if fence and start < 0:
            start, language = number, fence[1]
        elif fence:
            yield start + 2, language, list(lines[start + 1 : number]), lines[start - 1] if start else ""
            start = -1


def run_page(path: Path, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Run the blocks of a page in a folder; returns what is wrong, a text for each block."""
    found = blocks(path.read_text(encoding="utf-8"))
    printed = [folder / f".printed-{number}" for number in range(len(found))]
    parts = [f"exec > '{file}' 2>&1\n{block.commands}" for block, file in zip(found, printed, strict=True)]
    script = "set -e -o pipefail\n" + "\n".join(parts)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    ran = [(block, file.read_text()) for block, file in zip(found, printed, strict=True) if file.exists()]
    problems = [f"{path.name}: {done.stderr.decode()}"] if done.stderr else []
    if done.returncode:
        block, output = ran.pop()
        problems.append(f"{path.name}, line {block.line}: exit code {done.returncode}\n{output}")
    for block, output in ran:
        if block.shown is not None and not agrees(block.shown, output.splitlines()):
            line = first_difference(block.shown, output.splitlines())
            problems.append(f"{path.name}, line {block.line}: prints\n{output}without (here) the line\n{line}")
    return problems


def agrees(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether a page shows what was printed; blank lines do not count."""
    return _agree([line for line in shown if line.strip()], [line for line in printed if line.strip()])


def first_difference(shown: Sequence[str], printed: Sequence[str]) -> str:
    """The first line of a page that the printed lines do not have in its place."""
    for count, line in enumerate(shown, start=1):
        if not agrees([*shown[:count], "..."], printed):
            return line
    return "(the end)"


def _agree(shown: Sequence[str], printed: Sequence[str]) -> bool:
    if not shown:
        return not printed
    if shown[0].strip() == "...":
        return any(_agree(shown[1:], printed[start:]) for start in range(len(printed) + 1))
    return bool(printed) and _same_line(shown[0], printed[0]) and _agree(shown[1:], printed[1:])


def _same_line(shown: str, printed: str) -> bool:
    words, printed_words = shown.split(), printed.split()
    if words[-1] == "...":
        words = words[:-1]
        printed_words = printed_words[: len(words)]
    a, b = (_NUMBER.split(" ".join(line)) for line in (words, printed_words))
    return len(a) == len(b) and all(
        x == y if k % 2 == 0 else _same_number(x, y) for k, (x, y) in enumerate(zip(a, b, strict=True))
    )


def _same_number(shown: str, printed: str) -> bool:
    if shown == printed or (shown.isdecimal() and printed.isdecimal()):
        return shown == printed
    short, exact = Decimal(shown), Decimal(printed)
    exponent = short.as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(exact - short) <= ROUNDED * Decimal(1).scaleb(exponent)
