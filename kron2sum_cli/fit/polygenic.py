"""Polygenic predictions without a chromosome, as step 1 of regenie writes them, which are taken off the traits.

A list names a file for every trait. Each of them has a header ``FID_IID`` and the names of its samples, and a line a
chromosome: its code and the prediction from all others for every sample. The traits are regressed on the covariates and
divided by the standard deviation of what is left before they are predicted (Mbatchou et al. 2021, Nature Genetics
53:1097), so predictions are in that unit.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, NumericalError, counted
from kron2sum_cli.files.sample_table import SampleTable
from kron2sum_cli.files.samples import Samples, match
from kron2sum_cli.files.text import read_text
from kron2sum_cli.genotypes.chromosomes import is_human, normalise_chromosome

logger = logging.getLogger("kron2sum.fit")

ID_HEADER = "FID_IID"

NOT_PREDICTED = "NA"
"""What stands for the prediction of a sample without the trait."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PolygenicPredictions:
    """Predictions of p traits of m samples without each of k chromosomes.

    Of k ``chromosomes``, as `normalise_chromosome` spells them: ``values`` (k, m, p), in standard deviations of the
    traits given the covariates, NaN where there is none. ``files`` are those that were read.
    """

    chromosomes: tuple[str, ...]
    values: Array
    files: tuple[str, ...]


@dataclass(frozen=True)
class _OfTrait:
    """One file: of every line its number, the code of a chromosome, and predictions (t,) of t samples without it."""

    samples: Samples
    lines: tuple[tuple[int, str, Array], ...]


def read_polygenic_predictions(path: str, pheno: SampleTable) -> PolygenicPredictions:
    """Read the predictions of all traits of a phenotype table, for its samples.

    The list has a trait and its file a line. A file that is not found as it is named is looked for beside the list.
    Raises InputError where a trait has no file, a file is no such file, or files differ in their chromosomes.
    """
    named = _read_list(path)
    absent = [trait for trait in pheno.names if trait not in named]
    if absent:
        raise InputError(
            f"{path}: names no file for trait '{absent[0]}', but for {', '.join(sorted(named))}; predict it too, or"
            " choose traits with --pheno-name"
        )
    files = tuple(_found(path, trait, *named[trait]) for trait in pheno.names)
    tables = [_read_file(file) for file in files]
    of_chromosomes = _by_chromosome(files, tables)
    chromosomes = tuple(of_chromosomes[0])
    values = np.full((len(chromosomes), *pheno.values.shape), np.nan)
    for j, (file, table) in enumerate(zip(files, tables, strict=True)):
        rows = _match(pheno.samples, table.samples)
        if np.all(rows < 0):
            raise InputError(
                f"{file} and {pheno.samples.source} have no samples in common ({file} has for example"
                f" '{table.samples.label(0)}', {pheno.samples.source} has '{pheno.samples.label(0)}'); check that both"
                " use the same IDs"
            )
        there = rows >= 0
        for k, chromosome in enumerate(chromosomes):
            values[k, there, j] = of_chromosomes[j][chromosome][rows[there]]
    return PolygenicPredictions(chromosomes, values, (path, *files))


def _by_chromosome(files: Sequence[str], tables: Sequence[_OfTrait]) -> list[dict[str, Array]]:
    """The predictions of every file by chromosome, as `normalise_chromosome` spells it; the same ones in all files."""
    human = is_human(code for table in tables for _, code, _ in table.lines)
    found: list[dict[str, Array]] = []
    for file, table in zip(files, tables, strict=True):
        of_file: dict[str, Array] = {}
        for line, code, values in table.lines:
            chromosome = normalise_chromosome(code, human)
            if chromosome in of_file:
                same = "" if code == chromosome else f" ({code} is the same)"
                raise InputError(
                    f"{file}, line {line}: chromosome {chromosome} is there more than once{same}; remove a line"
                )
            of_file[chromosome] = values
        if found and set(of_file) != set(found[0]):
            raise InputError(
                f"{file}: has chromosomes {', '.join(of_file)}, and {files[0]} has {', '.join(found[0])}; predict all"
                " traits from the same genotypes"
            )
        found.append(of_file)
    return found


def with_predictions_only(pheno: SampleTable, predictions: PolygenicPredictions) -> SampleTable:
    """The phenotypes, set to missing where their prediction is missing; the log says how many values that takes."""
    unpredicted = np.isnan(predictions.values).any(axis=0) & np.isfinite(pheno.values)
    for trait, number in zip(pheno.names, np.count_nonzero(unpredicted, axis=0).tolist(), strict=True):
        if number:
            logger.warning(
                "%s with trait %s and no prediction of it: counted as without it", counted(number, "samples"), trait
            )
    return replace(pheno, values=np.where(unpredicted, np.nan, pheno.values))


def predictions_of(
    predictions: PolygenicPredictions, rows: NDArray[np.intp], Y: Array, X: Array, traits: Sequence[str]
) -> Mapping[str, Array]:
    """What is taken off the traits of the analysed samples, for every chromosome.

    They are of the samples of the phenotype file, among which ``rows`` (n,) are analysed, with traits Y (n, p), NaN
    where missing, and covariates X (n, c). Results are in the units of the traits, 0 where a trait is missing. Raises
    NumericalError where the covariates explain all of a trait.
    """
    units = np.array([_residual_deviation(y, X, trait) for y, trait in zip(Y.T, traits, strict=True)])
    logger.info(
        "polygenic predictions without each of %d chromosomes are taken off the traits, in units of %s",
        len(predictions.chromosomes),
        ", ".join(f"{unit:.4g} ({trait})" for unit, trait in zip(units, traits, strict=True)),
    )
    missing = np.isnan(Y)
    return {
        chromosome: np.where(missing, 0.0, values[rows] * units)
        for chromosome, values in zip(predictions.chromosomes, predictions.values, strict=True)
    }


def _residual_deviation(y: Array, X: Array, trait: str) -> float:
    """Standard deviation of a trait (n,) given the covariates (n, c), over the samples that have it."""
    observed = np.isfinite(y)
    y, X = y[observed], X[observed]
    effects, _, rank, _ = np.linalg.lstsq(X, y, rcond=None)
    residuals = y - X @ effects
    if len(y) <= rank or not np.linalg.norm(residuals) > 1e-10 * np.linalg.norm(y):
        raise NumericalError(f"trait '{trait}': the covariates explain all of it; use fewer covariates")
    return float(np.linalg.norm(residuals) / np.sqrt(len(y) - rank))


def _read_list(path: str) -> dict[str, tuple[int, str]]:
    """For every trait the line that names it and the file on it."""
    named: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        trait, *rest = line.split(maxsplit=1)
        if not rest or trait in named:
            wrong = f"names trait '{trait}' again" if trait in named else f"'{line.strip()}' is not a trait and a file"
            raise InputError(
                f"{path}, line {number}: {wrong}; give the list of regenie's step 1, such as fit_pred.list"
            )
        named[trait] = number, rest[0].strip()
    return named


def _found(path: str, trait: str, line: int, file: str) -> str:
    """Where the file of a trait is: where the list says, or beside it."""
    beside = os.path.join(os.path.dirname(path), os.path.basename(file))
    there = next((name for name in (file, beside) if os.path.exists(name)), None)
    if there is None:
        raise InputError(
            f"{path}, line {line}: the predictions of trait '{trait}', {file}, are not there, nor beside the list;"
            " correct the list, or copy them there"
        )
    return there


def _read_file(path: str) -> _OfTrait:
    """The predictions of one trait."""
    header, *lines = read_text(path).split("\n")
    first, *names = header.split() or [""]
    if first != ID_HEADER or not names or not any(line.strip() for line in lines):
        raise InputError(
            f"{path}: does not begin with {ID_HEADER} and the names of samples, with a line a chromosome below; give a"
            " .loco file of regenie's step 1"
        )
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise InputError(f"{path}, line 1: sample '{twice}' is there more than once; remove one of its columns")
    found: list[tuple[int, str, Array]] = []
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        code, *fields = line.split()
        if len(fields) != len(names):
            raise InputError(
                f"{path}, line {number}: has {len(fields)} predictions for {len(names)} samples; is the file cut short?"
                " Copy it again, or run step 1 again"
            )
        values = pd.to_numeric(np.array(fields, dtype=object), errors="coerce").astype(np.float64)
        wrong = np.flatnonzero(~np.isfinite(values) & (np.array(fields) != NOT_PREDICTED))
        if wrong.size:
            raise InputError(
                f"{path}, line {number}: the prediction '{fields[wrong[0]]}' of sample '{names[wrong[0]]}' is not a"
                f" number; write {NOT_PREDICTED} for a missing one"
            )
        found.append((number, code, values))
    return _OfTrait(Samples(None, tuple(names), path), tuple(found))


def _match(samples: Samples, predicted: Samples) -> NDArray[np.intp]:
    """Positions of samples in a file of predictions, whose names are ``FID_IID``.

    A sample without FID is looked for as ``IID_IID`` or ``0_IID``. Where none is found so, a sample has the
    name that ends in ``_IID``, if there is one such name.
    """
    rows = match(samples, predicted)
    if np.any(rows >= 0):
        return rows
    at = {name: index for index, name in enumerate(predicted.iids)}
    rows = np.array([at.get(f"{iid}_{iid}", at.get(f"0_{iid}", -1)) for iid in samples.iids], dtype=np.intp)
    if np.any(rows >= 0) or samples.fids is not None:
        return rows
    ends: dict[str, list[int]] = {}
    for index, name in enumerate(predicted.iids):
        for place in (i for i, letter in enumerate(name) if letter == "_"):
            ends.setdefault(name[place + 1 :], []).append(index)
    found = [ends.get(iid, []) for iid in samples.iids]
    return np.array([index[0] if len(index) == 1 else -1 for index in found], dtype=np.intp)
