"""The script of glimix-core's that the documentation shows prints there what it prints with glimix-core itself."""

import contextlib
import io
from typing import Any

import pytest
from command_on_path import ROOT
from page_runner import agrees, blocks

IMPORT = "from kron2sum_cli import Kron2Sum  # was: from glimix_core.lmm import Kron2Sum\n"


@pytest.mark.filterwarnings("ignore:.*disp.*:DeprecationWarning")
def test_the_example_prints_the_same_with_glimix_core(glimix_kron2sum: Any) -> None:
    page = (ROOT / "docs" / "how-to" / "other-programs.md").read_text()
    (example,) = (block for block in blocks(page) if "mscanner" in block.commands)
    script = example.commands.removeprefix("python - <<END\n").removesuffix("\nEND")
    assert IMPORT in script
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(script.replace(IMPORT, ""), {"Kron2Sum": glimix_kron2sum})
    assert example.shown is not None
    assert agrees(example.shown, printed.getvalue().splitlines())
