"""Parts of a scan are joined, and an interrupted one is resumed, where their metadata agree: they tell its options."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import kron2sum_cli
from kron2sum_cli.errors import Kron2SumError
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.fit.fit import fit_null_model
from kron2sum_cli.genotypes.chromosomes import parse_region
from kron2sum_cli.progress import NoProgress
from kron2sum_cli.scan.inputs import ScanInputs, open_inputs
from kron2sum_cli.scan.table import scan_metadata
from kron2sum_cli.settings import CommonSettings, FitSettings, ScanSettings

EXAMPLE = Path(kron2sum_cli.__file__).parents[1] / "example_data"
GENO = str(EXAMPLE / "genotypes.bed")
FILE = str(EXAMPLE / "genotypes.bim")
WINDOWS: dict[str, Any] = {"windows": (9, 9)}

NOT_TOLD = {
    *("null", "geno", "geno_list", "sample", "bim", "fam", "map", "condition_list"),  # the content of the files is
    *("shard", "resume", "to", "out"),  # they change no number
    *("stepwise", "stepwise_kb"),  # signals have a table of their own
}
TOLD: dict[str, dict[str, Any]] = {
    "ploidy": {"ploidy": 4},
    "extract": {"extract": FILE},
    "exclude": {"exclude": FILE},
    "chromosomes": {"chromosomes": (("1",),)},
    "regions": {"regions": (parse_region("1:1-9"),)},
    "maf": {"maf": 0.1},
    "mac": {"mac": 5},
    "max_missing": {"max_missing": 0.1},
    "min_info": {"min_info": 0.5},
    "hwe": {"hwe": 1e-6},
    "tests": {"tests": ("any", "common")},
    "sets": {"sets": FILE},
    "windows": WINDOWS,
    "founders": {"founders": True},
    "set_tests": WINDOWS | {"set_tests": ("skat",)},
    "set_weights": WINDOWS | {"set_weights": "beta:1,25"},
    "set_max_maf": WINDOWS | {"set_max_maf": 0.1},
    "conditions": {"conditions": ("snp0409",)},
    "interaction": {"interaction": "age"},
    "covar": {"interaction": "age", "covar": FILE},
    "random_slopes": {"interaction": "age", "random_slopes": True},
    "coding": {"coding": "dominant"},
    "bootstrap": {"bootstrap": 9},
    "resample": {"bootstrap": 9, "resample": "permute"},
    "refit": {"refit": 0.5},
    "precision": {"precision": "double"},
    "stat": {"stat": "f"},
    "common": {"common": CommonSettings(seed=5)},
}
"""A value of every option that the metadata tell, with the options that it needs."""

FROM_INPUTS = ("chromosomes", "regions", "conditions", "refit")


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("scan") / "null.npz")
    pheno, covar = str(EXAMPLE / "phenotypes.csv"), str(EXAMPLE / "covariates.csv")
    fit_null_model(FitSettings(pheno, (GENO,), covar=covar, out=path), NoProgress())
    return path


@pytest.fixture(scope="module")
def inputs(null: str) -> ScanInputs:
    return open_inputs(ScanSettings(null, (GENO,)))


def test_every_option_is_told_or_changes_no_number() -> None:
    """A new option belongs to one of the two."""
    assert {field.name for field in fields(ScanSettings)} == NOT_TOLD | set(TOLD)


@pytest.mark.parametrize("option", TOLD)
def test_options_are_told(option: str, null: str, inputs: ScanInputs) -> None:
    given = TOLD[option]
    others = {name: value for name, value in given.items() if name != option}
    told = []
    for options in (others, given):
        settings = ScanSettings(null, (GENO,), **options)
        told.append(to_json(scan_metadata(settings, open_inputs(settings) if option in FROM_INPUTS else inputs)))
    assert told[0] != told[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tests": ("no",)}, "no"), ({"interaction": "no"}, "no covariate of this name"),
     ({"hwe": 0.01, "ploidy": 4}, "diploid"),
     ({"interaction": "age", "random_slopes": True, "conditions": ("snp0409",)}, "needs all effects")],
)  # fmt: skip
def test_what_the_null_model_does_not_allow_is_said_before_genotypes_are_opened(
    options: dict[str, Any], message: str, null: str
) -> None:
    with pytest.raises(Kron2SumError, match=message):
        open_inputs(ScanSettings(null, ("absent.bed",), **options))
