"""The null model's file: what is written is read back, in any order and precision, and damage is found."""

import io
import json
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.null_file import (
    PREDICTED,
    GrmRecord,
    NpzReader,
    NullDescription,
    NullMetadata,
    NullWriter,
    Predictions,
    read_null,
)
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.model.null_model import NullModel, TraitData, null_likelihood, rotate_samples
from kron2sum_cli.model.uncertainty import Interval

N, P = 40, 2
PROFILE = {"a": Interval(0.25, 0.75, False)}


def described(missing: bool = False, reduced: bool = False, fids: bool = False) -> NullDescription:
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(N, P))
    if missing:
        Y[::9, 1] = np.nan
    metadata = NullMetadata(
        version="1.2.3",
        method="reml",
        traits=("a", "ß"),
        covariates=("intercept", "age"),
        grm=GrmRecord(("g.bed",), True, (FileRecord("g.bed", 3, "00"),), {"maf": 0.01}),
        inputs={"pheno": ()},
        counts={"samples analysed": N},
    )
    iids = tuple(f"i{k}" for k in range(N))
    samples = Samples(tuple(f"f{k}" for k in range(N)) if fids else None, iids, "made up")
    A = np.ones((P, 1)) if reduced else np.eye(P)
    return NullDescription(Y, A, np.column_stack([np.ones(N), rng.normal(size=N)]), metadata, samples)


def fitted(data: TraitData, columns: int = 15, seed: int = 1) -> NullModel:
    G = np.random.default_rng(seed).normal(size=(N, columns)) / np.sqrt(columns)
    likelihood = null_likelihood(rotate_samples(G, True, data, True), data, True)
    return likelihood.null_model(likelihood.fit(P))


def write(file: Any, description: NullDescription, chromosomes: dict[str | None, NullModel], **predictions: Any) -> str:
    with NullWriter(file, description) as writer:
        for chromosome, model in chromosomes.items():
            writer.add(chromosome, model)
        if predictions:
            writer.add_predictions(Predictions(**predictions))
        return writer.finish(PROFILE)


@pytest.fixture(scope="module")
def content() -> bytes:
    """A null model's file with a fit without a chromosome."""
    file, description = io.BytesIO(), described(fids=True)
    write(file, description, {None: fitted(description), "X": fitted(description, seed=2)})
    return file.getvalue()


def read_all(path: Path) -> None:
    null = read_null(str(path))
    for chromosome in (None, *null.chromosomes):
        null.load(chromosome)


@pytest.mark.parametrize("options", [{}, {"missing": True}, {"reduced": True}, {"fids": True}], ids=str)
def test_what_is_written_is_read_back(tmp_path: Path, options: dict[str, bool]) -> None:
    description = described(**options)
    models = {None: fitted(description), "X": fitted(description, seed=2)}
    with open(tmp_path / "null.npz", "wb") as file:
        found_hash = write(file, description, models)
    null = read_null(str(tmp_path / "null.npz"))
    assert null.metadata.hash == found_hash
    assert (null.traits, null.covariates, null.metadata.profile) == (("a", "ß"), ("intercept", "age"), PROFILE)
    assert null.grm == description.metadata.grm
    assert (null.samples.fids, null.samples.iids) == (description.samples.fids, description.samples.iids)
    assert null.predictions is None and list(null.chromosomes) == ["X"]
    np.testing.assert_array_equal(null.description.Y, description.Y)
    for chromosome, model in models.items():
        again = null.load(chromosome)
        expected = {name: 0 if value is None else value for name, value in model.scalars().items()}
        found = {name: 0 if value is None else value for name, value in again.scalars().items()}
        assert found == pytest.approx(expected, rel=1e-14, abs=1e-14)
        assert again.summary.certificate == model.summary.certificate
        assert (again.summary.lml, again.summary.quadratic) == (model.summary.lml, model.summary.quadratic)
        assert again.arrays().keys() == model.arrays().keys()
        for name, array in model.arrays().items():
            rounding = 1e-14 if name in ("design_X", "prior") else 0.0  # of a basis of X, and back
            np.testing.assert_allclose(again.arrays()[name], array, rtol=rounding, atol=rounding, err_msg=name)
        np.testing.assert_array_equal(again.summary.estimates.rg_se, model.summary.estimates.rg_se)
        assert null.nrows == model.arrays()["V"].shape[1]


def test_the_rotation_in_single_precision(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "null.npz").write_bytes(content)
    null = read_null(str(tmp_path / "null.npz"))
    single, double = (null.load(None, dtype).arrays()["V"] for dtype in (np.float32, np.float64))
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_predictions(tmp_path: Path) -> None:
    description = described()
    samples = Samples(None, (*description.samples.iids, "new"), "made up")
    arrays = {name: np.random.default_rng(k).normal(size=(N + 1, P)) for k, name in enumerate(PREDICTED)}
    with open(tmp_path / "null.npz", "wb") as file:
        write(file, description, {None: fitted(description)}, samples=samples, **arrays)
    predictions = read_null(str(tmp_path / "null.npz")).predictions
    assert predictions is not None and predictions.samples.iids[-1] == "new"
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(predictions, name), array)


def test_numpy_opens_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "null.npz").write_bytes(content)
    with np.load(tmp_path / "null.npz", allow_pickle=False) as arrays:
        assert arrays["traits"].tolist() == ["a", "ß"]
        np.testing.assert_array_equal(arrays["C0"], arrays["whole/estimates/C0"])
        assert json.loads(str(arrays["meta"]))["chromosomes"] == ["X"]


def test_the_same_model_makes_the_same_bytes(content: bytes) -> None:
    """Whether the file can seek or not."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.taken = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.taken += bytes(data)
            return len(data)

    pipe, description = Pipe(), described(fids=True)
    write(pipe, description, {None: fitted(description), "X": fitted(description, seed=2)})
    assert pipe.taken == content


def test_the_hash_is_that_of_the_model() -> None:
    description = described()
    model = fitted(description)
    hashes = {
        write(io.BytesIO(), *changed)
        for changed in (
            (description, {None: model}),
            (description, {None: fitted(description, seed=3)}),
            (described(fids=True), {None: model}),
            (description, {None: model, "X": model}),
        )
    }
    assert len(hashes) == 4
    assert write(io.BytesIO(), description, {None: model}) in hashes


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 4), (4, 1), (0, 3), (3, 0), (300, 700)])
def test_matrices_in_any_order(shape: tuple[int, int], order: Any) -> None:
    file, matrix = io.BytesIO(), np.asarray(np.random.default_rng(0).normal(size=shape), order=order)
    np.savez(file, M=matrix)
    reader = NpzReader(file)
    np.testing.assert_array_equal(reader.array("M", None, None), matrix)
    rows = reader.matrix("M", shape, np.float64, 2)
    assert rows.shape == (shape[1] + 2, shape[0])
    np.testing.assert_array_equal(rows[: shape[1]].T, matrix)


# What is wrong with a file is said


def test_any_cut_is_found(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "null.npz"
    for size in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:size])
        damaged = r"null.npz: is not a null model of kron2sum fit, .*; fit it again"
        with pytest.raises(InputError, match=damaged if size else "null.npz: is empty, not a null model"):
            read_all(path)


def test_no_damage_gives_other_numbers(tmp_path: Path, content: bytes) -> None:
    """One bit in each of 300 places: in an array of the model it is found, elsewhere it may change nothing.

    Elsewhere are times and attributes, and what is there for other programs.
    """
    path, random = tmp_path / "null.npz", np.random.default_rng(0)
    path.write_bytes(content)
    whole, in_an_array = numbers_of(path), np.zeros(len(content), dtype=np.bool_)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if "/" not in member.filename:
                continue
            sizes = content[member.header_offset + 26 : member.header_offset + 30]
            start = member.header_offset + 30 + sum(np.frombuffer(sizes, "<u2"))  # after a name and an extra field
            in_an_array[start : start + member.compress_size] = True
    assert in_an_array.mean() > 0.4
    for position in random.integers(len(content), size=300):
        damaged = bytearray(content)
        damaged[position] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            assert numbers_of(path) == whole
            assert not in_an_array[position]
        except InputError:
            pass


def numbers_of(path: Path) -> list[bytes]:
    null = read_null(str(path))
    models = [null.load(chromosome) for chromosome in (None, *null.chromosomes)]
    arrays = [array.tobytes() for model in models for array in model.arrays().values()]
    return [null.metadata.to_json().encode(), null.description.Y.tobytes(), *arrays]


def with_member(content: bytes, name: str, change: Callable[[np.ndarray], Any]) -> bytes:
    """The archive with another array in place of one."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(changed, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            if member == name + ".npy":
                array, buffer = change(np.load(io.BytesIO(data))), io.BytesIO()
                np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=True)
                data = buffer.getvalue()
            new.writestr(member, data)
    return changed.getvalue()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("Y", lambda a: a[:-1], r"Y has the shape \(39, 2\)"),
        ("whole/V", lambda a: a[:, :-1], r"whole/V has the shape \(40, 16\)"),
        ("whole/T", lambda a: a[:1], r"whole/T has the shape \(1, 2\)"),
        ("whole/Z", lambda a: a.astype(np.float32), "whole/Z is of type float32"),
        ("Y", lambda a: np.array([{"a": 1}], dtype=object), "Y is of type object"),
        (
            "meta",
            lambda a: np.array(str(a).replace('"format":2', '"format":1')),
            r"null.npz: was written by kron2sum \S+, and the layout of such files has changed since; make it again "
            "with kron2sum fit, whose options are in its log",
        ),
        ("meta", lambda a: np.array("{"), "Expecting property name"),
    ],
)
def test_arrays_of_another_kind_are_named(tmp_path: Path, content: bytes, name: str, change: Any, said: str) -> None:
    (tmp_path / "null.npz").write_bytes(with_member(content, name, change))
    with pytest.raises(InputError, match=said):
        read_all(tmp_path / "null.npz")


def test_a_header_that_claims_too_much(tmp_path: Path, content: bytes) -> None:
    """No memory is taken for it."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 99999), }\n"
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(tmp_path / "null.npz", "w") as new:
        for member in old.namelist():
            data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
            new.writestr(member, data if member == "Y.npy" else old.read(member))
    with pytest.raises(InputError, match="does not fit its size"):
        read_null(str(tmp_path / "null.npz"))


def test_files_of_another_kind(tmp_path: Path) -> None:
    for name, data in {"empty": b"", "text": b"FID IID\n", "zip": b"PK\x03\x04rest"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}: is (\w+,)? ?not a null model of kron2sum fit"):
            read_null(str(tmp_path / name))
    with pytest.raises(InputError, match="there is no such file; make it with kron2sum fit"):
        read_null(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="is a directory"):
        read_null(str(tmp_path))


def test_a_pipe(tmp_path: Path, content: bytes) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    null = read_null(str(tmp_path / "pipe"))
    writer.join()
    assert null.load("X").summary.lml == null.chromosomes["X"].lml


def test_a_failure_leaves_no_archive() -> None:
    """Nor does the archive end itself when it is destroyed."""
    file = io.BytesIO()
    with pytest.raises(ValueError, match="stop"), NullWriter(file, described()) as writer:
        raise ValueError("stop")
    assert writer._archive.fp is None, "it is closed, so that nothing is left to do, and to complain of, when it goes"
    size = len(file.getvalue())
    assert size > 0
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(file)
    assert len(file.getvalue()) == size
