"""False discovery rates, shares of variance and intervals of loci against their definitions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from numpy.typing import NDArray
from scan_metadata_of import scan_metadata_of
from scan_views import simulated, view_of
from scipy import stats

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.export.computed_columns import effects_of_a_trait, explained_variance, false_discovery_rates
from kron2sum_cli.export.export import export
from kron2sum_cli.export.genome import read_genome
from kron2sum_cli.export.loci import Clumping, bayes_interval, find_loci, locus_intervals, lod_interval
from kron2sum_cli.files.scan_columns import scan_schema
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.files.scan_table import ScanWriter, scan_batch
from kron2sum_cli.progress import NoProgress
from kron2sum_cli.settings import ExportSettings

Array = NDArray[np.float64]
TRAITS = ["height", "weight"]
SIZE = 600


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("scan.parquet", 0, SIZE)


def write(path: str, start: int, stop: int) -> None:
    schema = scan_schema(TRAITS, ["common"])
    metadata = scan_metadata_of(TRAITS, Span(((start, stop),), ((0, SIZE),), SIZE), ["common"])
    batch = scan_batch(schema, simulated(SIZE, TRAITS, ("common",), seed=3, peaks=5))
    with open(path, "wb") as file, ScanWriter(file, schema, metadata=metadata) as writer:
        writer.write(batch.slice(start, stop - start))


def exported(*inputs: str, **options: object) -> pd.DataFrame:
    export(ExportSettings(inputs=inputs, out="out.parquet", to="parquet", **options), NoProgress())  # type: ignore[arg-type]
    return pq.read_table("out.parquet").to_pandas()


# False discovery rates


@given(hn.arrays(float, st.integers(1, 40), elements=st.floats(0, 12) | st.just(float("nan"))))
def test_rates_are_those_of_scipy(mlog10p: Array) -> None:
    known = ~np.isnan(mlog10p)
    rates = false_discovery_rates(mlog10p)
    assert np.isnan(rates[~known]).all()
    if known.any():
        np.testing.assert_allclose(rates[known], stats.false_discovery_control(10 ** -mlog10p[known]), rtol=1e-10)


def test_p_values_below_the_smallest_double_keep_their_order() -> None:
    rates = false_discovery_rates(np.array([400.0, 3.0, 300.0, np.nan]))
    np.testing.assert_allclose(rates[[0, 1, 2]], [0.0, 1e-3, 1.5e-300])


def test_every_test_has_rates_over_the_whole_scan_whatever_its_parts() -> None:
    write("a.parquet", 0, 250)
    write("b.parquet", 250, SIZE)
    table = exported("scan.parquet", fdr=True)
    assert [name for name in table if name.startswith("FDR")] == ["FDR", "FDR.height", "FDR.weight", "FDR.common"]
    for name in ("", ".height", ".weight", ".common"):
        known = table[f"MLOG10P{name}"].notna()
        expected = stats.false_discovery_control(10 ** -table[f"MLOG10P{name}"][known])
        np.testing.assert_allclose(table[f"FDR{name}"][known], expected, rtol=1e-10)
        assert table[f"FDR{name}"][~known].isna().all()
    pd.testing.assert_frame_equal(exported("b.parquet", "a.parquet", fdr=True), table)
    top = exported("scan.parquet", fdr=True, top=3, columns=("SNPID", "FDR"))
    pd.testing.assert_frame_equal(top, table.nlargest(3, "MLOG10P")[["SNPID", "FDR"]].reset_index(drop=True))


def test_rates_go_with_further_tests_and_with_chosen_traits() -> None:
    table = exported("scan.parquet", fdr=True, tests=("specific",), traits=("weight",))
    assert [name for name in table if name.startswith("FDR")] == ["FDR", "FDR.weight", "FDR.common", "FDR.specific"]


def test_a_table_of_some_rows_has_no_rates() -> None:
    exported("scan.parquet", p_below=0.1)
    Path("out.parquet").rename("some.parquet")
    with pytest.raises(InputError, match="some.parquet: has only some rows of a scan .--p-below."):
        exported("some.parquet", fdr=True)
    with pytest.raises(UsageError, match="--fdr: for tables only"):
        ExportSettings(fdr=True, plot="qq", out="qq.png")


def test_pictures_of_some_rows_warn(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("matplotlib")
    exported("scan.parquet", p_below=0.1)
    Path("out.parquet").rename("some.parquet")
    for name, said in (("some.parquet", 1), ("scan.parquet", 0)):
        caplog.clear()
        export(ExportSettings(inputs=(name,), plot="qq", out="qq.png"), NoProgress())
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == said and all("only some rows of a scan (--p-below)" in text for text in warnings)


# Shares of variance


@pytest.mark.parametrize("reml", [True, False])
def test_the_share_of_one_trait_is_that_of_least_squares(reml: bool) -> None:
    """In independent samples both are the partial R² of the regression, whatever the scale of the tests counts."""
    random = np.random.default_rng(1)
    n, c = 40, 12
    X = np.column_stack([np.ones(n), random.normal(size=(n, c - 1))])
    x, y = random.binomial(2, 0.3, n).astype(float), random.normal(size=n)
    x, y = (each - X @ np.linalg.lstsq(X, each)[0] for each in (x, y + 0.5 * x))
    beta = x @ y / (x @ x)
    residual = y - beta * x
    r2 = 1 - residual @ residual / (y @ y)
    size = n - c if reml else n
    se = np.sqrt(residual @ residual / size / (x @ x))
    columns = {"N": [n], "CHISQ": [-size * np.log1p(-r2)], "BETA.y": [beta], "SE.y": [se]}
    found = explained_variance(pa.RecordBatch.from_pydict(columns), ["y"], n - size)
    assert found["PVE"][0] == pytest.approx(r2) and found["PVE.y"][0] == pytest.approx(r2)


def test_the_scale_of_tests_does_not_count_fixed_effects_but_by_ml() -> None:
    metadata = scan_metadata_of(TRAITS, Span(((0, SIZE),), ((0, SIZE),), SIZE), [])
    null, (scale, *_) = replace(metadata.null, samples=90, observed={"weight": 70}), metadata.nulls
    for size, expected in ((160 - 2 * 7, 7), (160, 0)):
        assert effects_of_a_trait(replace(metadata, null=null, nulls=(replace(scale, size=size),))) == expected


def test_shares_are_columns_by_name_and_by_their_word() -> None:
    table = exported("scan.parquet", columns=("SNPID", "pve"))
    assert list(table) == ["SNPID", "PVE", "PVE.height", "PVE.weight"]
    stored = pq.read_table("scan.parquet").to_pandas()
    metadata = scan_metadata_of(TRAITS, Span(((0, SIZE),), ((0, SIZE),), SIZE), ["common"])
    number = stored["N"] - effects_of_a_trait(metadata)
    np.testing.assert_allclose(table["PVE"], 1 - np.exp(-stored["CHISQ"] / (2 * number)))
    weight = stored["BETA.weight"] ** 2 / (stored["BETA.weight"] ** 2 + number * stored["SE.weight"] ** 2)
    np.testing.assert_allclose(exported("scan.parquet", columns=("PVE.weight",))["PVE.weight"], weight)
    assert "PVE" not in exported("scan.parquet")


# Intervals

LODS = hn.arrays(float, st.integers(1, 30), elements=st.floats(0, 15))


@given(LODS, st.data())
def test_intervals_are_those_of_r_qtl(lod: Array, data: st.DataObject) -> None:
    """Line by line what lodint and bayesint of R/qtl do, without expandtomarkers."""
    steps = data.draw(hn.arrays(np.int64, len(lod), elements=st.integers(0, 9)))
    positions = 1 + np.cumsum(steps)
    above = [k for k in range(len(lod)) if lod[k] > max(lod) - 1.5]
    first, last = max(above[0] - 1, 0), min(above[-1] + 1, len(lod) - 1)
    assert lod_interval(positions, lod) == (positions[first], positions[last])
    location = [positions[0], *positions, positions[-1]]
    area = [10 ** lod[k] * (location[k + 2] - location[k]) / 2 for k in range(len(lod))]
    if sum(area) > 0:
        order = sorted(range(len(lod)), key=lambda k: -lod[k])
        total, chosen = 0.0, []
        for k in order:
            chosen.append(k)
            total += area[k]
            if total / sum(area) >= 0.95 - 1e-12:
                break
        assert bayes_interval(positions, lod) == (positions[min(chosen)], positions[max(chosen)])


def peaks(mlog10p: list[float], positions: list[int]) -> dict[str, object]:
    size = len(positions)
    columns = simulated(size, ["y"], peaks=0) | {"CHR": ["1"] * size, "POS": np.array(positions)}
    p = 10 ** -np.array(mlog10p)
    return columns | {"MLOG10P": mlog10p, "MLOG10P.y": mlog10p, "CHISQ": stats.chi2.isf(p, 1)}


def test_an_interval_ends_where_a_stronger_variant_stands_or_the_window_ends() -> None:
    positions = [100, 200, 300, 400, 500, 600]
    view = view_of(peaks([8.0, 2.0, 9.5, 9.4, 9.3, 1.0], positions), ["y"])
    genome = read_genome(view)
    for window, expected in ((50, [(300, 300), (400, 400), (500, 500), (100, 100)]), (10_000, [(100, 600)])):
        loci = find_loci(view, genome, view.all_tests, [], Clumping(1e-5, window))
        found = [interval.lod for interval in locus_intervals(view, genome, loci, window)]
        assert found == expected
    loci = find_loci(view, genome, view.all_tests, [], Clumping(1e-5, 150))
    by_lead = dict(zip(loci.together.leads.tolist(), locus_intervals(view, genome, loci, 10_000), strict=True))
    assert by_lead[2].lod == (100, 600) and by_lead[0].lod == (100, 200)


def test_leads_have_the_intervals_of_the_test_in_which_they_are_strongest() -> None:
    table = exported("scan.parquet", leads=True, significance=1e-6)
    assert len(table) > 2
    tests = {
        "joint test": "MLOG10P",
        "height": "MLOG10P.height",
        "weight": "MLOG10P.weight",
        "common": "MLOG10P.common",
    }
    for _, row in table.iterrows():
        assert row[tests[row["LEAD_TEST"]]] == max(row[column] for column in tests.values())
        for kind in ("LOD", "BAYES"):
            assert row[f"{kind}_FROM"] <= row["POS"] <= row[f"{kind}_TO"]
        assert 0 < row["PVE"] < 1


def test_variants_without_a_position_have_no_interval() -> None:
    columns = peaks([9.0, 8.0, 1.0], [0, 0, 0]) | {"CHR": ["0"] * 3}
    view = view_of(columns, ["y"])
    genome = read_genome(view)
    loci = find_loci(view, genome, view.all_tests, [], Clumping(1e-5))
    assert [interval.lod for interval in locus_intervals(view, genome, loci, 500)] == [None, None]
