"""Null models of observed cells, with predictions, that somebody made or changed by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_crafted_nulls import CHANGES, EXECUTED, Arrays, read_all, with_first, write

from kron2sum_cli.cli import run
from kron2sum_cli.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "example_data"


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """A small null model of observed cells with predictions."""
    folder = tmp_path_factory.mktemp("observed")
    header, *lines = (EXAMPLE / "phenotypes.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[:60]]
    for k, row in enumerate(rows[:30]):
        row[2 + k % 3] = "NA"
    (folder / "p.csv").write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    (folder / "keep.txt").write_text("\n".join(" ".join(line.split(",")[:2]) for line in lines[:70]) + "\n")
    options = ["--keep", "keep.txt", "--missing", "exact", "--predict", "--rank", "1", "--out", "null.npz"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["fit", "-q", "--pheno", "p.csv", "--grm", str(EXAMPLE / "genotypes.bed"), *options]) == 0
    with np.load(folder / "null.npz") as archive:
        return dict(archive)


def test_it_is_read_as_it_is(tmp_path: Path, arrays: Arrays) -> None:
    assert {"whole/shift", "whole/design_X", "predictions/genetic"} <= arrays.keys()
    assert json.loads(str(arrays["meta"]))["missing_cells"] == np.isnan(arrays["Y"]).sum()
    assert read_all(write(tmp_path / "x.npz", arrays)) is None


@pytest.mark.parametrize("change", CHANGES)
def test_arrays_that_are_something_else(tmp_path: Path, arrays: Arrays, change: str) -> None:
    """Those that only such a file has."""
    own = ["Y", "whole/shift", "whole/design_X", *(name for name in arrays if name.startswith("predictions/"))]
    for name in own:
        is_number = arrays[name].dtype.kind == "f"
        if not is_number and change not in ("objects", "no array", "an empty file", "a huge text", "a row less"):
            continue
        if change == "NaN" and np.isnan(arrays[name].flat[0]):
            continue
        path = write(tmp_path / "x.npz", arrays | {name: CHANGES[change](arrays[name])})
        with pytest.raises(InputError, match=re.escape(str(path))):
            read_all(path)
    assert EXECUTED == []


def test_cells_that_are_missing_elsewhere(tmp_path: Path, arrays: Arrays) -> None:
    Y, meta = arrays["Y"], json.loads(str(arrays["meta"]))
    swapped, filled, infinite = Y[::-1].copy(), np.nan_to_num(Y), with_first(Y, np.inf)
    empty = Y.copy()
    empty[np.flatnonzero(np.isnan(Y).any(axis=1))[0]] = np.nan
    for changed in (swapped, filled, infinite, empty):
        with pytest.raises(InputError, match="damaged"):
            read_all(write(tmp_path / "x.npz", arrays | {"Y": changed}))
    q = meta["missing_cells"]
    for count in (None, 0, -q, q + 1, float(q), True, str(q), [q]):
        text = json.dumps(meta | {"missing_cells": count})
        with pytest.raises(InputError, match="damaged"):
            read_all(write(tmp_path / "x.npz", arrays | {"meta": np.array(text)}))
    del meta["missing_cells"]
    with pytest.raises(InputError, match="other missing cells"):
        read_all(write(tmp_path / "x.npz", arrays | {"meta": np.array(json.dumps(meta))}))


@pytest.mark.parametrize("name", ["whole/shift", "whole/design_X", "predictions/genetic"])
def test_parts_that_are_left_out(tmp_path: Path, arrays: Arrays, name: str) -> None:
    with pytest.raises(InputError, match="damaged"):
        read_all(write(tmp_path / "x.npz", {key: value for key, value in arrays.items() if key != name}))


def test_predictions_are_left_out_only_with_the_hash(tmp_path: Path, arrays: Arrays) -> None:
    without = {key: value for key, value in arrays.items() if not key.startswith("predictions/")}
    with pytest.raises(InputError, match="its numbers are not those of its hash"):
        read_all(write(tmp_path / "x.npz", without))


@pytest.mark.parametrize("name", ["Y", "whole/shift", "predictions/genetic", "predictions/cells_variance"])
def test_other_numbers(tmp_path: Path, arrays: Arrays, name: str) -> None:
    with pytest.raises(InputError, match="damaged"):
        read_all(write(tmp_path / "x.npz", arrays | {name: 1.01 * arrays[name]}))
