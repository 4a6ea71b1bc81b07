"""How a test of variants is asked for on the command line. Like `settings` it imports neither numpy nor pyarrow."""

import os
from collections.abc import Iterable

_NAMED_TESTS = ("any", "common", "specific")
_FORMS = ("trait", "only", "axis")


def contrast_files(test: str) -> tuple[str, ...]:
    """The files that a test NAME=FILE or NAME=FILE0,FILE1 names."""
    _, equals, paths = test.partition("=")
    return tuple(paths.split(",")) if equals else ()


def without_folders(test: str) -> str:
    """A test as a file may say it, which holds no path."""
    name, equals, _ = test.partition("=")
    return f"{name}={','.join(map(os.path.basename, contrast_files(test)))}" if equals else test


def naming_problems(test: str) -> Iterable[str]:
    """What is wrong with a test as it was asked for."""
    name, equals, _ = test.partition("=")
    kind, colon, rest = test.partition(":")
    if equals:
        paths = contrast_files(test)
        if not name or len(paths) > 2 or not all(paths):
            yield f"--test {test}: must be NAME=FILE, or NAME=FILE0,FILE1 for nested designs"
        elif name in _NAMED_TESTS or (colon and kind in _FORMS):
            yield f"--test {test}: {name} has a meaning already; choose another name"
    elif kind in _FORMS and colon:
        if not rest:
            yield f"--test {test}: name {'an axis' if kind == 'axis' else 'a trait'} after the colon"
    elif test not in _NAMED_TESTS:
        yield (
            f"--test {test}: must be {', '.join(_NAMED_TESTS)}, trait:NAME, trait:NAME|OTHERS, only:NAME, axis:K,"
            " NAME=FILE or NAME=FILE0,FILE1"
        )
