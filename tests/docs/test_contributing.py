"""The files, modules and functions that CONTRIBUTING.md names are there."""

import re
from importlib import import_module

import pytest
from command_on_path import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`([^`\s]+)`", PAGE)))
FILES = [name for name in NAMES if "/" in name or name.endswith((".py", ".md", ".cff"))]
DOTTED = [name for name in NAMES if re.fullmatch(r"(kron2sum_cli|fit|scan|export|genotypes|files|model)(\.\w+)+", name)]


@pytest.mark.parametrize("name", FILES)
def test_a_file_exists(name: str) -> None:
    assert any((folder / name).exists() for folder in (ROOT, ROOT / "kron2sum_cli"))


@pytest.mark.parametrize("name", DOTTED)
def test_a_module_or_function_exists(name: str) -> None:
    full = name if name.startswith("kron2sum_cli.") else f"kron2sum_cli.{name}"
    parent, _, last = full.rpartition(".")
    try:
        import_module(full)
    except ModuleNotFoundError:
        assert hasattr(import_module(parent), last)
