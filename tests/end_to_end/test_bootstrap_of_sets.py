"""Scans of sets with thresholds from simulated traits, from end to end."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_commands import EXAMPLE, fit_missing_and_independent, kron2sum, metadata, scan, table

B = 39
HOW = ("fixed", "burden", "skat", "acat", "omnibus")
OPTIONS = ("--windows", "6mb", *(word for how in HOW for word in ("--set-test", how)), "--test", "common")
BOOTSTRAP = ("--bootstrap", str(B))


def observed(how: str, test: str) -> str:
    return "MLOG10P" + test if how == "fixed" else f"MLOG10P_SET.{how}{test}"


@pytest.fixture(scope="module")
def whole(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scans of null.npz and loco.npz by one thread."""
    folder = tmp_path_factory.mktemp("sets")
    for null in ("null", "loco"):
        out = folder / f"{null}.parquet"
        assert scan(example / f"{null}.npz", out, *OPTIONS, *BOOTSTRAP, "--threads", "1") == 0
    return folder


@pytest.mark.parametrize("null", ["null", "loco"])
def test_adjusted_p_values_are_shares_of_data_sets(whole: Path, null: str) -> None:
    rows, meta = table(whole / f"{null}.parquet"), metadata(whole / f"{null}.parquet")
    assert set(meta["largest"]) == {how + test for how in HOW for test in ("", ".common")}
    for how in HOW:
        for test in ("", ".common"):
            largest, values = np.array(meta["largest"][how + test]), rows[observed(how, test)]
            assert largest.shape == (B,) and 0.5 < np.median(largest) < (6 if how == "fixed" else 3.5)
            share = (1 + (largest >= values.to_numpy()[:, None]).sum(axis=1)) / (B + 1)
            adjusted = rows[f"MLOG10P_SET_GW.{how}{test}"]
            np.testing.assert_allclose(adjusted, -np.log10(share), rtol=1e-12, atol=1e-15)
            level = meta["thresholds"][how + test]["0.05"]
            assert (adjusted >= -np.log10(0.05) - 1e-12).equals(values > level)


def test_the_scan_itself_is_as_without(example: Path, whole: Path, tmp_path: Path) -> None:
    assert scan(example / "null.npz", tmp_path / "s.parquet", *OPTIONS) == 0
    plain = table(tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(table(whole / "null.parquet")[plain.columns], plain)


@pytest.mark.parametrize("null", ["null", "loco"])
def test_shards_and_threads_change_no_byte(example: Path, whole: Path, tmp_path: Path, null: str) -> None:
    parts = [tmp_path / f"{k}.parquet" for k in (1, 2)]
    for k, out in enumerate(parts, 1):
        choice = ("--shard", f"{k}/2", "--threads", "2")
        assert scan(example / f"{null}.npz", out, *OPTIONS, *BOOTSTRAP, *choice) == 0
    assert table(parts[0])["MLOG10P_SET_GW.skat"].isna().all()
    merged = tmp_path / "merged.parquet"
    assert kron2sum("export", "-q", *reversed(parts), "--to", "parquet", "--out", merged) == 0
    assert merged.read_bytes() == (whole / f"{null}.parquet").read_bytes()


@pytest.mark.parametrize("conditions", [(), ("--condition", "snp0409")])
def test_sets_of_one_variant_have_the_thresholds_of_variants(
    example: Path, tmp_path: Path, conditions: tuple[str, ...]
) -> None:
    names = [line.split()[1] for line in (EXAMPLE / "genotypes.bim").read_text().splitlines()][:60]
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names))
    (tmp_path / "sets.txt").write_text("".join(f"{name} {name}\n" for name in names))
    options = ("--bootstrap", "60", "--seed", "4", "--test", "common", "--test", "trait:weight", *conditions)
    of_sets = [word for how in ("fixed", "burden", "acat") for word in ("--set-test", how)]
    assert scan(example / "null.npz", tmp_path / "v.parquet", *options, "--extract", tmp_path / "list.txt") == 0
    assert scan(example / "null.npz", tmp_path / "s.parquet", *options, "--sets", tmp_path / "sets.txt", *of_sets) == 0
    of_variants, found = (metadata(tmp_path / f"{name}.parquet")["largest"] for name in "vs")
    for how in ("fixed", "burden", "acat"):
        for test, ending in {"any": "", "common": ".common", "trait:weight": ".trait:weight"}.items():
            np.testing.assert_allclose(found[how + ending], of_variants[test], rtol=1e-4)


def test_missing_cells_and_independent_samples(example: Path, tmp_path: Path) -> None:
    missing, independent = fit_missing_and_independent(tmp_path)
    for null in (missing, independent):
        out = tmp_path / "s.parquet"
        assert scan(null, out, *OPTIONS, "--bootstrap", "9", "--region", "1:1-16000000") == 0
        largest = metadata(out)["largest"]
        assert all(0.2 < np.median(largest[how]) < 3 for how in HOW)


def test_leads_by_the_threshold_over_the_scan(whole: Path, capfd) -> None:
    options = ("--leads", "--significance", "gw:0.05", "--columns", "SET,MLOG10P_SET_GW.skat")
    capfd.readouterr()
    assert kron2sum("export", "-q", whole / "null.parquet", *options) == 0
    rows = [line.split("\t") for line in capfd.readouterr().out.splitlines()[1:]]
    assert rows and all(float(value) >= -np.log10(0.05) for _, value in rows[:1])
    picture = whole / "sets.svg"
    options = ("--plot", "manhattan", "--significance", "gw:0.05", "--out", picture)
    assert kron2sum("export", "-q", whole / "null.parquet", *options) == 0
    assert picture.stat().st_size > 1000
