"""Frozen dataclasses as JSON objects and back."""

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

Record = TypeVar("Record")

_ARRAY = get_origin(NDArray[np.float64])
"""`numpy.ndarray`, or, since numpy 2.5, the alias that `NDArray` is."""


class OtherLayout(ValueError):
    """A record was written by a version of kron2sum with another layout; the message says what to do."""


def read_record(kind: type[Record], text: str | bytes, layout: str, known: int, command: str) -> Record:
    """A record of the dataclass `kind` from the JSON text that a file holds.

    The text names its layout under the key ``layout``, and this version reads the layout ``known``; ``command`` makes
    such files. Raises OtherLayout if the layout is older or newer.
    """
    content = json.loads(text)
    if content.get(layout) == known:
        return from_json(kind, content)
    written = f"was written by kron2sum {content.get('version')}"
    if content.get(layout, 0) > known:
        raise OtherLayout(f"{written}, which is newer; install that version to read it")
    raise OtherLayout(
        f"{written}, and the layout of such files has changed since; make it again with {command}, whose options are in"
        " its log"
    )


def to_json(value: Any) -> Any:
    """What `json.dumps` takes: objects for records (fields at their default left out), lists for arrays and tuples."""
    if is_dataclass(value) and not isinstance(value, type):
        items = {field: getattr(value, field.name) for field in fields(value)}
        return {field.name: to_json(item) for field, item in items.items() if not _is_default(field, item)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def canonical_json(value: Any) -> str:
    """A record as JSON text; equal records are equal texts (keys sorted, no spaces)."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def from_json(kind: type[Record], content: Mapping[str, Any]) -> Record:
    """A record of the dataclass `kind` from a JSON object. Keys that it does not have are passed over.

    Fields may be arrays of doubles, other dataclasses, tuples, ``Mapping[str, T]``, ``T | None`` of these, and what
    JSON has itself.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.name in content]  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], content[name]) for name in names})


def _value(hint: Any, value: Any) -> Any:
    """A value of a declared type from what JSON has for it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _value(inner, value)
    if is_dataclass(hint):
        return from_json(hint, value)  # type: ignore[arg-type]
    if origin is _ARRAY:
        return np.array(value, dtype=np.float64)
    if origin is tuple:
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_value(one, item) for one, item in zip(each, value, strict=True))
    if origin is Mapping:
        return {key: _value(arguments[1], item) for key, item in value.items()}
    return value


def _is_default(field: Any, value: Any) -> bool:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return default is not MISSING and not isinstance(value, np.ndarray) and bool(value == default)
