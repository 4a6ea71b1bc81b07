"""The null model's file: a plain ``.npz`` that numpy opens, without pickles and without compression.

Arrays of the whole-genome fit lie under ``whole/``, those of the fits without a chromosome under ``loco/CHR/``; the
JSON text ``meta`` has the names and how it was made. ``C0``, ``C1``, ``B`` and ``traits`` stand at the top for those
who look in by hand. The same model makes the same bytes.
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.fitting import Certificate
from kron2sum_cli.model.null_model import FitSummary, NullModel
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import Estimates
from kron2sum_cli.tables.inputs import display_name, open_input, unreadable
from kron2sum_cli.tables.npz_archive import ArchiveReader, ArchiveWriter
from kron2sum_cli.tables.null_checks import check_meta, check_model, check_summary
from kron2sum_cli.tables.null_hash import HASHED_ARRAYS, ModelHash
from kron2sum_cli.tables.samples import Samples

FORMAT = 1
"""Version of the file's layout."""

_CONTRAST_ARRAYS = ("Z", "s", "V", "Yx", "Kxx", "Kxm", "Rx")
_COPIES = ("C0", "C1", "B")
_AXES_ARRAYS = ("T", "Tinv", "c0", "c1")
_ESTIMATES = tuple(field.name for field in fields(Estimates))

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
    """Writes a null model's file as its fits come, so that one of them is in memory at a time.

    Use it as a context: after an exception nothing more is written.
    """

    def __init__(self, file: BinaryIO, description: NullDescription) -> None:
        self._archive = ArchiveWriter(file)
        self._description = description
        self._hash = ModelHash(*_identity(description))
        self._chromosomes: list[str] = []
        self._tables()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.abandon()

    def add(self, chromosome: str | None, model: NullModel) -> None:
        """Write the fit without a chromosome, or (None, and first) the whole one."""
        prefix = _prefix(chromosome)
        if chromosome is not None:
            self._chromosomes.append(chromosome)
        self._hash.add(prefix, model.summary, {name: getattr(model.data, name) for name in HASHED_ARRAYS})
        for name, array in _model_arrays(prefix, model):
            self._archive.write(name, array)
        if chromosome is None:
            for name in _COPIES:
                self._archive.write(name, getattr(model.summary.estimates, name))

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
            "hash": self._hash.hexdigest(),
        }
        self._archive.write("meta", np.array(json.dumps(meta, sort_keys=True, ensure_ascii=False)))
        self._archive.close()
        return self._hash.hexdigest()

    def _tables(self) -> None:
        d = self._description
        self._archive.write("traits", np.array(d.traits))
        self._archive.write("iids", np.array(d.samples.iids))
        if d.samples.fids is not None:
            self._archive.write("fids", np.array(d.samples.fids))
        for name in ("Y", "X", "A"):
            self._archive.write(name, getattr(d, name))


def _identity(d: NullDescription) -> tuple[tuple[Any, ...], tuple[Array, ...]]:
    """The names and the tables that a model is of."""
    return (d.method, d.traits, d.covariates, d.samples.fids, d.samples.iids), (d.Y, d.X, d.A)


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
    """Read a null model; ``-`` is standard input. Of that and of pipes the whole content is held in memory.

    Raises
    ------
    InputError
        Where the file is missing, is not a null model, is cut short or damaged, was changed after `NullWriter`
        wrote it, or was written in a newer layout.
    """
    name = display_name(path)
    content = _content(path)

    def open_file() -> BinaryIO:
        return open(path, "rb") if content is None else io.BytesIO(content)

    with _archive(open_file, name) as archive:
        return _read(archive, name, open_file)


def _content(path: str) -> bytes | None:
    """What standard input or a pipe holds; None for a file."""
    if path != "-" and (os.path.isfile(path) or not os.path.exists(path)):
        return None
    try:
        with open_input(path) as file:
            return file.read()
    except OSError as error:
        raise unreadable(display_name(path), error) from None


@contextmanager
def _archive(open_file: Callable[[], BinaryIO], name: str) -> Iterator[ArchiveReader]:
    try:
        with open_file() as file:
            yield ArchiveReader(file, name)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file; make it with kron2sum fit") from None
    except OSError as error:
        raise unreadable(name, error) from None


def _read(archive: ArchiveReader, name: str, open_file: Callable[[], BinaryIO]) -> NullFile:
    meta = archive.json("meta")
    if not isinstance(meta, dict) or "format" not in meta:
        raise archive.damaged("meta has no format")
    if meta["format"] != FORMAT or meta["format"] is True:
        raise InputError(
            f"{name}: was written by kron2sum {meta.get('version')} in layout {meta['format']}, this one reads"
            f" {FORMAT}; use that version or fit it again"
        )
    try:
        check_meta(meta)
        description = _description(archive, meta, name)
        whole = _summary(archive, _prefix(None), description)
        chromosomes = {c: _summary(archive, _prefix(c), description) for c in meta["chromosomes"]}
        _check_copies(archive, description, whole)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise archive.damaged(error) from error
    _check_hash(archive, meta["hash"], description, {None: whole, **chromosomes})

    def load(chromosome: str | None) -> NullModel:
        with _archive(open_file, name) as again:
            return _model(again, _prefix(chromosome), description)

    return NullFile(description, whole, chromosomes, meta["profile"], meta["hash"], load)


def _check_copies(archive: ArchiveReader, description: NullDescription, whole: FitSummary) -> None:
    """What stands at the top for those who look in by hand is what is used."""
    if archive.texts("traits") != description.traits:
        raise ValueError("traits are not those of meta")
    for name in _COPIES:
        if not np.array_equal(archive.array(name), getattr(whole.estimates, name)):
            raise ValueError(f"{name} is not that of the whole fit")


def _check_hash(
    archive: ArchiveReader, expected: str, description: NullDescription, summaries: Mapping[str | None, FitSummary]
) -> None:
    found = ModelHash(*_identity(description))
    for chromosome, summary in summaries.items():
        prefix = _prefix(chromosome)
        found.add(prefix, summary, {name: archive.array(prefix + name) for name in HASHED_ARRAYS})
    if found.hexdigest() != expected:
        raise archive.damaged("its numbers are not those of its hash")


def _description(archive: ArchiveReader, meta: Mapping[str, Any], name: str) -> NullDescription:
    iids = archive.texts("iids")
    n, p = len(iids), len(meta["traits"])
    if not n or not p:
        raise ValueError("it has no samples or no traits")
    return NullDescription(
        version=meta["version"],
        method=meta["method"],
        traits=tuple(meta["traits"]),
        covariates=tuple(meta["covariates"]),
        samples=Samples(archive.texts("fids", n) if meta["has_fids"] else None, iids, name),
        Y=archive.array("Y", shape=(n, p)),
        X=archive.array("X", shape=(n, len(meta["covariates"]))),
        A=archive.array("A", shape=(p, None)),
        grm=meta["grm"],
        inputs=meta["inputs"],
        counts=meta["counts"],
    )


def _summary(archive: ArchiveReader, prefix: str, description: NullDescription) -> FitSummary:
    scalars = archive.json(prefix + "scalars")
    summary = FitSummary(
        axes=TraitAxes(**{key: archive.array(prefix + key) for key in _AXES_ARRAYS}),
        reml=bool(scalars["reml"]),
        rank=int(scalars["rank"]),
        lml=float(scalars["lml"]),
        mean_diagonal=float(scalars["mean_diagonal"]),
        quadratic=float(scalars["quadratic"]),
        certificate=Certificate(**scalars["certificate"]),
        estimates=Estimates(**{key: archive.array(f"{prefix}estimates/{key}") for key in _ESTIMATES}),
    )
    check_summary(summary, len(description.traits), len(description.covariates), description.A.shape[1])
    return summary


def _model(archive: ArchiveReader, prefix: str, description: NullDescription) -> NullModel:
    """One fit with its arrays.

    Raises
    ------
    InputError
        Where they do not make a null model of the description's traits.
    """
    try:
        model = NullModel(_summary(archive, prefix, description), *_contrasts(archive, prefix, description))
        check_model(model, description.Y)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise archive.damaged(error) from error
    return model


def _contrasts(archive: ArchiveReader, prefix: str, description: NullDescription) -> tuple[Contrasts, Array]:
    """The rotated traits, and the basis of the projected covariates."""
    n, p = description.Y.shape
    scalars = archive.json(prefix + "scalars")
    s = archive.array(prefix + "s", shape=(None,))
    m = s.size
    Qx = archive.array(prefix + "Qx", shape=(n, None))
    c = Qx.shape[1]
    shapes: dict[str, tuple[int | None, ...]] = {
        "Z": (m, p), "V": (n, m), "Yx": (c, p), "Kxx": (c, c), "Kxm": (c, m), "Rx": (c, c)
    }  # fmt: skip
    arrays = {key: archive.array(prefix + key, shape=shape) for key, shape in shapes.items()}
    design = None
    if description.A.shape[1] < p:
        X = archive.array(prefix + "design_X", shape=(m, len(description.covariates)))
        design = CoupledDesign(description.A, X, float(scalars["logdet_MtM"]))
    return Contrasts(s=s, nsilent=int(scalars["nsilent"]), design=design, **arrays), Qx
