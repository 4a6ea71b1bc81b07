"""Which variants a scan is conditioned on, and the scale of its tests given them."""

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from made_up import GenotypesInMemory, N, genotypes, null_model, trait_data

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.source import Variants
from kron2sum_cli.model.conditioning import given_variants
from kron2sum_cli.model.null_model import TraitData
from kron2sum_cli.scan.nulls import ConditionedVariants, null_scale, read_conditioned

DATA = trait_data()
NULL = cast(Any, SimpleNamespace(description=DATA, covariates=("intercept", "x")))


def read(source: GenotypesInMemory, *names: str) -> ConditionedVariants | None:
    return read_conditioned(names, False, None, NULL, source, np.arange(N))


def test_nothing_is_asked() -> None:
    assert read(genotypes(3)) is None


def test_genotypes_are_in_the_order_asked_for_and_missing_ones_at_the_mean() -> None:
    source = genotypes(9)
    source.dosages[:7, 2] = np.nan
    found = read(source, "v5", "v2")
    assert found is not None and found.names == ("v5", "v2")
    np.testing.assert_array_equal(found.G[:, 0], source.dosages[:, 5])
    np.testing.assert_allclose(found.G[:7, 1], np.nanmean(source.dosages[:, 2]), rtol=1e-6)


def test_variants_that_add_nothing_are_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    source = genotypes(9)
    source.dosages[:, 4] = 2 - source.dosages[:, 1]
    source.dosages[:, 7] = 1
    with caplog.at_level(logging.WARNING):
        found = read(source, "v1", "v7", "v4", "v6")
    assert found is not None and found.names == ("v1", "v6")
    assert found.G.shape == (N, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "--condition v7 is a multiple of intercept: it adds nothing and is left out",
        "--condition v4 is a linear combination of intercept, v1: it adds nothing and is left out",
    ]


def test_effects_of_a_trait_design_do_not_hold_those_of_a_variant() -> None:
    """A covariate with one effect on all traits leaves the variant's own effects on them."""
    source = genotypes(3)
    data = TraitData(DATA.Y, np.ones((2, 1)), source.dosages[:, [1]].astype(float))
    null = cast(Any, SimpleNamespace(description=data, covariates=("x",)))
    found = read_conditioned(["v1"], False, None, null, source, np.arange(N))
    assert found is not None and found.names == ("v1",)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["v9"], "no variant of memory has this name"), (["v1"], "2 variants of memory have this name"),
     (["v0"], "v0: has no genotype in the analysed samples")],
)  # fmt: skip
def test_what_cannot_be_conditioned_on(names: list[str], message: str) -> None:
    source = genotypes(4)
    source.dosages[:, 0] = np.nan
    twice = source.variants.table.set_column(2, "SNPID", [["v0", "v1", "v1", "v3"]])
    twin = SimpleNamespace(variants=Variants(twice, "memory"), path="memory", read=source.read)
    with pytest.raises(InputError, match=message):
        read_conditioned(names, False, None, NULL, cast(Any, twin), np.arange(N))


@pytest.mark.parametrize("reml", [True, False])
def test_scale(reml: bool) -> None:
    """After REML the scale counts contrasts of the variants given, too; after ML it counts observations."""
    model, source = null_model(DATA), genotypes(5)
    found = read(source, "v0", "v3")
    assert found is not None
    given = given_variants(model, found.G, DATA.own_covariates)
    scale = null_scale(DATA, replace(model.summary, reml=reml), None, given=given)
    size, nobserved = DATA.nobserved - DATA.neffects - 4, DATA.nobserved
    assert (scale.size, scale.residual_df) == (size if reml else nobserved, size)
    assert scale.quadratic == model.summary.quadratic - given.quadratic
    assert 0 < given.quadratic < model.summary.quadratic
