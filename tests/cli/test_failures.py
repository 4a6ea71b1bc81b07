"""From an exception to one message and an exit code."""

import errno
import os

import pytest

from kron2sum_cli.cli import run
from kron2sum_cli.cli.signals import Stopped
from kron2sum_cli.errors import ConvergenceError, InputError, NumericalError, OutputError, UsageError


@pytest.fixture
def outcome(pipeline, capsys):
    """Run a scan whose pipeline raises an error; returns the exit code and the lines on standard error."""

    def outcome(error, *arguments):
        pipeline.error = error
        code = run(["scan", *arguments])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err.splitlines()

    return outcome


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("y.csv, line 3: bad"), 1, "error: y.csv, line 3: bad"),
        (OutputError("x: no"), 1, "error: x: no"),
        (NumericalError("trait a is constant"), 1, "error: trait a is constant"),
        (UsageError("no"), 2, "error: no"),
        (ConvergenceError("stuck", result=object()), 3, "error: stuck"),
        (MemoryError(), 1, "error: not enough memory; give a smaller --memory or"),
        (MemoryError("Unable to allocate 8 TiB"), 1, "not enough memory (Unable to allocate 8 TiB)"),
        (ImportError("x.so: failed to map"), 1, "error: a library cannot be loaded (x.so: failed to map); allow more"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: no space left (No space"),
        (OSError(errno.EDQUOT, "Quota exceeded", "x.tmp"), 1, "error: no space left for x.tmp (Quota"),
        (FileNotFoundError(errno.ENOENT, "No such file", "y.csv"), 1, "error: y.csv: No such file"),
        (ZeroDivisionError("division by zero"), 1, "internal error (ZeroDivisionError: division by zero)"),
        (KeyboardInterrupt(), 130, "kron2sum scan: interrupted"),
    ],
)
def test_one_line_and_its_exit_code(outcome, error, code, message):
    found, lines = outcome(error)
    assert found == code
    (line,) = lines
    assert line.startswith("kron2sum scan: ")
    assert message in line
    assert "Traceback" not in line


def test_debug_shows_where(outcome):
    code, lines = outcome(InputError("bad"), "--debug")
    assert code == 1
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "kron2sum scan: error: bad"


def test_a_message_of_several_lines_is_marked_on_each(outcome):
    assert outcome(UsageError("a\nb"))[1] == ["kron2sum scan: error: a", "kron2sum scan: error: b"]


def test_a_reader_that_closed_is_no_failure(pipeline, monkeypatch):
    """Whatever stays in the buffer of standard output then goes nowhere."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        pipeline.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        stdout.write("rest")
        assert run(["scan"]) == 0


def test_signals_are_left_to_main(pipeline):
    pipeline.error = Stopped(15)
    with pytest.raises(Stopped):
        run(["scan"])


def test_failure_is_in_the_log(outcome, tmp_path):
    outcome(InputError("y.csv, line 3: bad"))
    log = (tmp_path / "scan.parquet.log").read_text()
    assert "ERROR   InputError: y.csv, line 3: bad" in log
    assert "Traceback" not in log
    outcome(ZeroDivisionError("zero"))
    log = (tmp_path / "scan.parquet.log").read_text()
    assert "ZeroDivisionError" in log
    assert "Traceback" in log
