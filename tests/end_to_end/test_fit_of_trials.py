"""A trial with a row a plot: the null model is that of the table of its means."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_commands import EXAMPLE, kron2sum


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_trial() -> pd.DataFrame:
    """``trial.csv``, two plots of most lines in three environments, and the means of its lines."""
    rng = np.random.default_rng(3)
    traits = pd.read_csv(EXAMPLE / "phenotypes.csv").set_index("IID")[["height", "weight"]]
    lines = np.repeat(traits.index, 6)
    trial = pd.DataFrame({"env": np.tile(["north", "south", "west"], 2 * len(traits)), "line": lines})
    trial["rep"] = np.tile([1, 1, 1, 2, 2, 2], len(traits))
    trial["yield"] = (traits["height"].loc[lines].to_numpy() + rng.normal(0, 5, len(trial))).round(2)
    trial.loc[rng.random(len(trial)) < 0.1, "yield"] = np.nan
    trial = trial.sample(frac=1, random_state=1)
    trial.to_csv("trial.csv", index=False, na_rep="NA")
    means = trial.pivot_table("yield", "line", "env", dropna=False)
    means.rename_axis("IID").reset_index().to_csv("means.csv", index=False, na_rep="NA")
    return trial


def fitted(*options: str) -> dict:
    """The JSON of a null model of example_data's genotypes."""
    grm = ("--grm", EXAMPLE / "genotypes.bed")
    assert kron2sum("fit", "-q", *options, *grm, "--ml") == 0
    assert kron2sum("export", "-q", "null.npz", "--to", "json", "--out", "null.json") == 0
    return json.loads(Path("null.json").read_text())


@pytest.mark.parametrize("missing", ["drop", "exact"])
def test_a_trial_is_its_means(missing: str) -> None:
    trial = write_trial()
    options = ("--missing", missing, "--transform", "standardize", "--pheno-name", "west,north")
    wide = fitted("--pheno", "means.csv", *options)
    long = fitted("--pheno", "trial.csv", "--pheno-long", "line,env,yield", *options)
    assert long["traits"] == wide["traits"] == ["west", "north"]
    assert long["n"] == wide["n"]
    for name in ("lml", "C0", "C1"):
        np.testing.assert_allclose(long[name], wide[name], rtol=1e-6)
    with np.load("null.npz") as null:
        counts = json.loads(str(null["meta"]))["counts"]
    assert counts["plots in the phenotype file"] == len(trial)
    assert counts["plots in environments that are not analysed"] == (trial["env"] == "south").sum()
    assert counts["plots without a value of yield"] == trial["yield"][trial["env"] != "south"].isna().sum()


def test_the_log_says_what_the_means_are_of() -> None:
    trial = write_trial()
    fitted("--pheno", "trial.csv", "--pheno-long", "line,env,yield")
    log = Path("null.npz.log").read_text()
    assert "each of 1 to 2 plots (median 2)" in log
    assert f"{len(trial)} plots in the phenotype file" in log


def test_columns_of_a_trial_are_three(capsys: pytest.CaptureFixture[str]) -> None:
    assert kron2sum("fit", "--pheno", "t.csv", "--pheno-long", "line,yield", "--grm", "g.bed") == 2
    assert "--pheno-long: name three columns or more: of lines, of environments, of values" in capsys.readouterr().err
    assert kron2sum("fit", "--pheno", "t.csv", "--pheno-long", "line,line,yield", "--grm", "g.bed") == 2
    assert "--pheno-long: line named more than once" in capsys.readouterr().err
