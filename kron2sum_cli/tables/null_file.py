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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.fitting import Certificate
from kron2sum_cli.model.null_model import FitSummary, NullModel
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import Estimates
from kron2sum_cli.tables.samples import Samples

FORMAT = 1
"""Version of the file's layout."""

_CONTRAST_ARRAYS = ("Z", "s", "V", "Yx", "Kxx", "Kxm", "Rx")
_AXES_ARRAYS = ("T", "Tinv", "c0", "c1")
_ESTIMATES = tuple(field.name for field in fields(Estimates))
_TIMELESS = (1980, 1, 1, 0, 0, 0)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NullDescription:
    """What a null model's file says besides its fits.

    Attributes
    ----------
    version : of the program that wrote it
    method : "reml" or "ml"
    traits, covariates : names, in the order of C0 and of the rows of B
    samples : the analysed samples, in the order of the rotation
    Y, X, A : (n, p) traits as analysed, (n, c) covariates, (p, a) trait design
    grm : what the relationship matrix was made of: ``path``, ``files`` (name, size, hash), ``options``
    inputs : phenotype and covariate files (name, size, hash)
    counts : samples, by reason
    """

    version: str
    method: str
    traits: tuple[str, ...]
    covariates: tuple[str, ...]
    samples: Samples
    Y: Array
    X: Array
    A: Array
    grm: Mapping[str, Any]
    inputs: Mapping[str, Any]
    counts: Mapping[str, int]

    @property
    def coupled(self) -> bool:
        """Whether the trait design has fewer columns than traits, so that fixed effects couple the trait axes."""
        return bool(self.A.shape[1] < self.A.shape[0])


@dataclass(frozen=True)
class NullFile:
    """A null model's file: its summaries at once, its large arrays when they are asked for.

    Attributes
    ----------
    description : names, samples, tables, provenance
    whole : the fit with the whole relationship matrix
    chromosomes : the fit without each chromosome, by its code; empty without ``--loco``
    profile : trait to profile-likelihood interval of its heritability
    hash : identifies the model, for provenance
    load : reads the model of a chromosome, or the whole one's for None
    """

    description: NullDescription
    whole: FitSummary
    chromosomes: Mapping[str, FitSummary]
    profile: Mapping[str, Any]
    hash: str
    load: Callable[[str | None], NullModel]

    @property
    def version(self) -> str:
        """Version of the program that wrote it."""
        return self.description.version

    @property
    def method(self) -> str:
        """The likelihood: "reml" or "ml"."""
        return self.description.method

    @property
    def traits(self) -> tuple[str, ...]:
        """Names of the traits."""
        return self.description.traits

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates."""
        return self.description.covariates

    @property
    def samples(self) -> Samples:
        """The analysed samples."""
        return self.description.samples

    @property
    def grm(self) -> Mapping[str, Any]:
        """What the relationship matrix was made of."""
        return self.description.grm


class NullWriter:
    """Writes a null model's file as its fits come, so that one of them is in memory at a time."""

    def __init__(self, file: BinaryIO, description: NullDescription) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._description = description
        self._digest = hashlib.sha256()
        self._chromosomes: list[str] = []
        self._hash_description()
        self._tables()

    def add(self, chromosome: str | None, model: NullModel) -> None:
        """Write the fit without a chromosome, or (None, and first) the whole one."""
        prefix = _prefix(chromosome)
        if chromosome is not None:
            self._chromosomes.append(chromosome)
        self._digest.update(prefix.encode())
        axes = model.summary.axes
        for array in (model.data.s, axes.T, axes.c0, axes.c1, model.data.Z):
            self._digest.update(np.ascontiguousarray(array).tobytes())
        for name, array in _model_arrays(prefix, model):
            self._write(name, array)
        if chromosome is None:
            for name in ("C0", "C1", "B"):
                self._write(name, getattr(model.summary.estimates, name))

    def finish(self, profile: Mapping[str, Any]) -> str:
        """Write the names and the provenance; returns the hash of the model."""
        d = self._description
        meta = {
            "format": FORMAT,
            "version": d.version,
            "method": d.method,
            "traits": d.traits,
            "covariates": d.covariates,
            "grm": d.grm,
            "inputs": d.inputs,
            "counts": d.counts,
            "profile": profile,
            "chromosomes": self._chromosomes,
            "has_fids": d.samples.fids is not None,
            "hash": self._digest.hexdigest(),
        }
        self._write("meta", np.array(json.dumps(meta, sort_keys=True, ensure_ascii=False)))
        self._archive.close()
        return self._digest.hexdigest()

    def _hash_description(self) -> None:
        d = self._description
        names = (d.method, d.traits, d.covariates, d.samples.fids, d.samples.iids)
        self._digest.update(repr(names).encode())
        for array in (d.Y, d.X, d.A):
            self._digest.update(np.ascontiguousarray(array).tobytes())

    def _tables(self) -> None:
        d = self._description
        self._write("traits", np.array(d.traits))
        self._write("iids", np.array(d.samples.iids))
        if d.samples.fids is not None:
            self._write("fids", np.array(d.samples.fids))
        for name in ("Y", "X", "A"):
            self._write(name, getattr(d, name))

    def _write(self, name: str, array: NDArray[Any]) -> None:
        info = zipfile.ZipInfo(name + ".npy", date_time=_TIMELESS)
        with self._archive.open(info, "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _prefix(chromosome: str | None) -> str:
    return "whole/" if chromosome is None else f"loco/{chromosome}/"


def _model_arrays(prefix: str, model: NullModel) -> Iterator[tuple[str, NDArray[Any]]]:
    summary, data = model.summary, model.data
    scalars = {
        "nsilent": data.nsilent,
        "reml": summary.reml,
        "rank": summary.rank,
        "lml": summary.lml,
        "mean_diagonal": summary.mean_diagonal,
        "quadratic": summary.quadratic,
        "certificate": asdict(summary.certificate),
        "logdet_MtM": data.design.logdet_MtM if data.design else None,
    }
    yield prefix + "scalars", np.array(json.dumps(scalars, sort_keys=True))
    for name in _AXES_ARRAYS:
        yield prefix + name, getattr(summary.axes, name)
    for name in _ESTIMATES:
        yield f"{prefix}estimates/{name}", getattr(summary.estimates, name)
    yield prefix + "Qx", model.Qx
    for name in _CONTRAST_ARRAYS:
        yield prefix + name, getattr(data, name)
    if data.design is not None:
        yield prefix + "design_X", data.design.X


def read_null(path: str) -> NullFile:
    """Read a null model; ``-`` is standard input.

    Raises
    ------
    InputError
        Where the file is missing, is not a null model, is cut short or damaged, or was written in a newer layout.
    """
    name = "standard input" if path == "-" else path
    content = sys.stdin.buffer.read() if path == "-" else None

    def open_file() -> BinaryIO:
        return open(path, "rb") if content is None else io.BytesIO(content)

    with _archive(open_file, name) as archive:
        return _read(archive, name, open_file)


@contextmanager
def _archive(open_file: Callable[[], BinaryIO], name: str) -> "Iterator[_Archive]":
    try:
        with open_file() as file, zipfile.ZipFile(file) as archive:
            yield _Archive(archive, name)
    except zipfile.BadZipFile as error:
        message = "is not a null model, or is cut short or damaged; make it with kron2sum fit"
        raise InputError(f"{name}: {message} ({error})") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from error


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


def _read(archive: _Archive, name: str, open_file: Callable[[], BinaryIO]) -> NullFile:
    meta = archive.text("meta")
    if not isinstance(meta, dict) or "format" not in meta:
        raise archive.damaged("meta has no format")
    if meta["format"] != FORMAT:
        raise InputError(
            f"{name}: was written by kron2sum {meta.get('version')} in layout {meta['format']}, this one reads"
            f" {FORMAT}; use that version or fit it again"
        )
    try:
        description = _description(archive, meta, name)
        n, p = description.Y.shape

        def load(chromosome: str | None) -> NullModel:
            with _archive(open_file, name) as again:
                return _model(again, _prefix(chromosome), n, p, description.A)

        return NullFile(
            description=description,
            whole=_summary(archive, _prefix(None)),
            chromosomes={c: _summary(archive, _prefix(c)) for c in meta["chromosomes"]},
            profile=meta["profile"],
            hash=str(meta["hash"]),
            load=load,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise archive.damaged(f"meta: {error}") from error


def _description(archive: _Archive, meta: Mapping[str, Any], name: str) -> NullDescription:
    iids = tuple(archive.array("iids", "U", (None,)).tolist())
    n, p = len(iids), len(meta["traits"])
    fids = tuple(archive.array("fids", "U", (n,)).tolist()) if meta["has_fids"] else None
    return NullDescription(
        version=str(meta["version"]),
        method=str(meta["method"]),
        traits=tuple(meta["traits"]),
        covariates=tuple(meta["covariates"]),
        samples=Samples(fids, iids, name),
        Y=archive.array("Y", shape=(n, p)),
        X=archive.array("X", shape=(n, len(meta["covariates"]))),
        A=archive.array("A", shape=(p, None)),
        grm=meta["grm"],
        inputs=meta["inputs"],
        counts=meta["counts"],
    )


def _summary(archive: _Archive, prefix: str) -> FitSummary:
    scalars = archive.text(prefix + "scalars")
    return FitSummary(
        axes=TraitAxes(**{key: archive.array(prefix + key) for key in _AXES_ARRAYS}),
        reml=bool(scalars["reml"]),
        rank=int(scalars["rank"]),
        lml=float(scalars["lml"]),
        mean_diagonal=float(scalars["mean_diagonal"]),
        quadratic=float(scalars["quadratic"]),
        certificate=Certificate(**scalars["certificate"]),
        estimates=Estimates(**{key: archive.array(f"{prefix}estimates/{key}") for key in _ESTIMATES}),
    )


def _model(archive: _Archive, prefix: str, n: int, p: int, A: Array) -> NullModel:
    scalars = archive.text(prefix + "scalars")
    s = archive.array(prefix + "s", shape=(None,))
    m = s.size
    Qx = archive.array(prefix + "Qx", shape=(n, None))
    c = Qx.shape[1]
    shapes: dict[str, tuple[int | None, ...]] = {
        "Z": (m, p), "V": (n, m), "Yx": (c, p), "Kxx": (c, c), "Kxm": (c, m), "Rx": (c, c)
    }  # fmt: skip
    arrays = {key: archive.array(prefix + key, shape=shape) for key, shape in shapes.items()}
    design = None
    if prefix + "design_X" in archive:
        design = CoupledDesign(A, archive.array(prefix + "design_X", shape=(m, None)), float(scalars["logdet_MtM"]))
    data = Contrasts(s=s, nsilent=int(scalars["nsilent"]), design=design, **arrays)
    return NullModel(_summary(archive, prefix), data, Qx)
