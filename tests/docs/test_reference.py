"""The reference is what the commands and the register of columns say."""

import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from command_on_path import ROOT

SCRIPT = ROOT / "docs" / "generate_reference.py"


def test_the_reference_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = spec_from_file_location("generate_reference", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.reference(), "run: python docs/generate_reference.py"
    assert script.FILES.read_text(encoding="utf-8") == script.page_of_files(), "run: python docs/generate_reference.py"
