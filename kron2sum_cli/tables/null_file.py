"""The null model's file: a plain ``.npz`` that numpy opens, without pickles and without compression.

Arrays of the whole-genome fit lie under ``whole/``, those of the fits without a chromosome under ``loco/CHR/``; the
JSON text ``meta`` has the names and how it was made. ``C0``, ``C1``, ``B`` and ``traits`` stand at the top for those
who look in by hand. The same model makes the same bytes.
"""

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.fitting import Certificate
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import Estimates
from kron2sum_cli.tables.samples import Samples

FORMAT = 1
"""Version of the file's layout."""

_CONTRAST_ARRAYS = ("Z", "s", "V", "Yx", "Kxx", "Kxm", "Rx")
_AXES_ARRAYS = ("T", "Tinv", "c0", "c1")
_ESTIMATES = tuple(field.name for field in fields(Estimates))
_TIMELESS = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class NullFile:
    """Everything in a null model's file.

    Attributes
    ----------
    version : of the program that wrote it
    method : "reml" or "ml"
    traits, covariates : names, in the order of C0 and of the rows of B
    samples : the analysed samples, in the order of the rotation
    Y, X, A : (n, p) traits as analysed, (n, c) covariates, (p, a) trait design
    whole : the fit with the whole relationship matrix
    chromosomes : the fit without each chromosome, by its code; empty without ``--loco``
    grm : what the relationship matrix was made of: ``path``, ``files`` (name, size, hash), ``options``, ``counts``
    inputs : phenotype and covariate files (name, size, hash)
    counts : samples, by reason
    profile : trait to profile-likelihood interval of its heritability
    hash : of the whole file's numbers, for provenance
    """

    version: str
    method: str
    traits: tuple[str, ...]
    covariates: tuple[str, ...]
    samples: Samples
    Y: NDArray[np.float64]
    X: NDArray[np.float64]
    A: NDArray[np.float64]
    whole: NullModel
    chromosomes: Mapping[str, NullModel]
    grm: Mapping[str, Any]
    inputs: Mapping[str, Any]
    counts: Mapping[str, int]
    profile: Mapping[str, Any]
    hash: str = ""


def write_null(file: BinaryIO, null: NullFile) -> None:
    """Write to an open binary file, which need not be seekable."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in _arrays(null):
            info = zipfile.ZipInfo(name + ".npy", date_time=_TIMELESS)
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _arrays(null: NullFile) -> Iterator[tuple[str, NDArray[Any]]]:
    meta = {
        "format": FORMAT,
        "version": null.version,
        "method": null.method,
        "traits": null.traits,
        "covariates": null.covariates,
        "grm": null.grm,
        "inputs": null.inputs,
        "counts": null.counts,
        "profile": null.profile,
        "chromosomes": list(null.chromosomes),
        "has_fids": null.samples.fids is not None,
        "hash": null_hash(null),
    }
    yield "meta", np.array(json.dumps(meta, sort_keys=True, ensure_ascii=False))
    yield "traits", np.array(null.traits)
    yield "C0", null.whole.estimates.C0
    yield "C1", null.whole.estimates.C1
    yield "B", null.whole.estimates.B
    yield "iids", np.array(null.samples.iids)
    if null.samples.fids is not None:
        yield "fids", np.array(null.samples.fids)
    for name in ("Y", "X", "A"):
        yield name, getattr(null, name)
    yield from _model_arrays("whole/", null.whole)
    for chromosome, model in null.chromosomes.items():
        yield from _model_arrays(f"loco/{chromosome}/", model)


def _model_arrays(prefix: str, model: NullModel) -> Iterator[tuple[str, NDArray[Any]]]:
    scalars = {
        "nsilent": model.data.nsilent,
        "reml": model.reml,
        "rank": model.rank,
        "lml": model.lml,
        "mean_diagonal": model.mean_diagonal,
        "certificate": asdict(model.certificate),
        "logdet_MtM": model.data.design.logdet_MtM if model.data.design else None,
    }
    yield prefix + "scalars", np.array(json.dumps(scalars, sort_keys=True))
    yield prefix + "Qx", model.Qx
    for name in _CONTRAST_ARRAYS:
        yield prefix + name, getattr(model.data, name)
    if model.data.design is not None:
        yield prefix + "design_X", model.data.design.X
    for name in _AXES_ARRAYS:
        yield prefix + name, getattr(model.axes, name)
    for name in _ESTIMATES:
        yield f"{prefix}estimates/{name}", getattr(model.estimates, name)


def null_hash(null: NullFile) -> str:
    """SHA-256 of what defines the model: samples, traits, covariates, and every fit's axes and eigenvalues."""
    digest = hashlib.sha256()
    digest.update(repr((null.method, null.traits, null.covariates, null.samples.fids, null.samples.iids)).encode())
    for array in (null.Y, null.X, null.A):
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, model in (("", null.whole), *null.chromosomes.items()):
        digest.update(name.encode())
        for array in (model.data.s, model.axes.T, model.axes.c0, model.axes.c1, model.data.V[:, :1]):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read_null(path: str) -> NullFile:
    """Read a null model; ``-`` is standard input.

    Raises
    ------
    InputError
        Where the file is missing, is not a null model, is cut short or damaged, or was written in a newer layout.
    """
    name = "standard input" if path == "-" else path
    try:
        with _open(path) as file, zipfile.ZipFile(file) as archive:
            return _read(_Archive(archive, name), name)
    except zipfile.BadZipFile as error:
        raise InputError(f"{name}: is not a null model, or is cut short or damaged; make it with kron2sum fit") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from error


def _open(path: str) -> BinaryIO:
    return io.BytesIO(sys.stdin.buffer.read()) if path == "-" else open(path, "rb")


class _Archive:
    """Arrays of an archive, each checked before memory is taken for it."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive, self._name = archive, name

    def __contains__(self, key: str) -> bool:
        return key + ".npy" in self._archive.NameToInfo

    def damaged(self, reason: str) -> InputError:
        return InputError(f"{self._name}: is not a null model of kron2sum fit, or is damaged ({reason}); fit it again")

    def array(self, key: str, kind: str = "f", shape: tuple[int | None, ...] | None = None) -> NDArray[Any]:
        """One array, of this kind of type and shape (None: any length)."""
        try:
            info = self._archive.getinfo(key + ".npy")
        except KeyError:
            raise self.damaged(f"{key} is missing") from None
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise self.damaged(f"{key} is compressed")
        try:
            with self._archive.open(info) as member:
                self._check_header(member, info.file_size, key)
            with self._archive.open(info) as member:
                value = np.lib.format.read_array(member, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise self.damaged(f"{key}: {error}") from error
        if value.dtype.kind != kind:
            raise self.damaged(f"{key} has the type {value.dtype}")
        wanted = shape if shape is not None else (None,) * value.ndim
        if value.ndim != len(wanted) or any(w not in (None, size) for w, size in zip(wanted, value.shape, strict=True)):
            raise self.damaged(f"{key} has the shape {value.shape}")
        return value

    def _check_header(self, member: Any, size: int, key: str) -> None:
        """Refuse an array that claims more bytes than the file has."""
        version = np.lib.format.read_magic(member)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(member)
        if dtype.hasobject or int(np.prod(shape, dtype=object)) * dtype.itemsize > size:
            raise self.damaged(f"{key} claims {shape} of {dtype}")

    def text(self, key: str) -> Any:
        """A JSON text."""
        try:
            return json.loads(str(self.array(key, "U", ())))
        except ValueError as error:
            raise self.damaged(f"{key}: {error}") from error


def _read(archive: _Archive, name: str) -> NullFile:
    meta = archive.text("meta")
    if not isinstance(meta, dict) or "format" not in meta:
        raise archive.damaged("meta has no format")
    if meta["format"] != FORMAT:
        raise InputError(
            f"{name}: was written by kron2sum {meta.get('version')} in layout {meta['format']}, this one reads"
            f" {FORMAT}; use that version or fit it again"
        )
    try:
        return _null_file(archive, meta, name)
    except (KeyError, TypeError, AttributeError) as error:
        raise archive.damaged(f"meta: {error}") from error


def _null_file(archive: _Archive, meta: Mapping[str, Any], name: str) -> NullFile:
    iids = tuple(archive.array("iids", "U", (None,)).tolist())
    n, p = len(iids), len(meta["traits"])
    fids = tuple(archive.array("fids", "U", (n,)).tolist()) if meta["has_fids"] else None
    A = archive.array("A", shape=(p, None))
    null = NullFile(
        version=str(meta["version"]),
        method=str(meta["method"]),
        traits=tuple(meta["traits"]),
        covariates=tuple(meta["covariates"]),
        samples=Samples(fids, iids, name),
        Y=archive.array("Y", shape=(n, p)),
        X=archive.array("X", shape=(n, len(meta["covariates"]))),
        A=A,
        whole=_model(archive, "whole/", n, p, A),
        chromosomes={c: _model(archive, f"loco/{c}/", n, p, A) for c in meta["chromosomes"]},
        grm=meta["grm"],
        inputs=meta["inputs"],
        counts=meta["counts"],
        profile=meta["profile"],
        hash=str(meta["hash"]),
    )
    if null_hash(null) != null.hash:
        raise archive.damaged("its hash does not match its numbers")
    return null


def _model(archive: _Archive, prefix: str, n: int, p: int, A: NDArray[np.float64]) -> NullModel:
    scalars = archive.text(prefix + "scalars")
    s = archive.array(prefix + "s", shape=(None,))
    m = s.size
    Qx = archive.array(prefix + "Qx", shape=(n, None))
    c = Qx.shape[1]
    shapes: dict[str, tuple[int | None, ...]] = {
        "Z": (m, p), "s": (m,), "V": (n, m), "Yx": (c, p), "Kxx": (c, c), "Kxm": (c, m), "Rx": (c, c)
    }  # fmt: skip
    arrays = {key: archive.array(prefix + key, shape=shape) for key, shape in shapes.items()}
    design = None
    if prefix + "design_X" in archive:
        design = CoupledDesign(A, archive.array(prefix + "design_X", shape=(m, None)), float(scalars["logdet_MtM"]))
    axes = {key: archive.array(prefix + key) for key in _AXES_ARRAYS}
    return NullModel(
        data=Contrasts(nsilent=int(scalars["nsilent"]), design=design, **arrays),
        Qx=Qx,
        axes=TraitAxes(**axes),
        reml=bool(scalars["reml"]),
        rank=int(scalars["rank"]),
        lml=float(scalars["lml"]),
        mean_diagonal=float(scalars["mean_diagonal"]),
        certificate=Certificate(**scalars["certificate"]),
        estimates=Estimates(**{key: archive.array(f"{prefix}estimates/{key}") for key in _ESTIMATES}),
    )
