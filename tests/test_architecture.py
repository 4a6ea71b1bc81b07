"""The direction of dependencies: cli → {fit, scan, export} → {genotypes, files, model} → errors."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import kron2sum_cli

PACKAGE = "kron2sum_cli"
ROOT = Path(kron2sum_cli.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

GROUND = ("errors", "progress", "resources", "option_values", "settings")

# What the modules of a room may import of this package, beside their own room and the version.
ALLOWED = {
    "_version": (),
    "errors": (),
    "progress": (),
    "resources": (),
    # What a command was asked to do: regions of a genome are read by the room of the genotypes.
    "option_values": ("errors",),
    "settings": ("errors", "option_values", "genotypes.chromosomes"),
    "model": ("errors",),
    # The null model's file knows the model's records, and the model knows nothing of files.
    "files": ("errors", "resources", "option_values", "settings", "model"),
    "genotypes": ("errors", "progress", "files.inputs", "files.samples", "files.text"),
    "fit": (*GROUND, "genotypes", "files", "model"),
    "scan": (*GROUND, "genotypes", "files", "model"),
    "export": (*GROUND, "genotypes", "files", "model"),
    "cli": (*GROUND, "genotypes.chromosomes", "files", "fit", "scan", "export"),
    # The public names, and python -m kron2sum_cli.
    "__init__": ("model",),
    "__main__": ("cli",),
}


def module_name(path: Path) -> str:
    """Dotted name of a module, ``kron2sum_cli.model`` for a package's ``__init__.py``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def room(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a module imports, wherever in it; ``from a import b`` is ``a.b``."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def outside(path: Path) -> set[str]:
    """Top-level names of the third-party packages that a module imports."""
    tops = {name.partition(".")[0] for name in imports(path)}
    return tops - sys.stdlib_module_names - {PACKAGE}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_import_only_in_the_direction_of_the_arrows(path: Path) -> None:
    allowed = [f"{PACKAGE}.{name}" for name in (room(path), "_version", *ALLOWED[room(path)])]
    allowed.append(f"{PACKAGE}.__version__")
    own = [name for name in imports(path) if is_within(name, PACKAGE)]
    assert [name for name in own if not any(is_within(name, parent) for parent in allowed)] == []


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) == "model"], ids=module_name)
def test_the_model_needs_only_numpy_and_scipy(path: Path) -> None:
    assert outside(path) <= {"numpy", "scipy"}


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) != "cli"], ids=module_name)
def test_only_the_command_line_knows_click_and_rich(path: Path) -> None:
    assert not outside(path) & {"click", "rich"}


def test_relative_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    module = tmp_path / "files" / "samples.py"
    module.parent.mkdir()
    module.write_text("from ..model import kron2sum\ndef f():\n    import click.testing\n")
    assert list(imports(module)) == ["kron2sum_cli.model.kron2sum", "click.testing"]


@pytest.mark.parametrize(("module", "library"), [("cli", "numpy"), ("cli.console", "rich")])
def test_the_command_line_starts_without_what_it_may_not_need(module: str, library: str) -> None:
    program = f"import sys, {PACKAGE}.{module}; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("module", ["scan.scan", "scan.sets"])
def test_scans_load_the_blas_of_scipy_before_they_limit_all_blas_to_one_thread(module: str) -> None:
    program = f"import sys, {PACKAGE}.{module}; sys.exit('scipy.linalg' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
