"""For the API page: the docstrings of this project write ``name : meaning``, and types stand in the signatures."""

from collections.abc import Iterator
from typing import Any

import griffe

MODULES = ("model.climbing",)
"""The modules of the API page. Docstrings of others are not parsed: nobody sees them."""

SECTIONS = ("parameters", "attributes")


class ShapesInDocstrings(griffe.Extension):
    """Shows what stands behind the colon of a parameter or an attribute as its meaning, not as its type."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Change the docstrings of all classes and functions of the modules."""
        for item in (item for name in MODULES for item in _all_in(pkg[name])):
            for section in item.docstring.parsed if item.docstring else ():
                if section.kind.value in SECTIONS:
                    for entry in section.value:
                        entry.description = " ".join(filter(None, (_text(entry.annotation), entry.description)))
                        entry.annotation = None


def _all_in(item: griffe.Object) -> Iterator[griffe.Object]:
    yield item
    for member in item.members.values():
        if isinstance(member, griffe.Object):
            yield from _all_in(member)


def _text(annotation: object) -> str:
    return str(annotation) if annotation is not None else ""
