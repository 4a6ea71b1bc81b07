"""The page of files names every array, column and metadata key that the commands write."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_on_path import ROOT, copy_of_checkout

PAGE = (ROOT / "docs" / "reference" / "files.md").read_text()
NAMES = set(re.findall(r"`([^`\n]+)`", PAGE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A null model and a result table with everything that options add."""
    tmp = tmp_path_factory.mktemp("files")
    data = copy_of_checkout(tmp, "example_data") / "example_data"
    commands = (
        "fit --pheno phenotypes.csv --covar covariates.csv --grm genotypes.bed --loco --profile h2",
        "scan --test common --bootstrap 9",
        "export null.npz --to json --out null.json",
    )
    for command in commands:
        subprocess.run(["kron2sum", *command.split(), "--quiet"], cwd=data, env=environment, check=True)
    return data


def test_arrays_of_a_null_model(folder: Path) -> None:
    with np.load(folder / "null.npz") as arrays:
        keys = [re.sub("^(whole|loco/[^/]+)/", "", key) for key in arrays]
        meta, scalars = json.loads(str(arrays["meta"])), json.loads(str(arrays["whole/scalars"]))
    found = {key.removeprefix("estimates/").removesuffix("_se") for key in keys}
    assert found | set(meta) | set(scalars) <= NAMES


def test_estimates_as_json(folder: Path) -> None:
    found = json.loads((folder / "null.json").read_text())
    assert {key.removesuffix("_se") for key in found} <= NAMES


def test_columns_of_a_result_table(folder: Path) -> None:
    columns = pq.read_schema(folder / "scan.parquet").names
    general = [re.sub(r"\.(height|weight|glucose)$", ".T", name).replace(".common", ".NAME") for name in columns]
    assert {re.sub(r"^AXIS\.\d$", "AXIS.k", name) for name in general} <= NAMES


def test_metadata_of_a_result_table(folder: Path) -> None:
    metadata = json.loads(pq.read_schema(folder / "scan.parquet").metadata[b"kron2sum"])
    parts = (metadata, metadata["null"], metadata["settings"], metadata["span"], metadata["nulls"][0])
    assert {key for part in parts for key in part} <= NAMES
