"""The null model's file: a plain ``.npz`` that `numpy.load` opens, without pickles and without compression.

Arrays of the whole genome's fit lie under ``whole/``, those of the fits without a chromosome under ``loco/CHR/``; the
JSON text ``meta`` has the names and how it was made. Families of samples lie under ``whole/families/``, and under
``loco/CHR/families/`` what differs there. ``C0``, ``C1``, ``B`` and ``traits`` are there once more without a
prefix, for people. The same model makes the same bytes.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from types import TracebackType
from typing import IO, Any, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import (
    HEAD_BYTES,
    FileRecord,
    compression_of,
    describe,
    display_name,
    open_input,
    unreadable,
)
from kron2sum_cli.files.json_records import OtherLayout, canonical_json, read_record, to_json
from kron2sum_cli.files.outputs import Abandonable
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.model.block_scanner import precision_for
from kron2sum_cli.model.climbing import Certificate
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign, orthonormal_design
from kron2sum_cli.model.null_model import FAMILIES, FitSummary, NullModel, TraitData, restored_null_model
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import Estimates, Interval

FOR_PEOPLE = ("C0", "C1", "B")
"""Estimates of the whole genome's fit that are there once more without a prefix."""

_ZIP = b"PK\x03\x04"
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_STRETCH_BYTES = 1 << 20
_VECTORS = ("h2", "h2_se", "axis_share", "axis_h2")
"""Estimates with a number a trait or axis; the others have a matrix over the traits, B a column an effect."""

PAIRS_OF_RELATIVE = 2
"""Pairs of relatives for every sample that has some, as families of a few samples have them."""

COLUMNS_OF_COVARIATES = 6
"""Columns that a scan holds for every covariate: itself, and weighted (see `families.scanner.low_rank`)."""

Array = NDArray[np.float64]

FORMAT = 2
"""Version of the file's layout."""


@dataclass(frozen=True)
class GrmRecord:
    """What a relationship matrix was made of.

    ``paths`` are as they were given, ``files`` those that were read. ``genotypes`` says whether it was made of
    genotypes, which a scan may take again, and ``options`` how: ``scale``, ``maf``, ``geno``, and where they were given
    ``ploidy`` and ``map``.
    """

    paths: tuple[str, ...]
    genotypes: bool
    files: tuple[FileRecord, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class NullMetadata:
    """The JSON object ``meta`` of a null model's file.

    - ``version``: of the program that wrote it.
    - ``method``: "reml" or "ml".
    - ``traits``, ``covariates``: names, in the order of C0 and of the rows of B.
    - ``grm``: what the relationship matrix was made of.
    - ``inputs``: the files of ``pheno``, ``covar`` and ``pred``.
    - ``counts``: samples, by reason.
    - ``transform``: what was done to each trait before the fit, one of `settings.TRANSFORMS`.
    - ``chromosomes``: those without which there are fits, with LOCO: the first of those that are left out together.
    - ``left_out_with``: further chromosomes that are left out, and the one in `chromosomes` that they are left out
      with.
    - ``profile``: profile-likelihood interval of the heritability of each trait.
    - ``hash``: identifies the model; "" until its last fit is written.
    """

    version: str
    method: Literal["reml", "ml"]
    traits: tuple[str, ...]
    covariates: tuple[str, ...]
    grm: GrmRecord
    inputs: Mapping[str, tuple[FileRecord, ...]]
    counts: Mapping[str, int]
    transform: str = "none"
    chromosomes: tuple[str, ...] = ()
    left_out_with: Mapping[str, str] = field(default_factory=dict)
    profile: Mapping[str, Interval] = field(default_factory=dict)
    hash: str = ""

    @property
    def takes_predictions_off(self) -> bool:
        """Whether the null model of a chromosome has the traits less their prediction without it, ``--pred``."""
        return "pred" in self.inputs

    def to_json(self) -> str:
        """The JSON text."""
        return canonical_json({"format": FORMAT, **to_json(self)})

    @classmethod
    def from_json(cls, text: str) -> "NullMetadata":
        """The metadata of a JSON text; see `read_record`."""
        return read_record(cls, text, "format", FORMAT, "kron2sum fit")


@dataclass(frozen=True)
class NullDescription(TraitData):
    """What a null model's file says besides its fits: Y as analysed, A, X, and what they are.

    Samples are those analysed, in the order of the rotation.
    """

    metadata: NullMetadata
    samples: Samples

    @property
    def traits(self) -> tuple[str, ...]:
        """Names of the traits."""
        return self.metadata.traits

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates."""
        return self.metadata.covariates


def effect_names(description: NullDescription) -> list[str]:
    """Names of the columns of B: the traits, or with a trait design A1, A2, ... for its columns."""
    p, a = description.A.shape
    if a == p and np.array_equal(description.A, np.eye(p)):
        return list(description.traits)
    return [f"A{k + 1}" for k in range(a)]


class NpzReader:
    """Arrays of an archive, whose sizes are checked before memory is taken for them, and each by its checksum.

    Every method raises what the parsers of zipfile and numpy raise, or ValueError, where the archive is damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._archive = zipfile.ZipFile(file)

    def __contains__(self, name: str) -> bool:
        return name + ".npy" in self._archive.NameToInfo

    def names(self, prefix: str) -> list[str]:
        """Names of the arrays that begin with a prefix."""
        return [name.removesuffix(".npy") for name in self._archive.NameToInfo if name.startswith(prefix)]

    def array(self, name: str, *shape: int | None) -> NDArray[np.float64]:
        """An array of doubles of this shape; None stands for any length, and no shape for any."""
        with self._open(name, "f") as (member, found, fortran, dtype):
            fits = len(found) == len(shape) and all(w in (None, n) for w, n in zip(shape, found, strict=True))
            if shape and not fits:
                raise ValueError(f"{name} has the shape {found}")
            values = np.frombuffer(bytearray(member.read()), dtype)
            return values.reshape(found, order="F" if fortran else "C")

    def matrix(self, name: str, shape: tuple[int, int], dtype: type[np.floating], spare: int) -> NDArray[np.floating]:
        """A matrix (n, m) of doubles in another precision, transposed, with ``spare`` rows behind it: (m + spare, n).

        It is converted a few rows at a time, for a copy of it in double precision may not fit the memory.
        """
        n, m = shape
        with self._open(name, "f") as (member, found, fortran, stored), np.errstate(over="ignore"):
            if found != shape:
                raise ValueError(f"{name} has the shape {found}")
            rows = np.empty((m + spare, n), dtype)
            as_stored = rows[:m] if fortran else rows[:m].T
            step = max(_STRETCH_BYTES // (8 * max(as_stored.shape[1], 1)), 1)
            for start in range(0, len(as_stored), step):
                part = as_stored[start : start + step]
                part[:] = np.frombuffer(member.read(8 * part.size), stored).reshape(part.shape)
        return rows

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        with self._open(name, "U") as (member, found, _, dtype):
            return tuple(np.frombuffer(member.read(), dtype).reshape(found).tolist()) if found != (0,) else ()

    def text(self, name: str) -> str:
        """One text."""
        with self._open(name, "U") as (member, _, _, dtype):
            return str(np.frombuffer(member.read(), dtype)[0])

    @contextmanager
    def _open(self, name: str, kind: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype[Any]]]:
        """The bytes of an array, its shape, whether they are in Fortran order, and its type; the sizes agree."""
        if name not in self:
            raise ValueError(f"{name} is missing")
        info = self._archive.NameToInfo[name + ".npy"]
        with self._archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(member)
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if dtype.kind != kind or (kind == "f" and dtype != np.float64) or member.tell() + size != info.file_size:
                raise ValueError(f"{name} is of type {dtype} and shape {shape}, which does not fit its size")
            yield member, shape, fortran, dtype


@dataclass(frozen=True)
class Predictions:
    """Conditional means and variances given the observed cells.

    Of t samples, those of the fit first and in its order: ``genetic``, ``genetic_variance`` (t, p) are predicted
    genetic values and the variances of their errors; ``cells``, ``cells_variance`` (t, p) those of cells of Y that were
    not observed, NaN in observed cells, and where a covariate is missing.
    """

    samples: Samples
    genetic: Array
    genetic_variance: Array
    cells: Array
    cells_variance: Array


PREDICTED = tuple(field.name for field in fields(Predictions) if field.name != "samples")
"""Names of the arrays of `Predictions`."""


@dataclass(frozen=True)
class NullFile:
    """A null model's file: its summaries at once, its large arrays when they are asked for.

    ``whole`` is the fit with the whole relationship matrix, ``chromosomes`` those without each chromosome, by its code;
    empty without ``--loco``. ``nrows`` is the largest number of columns of V, or for families of the tables in its
    place, that a scan keeps in memory. There are ``predictions`` where they were asked for.
    """

    description: NullDescription
    whole: FitSummary
    chromosomes: Mapping[str, FitSummary]
    nrows: int
    of_families: bool
    _opened: Callable[[], AbstractContextManager[NpzReader]]
    predictions: Predictions | None = None

    def load(self, chromosome: str | None, dtype: type[np.floating] = np.float64) -> NullModel:
        """The fit without a chromosome, or (None) the whole one.

        Its rotation has the precision of ``dtype``, or is double where it has to be (`TraitData.rotation_type`).
        """
        summary = self.whole if chromosome is None else self.chromosomes[chromosome]
        with self._opened() as archive:
            return _read_model(archive, _prefix(chromosome), self.description, summary, dtype)

    @property
    def metadata(self) -> NullMetadata:
        """Names and provenance."""
        return self.description.metadata

    def itemsize(self, asked: type[np.floating]) -> int:
        """Bytes of a number in scans: 8 where a fit may need them, for an axis has hardly any residual variance."""
        fits = (self.whole, *self.chromosomes.values())
        return max(np.dtype(precision_for(fit.axes, np.empty(0), True, asked)).itemsize for fit in fits)

    def scanner_bytes(self, itemsize: int) -> int:
        """Memory of a model read for a scan, with numbers of ``itemsize`` bytes."""
        if self.of_families:
            return len(self.samples) * self.nrows * itemsize
        return self.description.scanner_bytes(self.nrows, itemsize)

    @property
    def traits(self) -> tuple[str, ...]:
        """Names of the traits."""
        return self.metadata.traits

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates."""
        return self.metadata.covariates

    @property
    def samples(self) -> Samples:
        """The analysed samples."""
        return self.description.samples

    @property
    def grm(self) -> GrmRecord:
        """What the relationship matrix was made of."""
        return self.metadata.grm

    @property
    def left_out(self) -> Mapping[str, str]:
        """For every chromosome that a fit leaves out the name of that fit in `chromosomes`."""
        others = {code: first for code, first in self.metadata.left_out_with.items() if first in self.chromosomes}
        return {code: code for code in self.chromosomes} | others


class NullWriter:
    """Writes a null model's file as its fits come, so that one of them is in memory at a time.

    The file need not be seekable. Use it as a context: after an exception nothing more is written.
    """

    def __init__(self, file: BinaryIO, description: NullDescription) -> None:
        self._sink = Abandonable(file)
        self._archive = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._metadata = description.metadata
        names = (description.metadata.method, description.traits, description.covariates)
        self._hash = hashlib.sha256(repr(names).encode())
        self._of_whole: dict[str, NDArray[Any]] = {}
        self._write("traits", np.array(description.traits))
        self._write_samples("", description.samples)
        for name in ("Y", "X", "A"):
            self._write(name, getattr(description, name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.abandoned = True  # not even the end is written, as zipfile does where it is destroyed
        with suppress(ValueError):  # the write of an array was interrupted
            self._archive.close()  # else zipfile does it when it is destroyed, maybe after the sink

    def add(self, chromosome: str | None, model: NullModel) -> None:
        """Write the fit without a chromosome, or (None, and first) the whole one."""
        prefix, summary = _prefix(chromosome), model.summary
        scalars = model.scalars() | {name: getattr(summary, name) for name in _SCALARS}
        scalars |= {"certificate": asdict(summary.certificate)}
        self._write(prefix + "scalars", np.array(json.dumps(scalars, sort_keys=True)))
        for each in fields(TraitAxes):
            self._write(prefix + each.name, getattr(summary.axes, each.name))
        for each in fields(Estimates):
            self._write(f"{prefix}estimates/{each.name}", getattr(summary.estimates, each.name))
        arrays = model.arrays()
        for name, array in arrays.items():
            if name not in self._of_whole or not np.array_equal(array, self._of_whole[name]):
                self._write(prefix + name, array, hashed=name != "V")
        if chromosome is not None:
            chromosomes = (*self._metadata.chromosomes, chromosome)
            self._metadata = replace(self._metadata, chromosomes=chromosomes)
            return
        self._of_whole = {name: array for name, array in arrays.items() if name.startswith(FAMILIES)}
        for name in FOR_PEOPLE:
            self._write(name, getattr(summary.estimates, name))

    def add_predictions(self, predictions: Predictions) -> None:
        """Write predictions, after all fits."""
        self._write_samples("predictions/", predictions.samples)
        for name in PREDICTED:
            self._write(f"predictions/{name}", getattr(predictions, name))

    def finish(self, profile: Mapping[str, Interval]) -> str:
        """Write the names and the provenance; returns the hash of the model."""
        metadata = replace(self._metadata, profile=profile, hash=self._hash.hexdigest())
        self._write("meta", np.array(metadata.to_json()), hashed=False)
        self._archive.close()
        return metadata.hash

    def _write(self, name: str, array: NDArray[Any], hashed: bool = True) -> None:
        """Write an array. The hash leaves out V, which is large; ``Z = VᵀY`` changes with it and is hashed."""
        with self._archive.open(zipfile.ZipInfo(name + ".npy", date_time=_NO_TIME), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        if hashed:
            self._hash.update(name.encode() + np.ascontiguousarray(array).tobytes())

    def _write_samples(self, prefix: str, samples: Samples) -> None:
        self._write(prefix + "iids", np.array(samples.iids))
        if samples.fids is not None:
            self._write(prefix + "fids", np.array(samples.fids))


def read_null(path: str) -> NullFile:
    """Read a null model; ``-`` is standard input. Of that and of pipes the whole content is held in memory.

    Raises InputError where the file is missing, is not a null model, is cut short or damaged, or is of another layout.
    """
    name, opened = display_name(path), partial(_opened, path, _content(path))
    with opened() as archive:
        description = _read_description(archive, name)
        whole = _read_summary(archive, _prefix(None), description)
        chromosomes = {c: _read_summary(archive, _prefix(c), description) for c in description.metadata.chromosomes}
        nrows = max(_columns_of_rotation(archive, _prefix(c), description) for c in (None, *chromosomes))
        of_families = bool(archive.names(_prefix(None) + FAMILIES))
        predictions = _read_predictions(archive, description, name)
    return NullFile(description, whole, chromosomes, nrows, of_families, opened, predictions)


def _content(path: str) -> bytes | None:
    """What standard input or a pipe holds; None for a file."""
    if path != "-" and (os.path.isfile(path) or not os.path.exists(path)):
        return None
    try:
        with open_input(path) as file:
            start = file.read(len(_ZIP))
            # What is something else may have no end.
            return start + (file.read() if start == _ZIP else file.read(HEAD_BYTES))
    except OSError as error:
        raise unreadable(display_name(path), error) from None


@contextmanager
def _opened(path: str, content: bytes | None) -> Iterator[NpzReader]:
    """The archive; whatever its parsers raise becomes a message that it is damaged."""
    name = display_name(path)
    try:
        with open(path, "rb") if content is None else io.BytesIO(content) as file:
            head = file.read(HEAD_BYTES)
            if not head.startswith(_ZIP[:2]):
                remedy = "decompress it first" if compression_of(head) else "make one with kron2sum fit"
                raise InputError(f"{name}: is {describe(head)}, not a null model of kron2sum fit; {remedy}")
            file.seek(0)
            yield NpzReader(file)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file; make it with kron2sum fit") from None
    except OSError as error:
        raise unreadable(name, error) from None
    except (InputError, MemoryError):
        raise
    except OtherLayout as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:  # BadZipFile, ValueError, struct.error, SyntaxError ...
        raise InputError(
            f"{name}: is not a null model of kron2sum fit, or is cut short or damaged ({error}); fit it again"
        ) from error


def _prefix(chromosome: str | None) -> str:
    """Where the arrays of a fit lie: that without a chromosome, or (None) the whole one."""
    return "whole/" if chromosome is None else f"loco/{chromosome}/"


def _read_description(archive: NpzReader, name: str) -> NullDescription:
    metadata = NullMetadata.from_json(archive.text("meta"))
    samples = _read_samples(archive, "", name)
    n, p, c = len(samples), len(metadata.traits), len(metadata.covariates)
    Y, X, A = archive.array("Y", n, p), archive.array("X", n, c), archive.array("A", p, None)
    return NullDescription(Y, A, X, metadata, samples)


def _read_samples(archive: NpzReader, prefix: str, name: str) -> Samples:
    fids = archive.texts(prefix + "fids") if prefix + "fids" in archive else None
    return Samples(fids, archive.texts(prefix + "iids"), name)


def _read_predictions(archive: NpzReader, description: NullDescription, name: str) -> Predictions | None:
    if "predictions/iids" not in archive:
        return None
    samples = _read_samples(archive, "predictions/", name)
    shape = (len(samples), len(description.traits))
    return Predictions(samples, **{key: archive.array(f"predictions/{key}", *shape) for key in PREDICTED})


_SCALARS = ("reml", "rank", "lml", "mean_diagonal", "quadratic")


def _read_summary(archive: NpzReader, prefix: str, description: NullDescription) -> FitSummary:
    """What a fit says."""
    p, a, c = len(description.traits), description.A.shape[1], len(description.covariates)
    scalars = json.loads(archive.text(prefix + "scalars"))
    estimates = {}
    for each in fields(Estimates):
        shape = (c, a) if each.name.startswith("B") else (p,) if each.name in _VECTORS else (p, p)
        estimates[each.name] = archive.array(f"{prefix}estimates/{each.name}", *shape)
    axes = TraitAxes(
        **{name: archive.array(prefix + name, p, p) for name in ("T", "Tinv")},
        **{name: archive.array(prefix + name, p) for name in ("c0", "c1")},
    )
    return FitSummary(
        axes=axes,
        certificate=Certificate(**scalars["certificate"]),
        estimates=Estimates(**estimates),
        **{name: scalars[name] for name in _SCALARS},
    )


def _columns_of_rotation(archive: NpzReader, prefix: str, description: NullDescription) -> int:
    if prefix + "s" in archive:
        return archive.array(prefix + "s", None).size
    members = [name for name in archive.names(prefix + FAMILIES) if name.startswith(f"{prefix}{FAMILIES}members/")]
    return columns_of_families(description, sum(archive.array(name).size for name in members))


def columns_of_families(data: TraitData, related: int) -> int:
    """Columns of n numbers that a scan of traits on families holds, where this many samples have relatives."""
    n, p, c = len(data.Y), int(data.Y.shape[1]), int(data.X.shape[1])
    if not data.has_missing:
        return 2 * p + COLUMNS_OF_COVARIATES * c
    squares = p * (p + 1) // 2 + p + 3 * c
    of_relative = p * p * (c + 2 + 5 * PAIRS_OF_RELATIVE)  # inverse covariances are there in double precision, too
    return int(np.ceil(squares + related / n * of_relative))


def _read_model(
    archive: NpzReader, prefix: str, description: NullDescription, summary: FitSummary, dtype: type[np.floating]
) -> NullModel:
    """One fit with its arrays."""
    of_families = {
        name.removeprefix(of + FAMILIES): name
        for of in (_prefix(None), prefix)
        for name in archive.names(of + FAMILIES)
    }
    if not of_families:
        return _read_rotated(archive, prefix, description, summary, dtype)
    from kron2sum_cli.model.families.null_model import restored_families

    arrays = {short: archive.array(name) for short, name in of_families.items()}
    return restored_families(summary, arrays, description)


def _read_rotated(
    archive: NpzReader, prefix: str, description: NullDescription, summary: FitSummary, dtype: type[np.floating]
) -> NullModel:
    """A fit of samples that were rotated, with V in the precision of a scan."""
    n, p = description.Y.shape
    scalars = json.loads(archive.text(prefix + "scalars"))
    s, Qx = archive.array(prefix + "s", None), archive.array(prefix + "Qx", n, None)
    m, c, ncovariates = s.size, Qx.shape[1], len(description.covariates)
    needed = precision_for(summary.axes, s, bool(scalars["noutside"]), description.rotation_type(dtype))
    rows = archive.matrix(prefix + "V", (n, m), needed, spare=p)
    design = prior = None
    if description.coupled:
        X = archive.array(prefix + "design_X", m, ncovariates)
        design = CoupledDesign.of_given(orthonormal_design(description.A), X, description.X)
    if prefix + "prior" in archive:
        prior = archive.array(prefix + "prior", ncovariates, ncovariates)
    contrasts = Contrasts(
        Z=archive.array(prefix + "Z", m, p),
        s=s,
        noutside=int(scalars["noutside"]),
        V=rows[:m].T,
        Yx=archive.array(prefix + "Yx", c, p),
        Kxx=archive.array(prefix + "Kxx", c, c),
        Kxm=archive.array(prefix + "Kxm", c, m),
        Rx=archive.array(prefix + "Rx", c, c),
        design=design,
    )
    return restored_null_model(summary, contrasts, Qx, description, prior, rows)
