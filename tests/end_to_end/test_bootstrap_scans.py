"""Scans with thresholds from simulated traits, from end to end."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_commands import EXAMPLE, fit_missing_and_independent, kron2sum, metadata, scan, table

B = 39
OPTIONS = ("--bootstrap", str(B), "--test", "common", "--refit", "0")
TESTS = {"any": "", "common": ".common", "height": ".height", "weight": ".weight", "glucose": ".glucose"}


@pytest.fixture(scope="module")
def whole(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scans of null.npz and loco.npz by one thread."""
    folder = tmp_path_factory.mktemp("bootstrap")
    for null in ("null", "loco"):
        assert scan(example / f"{null}.npz", folder / f"{null}.parquet", *OPTIONS, "--threads", "1") == 0
    return folder


@pytest.mark.parametrize("null", ["null", "loco"])
def test_adjusted_p_values_are_shares_of_data_sets(whole: Path, null: str) -> None:
    rows, meta = table(whole / f"{null}.parquet"), metadata(whole / f"{null}.parquet")
    assert set(meta["largest"]) == set(meta["thresholds"]) == set(TESTS)
    assert (meta["settings"]["bootstrap"], meta["settings"]["seed"]) == (B, 0)
    for name, ending in TESTS.items():
        largest = np.array(meta["largest"][name])
        assert largest.shape == (B,) and largest.min() > 1
        tested = rows["MLOG10P" + ending].notna()
        assert rows["MLOG10P_GW" + ending].notna().equals(tested)
        share = (1 + (largest >= rows["MLOG10P" + ending].to_numpy()[tested, None]).sum(axis=1)) / (B + 1)
        np.testing.assert_allclose(rows["MLOG10P_GW" + ending][tested], -np.log10(share), rtol=1e-12, atol=1e-15)
        assert list(meta["thresholds"][name]) == ["0.05", "0.1"]  # 39 data sets have no 1% point
        for level, threshold in meta["thresholds"][name].items():
            below = rows["MLOG10P_GW" + ending] >= -np.log10(float(level)) - 1e-12
            assert below.equals(rows["MLOG10P" + ending] > threshold)


def test_the_scan_itself_is_as_without(example: Path, whole: Path, tmp_path: Path) -> None:
    assert scan(example / "null.npz", tmp_path / "s.parquet", "--test", "common", "--refit", "0") == 0
    plain, rows = table(tmp_path / "s.parquet"), table(whole / "null.parquet")
    pd.testing.assert_frame_equal(rows[plain.columns], plain)
    assert pytest.approx(-np.log10(1 / (B + 1))) == rows.set_index("SNPID").loc["snp1823"].MLOG10P_GW


@pytest.mark.parametrize("null", ["null", "loco"])
def test_shards_chromosomes_and_threads_change_no_byte(example: Path, whole: Path, tmp_path: Path, null: str) -> None:
    parts = {name: tmp_path / f"{name}.parquet" for name in ("1of2", "2of2", "1-2", "3-5")}
    for name, out in parts.items():
        choice = ("--shard", name.replace("of", "/")) if "of" in name else ("--chr", name)
        assert scan(example / f"{null}.npz", out, *OPTIONS, *choice, "--threads", "2") == 0
    for some in (["1of2", "2of2"], ["3-5", "1-2"]):
        merged = tmp_path / "merged.parquet"
        assert kron2sum("export", "-q", *(parts[name] for name in some), "--to", "parquet", "--out", merged) == 0
        assert merged.read_bytes() == (whole / f"{null}.parquet").read_bytes()
    assert table(parts["1of2"]).MLOG10P_GW.isna().all()
    assert table(parts["1-2"]).MLOG10P_GW.max() > 1


def test_joined_tables_have_joined_p_values_in_every_form(example: Path, whole: Path, tmp_path: Path, capfd) -> None:
    for i in (1, 2):
        assert scan(example / "null.npz", tmp_path / f"{i}.parquet", *OPTIONS, "--shard", f"{i}/2") == 0
    columns = ("--columns", "SNPID,MLOG10P_GW.height", "--top", "5")
    shards = [tmp_path / f"{i}.parquet" for i in (1, 2)]
    capfd.readouterr()
    assert kron2sum("export", "-q", *shards, *columns) == 0
    joined = capfd.readouterr().out
    assert kron2sum("export", "-q", whole / "null.parquet", *columns) == 0
    assert joined == capfd.readouterr().out
    assert "NA" not in joined


def test_columns_of_one_trait(whole: Path, capfd) -> None:
    assert kron2sum("export", "-q", whole / "null.parquet", "--trait", "height", "--top", "1") == 0
    names = capfd.readouterr().out.split("\n")[0].split("\t")
    assert [name for name in names if "_GW" in name] == ["MLOG10P_GW", "MLOG10P_GW.height", "MLOG10P_GW.common"]


def test_the_seed_fixes_the_data_sets_and_more_of_them_begin_alike(example: Path, whole: Path, tmp_path: Path) -> None:
    found = {}
    for name, options in {"more": ("60", "0"), "other": (str(B), "1")}.items():
        out = tmp_path / f"{name}.parquet"
        options = ("--bootstrap", options[0], "--seed", options[1], "--test", "common", "--refit", "0")
        assert scan(example / "null.npz", out, *options) == 0
        found[name] = metadata(out)["largest"]["any"]
    first = metadata(whole / "null.parquet")["largest"]["any"]
    np.testing.assert_allclose(found["more"][:B], first, rtol=1e-5)  # products in single precision
    assert abs(np.array(found["other"]) - first).min() > 1e-6


def test_residuals_in_another_order(example: Path, whole: Path, tmp_path: Path) -> None:
    """Nearly the same thresholds for traits that are nearly normal."""
    out = tmp_path / "p.parquet"
    assert scan(example / "null.npz", out, *OPTIONS, "--resample", "permute") == 0
    permuted, normal = (np.array(metadata(path)["largest"]["any"]) for path in (out, whole / "null.parquet"))
    assert abs(permuted - normal).min() > 1e-6
    assert abs(np.median(permuted) - np.median(normal)) < 0.5
    assert metadata(out)["settings"]["resample"] == "permute"


def test_other_models(example: Path, tmp_path: Path, capfd) -> None:
    missing, independent = fit_missing_and_independent(tmp_path)
    for null in (missing, independent):
        out = tmp_path / "s.parquet"
        assert scan(null, out, *OPTIONS, "--chr", "1", "--condition", "snp0409") == 0
        assert 2 < np.median(metadata(out)["largest"]["any"]) < 4
        assert table(out).MLOG10P_GW.notna().sum() > 500
    capfd.readouterr()
    table_of_covariates = tmp_path / "e.csv"
    samples = pd.read_csv(EXAMPLE / "phenotypes.csv")[["FID", "IID"]]
    samples.assign(dose=np.arange(len(samples))).to_csv(table_of_covariates, index=False)
    interaction = ("--covar", table_of_covariates, "--interaction", "dose")
    assert scan(missing, tmp_path / "no.parquet", *OPTIONS, "--resample", "permute", *interaction) == 2
    errors = capfd.readouterr().err
    assert "--resample permute needs traits without missing values" in errors
    assert "warning" not in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bootstrap", "9", "--windows", "1mb", "--set-test", "skato"), "no thresholds of --set-test skato"),
        (("--bootstrap", "9", "--windows", "1mb", "--set-test", "lr"), "no thresholds of --set-test lr"),
        (("--resample", "permute"), "--resample needs --bootstrap"),
    ],
)
def test_what_is_refused(example: Path, tmp_path: Path, capfd, options, message: str) -> None:
    assert scan(example / "null.npz", tmp_path / "s.parquet", *options) == 2
    assert message in capfd.readouterr().err
