"""The examples in docstrings."""

import doctest
import importlib
import pkgutil

import pytest

import kron2sum_cli

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(kron2sum_cli.__path__, "kron2sum_cli.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
