"""How libraries are loaded: only what is used, and with little memory."""

import os
import sys
from importlib.util import LazyLoader, find_spec, module_from_spec

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
    """Put modules in place of which the code runs at the first look at what is in them.

    Parameters
    ----------
    names : of modules within packages, each with a dot; those loaded already stay as they are
    """
    for name in names:
        spec = None if name in sys.modules else find_spec(name)
        if spec is None or spec.loader is None:
            continue
        spec.loader = LazyLoader(spec.loader)
        module = module_from_spec(spec)
        sys.modules[name] = module
        package, _, attribute = name.rpartition(".")
        setattr(sys.modules[package], attribute, module)
        spec.loader.exec_module(module)
