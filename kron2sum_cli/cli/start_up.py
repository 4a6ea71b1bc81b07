"""How libraries are loaded: only what is used, and with little memory."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import Any

UNUSED = ("numpy.testing", "numpy.f2py", "numpy.ma", "numpy.char", "numpy.rec", "numpy.ctypeslib")
"""What importing scipy loads by the way, for a third of its time; nothing here uses them.

``numpy.ma`` is loaded after all by a glance of those functions of scipy.linalg that look for masked arrays.
"""


def prepare_libraries() -> None:
    """Settle how numpy, scipy and Arrow will be imported; to be called before they are."""
    # Arrow's own allocator keeps some 20 MiB that it does not use, and more where a file has many variants.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    load_when_used(UNUSED)


def load_when_used(names: tuple[str, ...]) -> None:
    """Put modules in place that load themselves at the first look at what is in them.

    Parameters
    ----------
    names : of modules within packages, each with a dot; those loaded already stay as they are
    """
    for name in names:
        spec = None if name in sys.modules else find_spec(name)
        if spec is None:
            continue
        module = _Later(name)
        module.__spec__, module.__file__ = spec, spec.origin
        sys.modules[name] = module
        package, _, attribute = name.rpartition(".")
        setattr(sys.modules[package], attribute, module)


class _Later(ModuleType):
    """Stands for a module until somebody needs it.

    The import system then loads it, under its locks: several threads may be the first to look. (With
    `importlib.util.LazyLoader` of Python 3.11 the second of them sees half a module.)
    """

    def __getattr__(self, attribute: str) -> Any:
        with _STAND_INS:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), attribute)


_STAND_INS = Lock()
"""Held while a module that stands for another is taken away."""
