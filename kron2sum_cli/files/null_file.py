"""The null model's file: a plain ``.npz`` that numpy opens, without pickles and without compression.

Arrays of the whole-genome fit lie under ``whole/``, those of the fits without a chromosome under ``loco/CHR/``; the
JSON text ``meta`` has the names and how it was made. ``C0``, ``C1``, ``B`` and ``traits`` stand at the top for those
who look in by hand. The same model makes the same bytes.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import display_name, open_input, unreadable
from kron2sum_cli.files.npz_archive import ArchiveReader, ArchiveWriter
from kron2sum_cli.files.null_description import GrmRecord, NullDescription, NullMetadata
from kron2sum_cli.files.null_hash import ModelHash
from kron2sum_cli.files.null_models import (
    hashed_arrays,
    model_arrays,
    prefix_of,
    read_hashed_arrays,
    read_model,
    read_summary,
)
from kron2sum_cli.files.null_predictions import NUMBERS, Predictions, prediction_arrays, read_predictions
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.model.families.null_model import columns_of_scan
from kron2sum_cli.model.null_model import FitSummary, NullModel
from kron2sum_cli.model.profile import Interval

_COPIES = ("C0", "C1", "B")

Array = NDArray[np.float64]


_ZIP_MAGIC = b"PK\x03\x04"


class LoadModel(Protocol):
    """Reads a fit with its arrays, the rotation in the precision of a scan (double for that of observed cells)."""

    def __call__(self, chromosome: str | None, dtype: type[np.floating] = np.float64) -> NullModel:
        """The model of a chromosome, or the whole one's for None."""
        ...


@dataclass(frozen=True)
class NullFile:
    """A null model's file: its summaries at once, its large arrays when they are asked for.

    Attributes
    ----------
    description : names, samples, tables, provenance
    whole : the fit with the whole relationship matrix
    chromosomes : the fit without each chromosome, by its code; empty without ``--loco``
    load : reads the model of a chromosome, or the whole one's for None
    nrows : largest number of columns that a scan holds of a rotation, or of what stands for it
    predictions : of genetic values and cells, where they were asked for
    """

    description: NullDescription
    whole: FitSummary
    chromosomes: Mapping[str, FitSummary]
    load: LoadModel
    nrows: int
    predictions: Predictions | None = None

    @property
    def metadata(self) -> NullMetadata:
        """Names and provenance."""
        return self.description.metadata

    @property
    def hash(self) -> str:
        """Identifies the model."""
        return self.metadata.hash

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
    def profile(self) -> Mapping[str, Interval]:
        """Profile-likelihood intervals of heritabilities, where they were asked for."""
        return self.metadata.profile


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
        prefix = prefix_of(chromosome)
        if chromosome is not None:
            self._chromosomes.append(chromosome)
        self._hash.add(prefix, model.summary, hashed_arrays(model))
        for name, array in model_arrays(prefix, model):
            self._archive.write(name, array)
        if chromosome is None:
            for name in _COPIES:
                self._archive.write(name, getattr(model.summary.estimates, name))

    def add_predictions(self, predictions: Predictions) -> None:
        """Write predictions, after all fits."""
        _add_to_hash(self._hash, predictions)
        for name, array in prediction_arrays(predictions):
            self._archive.write(name, array)

    def finish(self, profile: Mapping[str, Interval]) -> str:
        """Write the names and the provenance; returns the hash of the model."""
        found, chromosomes = self._hash.hexdigest(), tuple(self._chromosomes)
        meta = replace(self._description.metadata, profile=profile, chromosomes=chromosomes, hash=found)
        self._archive.write("meta", np.array(meta.to_json()))
        self._archive.close()
        return found

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


def _add_to_hash(digest: ModelHash, predictions: Predictions) -> None:
    samples = predictions.samples
    digest.add_predictions((samples.fids, samples.iids), [getattr(predictions, name) for name in NUMBERS])


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
            start = file.read(len(_ZIP_MAGIC))
            return start + file.read() if start == _ZIP_MAGIC else start  # what is something else may have no end
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
    try:
        meta = NullMetadata.from_json(archive.text("meta"))
    except ValueError as error:
        raise InputError(f"{name}: its meta cannot be used: {error}; fit it again with kron2sum fit") from error
    try:
        description = _description(archive, meta, name)
        whole = read_summary(archive, prefix_of(None), description)
        chromosomes = {c: read_summary(archive, prefix_of(c), description) for c in meta.chromosomes}
        predictions = read_predictions(archive, description, name)
        _check_copies(archive, description, whole)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise archive.damaged(error) from error
    summaries = dict[str | None, FitSummary]([(None, whole), *chromosomes.items()])
    nrows = _check_hash(archive, meta.hash, description, summaries, predictions)

    def load(chromosome: str | None, dtype: type[np.floating] = np.float64) -> NullModel:
        with _archive(open_file, name) as again:
            return read_model(again, prefix_of(chromosome), description, dtype)

    return NullFile(description, whole, chromosomes, load, nrows, predictions)


def _check_copies(archive: ArchiveReader, description: NullDescription, whole: FitSummary) -> None:
    """What stands at the top for those who look in by hand is what is used."""
    if archive.texts("traits") != description.traits:
        raise ValueError("traits are not those of meta")
    for name in _COPIES:
        if not np.array_equal(archive.array(name), getattr(whole.estimates, name)):
            raise ValueError(f"{name} is not that of the whole fit")


def _check_hash(
    archive: ArchiveReader,
    expected: str,
    description: NullDescription,
    summaries: Mapping[str | None, FitSummary],
    predictions: Predictions | None,
) -> int:
    """Compare the hash with the numbers; how many columns the largest rotation has is seen on the way."""
    found, nrows = ModelHash(*_identity(description)), 0
    for chromosome, summary in summaries.items():
        prefix = prefix_of(chromosome)
        arrays = read_hashed_arrays(archive, prefix)
        found.add(prefix, summary, arrays)
        nrows = max(nrows, arrays["s"].size if "s" in arrays else columns_of_scan(len(summary.axes.c0), description.X))
    if predictions is not None:
        _add_to_hash(found, predictions)
    if found.hexdigest() != expected:
        raise archive.damaged("its numbers are not those of its hash")
    return nrows


def _description(archive: ArchiveReader, meta: NullMetadata, name: str) -> NullDescription:
    iids = archive.texts("iids")
    n, p = len(iids), len(meta.traits)
    if not n or not p:
        raise ValueError("it has no samples or no traits")
    return NullDescription(
        Y=archive.array("Y", shape=(n, p)),
        A=archive.array("A", shape=(p, None)),
        X=archive.array("X", shape=(n, len(meta.covariates))),
        metadata=meta,
        samples=Samples(archive.texts("fids", n) if "fids" in archive else None, iids, name),
    )
