"""What all tests share."""

import inspect
from typing import Any

import pytest
from hypothesis import settings

# The machine may be busy, and a failure must come back when the tests are run again.
settings.register_profile("kron2sum", deadline=None, derandomize=True)
settings.load_profile("kron2sum")


@pytest.fixture
def glimix_kron2sum(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``glimix_core.lmm.Kron2Sum``, able to fit beside scipy 1.18, which lost an option that it passes."""
    lmm = pytest.importorskip("glimix_core.lmm")
    optimiser = pytest.importorskip("optimix._function")
    minimise = optimiser.fmin_l_bfgs_b
    known = inspect.signature(minimise).parameters

    def minimise_with_known_options(*args: Any, **options: Any) -> Any:
        return minimise(*args, **{name: value for name, value in options.items() if name in known})

    monkeypatch.setattr(optimiser, "fmin_l_bfgs_b", minimise_with_known_options)
    return lmm.Kron2Sum
