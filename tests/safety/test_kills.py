"""SIGKILL at any time: the result is lost never, and the same byte for byte after --resume."""

import subprocess
import sys
from pathlib import Path


def test_killed_and_resumed() -> None:
    """A short run of the benchmark, in a process that may fork; Python 3.12 and later warn of its threads."""
    root = Path(__file__).parents[2]
    command = (sys.executable, "-W", "ignore::DeprecationWarning", "-m", "benchmarks.kill_and_resume", "--kills", "8")
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lost: 0, wrong under the final name: 0, different after --resume: 0, files left over: 0" in done.stdout
