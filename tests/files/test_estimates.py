"""The estimates of a null model as text: what stands where, and that nothing is lost."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kron2sum_cli.cli.terminal import table_lines
from kron2sum_cli.export.estimates import ESTIMATE_COLUMNS, estimates_json, estimates_table
from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.files.null_file import GrmRecord, NullDescription, NullFile, NullMetadata
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.fit.summary import summarise
from kron2sum_cli.model.contrasts import rotate_coupled, rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.null_model import FitSummary
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.uncertainty import Interval, estimates_of

Array = NDArray[np.float64]

N = 40
KEYS_OF_THE_CONTRACT = {"version", "method", "lml", "converged", "rank", "n", "traits", "covariates", "grm"} | {
    name + end for name in ("C0", "C1", "h2", "rg", "re", "B") for end in ("", "_se")
}
PROFILE = {"t1": Interval(0.25, 0.75, False)}


def no_model() -> Any:
    raise AssertionError("a report must not read the large arrays")


def summary(Y: Array, X: Array, G: Array, A: Array, rank: int) -> FitSummary:
    coupled = A.shape[1] < A.shape[0]
    spectrum = spectrum_of_features(G, X[:, :0] if coupled else X)
    data = rotate_coupled(spectrum, Y, A, X) if coupled else rotate_traits(spectrum, Y)
    fitted = fit(data, rank, True)
    point, g = fitted.point, spectrum.mean_diagonal
    estimates = estimates_of(point, spectrum.Qx, rank, g, A, X)
    quadratic = float(np.sum(point.alpha**2 / point.W))
    return FitSummary(point.axes, True, rank, point.lml, g, quadratic, fitted.certificate, estimates)


def null_file(
    p: int = 3,
    A: Array | None = None,
    rank: int | None = None,
    chromosomes: tuple[str, ...] = (),
    profile: Mapping[str, Interval] | None = None,
) -> NullFile:
    rng = np.random.default_rng(7)
    n = max(N, 5 * p)
    G = rng.gamma(1.0, size=n)[:, None] * rng.normal(size=(n, 60)) / 8
    Y = G @ rng.normal(size=(60, p)) + rng.normal(size=(n, p))
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    A = np.eye(p) if A is None else A
    whole = summary(Y, X, G, A, rank or p)
    metadata = NullMetadata(
        version="1.2.3",
        method="reml",
        traits=tuple(f"t{j + 1}" for j in range(p)),
        covariates=("intercept", "age"),
        grm=GrmRecord(("g.bed",), True, (FileRecord("g.bed", 3, "00"),), {"maf": 0.01}),
        inputs={},
        counts={},
        profile=profile or {},
    )
    samples = Samples(None, tuple(f"i{i}" for i in range(n)), "simulated")
    description = NullDescription(Y=Y, A=A, X=X, metadata=metadata, samples=samples)
    return NullFile(description, whole, dict.fromkeys(chromosomes, whole), 0, False, no_model)


def rows_of(tsv: str) -> dict[tuple[str, str, str], tuple[str, str]]:
    header, *lines = tsv.splitlines()
    assert tuple(header.split("\t")) == ESTIMATE_COLUMNS
    cells = [line.split("\t") for line in lines]
    rows = {(a, b, c): (estimate, se) for a, b, c, estimate, se in cells}
    assert len(rows) == len(lines)
    return rows


# TSV


def test_every_estimate_is_a_row() -> None:
    null = null_file(profile=PROFILE)
    e = null.whole.estimates
    tsv = estimates_table(null).decode()
    rows = rows_of(tsv)
    assert tsv.endswith("\n")
    assert next(iter(rows)) == ("lml", "NA", "NA")
    assert rows["lml", "NA", "NA"] == (repr(null.whole.lml), "NA")
    assert rows["h2", "t2", "NA"] == (repr(float(e.h2[1])), repr(float(e.h2_se[1])))
    assert rows["h2_low", "t1", "NA"] == ("0.25", "NA")
    assert rows["h2_high", "t1", "NA"] == ("0.75", "NA")
    assert ("h2_low", "t2", "NA") not in rows
    assert rows["C0", "t3", "t1"] == (repr(float(e.C0[2, 0])), repr(float(e.C0_se[2, 0])))
    assert rows["re", "t3", "t2"] == (repr(float(e.re[2, 1])), repr(float(e.re_se[2, 1])))
    assert rows["B", "t3", "age"] == (repr(float(e.B[1, 2])), repr(float(e.B_se[1, 2])))
    assert rows["T", "axis2", "t3"] == (repr(float(null.whole.axes.T[1, 2])), "NA")
    counts = {
        name: sum(row[0] == name for row in rows) for name in ("h2", "rg", "re", "C0", "C1", "B", "axis_share", "T")
    }
    assert counts == {"h2": 3, "rg": 3, "re": 3, "C0": 6, "C1": 6, "B": 6, "axis_share": 3, "T": 9}


def test_digits() -> None:
    null = null_file()
    rows = rows_of(estimates_table(null, digits=3).decode())
    assert rows.keys() == rows_of(estimates_table(null).decode()).keys()
    assert rows["h2", "t2", "NA"] == (f"{null.whole.estimates.h2[1]:.3g}", f"{null.whole.estimates.h2_se[1]:.3g}")


def test_what_is_not_there_is_na() -> None:
    null = null_file()
    e = null.whole.estimates
    rg, rg_se = e.rg.copy(), e.rg_se.copy()
    rg[1, 0] = rg_se[1, 0] = np.nan
    null = replace(null, whole=replace(null.whole, estimates=replace(e, rg=rg, rg_se=rg_se)))
    assert rows_of(estimates_table(null).decode())["rg", "t2", "t1"] == ("NA", "NA")


def test_columns_of_a_trait_design_have_names_of_their_own() -> None:
    A = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
    null = null_file(A=A)
    rows = rows_of(estimates_table(null).decode())
    assert {row[1] for row in rows if row[0] == "B"} == {"A1", "A2"}
    assert json.loads(estimates_json(null))["effects"] == ["A1", "A2"]
    assert any(line.startswith("effect of") and line.endswith("A2") for line in lines_of(null))


# JSON


def test_the_keys_of_the_contract() -> None:
    null = null_file(profile=PROFILE)
    content = json.loads(estimates_json(null))
    assert set(content) >= KEYS_OF_THE_CONTRACT
    assert (content["version"], content["method"], content["n"]) == ("1.2.3", "reml", N)
    assert (content["converged"], content["rank"], content["lml"]) == (True, 3, null.whole.lml)
    assert content["traits"] == ["t1", "t2", "t3"]
    assert content["covariates"] == ["intercept", "age"]
    assert content["grm"] == to_json(null.grm)
    assert content["profile"] == {"t1": {"low": 0.25, "high": 0.75, "at_boundary": False}}
    assert content["information"] == "observed"
    assert content["certificate"]["certified"] is True
    assert "loco" not in content


def test_matrices_are_exact() -> None:
    null = null_file()
    content = json.loads(estimates_json(null))
    for name in ("C0", "C1", "h2", "rg", "re", "B"):
        for key in (name, name + "_se"):
            np.testing.assert_array_equal(np.array(content[key]), getattr(null.whole.estimates, key), err_msg=key)
    np.testing.assert_array_equal(np.array(content["axes"]["T"]), null.whole.axes.T)
    assert sum(content["axes"]["share"]) == pytest.approx(1)


def test_chromosomes() -> None:
    content = json.loads(estimates_json(null_file(chromosomes=("1", "X"))))
    assert list(content["loco"]) == ["1", "X"]
    assert content["loco"]["X"]["C0"] == content["C0"]
    assert {"lml", "converged", "certificate", "axes", "B_se"} <= set(content["loco"]["1"])


def test_numbers_that_are_none_are_null() -> None:
    null = null_file()
    whole = replace(
        null.whole,
        estimates=replace(null.whole.estimates, rg_se=np.full((3, 3), np.nan)),
        certificate=replace(null.whole.certificate, predicted_gain=np.inf),
    )
    content = json.loads(estimates_json(replace(null, whole=whole)))
    assert content["rg_se"] == [[None] * 3] * 3
    assert content["certificate"]["predicted_gain"] is None
    assert content["converged"] is False


# The screen


def lines_of(null: NullFile) -> list[str]:
    parts = summarise(null.description, null.whole, null.chromosomes, null.metadata.profile)
    lines = ([part] if isinstance(part, str) else table_lines(part.header, part.rows) for part in parts)
    return [line for found in lines for line in found]


def line_with(null: NullFile, text: str) -> str:
    return next(line for line in lines_of(null) if text in line)


def test_the_table_on_the_screen() -> None:
    null = null_file()
    e, text = null.whole.estimates, "\n".join(lines_of(null))
    assert "40 samples, 3 traits, 2 covariates, C0 of rank at most 3; REML log-likelihood" in text
    assert f"{null.whole.lml:.6f}" in text
    assert "h2 of trait j = C0_jj g / (C0_jj g + C1_jj)" in text
    assert f"{e.h2[1]:.4f}" in line_with(null, "t2  ")
    assert f"{e.rg[2, 0]:.4f} ({e.rg_se[2, 0]:.4f})" in text
    assert f"{e.re[0, 2]:.4f} ({e.re_se[0, 2]:.4f})" in text
    assert f"{100 * e.axis_share[0]:.1f}%" in text
    assert f"{e.B[1, 0]:.4g} ({e.B_se[1, 0]:.2g})" in line_with(null, "age")
    assert "optimum certified: predicted gain" in text
    assert "without" not in text.replace("without genetic variance", "")


def test_genetic_correlations_stand_below_the_diagonal() -> None:
    null = null_file(p=2)
    rg, re = null.whole.estimates.rg[1, 0], null.whole.estimates.re[1, 0]
    lines = lines_of(null)
    start = next(i for i, line in enumerate(lines) if line.startswith("correlation"))
    assert f"{re:.4f}" in lines[start + 1] and f"{rg:.4f}" in lines[start + 2]
    assert f"{rg:.4f}" not in lines[start + 1]


def test_boundaries_in_words() -> None:
    interior = null_file(p=2)
    interior = replace(interior, whole=with_active(interior.whole, 0, 0))
    assert "no boundary is active" in lines_of(interior)
    whole = with_active(null_file().whole, 1, 2)
    null = replace(null_file(), whole=whole)
    line = line_with(null, "boundary:")
    assert "C0 has rank 2: 1 combination of the traits without genetic variance" in line
    assert "C1 has rank 1: 2 combinations of the traits all genetic" in line
    assert "--profile h2" in line
    profile = {f"t{j}": PROFILE["t1"] for j in (1, 2, 3)}
    assert "--profile" not in line_with(replace(null_file(profile=profile), whole=whole), "boundary:")


def with_active(whole: FitSummary, active_C0: int, active_C1: int) -> FitSummary:
    return replace(whole, certificate=replace(whole.certificate, active_C0=active_C0, active_C1=active_C1))


def test_what_did_not_converge_says_so() -> None:
    null = null_file()
    whole = replace(null.whole, certificate=replace(null.whole.certificate, predicted_gain=0.5))
    assert lines_of(replace(null, whole=whole))[-1].startswith("NOT CONVERGED: predicted gain 5.0e-01")


def test_intervals_and_chromosomes() -> None:
    profile = {f"t{j}": PROFILE["t1"] for j in (1, 2, 3)}
    null = null_file(chromosomes=("1", "X"), profile=profile)
    assert "0.2500 to 0.7500" in line_with(null, "t2  ")
    assert line_with(null, "without  ").split()[:2] == ["without", "log-likelihood"]
    assert any(line.startswith("X ") for line in lines_of(null))


def test_many_traits_are_summed_up() -> None:
    null = null_file(p=10, chromosomes=("1",))
    text = "\n".join(lines_of(null))
    assert "genetic correlations: from" in text and "kron2sum export" in text
    assert "and 2 more" in text
    assert "effect of" not in text
    assert max(len(line) for line in lines_of(null)) < 300


def test_one_trait() -> None:
    assert "one trait: no correlations" in lines_of(null_file(p=1))


def test_no_genetic_correlation_is_defined() -> None:
    null = null_file(p=10)
    whole = replace(null.whole, estimates=replace(null.whole.estimates, rg=np.full((10, 10), np.nan)))
    assert "genetic correlations: none is defined" in lines_of(replace(null, whole=whole))


def test_a_table_with_commas_has_what_the_one_with_tabs_has() -> None:
    null = null_file(profile=PROFILE)
    commas = list(csv.reader(io.StringIO(estimates_table(null, ",").decode())))
    assert commas == [line.split("\t") for line in estimates_table(null).decode().splitlines()]
