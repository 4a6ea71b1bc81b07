"""GWAS-SSF: what the standard demands stands where it demands it, and equals the scan."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_views import column, opened, simulated, view_of

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.export.results import ScanResults
from kron2sum_cli.export.ssf import (
    ENCOURAGED,
    MANDATORY,
    METADATA_SUFFIX,
    NAME_IN_FILE,
    OTHER_ALLELES,
    WITHOUT_CHROMOSOME,
    WITHOUT_POSITION,
    WITHOUT_STATISTICS,
    SsfTables,
    ssf_metadata,
    ssf_paths,
    write_ssf,
)

TRAITS = ("height", "weight")
DAY = date(2024, 2, 29)


def written(view: ScanResults) -> tuple[dict[str, bytes], SsfTables]:
    files = {trait: io.BytesIO() for trait in view.traits}
    tables = write_ssf(view, files)
    return {trait: file.getvalue() for trait, file in files.items()}, tables


def rows_of(text: bytes) -> list[dict[str, str]]:
    header, *lines = text.decode().splitlines()
    names = header.split("\t")
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]


def test_columns_stand_in_the_order_of_the_standard_and_the_joint_tests_after_them() -> None:
    view = view_of(simulated(30, TRAITS, ("common",), refit=True), TRAITS, ("common",), refit=True)
    header = written(view)[0]["height"].splitlines()[0].decode().split("\t")
    kinds = ("chi_square", "degrees_of_freedom", "neg_log_10_p_value", "refit_chi_square", "refit_neg_log_10_p_value")
    further = [f"{test}_{kind}" for test in ("joint", "test_common") for kind in kinds]
    assert header == [*MANDATORY, *ENCOURAGED, NAME_IN_FILE, *further]
    assert MANDATORY == (
        "chromosome",
        "base_pair_location",
        "effect_allele",
        "other_allele",
        "beta",
        "standard_error",
        "effect_allele_frequency",
        "neg_log_10_p_value",
    )


@pytest.mark.parametrize("batch_rows", [7, 1000])
def test_every_trait_has_its_statistics_exactly(tmp_path: Path, batch_rows: int) -> None:
    columns = simulated(200, TRAITS)
    files, tables = written(view_of(columns, TRAITS, batch_rows=batch_rows))
    view = opened(tmp_path / "scan.parquet", columns, TRAITS)
    has = [value is not None for value in column(view, "MLOG10P")]
    assert tables.left_out == {WITHOUT_STATISTICS: has.count(False)}
    for trait in TRAITS:
        rows = rows_of(files[trait])
        assert len(rows) == tables.rows == sum(has)
        for ours, theirs in {
            "base_pair_location": "POS",
            "beta": f"BETA.{trait}",
            "standard_error": f"SE.{trait}",
            "effect_allele_frequency": "EAF",
            "neg_log_10_p_value": f"MLOG10P.{trait}",
            "n": "N",
            "joint_chi_square": "CHISQ",
            "joint_neg_log_10_p_value": "MLOG10P",
        }.items():
            expected = [value for value, kept in zip(column(view, theirs), has, strict=True) if kept]
            assert [float(row[ours]) for row in rows] == expected


def one_row(**changes: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "CHR": ["1"], "POS": [5], "SNPID": ["rs1"], "EA": ["A"], "NEA": ["G"], "EAF": [0.25], "N": [9],
        "CHISQ": [1.5], "DF": [1], "P": [0.25], "MLOG10P": [0.5],
        "BETA.y": [0.125], "SE.y": [0.5], "MLOG10P.y": [0.5], "AXIS.1": [4.0],
    }  # fmt: skip
    return columns | {name.replace("_", "."): [value] for name, value in changes.items()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"CHR": "0"}, WITHOUT_CHROMOSOME),
        ({"CHR": "scaffold_3"}, WITHOUT_CHROMOSOME),
        ({"CHR": "27"}, WITHOUT_CHROMOSOME),
        ({"POS": 0}, WITHOUT_POSITION),
        ({"POS": -9}, WITHOUT_POSITION),
        ({"EA": "I"}, OTHER_ALLELES),
        ({"NEA": "<DEL>"}, OTHER_ALLELES),
        ({"NEA": ""}, OTHER_ALLELES),
        ({"SE_y": None}, WITHOUT_STATISTICS),
        ({"EAF": None}, WITHOUT_STATISTICS),
        ({"SE_y": None, "CHR": "0"}, WITHOUT_STATISTICS),
    ],
)
def test_what_the_standard_has_no_room_for_is_left_out_and_counted(change: dict[str, Any], reason: str) -> None:
    files, tables = written(view_of(one_row(**change), ["y"]))
    assert tables.left_out == {reason: 1}
    assert rows_of(files["y"]) == []


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("22", "22"), ("chr7", "7"), ("X", "23"), ("chrX", "23"), ("23", "23"), ("XY", "23"), ("25", "23"),
        ("Y", "24"), ("24", "24"), ("MT", "25"), ("M", "25"), ("26", "25"),
    ],
)  # fmt: skip
def test_chromosomes_are_the_standards_numbers(code: str, number: str) -> None:
    (row,) = rows_of(written(view_of(one_row(CHR=code), ["y"]))[0]["y"])
    assert row["chromosome"] == number


@pytest.mark.parametrize(
    ("name", "variant_id", "rsid"),
    [
        ("rs12", "#NA", "rs12"),
        ("rs12_A", "#NA", "#NA"),
        ("1_5_A_G", "1_5_A_G", "#NA"),
        ("1:5:A:G", "#NA", "#NA"),
        ("26_5_A_G", "#NA", "#NA"),
        ("Affx-1", "#NA", "#NA"),
    ],
)
def test_names_go_where_they_fit_and_are_kept_as_they_are(name: str, variant_id: str, rsid: str) -> None:
    (row,) = rows_of(written(view_of(one_row(SNPID=name), ["y"]))[0]["y"])
    assert (row["variant_id"], row["rsid"], row[NAME_IN_FILE]) == (variant_id, rsid, name)


def test_alleles_are_in_capitals_and_empty_cells_have_the_standards_word() -> None:
    columns = one_row(EA="acg", CHISQ_REFIT=None)
    columns |= {"CHISQ_REFIT": [None], "MLOG10P_REFIT": [None], "BETA_REFIT.y": [None], "SE_REFIT.y": [None]}
    (row,) = rows_of(written(view_of(columns, ["y"], refit=True))[0]["y"])
    assert row["effect_allele"] == "ACG"
    assert row["joint_refit_chi_square"] == "#NA"


def test_a_p_value_of_one_is_not_written_as_zero_which_the_validator_refuses() -> None:
    (row,) = rows_of(written(view_of(one_row(BETA_y=0.0, MLOG10P_y=0.0), ["y"]))[0]["y"])
    assert float(row["neg_log_10_p_value"]) > 0
    assert 10 ** -float(row["neg_log_10_p_value"]) == 1.0


def test_the_same_bytes_however_the_rows_come() -> None:
    columns = simulated(500, TRAITS)
    assert written(view_of(columns, TRAITS)) == written(view_of(columns, TRAITS, batch_rows=64))


@given(st.lists(st.tuples(st.sampled_from("123X"), st.integers(1, 4)), min_size=1), st.integers(1, 5))
def test_sorted_is_said_of_sorted_tables_alone(places: list[tuple[str, int]], batch_rows: int) -> None:
    codes, positions = zip(*places, strict=True)
    columns = {name: values * len(places) for name, values in one_row().items()}
    columns |= {"CHR": list(codes), "POS": list(positions)}
    _, tables = written(view_of(columns, ["y"], batch_rows=batch_rows))
    key = [(23 if code == "X" else int(code), position) for code, position in places]
    assert tables.is_sorted == (key == sorted(key))


def test_a_table_without_a_column_is_refused_by_name() -> None:
    view = view_of(simulated(5, TRAITS), TRAITS)
    others = tuple(name for name in view.columns if name != "SE.weight")
    lacking = replace(view, name="s.parquet", columns=others)
    with pytest.raises(InputError, match=r"s\.parquet: has no column SE\.weight"):
        written(lacking)


# Names of files


def test_each_trait_has_a_file_and_its_metadata_beside_it() -> None:
    assert ssf_paths("a/results", TRAITS) == {trait: f"a/results.{trait}.tsv.gz" for trait in TRAITS}
    assert ssf_paths("r.tsv", ["a b"]) == {"a b": "r.a_b.tsv"}
    assert ssf_paths("r.tsv.gz", ["å"]) == {"å": "r._.tsv.gz"}


def test_names_of_files_must_differ_and_be_files() -> None:
    with pytest.raises(UsageError, match="a/b and a_b would both be written to r.a_b.tsv.gz; .*--trait"):
        ssf_paths("r", ["a/b", "a_b"])
    with pytest.raises(UsageError, match="--out"):
        ssf_paths("-", TRAITS)


# Metadata


def test_metadata_say_what_the_scan_knows_and_no_more(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    view = view_of(simulated(50, TRAITS), TRAITS)
    (tmp_path / "out.weight.tsv").write_bytes(b"chromosome\n")
    content = yaml.safe_load(ssf_metadata(view, "weight", str(tmp_path / "out.weight.tsv"), True, DAY))
    notes = content.pop("author_notes")
    assert "height, weight" in notes and "joint_" in notes
    assert content == {
        "date_metadata_last_modified": DAY,
        "trait_description": ["weight"],
        "genome_assembly": "unknown",
        "coordinate_system": "1-based",
        "samples": [{"sample_size": 1000}],
        "data_file_name": "out.weight.tsv",
        "file_type": "GWAS-SSF v1.0",
        "data_file_md5sum": hashlib.md5(b"chromosome\n").hexdigest(),
        "analysis_software": "kron2sum 1.2.3",
        "adjusted_covariates": ["age"],
        "is_harmonised": False,
        "is_sorted": True,
    }


def test_without_covariates_there_is_no_list_of_them() -> None:
    view = view_of(one_row(), ["y"])
    null = replace(view.metadata.null, covariates=("intercept",))
    view = replace(view, metadata=replace(view.metadata, null=null))
    text = ssf_metadata(view, "y", os.devnull, True, DAY)
    assert "adjusted_covariates" not in text and "is_sorted: true" in text
    assert "Linear mixed model of y" in text and "joint_" not in text


@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1))
def test_a_trait_of_any_name_is_read_back(trait: str) -> None:
    text = ssf_metadata(view_of(one_row(), ["y"]), trait, os.devnull, True, DAY)
    (line,) = [line for line in text.split("\n") if line.startswith('  - "')][:1]
    assert json.loads(line.removeprefix("  - ")) == trait
    with suppress(ImportError):
        import yaml  # not among what the tests install

        assert yaml.safe_load(text)["trait_description"] == [trait]


# The validator of the GWAS Catalog


@pytest.mark.skipif(shutil.which("gwas-ssf") is None, reason="pip install gwas-sumstats-tools, in its own environment")
def test_the_validator_of_the_gwas_catalog_passes_our_files(tmp_path: Path) -> None:
    chromosomes = [*map(str, range(1, 23)), "X", "Y", "MT"]
    columns = simulated(3000, TRAITS, ("common",), refit=True, chromosomes=chromosomes)
    view = view_of(columns, TRAITS, ("common",), refit=True)
    files, tables = written(view)
    for trait in TRAITS:
        path = tmp_path / f"out.{trait}.tsv.gz"
        path.write_bytes(gzip.compress(files[trait]))
        metadata = ssf_metadata(view, trait, str(path), tables.is_sorted, DAY)
        Path(f"{path}{METADATA_SUFFIX}").write_text(metadata, encoding="utf-8")
        done = subprocess.run(["gwas-ssf", "validate", "-i", "-m", "1000", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert "Data table is valid" in done.stdout


def test_lengths_of_arrow_batches_without_rows_do_no_harm() -> None:
    view = view_of({name: np.array(values)[:0] if name != "CHR" else [] for name, values in one_row().items()}, ["y"])
    empty = replace(view, rows=lambda names: iter([pa.RecordBatch.from_pylist([])]))
    for none in (view, empty):
        files, tables = written(none)
        assert rows_of(files["y"]) == [] and tables.left_out == {} and tables.is_sorted
