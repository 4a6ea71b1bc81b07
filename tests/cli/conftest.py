"""A pipeline that only notes what it was asked to do."""

import sys
from types import ModuleType
from typing import Any

import pytest

from kron2sum_cli.cli import run

FUNCTIONS = {"fit": "fit_null_model", "scan": "scan_variants", "export": "export"}
OF_SETS = "kron2sum_cli.scan.sets"


class Recorder:
    """The calls of the pipeline's functions; `error`, where set, is raised by them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Any]] = []
        self.error: BaseException | None = None

    def called(self, name: str) -> Any:
        def function(settings: Any, progress: Any) -> None:
            self.calls.append((name, settings, progress))
            if self.error is not None:
                raise self.error

        return function


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Recorder:
    """The mocked pipeline, in an empty folder, with 3 threads available and nothing in the environment."""
    recorder = Recorder()
    for command, function in FUNCTIONS.items():
        module = ModuleType(f"kron2sum_cli.{command}.{command}")
        setattr(module, function, recorder.called(command))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    sets = ModuleType(OF_SETS)
    sets.scan_sets = recorder.called("scan")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, OF_SETS, sets)
    monkeypatch.setattr("kron2sum_cli.cli.options.available_threads", lambda: 3)
    monkeypatch.chdir(tmp_path)
    return recorder


@pytest.fixture
def settings_of(pipeline: Recorder) -> Any:
    """Run a command line and return the settings that its function of the pipeline got."""

    def settings(*arguments: str) -> Any:
        code = run(arguments)
        assert code == 0
        ((_, found, _),) = pipeline.calls
        pipeline.calls.clear()
        return found

    return settings


@pytest.fixture
def failure_of(pipeline: Recorder, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line that fails before the pipeline and return its exit code and its messages."""

    def failure(*arguments: str) -> tuple[int, str]:
        code = run(arguments)
        assert pipeline.calls == []
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    return failure
