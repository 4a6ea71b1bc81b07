"""The lines of the documentation that turn on completion work in the shells that are installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from command_on_path import ROOT, environment_with_command

PAGE = (ROOT / "docs" / "how-to" / "shell.md").read_text()


@pytest.mark.parametrize(("shell", "fence"), [("bash", "sh"), ("zsh", "zsh"), ("fish", "fish")])
def test_the_line_of_a_shell(shell: str, fence: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    line = re.search(rf"```{fence}\n(.*_KRON2SUM_COMPLETE={shell}_source .*)\n```", PAGE)
    assert line is not None
    before = "autoload -U compinit; compinit -u\n" if shell == "zsh" else ""
    done = subprocess.run(
        [shell, "-c", before + line[1]],
        env=environment_with_command(tmp_path / "bin") | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_choices_are_completed(tmp_path: Path) -> None:
    asked = {"_KRON2SUM_COMPLETE": "bash_complete", "COMP_WORDS": "kron2sum scan --precision ", "COMP_CWORD": "3"}
    done = subprocess.run(
        ["kron2sum"], env=environment_with_command(tmp_path / "bin") | asked, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["plain,single", "plain,double"]
