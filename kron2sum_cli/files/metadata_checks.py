"""Whether the metadata of a result table have the form that `kron2sum scan` gives them."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from kron2sum_cli.errors import InputError


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Check every entry that is known, where it is there.

    Raises
    ------
    ValueError
        Naming the first that is wrong.
    """
    _check_entries(metadata, _ENTRIES, "")
    p = len(metadata["traits"]) if "traits" in metadata else None
    null, nulls = metadata.get("null", {}), metadata.get("nulls", [])
    squares = [metadata.get("axes"), null.get("C0"), null.get("C1"), *(record.get("axes") for record in nulls)]
    if any(square is not None and not _is_square(square, p) for square in squares):
        raise ValueError("axes, C0 and C1 are not all square matrices of the traits")
    axes = [metadata.get("axes"), *(record["axes"] for record in nulls)]
    # Not the determinant itself, which of many axes in large units is 0 by rounding.
    if any(square is not None and not np.linalg.slogdet(np.array(square)).sign for square in axes):
        raise ValueError("axes are singular")
    chromosomes = [record.get("chromosome") for record in nulls]
    known = all(code in chromosomes for code in metadata.get("null_of_chr", {}).values())
    if nulls and not (known and None in chromosomes):
        raise ValueError("a chromosome has no null model")


def required(metadata: Mapping[str, Any], name: str, keys: Iterable[str]) -> None:
    """Check that entries are there that an option needs.

    Raises
    ------
    InputError
        Naming the table and the entry.
    """
    for key in keys:
        if key not in metadata:
            raise InputError(f"{name}: its metadata say nothing of {key}; export the table that kron2sum scan wrote")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_whole(item) or _is_counts(item) for item in value.values())


def _is_files(value: Any) -> bool:
    is_file = _is_record({"name": _is_text, "size": _is_whole, "hash": _is_text})
    return isinstance(value, list) and all(is_file(record) and "name" in record for record in value)


def _is_inputs(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_files, value.values()))


def _is_matrix(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list) and all(map(_is_number, row)) for row in value)


def _is_square(value: list[list[float]], p: int | None) -> bool:
    size = len(value) if p is None else p
    return len(value) == size and all(len(row) == size for row in value)


def _is_record(entries: Mapping[str, Callable[[Any], bool]]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, dict) and all(good(value[key]) for key, good in entries.items() if key in value)

    return check


def _check_entries(value: Mapping[str, Any], entries: Mapping[str, Callable[[Any], bool]], place: str) -> None:
    for key, good in entries.items():
        if key in value and not good(value[key]):
            raise ValueError(f"{place}{key} is not what it should be")


def _is_nulls(value: Any) -> bool:
    complete = {"chromosome", "axes", "quadratic", "size", "residual_df", "coupled"}
    return (
        isinstance(value, list)
        and bool(value)
        and all(_is_record(_NULLS)(record) and complete <= record.keys() for record in value)
    )


_NULLS: Mapping[str, Callable[[Any], bool]] = {
    "chromosome": lambda value: value is None or _is_text(value),
    "axes": _is_matrix,
    "quadratic": _is_positive,
    "size": _is_positive,
    "residual_df": _is_positive,
    "coupled": lambda value: isinstance(value, bool),
}
_NULL: Mapping[str, Callable[[Any], bool]] = {
    "hash": _is_text,
    "method": lambda value: value in ("reml", "ml"),
    "lml": _is_number,
    "C0": _is_matrix,
    "C1": _is_matrix,
    "samples": _is_whole,
    "covariates": _is_names,
    "observed": _is_counts,
}
_ENTRIES: Mapping[str, Callable[[Any], bool]] = {
    "version": _is_text,
    "traits": lambda value: _is_names(value) and bool(value),
    "null": _is_record(_NULL),
    "nulls": _is_nulls,
    "null_of_chr": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    "axes": _is_matrix,
    "filters": lambda value: isinstance(value, dict),
    "settings": _is_record({"tests": _is_names, "stat": lambda value: value in ("lr", "f")}),
    "inputs": _is_inputs,
    "counts": _is_counts,
}
