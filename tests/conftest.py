"""What all tests share."""

import gc
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import scipy.optimize
from command_on_path import forked_command
from hypothesis import HealthCheck, settings

# The machine may be busy, and a failure must come back when the tests are run again.
settings.register_profile("kron2sum", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kron2sum")

# A shell lets its background jobs ignore Ctrl-C, and with them all that the tests start to press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Modules and tests live to the end: the garbage collector need not visit them again and again."""
    gc.freeze()


@pytest.fixture
def glimix_kron2sum(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``glimix_core.lmm.Kron2Sum``, able to fit beside any scipy: it passes ``disp``, gone from 1.18 on."""
    lmm = pytest.importorskip("glimix_core.lmm")
    minimise = scipy.optimize.fmin_l_bfgs_b

    def minimise_silently(*args: Any, disp: object = None, **options: Any) -> Any:
        return minimise(*args, **options)

    monkeypatch.setattr(scipy.optimize, "fmin_l_bfgs_b", minimise_silently)
    return lmm.Kron2Sum


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """An environment with ``kron2sum`` on the path."""
    with forked_command() as environment:
        yield environment
