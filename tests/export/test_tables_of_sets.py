"""Tables of sets: rows chosen by any way to test sets, lead sets, pictures and the report."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scan_metadata_of import scan_metadata_of

from kron2sum_cli.cli import run
from kron2sum_cli.files.scan_columns import set_schema
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.files.scan_table import ScanWriter, scan_batch

SIZE = 200
TESTS = ("common", "trait:weight")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_sets(*ways: str, traits: tuple[str, ...] = ("height", "weight")) -> pd.DataFrame:
    """``sets.parquet``: genes of 30 kb every 100 kb on two chromosomes, one gene on both, one without variants."""
    random = np.random.default_rng(5)
    schema = set_schema(TESTS, ways)
    columns: dict[str, Any] = {name: random.exponential(1 / np.log(10), SIZE) for name in schema.names}
    columns |= {name: 10.0 ** -columns[f"MLOG10{name}"] for name in schema.names if name.partition(".")[0] == "P_SET"}
    start = np.tile(np.arange(SIZE // 2) * 100_000 + 1, 2).astype(object)
    columns |= {"START": start, "END": start + 29_999, "CHR": ["2"] * (SIZE // 2) + ["10"] * (SIZE // 2)}
    for name in ("CHR", "START", "END"):
        columns[name] = [None if k in (7, 8) else value for k, value in enumerate(columns[name])]
    counts = [name for name in schema.names if name.partition(".")[0] in ("NVAR", "NVAR_LEFT_OUT", "CARRIERS", "DF")]
    columns |= {name: random.integers(1, 30, SIZE) for name in counts}
    columns |= {"SET": [f"gene{k}" for k in range(SIZE)], "TOP": [f"rs{k}" for k in range(SIZE)]}
    for name in schema.names:
        if name.startswith(("MLOG10P", "P", "CHISQ", "TOP")):
            columns[name] = [None if k == 8 else value for k, value in enumerate(columns[name])]
    for name, (k, peak) in {"MLOG10P_SET.skat": (50, 9.0), "MLOG10P_SET.burden.common": (120, 6.5)}.items():
        if name in columns:
            columns[name][k] = peak
    if "P_SET.skat" in columns:
        columns["P_SET.skat"][50] = 1e-9
    metadata = scan_metadata_of(traits, Span(((0, SIZE),), ((0, SIZE),), SIZE), TESTS)
    with open("sets.parquet", "wb") as file, ScanWriter(file, schema, metadata=metadata) as writer:
        writer.write(scan_batch(schema, columns))
    return pd.DataFrame(columns)


def exported(*options: str) -> pd.DataFrame:
    assert run(["export", "sets.parquet", *options, "--out", "e.tsv", "-q"]) == 0
    return pd.read_csv("e.tsv", sep="\t", dtype={"CHR": str})


@pytest.mark.parametrize(
    ("ways", "column"),
    [
        (("skat", "burden"), "MLOG10P_SET.skat"),
        (("burden", "lr"), "MLOG10P_SET.burden"),
        (("fixed", "skat"), "MLOG10P"),
    ],
)
def test_the_first_way_to_test_sets_chooses_and_sorts(ways: tuple[str, ...], column: str) -> None:
    """A table with the statistics of fixed effects has the columns of variants, which go first."""
    table = write_sets(*ways)
    ranked = table[table[column].notna()].sort_values(column, ascending=False, kind="stable")
    assert exported("--top", "7")["SET"].tolist() == ranked["SET"].tolist()[:7]
    assert exported("--sort", "p")["SET"].tolist() == [*ranked["SET"], "gene8"]
    p = table["P" if column == "MLOG10P" else column.replace("MLOG10", "")]
    assert exported("--p-below", "0.01")["SET"].tolist() == table["SET"][p.astype(float) < 0.01].tolist()
    assert exported("--columns", f"SET,{column}", "--top", "2")["SET"].tolist() == ranked["SET"].tolist()[:2]


def test_which_test_chose_the_sets_is_said(caplog: pytest.LogCaptureFixture) -> None:
    write_sets("skat", "burden")
    with caplog.at_level("INFO", "kron2sum"):
        exported("--top", "3")
    assert "sets go by MLOG10P_SET.skat, the first of 2 tests" in caplog.text


def test_sets_sorted_by_position() -> None:
    table = write_sets("skat")
    found = exported("--sort", "position")
    assert found["SET"].tolist()[:7] == [f"gene{k}" for k in range(7)]
    assert found["SET"].tolist()[-2:] == ["gene7", "gene8"]  # without a place
    assert found["CHR"].dropna().tolist() == table["CHR"].dropna().tolist()


def test_lead_sets_by_bonferroni() -> None:
    write_sets("skat", "burden")
    found = exported("--leads")
    assert found["SET"].tolist() == ["gene50", "gene120"]  # 0.05 over 199 sets with a result
    assert found["LEAD_TEST"].tolist() == ["skat", "burden.common"]
    assert not {"LOD_FROM", "LOD_TO", "BAYES_FROM", "BAYES_TO"} & set(found.columns)
    assert exported("--leads", "--significance", "1e-8")["SET"].tolist() == ["gene50"]
    assert len(exported("--leads", "--significance", "0.05")) > 2


def test_lead_sets_are_the_strongest_within_the_window_from_middle_to_middle() -> None:
    table = write_sets("skat", "burden")
    tests = [name for name in table.columns if name.startswith("MLOG10P_SET")]
    best = table[tests].astype(float).max(axis=1)
    middle = (table["START"].astype(float) + table["END"].astype(float)) // 2
    expected, free = [], set(table.index[(best >= 1.5) & (table.index != 8)])
    for k in best.sort_values(ascending=False, kind="stable").index:
        if k in free:
            expected.append(f"gene{k}")
            near = (table["CHR"] == table["CHR"][k]) & ((middle - middle[k]).abs() <= 300_000)
            free -= {k, *table.index[near]}
    found = exported("--leads", "--significance", str(10**-1.5), "--clump-kb", "300")
    assert found["SET"].tolist() == sorted(expected, key=lambda name: int(name.removeprefix("gene")))


def test_pictures_of_sets() -> None:
    write_sets("skat", "burden", "omnibus")
    for options in (
        ("--plot", "manhattan"),
        ("--plot", "manhattan", "--test", "common", "--test", "any"),
        ("--plot", "qq", "--test", "trait:weight"),
        ("--plot", "qq"),
    ):
        assert run(["export", "sets.parquet", *options, "--out", "p.png", "-q"]) == 0
        assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    write_sets("fixed", "skat")
    assert run(["export", "sets.parquet", "--plot", "mirrored", "--out", "p.png", "-q"]) == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--plot", "qq", "--maf-classes"), 2, "--maf-classes: sets.parquet is a table of sets, which have no allele"),
        (("--plot", "effects"), 2, "--plot effects: sets.parquet is a table of sets, which have no effects"),
        (("--to", "ssf"), 2, "--to ssf: sets.parquet is a table of sets, which have no alleles and effects"),
        (("--leads", "--geno", "g.bed"), 2, "--geno: sets.parquet is a table of sets, which have no linkage"),
        (("--trait", "height"), 2, "--trait: sets.parquet is a table of sets, which have no columns of traits"),
        (("--plot", "manhattan", "--test", "specific"), 2, "--test specific: sets.parquet is a table of sets without"),
        (("--plot", "mirrored"), 2, "shows two tests, and this table of sets has 3 (skat, burden, acat)"),
        (("--test", "common"), 1, "a table of sets has no columns for --test and cov"),
    ],
)
def test_what_sets_do_not_have(
    options: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sets("skat", "burden", "acat")
    out = "p.png" if "--plot" in options else "e.tsv"
    assert run(["export", "sets.parquet", *options, "--out", out]) == code
    assert message in capsys.readouterr().err
    assert not Path(out).exists()


def test_the_report_of_sets() -> None:
    table = write_sets("skat", "burden")
    assert run(["export", "sets.parquet", "--report", "r.html", "-q"]) == 0
    page = Path("r.html").read_text()
    assert "199 sets were tested for effects on height, weight together" in page
    assert "2 loci have p ≤ 0.00025 in at least one test; the strongest is gene50" in page
    (row,) = (part for part in page.split("<tr>") if "gene50</" in part and "rs50" in part)
    assert "2:5.00 to 5.03" in row
    for name in ("NVAR", "CARRIERS"):
        assert f">{table[name][50]}<" in row
    assert f"{table['TOP_SHARE'][50]:.0%}" in row
    assert "lead variant" not in page and "EAF" not in page
