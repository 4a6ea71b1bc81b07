"""Null models that somebody made or changed by hand."""

import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kron2sum_cli.cli import run
from kron2sum_cli.errors import InputError
from kron2sum_cli.files.null_file import _identity, read_null
from kron2sum_cli.files.null_hash import HASHED_ARRAYS, ModelHash

Arrays = dict[str, np.ndarray]
EXECUTED: list[str] = []


class Attack:
    """An object whose pickle runs code when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return EXECUTED.append, ("pickle",)


@pytest.fixture(scope="module")
def arrays(made: Path) -> Arrays:
    with np.load(made / "null.npz") as archive:
        return dict(archive)


def write(path: Path, arrays: dict[str, Any], compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive of arrays, of bytes as they are, and of objects as pickles."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in arrays.items():
            content = array
            if not isinstance(array, bytes):
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=True)
                content = buffer.getvalue()
            archive.writestr(name + ".npy", content)
    return path


def read_all(path: Path, dtype: type[np.floating] = np.float64) -> None:
    null = read_null(str(path))
    for chromosome in (None, *null.chromosomes):
        null.load(chromosome, dtype)


def rehashed(arrays: Arrays, folder: Path) -> Arrays:
    """With the hash of its numbers, as somebody would who knows how it is made."""
    null = read_null(str(write(folder / "original.npz", arrays)))
    digest = ModelHash(*_identity(null.description))
    digest.add("whole/", null.whole, {name: arrays[f"whole/{name}"] for name in HASHED_ARRAYS})
    meta = json.loads(str(arrays["meta"])) | {"hash": digest.hexdigest()}
    return arrays | {"meta": np.array(json.dumps(meta))}


def with_first(array: np.ndarray, value: float) -> np.ndarray:
    changed = np.array(array, dtype=np.float64)
    changed.flat[0] = value
    return changed


CHANGES: dict[str, Callable[[np.ndarray], Any]] = {
    "NaN": lambda a: with_first(a, np.nan),
    "infinity": lambda a: with_first(a, np.inf),
    "another number": lambda a: with_first(a, 1e6),
    "a row less": lambda a: a[:-1],
    "a dimension more": lambda a: a[None],
    "nothing": lambda a: a[:0],
    "single precision": lambda a: a.astype(np.float32),
    "the other byte order": lambda a: a.astype(">f8"),
    "whole numbers": lambda a: np.nan_to_num(a).astype(np.int64),
    "complex": lambda a: a.astype(complex),
    "objects": lambda a: np.array([Attack()] * 3, dtype=object),
    "fields": lambda a: np.zeros(3, dtype=[("a", "f8"), ("b", "O")]),
    "text": lambda a: np.array(["a"] * 3),
    "no array": lambda a: b"hello",
    "an empty file": lambda a: b"",
    "a header that ends": lambda a: b"\x93NUMPY\x01\x00\xff\xff{'descr'",
    "a header that calls": lambda a: header("__import__('os')"),
    "a deep header": lambda a: header("(" * 5000),
    "a huge claim": lambda a: header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"),
    "a negative claim": lambda a: header("{'descr': '<f8', 'fortran_order': False, 'shape': (-3, 4), }"),
    "a claim that overflows": lambda a: header(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"
    ),
    "a huge text": lambda a: header("{'descr': '<U999999999', 'fortran_order': False, 'shape': (), }"),
}


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text.encode() + b"\n"


@pytest.mark.parametrize("change", CHANGES)
def test_arrays_that_are_something_else(tmp_path: Path, arrays: Arrays, change: str) -> None:
    """Every array of the file in turn."""
    for name, array in arrays.items():
        is_number = array.dtype.kind == "f"
        if not is_number and change not in ("objects", "no array", "an empty file", "a huge text"):
            continue
        path = write(tmp_path / "x.npz", arrays | {name: CHANGES[change](array)})
        with pytest.raises(InputError, match=re.escape(str(path))):
            read_all(path)
    assert EXECUTED == []


def test_something_behind_the_end(tmp_path: Path, arrays: Arrays) -> None:
    path = write(tmp_path / "x.npz", arrays)
    assert read_all(path) is None
    for more in (b"\0", b"x" * 100):
        path.write_bytes(write(tmp_path / "x.npz", arrays).read_bytes() + more)
        with pytest.raises(InputError, match=r"x.npz: .*something was added behind its end"):
            read_all(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rotation_that_is_none(tmp_path: Path, arrays: Arrays, dtype: type[np.floating]) -> None:
    V = arrays["whole/V"]
    huge = with_first(V, 1e300)  # infinite in single precision
    for changed in (1.001 * V, np.roll(V, 1, axis=0), np.zeros_like(V), V[:, ::-1], huge, with_first(V, np.nan)):
        with pytest.raises(InputError, match="V is not orthonormal|V are not orthogonal|Z is not the rotated"):
            read_all(write(tmp_path / "x.npz", arrays | {"whole/V": changed}), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("change", CHANGES)
def test_rotation_that_is_something_else(tmp_path: Path, arrays: Arrays, dtype: type[np.floating], change: str) -> None:
    path = write(tmp_path / "x.npz", arrays | {"whole/V": CHANGES[change](arrays["whole/V"])})
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_all(path, dtype)


def test_rotation_that_is_damaged_or_ends(tmp_path: Path, arrays: Arrays) -> None:
    path = write(tmp_path / "x.npz", arrays)
    content = path.read_bytes()
    V = np.asfortranarray(arrays["whole/V"]).tobytes("A")
    place = content.index(V) + len(V) // 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(InputError, match="whole/V: Bad CRC-32"):
        read_all(path, np.float32)
    short = io.BytesIO()
    np.lib.format.write_array(short, arrays["whole/V"])
    with pytest.raises(InputError, match="whole/V"):
        read_all(write(tmp_path / "x.npz", arrays | {"whole/V": short.getvalue()[:-8]}), np.float32)


def test_rotation_in_the_order_of_rows(tmp_path: Path, arrays: Arrays) -> None:
    V = np.ascontiguousarray(arrays["whole/V"])
    null = read_null(str(write(tmp_path / "x.npz", arrays | {"whole/V": V})))
    np.testing.assert_array_equal(null.load(None).contrasts.V, V)
    np.testing.assert_array_equal(null.load(None, np.float32).contrasts.V, V.astype(np.float32))


def test_other_numbers_with_their_own_hash(tmp_path: Path, arrays: Arrays) -> None:
    """Who changes numbers and hash alike must change all that follows from them, too."""
    assert read_all(write(tmp_path / "x.npz", rehashed(arrays, tmp_path))) is None
    for name in ("Y", "X", "A", "whole/Z", "whole/c1", "whole/T"):
        changed = arrays | {name: arrays[name] * 1.01}
        with pytest.raises(InputError, match=r"is not a null model of kron2sum fit, or is damaged"):
            read_all(write(tmp_path / "x.npz", changed))


@pytest.mark.parametrize(
    "value", [None, 3, -1, 1e400, True, "x", [], {}, [3], [[]], {"a": 3}, ["a"], "\ud800", "../" * 9]
)
def test_wrong_meta(tmp_path: Path, arrays: Arrays, value: object) -> None:
    meta = json.loads(str(arrays["meta"]))
    taken = []
    for key in meta:
        text = json.dumps(meta | {key: value})
        try:
            read_all(write(tmp_path / "x.npz", arrays | {"meta": np.array(text)}))
        except InputError:
            continue
        taken.append(key)
    free_text, objects = {"version"}, {"inputs", "counts", "profile"}
    allowed = free_text if isinstance(value, str) and value != "\ud800" else objects if value == {} else set()
    allowed |= {"inputs", "counts"} if value == {"a": 3} else set()
    allowed |= {"chromosomes"} if value == [] else {"has_fids"} if value is True else set()
    assert set(taken) <= allowed


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"format": 2, "version": "9"}', "NaN", "9" * 9999])
def test_meta_that_is_none(tmp_path: Path, arrays: Arrays, text: str) -> None:
    with pytest.raises(InputError, match=r"meta|layout 2, this one reads 1"):
        read_all(write(tmp_path / "x.npz", arrays | {"meta": np.array(text)}))


def test_wrong_scalars(tmp_path: Path, arrays: Arrays) -> None:
    scalars = json.loads(str(arrays["whole/scalars"]))
    for key in ("nsilent", "rank", "lml", "mean_diagonal", "quadratic", "certificate"):
        for value in (None, "x", [], {}, -1, float("nan"), float("inf"), 10**400):
            text = json.dumps(scalars | {key: value})
            if (key, value) == ("lml", -1) or (key, value) == ("mean_diagonal", -1):
                continue
            with pytest.raises(InputError):
                read_all(write(tmp_path / "x.npz", arrays | {"whole/scalars": np.array(text)}))


def test_traits_of_mean_zero_are_no_damage(folder: Path) -> None:
    """Their projection on the intercept is all rounding."""
    for transform in ("standardize", "rank-normal"):
        command = f"fit -q --pheno y.csv --grm g.bed --transform {transform} --out centred.npz"
        assert run(command.split()) == 0
        read_all(folder / "centred.npz")


def test_compressed_archives_are_not_unpacked(tmp_path: Path, arrays: Arrays) -> None:
    bomb = header("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000,), }") + bytes(80_000_000)
    path = write(tmp_path / "x.npz", arrays | {"whole/s": bomb}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="is compressed"):
        read_all(path)


def test_what_else_lies_in_the_archive_is_not_looked_at(tmp_path: Path, arrays: Arrays) -> None:
    path = tmp_path / "x.npz"
    more = {"../../outside": b"x", "/etc/outside": b"x", "whole/../../s": b"x"}
    read_all(write(path, arrays | more))
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]


def test_cut_anywhere(tmp_path: Path, made: Path) -> None:
    content = (made / "null.npz").read_bytes()
    path = tmp_path / "x.npz"
    for size in (*range(0, 200, 7), *range(200, len(content), len(content) // 100)):
        path.write_bytes(content[:size])
        with pytest.raises(InputError):
            read_all(path)


def test_flipped_bits_never_give_other_numbers(tmp_path: Path, made: Path) -> None:
    """Most are in the arrays, whose checksum differs; some are in what zip files say of times and versions."""
    content = (made / "null.npz").read_bytes()
    path = tmp_path / "x.npz"
    random = np.random.default_rng(1)
    refused = 0
    for position in random.integers(len(content), size=200):
        damaged = bytearray(content)
        damaged[position] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            read_all(path)
        except InputError:
            refused += 1
    assert refused > 150


def test_recorded_genotypes_are_opened_only_if_they_are_the_same(folder: Path, arrays: Arrays) -> None:
    """Of all paths in a file only these, and nothing of them is parsed before their hash is compared."""
    meta = json.loads(str(arrays["meta"]))
    (folder / "secret").write_text("a secret\n")
    os.mkfifo(folder / "pipe")
    for path in ("secret", "../copy/secret", "pipe", "/dev/zero", "/etc/passwd", str(folder), "\0", "x" * 5000, ""):
        changed = meta | {"grm": meta["grm"] | {"path": path}}
        write(folder / "null.npz", arrays | {"meta": np.array(json.dumps(changed))})
        assert run(["scan", "-q", "--out", "out.parquet"]) == 1
        log = (folder / "out.parquet.log").read_text()
        assert "is not the file that the null model was made from" in log or "are not there" in log
        assert "a secret" not in log
