"""Every message that a user can get, read from the source: with `…` for each value that it names.

A message is what is given to a class of `kron2sum_cli.errors`, or is yielded, listed or returned by the functions that
collect several of them. A name, a call of a function of the same module and a choice stand for what they can be.
"""

import ast
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import kron2sum_cli
from kron2sum_cli import errors

PACKAGE = Path(kron2sum_cli.__file__).parent
CLASSES = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
COLLECTING = {
    "cli/config.py": {"load_config", "_settings"},
    "cli/failures.py": {"explain"},
    "cli/command.py": {"resolve_command"},
    "genotypes/filters.py": {"__post_init__"},
    "pipeline/settings.py": {"_problems", "_filter_problems"},
    "pipeline/export_settings.py": {"_problems", "_clump_problems"},
    "pipeline/settings_rules.py": {"empty_texts", "outside", "repeated", "not_one_of", "stdin_twice"},
    "pipeline/hypothesis_names.py": {"naming_problems"},
    "model/certificate.py": {"complaint"},
}  # fmt: skip
"""Functions whose texts are messages, although no error is made there."""

VALUE = "…"
DEEPEST = 4

Function = ast.FunctionDef
Texts = set[str]


def messages() -> dict[str, set[str]]:
    """The messages, each with the modules that can say it."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for message in _Module(ast.parse(path.read_text())).messages(COLLECTING.get(name, set())):
            found.setdefault(message, set()).add(name)
    return found


class _Module:
    """The texts of one module."""

    def __init__(self, tree: ast.Module) -> None:
        self._functions = {node.name: node for node in ast.walk(tree) if isinstance(node, Function)}
        self._constants = _assignments(tree.body)
        self._tree = tree

    def messages(self, collecting: set[str]) -> Texts:
        """All messages, those of the functions named `collecting`, too."""
        found: Texts = set()
        for function in [node for node in ast.walk(self._tree) if isinstance(node, Function)]:
            scope = _assignments(function.body)
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and _called(node) in CLASSES and node.args:
                    found |= self._texts(node.args[0], scope)
                elif function.name in collecting:
                    for text in _said(node):
                        found |= self._texts(text, scope)
        return {message for message in map(_tidy, found) if " " in message.strip(f" {VALUE}:;,()")}

    def _texts(self, node: ast.expr, scope: dict[str, list[ast.expr]], depth: int = 0) -> Texts:
        """What an expression can be."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return {node.value}
        if isinstance(node, ast.JoinedStr):
            return {"".join(parts) for parts in product(*(self._piece(v, scope, depth) for v in node.values))}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = (self._texts(side, scope, depth) for side in (node.left, node.right))
            return {"".join(parts) for parts in product(*sides)}
        if isinstance(node, ast.IfExp):
            return self._texts(node.body, scope, depth) | self._texts(node.orelse, scope, depth)
        if isinstance(node, ast.List):
            return {text for element in node.elts for text in self._texts(element, scope, depth)}
        if isinstance(node, ast.ListComp):
            return self._texts(node.elt, scope, depth)
        return self._found_elsewhere(node, scope, depth) or {VALUE}

    def _found_elsewhere(self, node: ast.expr, scope: dict[str, list[ast.expr]], depth: int) -> Texts:
        if depth == DEEPEST:
            return set()
        if isinstance(node, ast.Name):
            values = scope.get(node.id) or self._constants.get(node.id, [])
            return {text for value in values for text in self._texts(value, scope, depth + 1)}
        if isinstance(node, ast.Call) and _called(node) in self._functions:
            function = self._functions[_called(node)]
            inner = _assignments(function.body)
            returned = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
            return {text for value in returned for text in self._texts(value, inner, depth + 1)}
        return set()

    def _piece(self, node: ast.expr, scope: dict[str, list[ast.expr]], depth: int) -> Texts:
        """What a part of a text can be: a value, or one of several ends of a message, which say what to do."""
        if isinstance(node, ast.Constant):
            return {str(node.value)}
        assert isinstance(node, ast.FormattedValue)
        found = self._texts(node.value, scope, depth)
        is_constant = len(found) == 1 and VALUE not in "".join(found)
        return found if is_constant or any(";" in text or ": " in text for text in found) else {VALUE}


def _assignments(body: list[ast.stmt]) -> dict[str, list[ast.expr]]:
    """The values that names get in a function, or in a module outside of functions."""
    found: dict[str, list[ast.expr]] = {}
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found.setdefault(node.targets[0].id, []).append(node.value)
    return found


def _called(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _said(node: ast.AST) -> Iterator[ast.expr]:
    """What a statement yields, returns or puts into a list."""
    if isinstance(node, ast.Yield | ast.Return) and node.value is not None:
        yield node.value
    elif isinstance(node, ast.Call) and _called(node) in ("append", "fail"):
        yield node.args[0]
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.ListComp):
        yield node.value


def _tidy(text: str) -> str:
    for _ in range(3):
        text = text.replace(VALUE * 2, VALUE)
    return " ".join(text.split())
