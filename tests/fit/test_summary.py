"""What a fit says of samples and variants that it does not use."""

import logging

import numpy as np
import pytest

from kron2sum_cli.files.sample_table import SampleTable
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.fit.samples import analysed_samples
from kron2sum_cli.fit.summary import report_samples, report_two_values, report_variants, warn_of_few_genotypes
from kron2sum_cli.settings import FitSettings

NAN = np.nan


def people(source, numbers, fid="f"):
    return Samples(None if fid is None else (fid,) * len(numbers), tuple(f"i{k}" for k in numbers), source)


def table(source, numbers, names="a", missing=(), fid="f"):
    values = np.arange(1.0, len(numbers) * len(names) + 1).reshape(len(numbers), len(names))
    for row, column in missing:
        values[row, column] = NAN
    return SampleTable(people(source, numbers, fid), tuple(names), values, (None,) * len(names), source, ())


@pytest.fixture
def said(caplog):
    """The messages of a level or above."""

    def of(level=logging.WARNING):
        return [record.getMessage() for record in caplog.records if record.levelno >= level]

    with caplog.at_level(logging.DEBUG, "kron2sum"):
        yield of


def report(pheno, covar=None, relationship=None, keep=None, remove=None, missing="drop"):
    relationship = relationship or people("g.fam", range(20))
    settings = FitSettings("y.csv", ("g.bed",), covar="x.csv" if covar else None, missing=missing)
    found = analysed_samples(pheno, covar, relationship, keep, remove, missing)
    report_samples(settings, pheno, covar, relationship, {"--keep": keep, "--remove": remove}, found)


def test_nothing_lost_nothing_said(said):
    report(table("y.csv", range(20)), table("x.csv", range(20), "u"))
    assert said() == []
    assert said(logging.INFO) == [
        "20 samples in the relationship file",
        "20 samples in the phenotype file",
        "20 samples in the covariate file",
        "20 samples analysed",
    ]
    assert "0 samples not in the covariate file" in said(logging.DEBUG)


def test_names_of_a_list_that_are_not_found(said):
    report(table("y.csv", range(20)), keep=people("k.txt", [*range(12), 98]))
    assert said() == []
    assert "--keep k.txt: 1 of its 13 samples are not in g.fam, such as f i98" in said(logging.INFO)
    report(table("y.csv", range(20)), remove=people("r.txt", [0, 1, 97, 98]))
    assert said() == ["--remove r.txt: 2 of its 4 samples are not in g.fam, such as f i97"]


def test_names_of_a_list_with_other_fids(said):
    both = Samples(("f", "0", "0"), ("i1", "i2", "i3"), "k.txt")
    report(table("y.csv", range(20)), remove=both)
    assert said() == [
        "--remove k.txt: 2 of its 3 samples are not in g.fam, such as 0 i2; 2 of them have the IID of one that is"
        " there, with another FID (0 i2 and f i2): correct the FIDs, or leave them out of k.txt to match on IID alone"
    ]


def test_samples_with_other_fids(said):
    fids = tuple("0" if k % 2 else "f" for k in range(20))
    pheno = table("y.csv", range(20))
    pheno = SampleTable(Samples(fids, pheno.samples.iids, "y.csv"), ("a",), pheno.values, (None,), "y.csv", ())
    report(pheno)
    (message,) = said()
    assert message.startswith("10 of the 20 samples of y.csv are not in g.fam, such as 0 i1; 10 of them have the IID")
    assert "remove" not in message


def test_samples_that_are_in_no_other_file(said):
    report(table("y.csv", range(23)), table("x.csv", range(16), "u"))
    strangers, covariates = said()
    assert strangers == (
        "3 of the 23 samples of y.csv are not in g.fam, such as f i20; if they should be there, check that both files"
        " use the same IDs"
    )
    assert covariates.startswith("x.csv lacks 4 of 20 samples that have traits and a relationship; add them")


def test_missing_traits_and_covariates(said):
    cells = [(k, 1) for k in range(5)] + [(7, 0), (9, 0), (9, 1)]
    report(table("y.csv", range(20), "ab", cells), table("x.csv", range(20), "uv", [(k, 1) for k in range(10, 14)]))
    traits, covariates = said()
    assert traits == (
        "7 of 20 samples are dropped for missing traits; --missing exact would use the 6 of them that have some of the"
        " traits; without b (--pheno-name), which 6 samples of y.csv lack, there would be more"
    )
    assert covariates == (
        "4 of 20 samples are dropped for a missing covariate; without v (--covar-name), which 4 samples of x.csv lack,"
        " there would be more"
    )


def test_a_tenth_is_not_warned_of(said):
    report(table("y.csv", range(20), "ab", [(3, 0), (4, 1)]))
    assert said() == []
    assert said(logging.INFO)[-1].endswith("--missing exact would use what was observed of them")
    report(table("y.csv", range(20), "ab", [(3, 0), (4, 1), (5, 0)]), missing="exact")
    assert said() == []


def test_variants_left_out(said):
    report_variants({"variants read": 100, "left out: missing": 4, "left out: rare": 6, "variants used": 90})
    report_variants({"variants read": 100, "left out: one allele": 60, "left out: rare": 4, "variants used": 36})
    report_variants({"variants read": 100, "left out: not in the list": 99, "variants used": 1})
    assert said() == []
    report_variants({"variants read": 100, "left out: missing": 90, "left out: rare": 6, "variants used": 4})
    assert said() == [
        "the relationship matrix is made of 4 of 100 variants that vary: 90 were left out as missing; --grm-geno keeps"
        " variants with more missing genotypes"
    ]


def test_samples_without_genotypes(said):
    diagonal = np.array([1.0, 0.9, 0.0, 1.1, 1.2])
    warn_of_few_genotypes(diagonal, people("g.fam", range(5)))
    (message,) = said()
    assert message.startswith("1 sample has hardly any genotypes in the relationship matrix, such as f i2")
    assert "--remove" in message
    warn_of_few_genotypes(np.array([0.5, 1.0, 2.0]), people("g.fam", range(3)))
    assert len(said()) == 1


def test_traits_of_two_values(said):
    Y = np.array([[0, 1, 2, 5], [1, 2, NAN, 5], [1, 3, 4, 5], [0, 4, 2, 6]])
    report_two_values(Y, "abcd")
    (message,) = said(logging.INFO)
    assert message.startswith("note: a, c, d: two values, as of cases and controls")
    report_two_values(Y[:, 1:2], "b")
    assert len(said(logging.INFO)) == 1
