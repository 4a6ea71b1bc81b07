"""What people see, and what the log keeps."""

import fcntl
import io
import logging
import re
import subprocess
import sys
import warnings

import pytest

from kron2sum_cli._version import __version__
from kron2sum_cli.cli import console, run
from kron2sum_cli.cli.console import LineProgress
from kron2sum_cli.cli.messages import StderrHandler, duration, status
from kron2sum_cli.cli.terminal import BarProgress
from kron2sum_cli.files.run_log import LOGGER
from kron2sum_cli.progress import NoProgress
from kron2sum_cli.settings import CommonSettings


@pytest.fixture
def talk(pipeline):
    """A pipeline that says something at each level."""

    def function(settings, progress):
        log = logging.getLogger("kron2sum.scan")
        log.debug("detail")
        log.info("400 samples")
        log.warning("odd")
        with progress.task("Scanning", 10, "variants") as advance:
            advance(10)

    sys.modules["kron2sum_cli.scan.scan"].scan_variants = function


def test_messages_go_to_standard_error(talk, capsys):
    assert run(["scan"]) == 0
    assert capsys.readouterr() == ("", "400 samples\nkron2sum scan: warning: odd\n")


def test_quiet_and_verbose(talk, capsys):
    run(["scan", "-q"])
    assert capsys.readouterr().err == "kron2sum scan: warning: odd\n"
    run(["scan", "-v"])
    errors = capsys.readouterr().err
    assert "detail\n400 samples\n" in errors
    assert "Scanning: 10 variants in " in errors
    run(["scan"])
    assert "detail" not in capsys.readouterr().err


def test_log(talk, tmp_path, capsys):
    run(["scan", "--threads", "2", "--test", "mine=my file.csv", "-q"])
    lines = (tmp_path / "scan.parquet.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING) ", line) for line in lines)
    assert lines[0].endswith(f" kron2sum {__version__}")
    assert lines[1].endswith(" Command: kron2sum scan --threads 2 --test 'mine=my file.csv' -q")
    assert "tests=('mine=my file.csv',)" in lines[2]
    assert [line.split(maxsplit=3)[3] for line in lines[3:6]] == ["detail", "400 samples", "odd"]
    assert re.search(r"Total time: \d+\.\d\d s; peak memory: \d+ MiB$", lines[-1])


def test_log_is_renewed_and_can_be_elsewhere(talk, tmp_path):
    for _ in range(2):
        run(["scan", "--log", "my.log"])
    assert (tmp_path / "my.log").read_text().count("Command:") == 1
    assert not (tmp_path / "scan.parquet.log").exists()


def test_no_log_beside_standard_output(talk, tmp_path):
    run(["scan", "--out", "-"])
    assert list(tmp_path.iterdir()) == []


def test_log_of_a_run_that_lives_is_not_touched(pipeline, tmp_path, capsys):
    with open(tmp_path / "scan.parquet.log", "w") as file:
        file.write("of the first run")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(["scan"]) == 1
    assert "scan.parquet.log: another run is writing it" in capsys.readouterr().err
    assert (tmp_path / "scan.parquet.log").read_text() == "of the first run"
    assert pipeline.calls == []


@pytest.mark.parametrize("arguments", [["--log", "y"], ["--out", "y"], ["--log", "scan.parquet"], ["--out", "./g.bed"]])
def test_outputs_never_replace_inputs(pipeline, tmp_path, capsys, arguments):
    for name in ("y", "g.bed", "scan.parquet"):
        (tmp_path / name).write_text(name)
    assert run(["fit", "--pheno", "y", "--grm", "g.bed", "--keep", "scan.parquet", *arguments]) == 1
    assert "also an input" in capsys.readouterr().err
    assert pipeline.calls == []
    for name in ("y", "g.bed", "scan.parquet"):
        assert (tmp_path / name).read_text() == name


def test_other_files_are_never_emptied_for_a_log(pipeline, tmp_path, capsys):
    """Such as the .bim beside the genotypes, which nobody named."""
    (tmp_path / "v.bim").write_text("1\trs1\t0\t1\tA\tG\n")
    assert run(["scan", "--geno", "v.bed", "--log", "v.bim"]) == 1
    assert "v.bim: is there and is not a log of kron2sum" in capsys.readouterr().err
    assert (tmp_path / "v.bim").read_text() == "1\trs1\t0\t1\tA\tG\n"
    (tmp_path / "empty").write_text("")
    assert run(["scan", "--log", "empty"]) == 0


def test_log_that_cannot_be_written(pipeline, tmp_path, capsys):
    assert run(["scan", "--log", "nowhere/x.log"]) == 1
    assert "nowhere/x.log: the folder nowhere does not exist" in capsys.readouterr().err
    assert run(["scan", "--log", "/dev/full"]) == 1
    assert capsys.readouterr().err.startswith("kron2sum scan: error: /dev/full: no space left")


def test_log_to_standard_error(talk, capfd):
    assert run(["scan", "--log", "/dev/stderr", "-q"]) == 0
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Command: kron2sum scan" in captured.err


def test_warnings_of_libraries_go_to_the_log(pipeline, tmp_path, capsys):
    def function(settings, progress):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)  # pytest has put its own recorder in the place of ours
            warnings.warn("divide by zero", RuntimeWarning, stacklevel=1)

    sys.modules["kron2sum_cli.scan.scan"].scan_variants = function
    assert run(["scan"]) == 0
    assert "divide by zero" in (tmp_path / "scan.parquet.log").read_text()


def test_nothing_is_left_behind(talk):
    before = LOGGER.level, list(LOGGER.handlers), warnings.showwarning
    run(["scan"])
    assert (LOGGER.level, list(LOGGER.handlers), warnings.showwarning) == before


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (7620, "2 h 7 min")]
)
def test_duration(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((5000, 20000, "variants", 10.0), "5,000 of 20,000 variants (25%), 500 variants/s, 30 s left"),
        ((20000, 20000, "variants", 10.0), "20,000 of 20,000 variants (100%), 2,000 variants/s"),
        ((0, 20000, "variants", 1.0), "0 of 20,000 variants (0%), 0 variants/s"),
        ((0, 0, "variants", 0.0), "0 of 0 variants (100%), 0 variants/s"),
        ((3, 22, "chromosomes", 300.0), "3 of 22 chromosomes (14%), 1 min 40 s each, 31 min 40 s left"),
        ((7, None, "steps", 1.0), "7 steps, 7 steps/s"),
        ((0, None, "steps", 61.0), "1 min 1 s"),
    ],
)
def test_status(arguments, words):
    assert status(*arguments) == words


def test_lines_now_and_then(caplog, monkeypatch):
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0, 70.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "kron2sum"), LineProgress().task("Scanning", 100, "variants") as advance:
        for _ in range(4):
            advance(20)
    assert [record.message for record in caplog.records] == [
        "Scanning: 40 of 100 variants (40%), 1 variants/s, 46 s left",
        "Scanning: 80 of 100 variants (80%), 1 variants/s, 16 s left",
    ]


def test_no_progress():
    with NoProgress().task("Scanning", None, "variants") as advance:
        advance(3)
    NoProgress().table(HEADER, ROWS)


HEADER, ROWS = ("trait", "h2 [g]"), (("height", "0.5"), ("weight and\x1bmore", "NA"))
LINES = [f"{'trait':18}  h2 [g]", f"{'height':18}     0.5", "weight and\\x1bmore      NA"]


def test_tables_are_lines_in_a_log_or_a_pipe(pipeline, tmp_path, capsys):
    sys.modules["kron2sum_cli.scan.scan"].scan_variants = lambda settings, progress: progress.table(HEADER, ROWS)
    assert run(["scan"]) == 0
    assert capsys.readouterr().err.splitlines() == LINES
    logged = (tmp_path / "scan.parquet.log").read_text().splitlines()[3:-1]
    assert [line.split("INFO    ")[1] for line in logged] == LINES


def test_tables_on_a_terminal(pipeline, monkeypatch, tmp_path):
    """With a bold header; as plain lines in the log, and there only once."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    sys.modules["kron2sum_cli.scan.scan"].scan_variants = lambda settings, progress: progress.table(HEADER, ROWS)
    assert run(["scan"]) == 0
    assert "\x1b[1m" in screen.getvalue()
    assert screen.getvalue().count("height") == 1
    log = (tmp_path / "scan.parquet.log").read_text()
    assert "\x1b" not in log
    assert log.count("height") == 1


def test_bars(monkeypatch):
    """On a terminal: bars above which messages are printed, gone at the end."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    handler = StderrHandler("kron2sum scan", CommonSettings())
    LOGGER.addHandler(handler)
    try:
        progress = BarProgress(handler, LineProgress(float("inf")))
        with progress.task("Chromosomes [x]", 22, "chromosomes") as outer:
            with progress.task("Eigenvalues", None, "steps"):
                logging.getLogger("kron2sum.fit").warning("a message [with brackets]")
            outer(11)
            progress.bars.refresh()
    finally:
        LOGGER.removeHandler(handler)
    text = screen.getvalue()
    assert "kron2sum scan: warning: a message [with brackets]" in text
    assert "Chromosomes [x]" in text
    assert "Eigenvalues" in text
    assert "11 of 22 chromosomes (50%)" in text
    assert progress.bars is None


@pytest.mark.parametrize("coloured", [True, False])
def test_no_color(monkeypatch, coloured):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not coloured:
        monkeypatch.setenv("NO_COLOR", "1")
    bars = BarProgress(StderrHandler("kron2sum", CommonSettings()), LineProgress(float("inf")))
    with bars.task("Scanning", 10, "variants") as advance:
        advance(5)
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", screen.getvalue())) is coloured


@pytest.mark.parametrize(
    ("terminal", "term", "quiet", "shown"),
    [
        (True, "xterm", False, True),
        (False, "xterm", False, False),
        (True, "dumb", False, False),
        (True, "xterm", True, False),
    ],
)
def test_where_bars_are_shown(pipeline, monkeypatch, terminal, term, quiet, shown):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", term)
    run(["scan", *(["-q"] if quiet else [])])
    ((_, _, progress),) = pipeline.calls
    assert isinstance(progress, BarProgress) is shown


def test_standard_error_that_is_closed_does_not_end_the_run(tmp_path):
    program = """
import logging, sys, types
from kron2sum_cli.cli import main
def scan_variants(settings, progress):
    for _ in range(2000):
        logging.getLogger("kron2sum").info("a line for people")
    open("done", "w").close()
module = sys.modules["kron2sum_cli.scan.scan"] = types.ModuleType("scan")
module.scan_variants = scan_variants
sys.exit(main(["scan"]))
"""
    command = f"{sys.executable} -c '{program}' 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "done").exists()
    assert (done.returncode, done.stdout, done.stderr) == (0, "a line for people\n", "")
