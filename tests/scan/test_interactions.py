"""The covariate of an interaction, and second columns of variants with missing genotypes."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from made_up import TRAITS, GenotypesInMemory, N, genotypes, scan_of, trait_data

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.files.scan_columns import scan_schema
from kron2sum_cli.model.collinearity import GenotypedCovariates
from kron2sum_cli.scan.block import SECOND_IN_SPAN, Block, Scan
from kron2sum_cli.scan.block import test_block as tested
from kron2sum_cli.scan.second_column import Interaction, read_interaction, second_column

DATA = trait_data()
SAMPLES = Samples(None, tuple(f"i{k}" for k in range(N)), "null.npz")


def null(*covariates: str) -> Any:
    rng = np.random.default_rng(1)
    X = np.column_stack([np.ones(N), rng.integers(0, 2, size=(N, len(covariates) - 1))])
    return cast(Any, SimpleNamespace(description=replace(DATA, X=X), covariates=covariates, samples=SAMPLES))


def read(model: Any, name: str, covar: Path | None = None) -> Interaction | None:
    return read_interaction(name, None if covar is None else str(covar), model)


def second_scan(source: GenotypesInMemory, interaction: Interaction | None) -> Scan:
    scan = scan_of(source, DATA)
    kind = "interaction" if interaction is not None else "dominance"
    return replace(
        scan,
        second=second_column(interaction, interaction is None, DATA.X, np.dtype(np.float64)),
        columns=scan_schema(TRAITS, ["common"], second=kind),
    )


def columns(scan: Scan, b: int) -> tuple[dict[str, np.ndarray], Any]:
    result = tested(scan, Block(np.arange(b), np.full(b, True)))
    names = result.rows.schema.names
    return {name: result.rows.column(name).to_numpy(zero_copy_only=False) for name in names}, result.counts


def test_a_covariate_of_the_null_model() -> None:
    found = read(null("intercept", "sex", "batch=2"), "sex")
    assert found is not None and not found.to_add
    np.testing.assert_allclose([found.standardised.mean(), found.standardised.std()], [0, 1], atol=1e-12)
    of_levels = read(null("intercept", "sex", "batch=2"), "batch")
    assert of_levels is not None and not of_levels.to_add


def test_a_covariate_of_many_levels_is_refused_with_its_columns() -> None:
    with pytest.raises(InputError, match="batch: has 3 levels, .* name one of batch=2, batch=3"):
        read(null("intercept", "batch=2", "batch=3"), "batch")


def test_a_covariate_of_a_table(tmp_path: Path) -> None:
    """In any order; a sample of the null model without a value is named, others do not matter."""
    values = np.random.default_rng(2).normal(size=N + 1)
    table = tmp_path / "e.csv"
    rows = [f"i{k},{value!r}" for k, value in enumerate(values.tolist())][::-1]
    table.write_text("\n".join(["IID,dose", *rows]) + "\n")
    found = read(null("intercept"), "dose", table)
    assert found is not None and found.to_add
    np.testing.assert_array_equal(found.values, values[:N])
    table.write_text("\n".join(["IID,dose", *rows[5:]]) + "\n")
    with pytest.raises(InputError, match="'dose' is not known in 4 of the 60 analysed samples, such as i56"):
        read(null("intercept"), "dose", table)


def test_what_the_genotyped_samples_do_not_tell_is_empty() -> None:
    """The covariate is constant wherever the second variant was genotyped; the third has no homozygote there."""
    source, group = genotypes(4), np.arange(N) % 2
    source.dosages[group == 1, 1] = np.nan
    found, counts = columns(second_scan(source, Interaction("group", group.astype(float), False)), 4)
    assert list(np.isfinite(found["MLOG10P.interaction"])) == [True, False, True, True]
    assert np.isfinite(found["MLOG10P"]).all()
    assert counts[SECOND_IN_SPAN["interaction"]] == 1
    source.dosages[source.dosages[:, 2] == 2, 2] = np.nan
    found, counts = columns(second_scan(source, None), 4)
    assert list(np.isfinite(found["MLOG10P.dominance"])) == [True, True, False, True]
    assert list(np.isfinite(found["MLOG10P.joint"])) == [True, True, False, True]
    assert counts[SECOND_IN_SPAN["dominance"]] == 1


def test_what_the_samples_of_one_trait_do_not_tell_is_empty() -> None:
    """The first variant has no homozygote, and the covariate is constant, where a trait was observed."""
    source, group = genotypes(3), np.arange(N) % 2
    observed = np.column_stack([np.ones(N, np.bool_), group == 1])
    source.dosages[(group == 1) & (source.dosages[:, 0] == 2), 0] = 1
    covariates = GenotypedCovariates(DATA.X, observed)
    scan = replace(second_scan(source, None), covariates=covariates)
    found, counts = columns(scan, 3)
    assert list(np.isfinite(found["MLOG10P.dominance"])) == [False, True, True]
    assert np.isfinite(found["MLOG10P"]).all()
    assert counts[SECOND_IN_SPAN["dominance"]] == 1
    scan = replace(second_scan(source, Interaction("group", group.astype(float), False)), covariates=covariates)
    assert not np.isfinite(columns(scan, 3)[0]["MLOG10P.interaction"]).any()


def test_units_and_zero_of_the_covariate_change_no_test() -> None:
    source, e = genotypes(5), np.random.default_rng(4).normal(size=N)
    source.dosages[:9, 1] = np.nan
    one, _ = columns(second_scan(source, Interaction("e", e, False)), 5)
    other, _ = columns(second_scan(source, Interaction("e", 1e4 + 100 * e, False)), 5)
    for name in ("CHISQ.interaction", "CHISQ.joint", "MLOG10P_GXE.a"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-9)
    for name in ("BETA_GXE.a", "SE_GXE.b"):
        np.testing.assert_allclose(100 * other[name], one[name], rtol=1e-9)


def test_blocks_of_which_nothing_varies() -> None:
    source = genotypes(2)
    source.dosages[:] = 1
    for interaction in (None, Interaction("e", np.arange(N) / N, False)):
        found, _ = columns(second_scan(source, interaction), 2)
        assert np.isnan(found["MLOG10P.joint"]).all()
