"""The design of a fit: traits, covariates and trait design of the analysed samples, whatever the order of the files."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from kron2sum_cli.errors import InputError, NumericalError
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.fit.design import INTERCEPT, Design, read_design, read_tables
from kron2sum_cli.settings import FitSettings

N = 12
IIDS = tuple(f"i{k}" for k in range(N))
RNG = np.random.default_rng(1)
Y = RNG.normal(size=(N, 2))
AGE = RNG.normal(size=N)


def write(folder, name, header, rows, order):
    lines = [header] + [f"f,{IIDS[k]}," + ",".join(map(str, rows[k])) for k in order]
    (folder / name).write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "y.csv", "FID,IID,a,b", Y.tolist(), range(N))
    sites = [(age, "north" if k % 3 else "south") for k, age in enumerate(AGE)]
    write(tmp_path, "x.csv", "FID,IID,age,site", sites, reversed(range(N)))
    return tmp_path


def design(grm_order=range(N), **options) -> Design:
    samples = Samples(("f",) * N, tuple(IIDS[k] for k in grm_order), "g.fam")
    settings = FitSettings("y.csv", ("g.bed",), **options)
    grm = SimpleNamespace(samples=samples, sparse=None, largest_rank=lambda n: n, falls_into_families=lambda _: False)
    return read_design(settings, read_tables(settings), grm)


def test_samples_in_the_order_of_the_relationship_matrix(folder):
    order = [5, 0, 11, 3, 4, 2, 1, 10, 9, 8, 7, 6]
    found = design(order, covar="x.csv", cat_covar_names=("site",))
    assert found.samples.samples.iids == tuple(IIDS[k] for k in order)
    np.testing.assert_array_equal(found.Y, Y[order])
    assert found.covariates == (INTERCEPT, "age", "site=south")
    south = [float(k % 3 == 0) for k in order]
    np.testing.assert_array_equal(found.X, np.column_stack([np.ones(N), AGE[order], south]))
    np.testing.assert_array_equal(found.A, np.eye(2))
    assert len(found.not_analysed.samples) == 0


def test_without_an_intercept(folder):
    found = design(covar="x.csv", covar_names=("age",), intercept=False)
    assert found.covariates == ("age",)
    assert found.X.shape == (N, 1)


def test_trait_design_in_the_order_of_the_traits(folder):
    (folder / "A.csv").write_text("trait,size\nb,2\na,1\n")
    np.testing.assert_array_equal(design(trait_design="A.csv").A, [[1], [2]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trait,x,y\na,1,2\nb,1,2\n", "A.csv: column 2 is a multiple of column 1; leave one of them out"),
        ("trait,x,y\na,1,0\nb,1,0\n", "A.csv: column 2 is zero"),
        ("trait,x,y,z\na,1,0,1\nb,1,1,0\n", "A.csv: column 3 is a linear combination of column 1, column 2"),
        ("trait,x,y\na,1e9,1\nb,1e9,1.00000001\n", None),
    ],
)
def test_columns_of_a_trait_design_are_independent(folder, text, message):
    """A singular matrix was an internal error."""
    (folder / "A.csv").write_text(text)
    if message is None:
        assert design(trait_design="A.csv").A.shape == (2, 2)
        return
    with pytest.raises(NumericalError, match=message):
        design(trait_design="A.csv")


def test_transformations_are_over_the_analysed_samples(folder):
    (folder / "remove").write_text("f i0\nf i1\n")
    found = design(remove="remove", transform="standardize")
    np.testing.assert_allclose(found.Y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.Y.std(axis=0, ddof=1), 1)


@pytest.mark.parametrize("predict", [False, True])
def test_samples_that_are_not_analysed_are_kept_for_predictions(folder, predict):
    cells = Y.tolist()
    cells[3] = cells[8] = ["NA", "NA"]
    write(folder, "y.csv", "FID,IID,a,b", cells, range(N))
    found = design(covar="x.csv", covar_names=("age",), predict=predict)
    rest = found.not_analysed
    assert rest.rows.tolist() == ([3, 8] if predict else [])
    np.testing.assert_array_equal(rest.X, np.column_stack([np.ones(2), AGE[[3, 8]]])[: len(rest.rows)])
    assert len(found.Y) == N - 2


def test_redundant_covariates(folder, caplog):
    write(folder, "x.csv", "FID,IID,age,months", [(age, 12 * age) for age in AGE], range(N))
    with pytest.raises(NumericalError, match=r"x.csv: covariate months is a multiple of age .*--drop-redundant"):
        design(covar="x.csv")
    with caplog.at_level(logging.INFO, "kron2sum"):
        assert design(covar="x.csv", drop_redundant=True).covariates == (INTERCEPT, "age")
    assert any("covariate months" in record.getMessage() for record in caplog.records)


def test_traits_that_the_covariates_determine(folder):
    write(folder, "y.csv", "FID,IID,a,b", [(y, 3 * age + 1) for y, age in zip(Y[:, 0], AGE, strict=True)], range(N))
    with pytest.raises(NumericalError, match=r"trait b is a linear combination of the covariates \(intercept, age\)"):
        design(covar="x.csv", covar_names=("age",))


def test_too_few_samples(folder):
    (folder / "keep").write_text("f i0\nf i1\nf i2\n")
    with pytest.raises(
        NumericalError, match="3 samples have all traits and covariates, and 2 traits with 1 covariates"
    ):
        design(keep="keep")


def test_missing_cells_that_memory_does_not_allow(folder, monkeypatch):
    cells = Y.tolist()
    cells[3][0] = "NA"
    write(folder, "y.csv", "FID,IID,a,b", cells, range(N))
    assert np.isnan(design(missing="exact").Y[3, 0])
    monkeypatch.setattr("kron2sum_cli.fit.design.available_memory_mib", lambda: 10)
    with pytest.raises(
        InputError, match=r"--missing exact: the fit with 1 missing cell on 1 sample needs some \d+ MiB, and the mach"
    ):
        design(missing="exact")
