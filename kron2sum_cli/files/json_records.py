"""Frozen dataclasses as JSON objects and back, each value checked by its declared type."""

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

Record = TypeVar("Record")

_SCALARS = (str, int, float, bool)

_ARRAY = get_origin(NDArray[np.float64])
"""`numpy.ndarray`, or, since numpy 2.5, the alias that `NDArray` is."""


class OtherLayout(ValueError):
    """A record was written by a version of kron2sum with another layout; the message says what to do."""


def read_record(kind: type[Record], text: str | bytes, layout: str, known: int, command: str) -> Record:
    """A record of the dataclass `kind` from the JSON text that a file holds.

    Parameters
    ----------
    kind : type
        The dataclass.
    text : str or bytes
        The JSON text, which names its layout and the version that wrote it.
    layout : str
        Under which key it names its layout.
    known : int
        The layout that this version reads.
    command : str
        What makes such a file.

    Raises
    ------
    OtherLayout
        If the layout is older or newer.
    ValueError
        If the text is no such record, saying why.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON text is nested too deeply") from error
    if isinstance(content, dict) and content.get(layout) != known:
        version = content.get("version")
        if not isinstance(version, str):
            raise ValueError("version is missing")
        if isinstance(content.get(layout), int) and content[layout] > known:
            raise OtherLayout(f"was written by kron2sum {version}, which is newer; install that version to read it")
        raise OtherLayout(
            f"was written by kron2sum {version}, and the layout of such files has changed since; make it again with"
            f" {command}, whose options are in its log"
        )
    return from_json(kind, content)


def to_json(value: Any) -> Any:
    """What `json.dumps` takes: objects for records (fields at their default left out), lists for arrays and tuples."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: (getattr(value, field.name), _default(field)) for field in fields(value)}
        return {name: to_json(item) for name, (item, default) in found.items() if not _same(item, default)}
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


def from_json(kind: type[Record], value: Any, place: str = "") -> Record:
    """A record of the dataclass `kind` from a JSON object. Keys that it does not have are passed over.

    Types are ``str``, ``int``, ``float``, ``bool``, ``Any``, a ``Literal``, an array of floats, another dataclass,
    ``tuple[T, ...]``, ``Mapping[str, T]``, a tuple of two or ``T | None`` of these.

    Raises
    ------
    ValueError
        Naming the first key that is missing or has a value of another type, or what the record itself refuses.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{place or 'the JSON text'} is no object")
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        path = f"{place}.{field.name}" if place else field.name
        if field.name in value:
            found[field.name] = _value(hints[field.name], value[field.name], path)
        elif _default(field) is MISSING:
            raise ValueError(f"{path} is missing")
    return kind(**found)


def _value(hint: Any, value: Any, place: str) -> Any:
    """A value of a declared type from what JSON has for it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _value(inner, value, place)
    if origin is Literal and value in arguments:
        return value
    if hint in _SCALARS and _is_scalar(hint, value):
        return hint(value)
    if is_dataclass(hint):
        return from_json(hint, value, place)  # type: ignore[arg-type]
    if origin is _ARRAY and isinstance(value, list):
        return _array(value, place)
    if origin is tuple and isinstance(value, list):
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(each) == len(value):
            return tuple(
                _value(one, item, f"{place}[{k}]") for k, (one, item) in enumerate(zip(each, value, strict=True))
            )
    if origin is Mapping and isinstance(value, dict):
        return {key: _value(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    raise ValueError(f"{place} is {short_json(value)}")


def _is_scalar(kind: type, value: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind


def _array(value: list[Any], place: str) -> Any:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{place} is no array of numbers") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{place} has a value that is no finite number")
    return array


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _same(value: Any, default: Any) -> bool:
    return default is not MISSING and not isinstance(value, np.ndarray) and bool(value == default)


def short_json(value: Any) -> str:
    """A value of JSON as text for a message, its end left out where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
