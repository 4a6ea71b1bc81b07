"""The result table: its columns, its bytes, and what is refused."""

import csv
import io
import json
import os
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_metadata_of import scan_metadata_of

from kron2sum_cli.errors import InputError, NumericalError, UsageError
from kron2sum_cli.files import table_writers
from kron2sum_cli.files.scan_columns import COLUMNS, column_of, scan_schema, set_schema
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.files.scan_table import ScanWriter, open_scan, scan_batch
from kron2sum_cli.files.table_writers import rows_in_group

METADATA = scan_metadata_of(["a", "b"], Span(((0, 9),), ((0, 9),), 9), ["common"], filters={"ü": 1.5})
SCHEMA = scan_schema(["a", "b"], ["common"], refit=True)
VARIANT = ["CHR", "POS", "SNPID", "EA", "NEA", "EAF", "N"]


def make_batch(rows: int, schema: pa.Schema = SCHEMA, seed: int = 0) -> pa.RecordBatch:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for field in schema:
        if pa.types.is_string(field.type):
            columns[field.name] = [f"{field.name}{i}" for i in range(rows)]
        elif pa.types.is_integer(field.type):
            columns[field.name] = np.arange(rows)
        else:
            values = random.normal(size=rows)
            values[random.random(rows) < 0.1] = np.nan
            columns[field.name] = values
    return scan_batch(schema, columns)


def written(batches: list[pa.RecordBatch], to: str = "parquet", schema: pa.Schema = SCHEMA) -> bytes:
    file = io.BytesIO()
    with ScanWriter(file, schema, to, METADATA) as writer:
        for batch in batches:
            writer.write(batch)
    return file.getvalue()


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(table_writers, "_SMALLEST_GROUP", 8)
    monkeypatch.setattr(table_writers, "LARGEST_GROUP", 16)
    return 16


def test_columns_and_types_in_order():
    names = [*VARIANT, "CHISQ", "DF", "P", "MLOG10P", "CHISQ_REFIT", "MLOG10P_REFIT"]
    names += ["BETA.a", "SE.a", "MLOG10P.a", "BETA.b", "SE.b", "MLOG10P.b"]
    names += ["BETA_REFIT.a", "SE_REFIT.a", "BETA_REFIT.b", "SE_REFIT.b"]
    names += ["CHISQ.common", "DF.common", "MLOG10P.common", "CHISQ_REFIT.common", "MLOG10P_REFIT.common"]
    names += ["AXIS.1", "AXIS.2"]
    assert SCHEMA.names == names
    types = {"CHR": "string", "POS": "int64", "SNPID": "string", "EA": "string", "NEA": "string"}
    types |= {"N": "int32", "DF": "int32", "DF.common": "int32"}
    assert {field.name: str(field.type) for field in SCHEMA} == {name: types.get(name, "double") for name in names}


def test_a_trait_with_the_name_of_a_test_is_refused():
    with pytest.raises(UsageError, match="trait any: is the name of the test of an effect on any trait; rename it"):
        scan_schema(["a", "any"], [])
    with pytest.raises(UsageError, match=r"two columns would be called MLOG10P.common"):
        scan_schema(["a", "common"], ["common"])


def test_without_refit_and_tests():
    names = [*VARIANT, "CHISQ", "DF", "P", "MLOG10P", "BETA.a", "SE.a", "MLOG10P.a", "AXIS.1"]
    assert scan_schema(["a"], []).names == names


def test_with_dosages():
    assert scan_schema(["a"], [], dosages=True).names[5:9] == ["EAF", "N", "INFO", "CHISQ"]


def test_trait_and_test_of_one_name_are_refused():
    with pytest.raises(UsageError, match="MLOG10P.common"):
        scan_schema(["common"], ["common"])


def test_round_trip(tmp_path):
    path = tmp_path / "scan.parquet"
    batch = make_batch(1000)
    path.write_bytes(written([batch]))
    scan = open_scan(str(path))
    assert scan.metadata.to_json() == METADATA.to_json()
    assert scan.num_rows == 1000
    assert scan.schema.equals(SCHEMA)
    assert pa.Table.from_batches(scan.iter_batches()).combine_chunks().equals(pa.Table.from_batches([batch]))
    assert pq.read_schema(path).metadata[b"kron2sum"].decode() == METADATA.to_json()


def test_nan_is_an_empty_cell():
    batch = make_batch(1000)
    column = batch.column("CHISQ")
    assert column.null_count > 0
    assert not np.isnan(column.drop_null().to_numpy()).any()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_no_number_never_passes(value):
    columns = {name: make_batch(5).column(name) for name in SCHEMA.names}
    columns["SE.b"] = pa.array([1.0, 2.0, value, 3.0, None])
    with pytest.raises(NumericalError, match=r"variant SNPID2: SE.b is (inf|-inf|nan)"):
        written([scan_batch(SCHEMA, columns)])


@settings(max_examples=30)
@given(st.lists(st.integers(0, 40), max_size=12))
def test_bytes_do_not_depend_on_batches(sizes):
    """Nor on the order in which the rows arrive at the writer: 16 rows make a row group here."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(table_writers, "_SMALLEST_GROUP", 8)
        monkeypatch.setattr(table_writers, "LARGEST_GROUP", 16)
        whole = make_batch(sum(sizes))
        edges = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        cut = [whole.slice(a, b - a) for a, b in pairwise(edges)]
        for to in ("parquet", "tsv", "csv"):
            assert written(cut, to) == written([whole], to)


def test_row_groups_have_a_fixed_size(tmp_path, small_groups):
    (tmp_path / "x").write_bytes(written([make_batch(3), make_batch(50), make_batch(1)]))
    metadata = pq.read_metadata(tmp_path / "x")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [16, 16, 16, 6]


def test_rows_in_group_bounds_memory():
    for p in (1, 2, 10, 100, 1000):
        schema = scan_schema([f"t{i}" for i in range(p)], [], refit=True)
        rows = rows_in_group(schema)
        assert 1024 <= rows <= 65536
        assert rows * len(schema) * 8 <= max(16 << 20, 1024 * len(schema) * 8)


def test_metadata_can_come_last():
    file = io.BytesIO()
    with ScanWriter(file, SCHEMA) as writer:
        writer.write(make_batch(3))
        writer.metadata = METADATA
    assert file.getvalue() == written([make_batch(3)])


def test_no_rows(tmp_path):
    (tmp_path / "x").write_bytes(written([]))
    assert open_scan(str(tmp_path / "x")).num_rows == 0
    assert written([], "tsv") == ("\t".join(SCHEMA.names) + "\n").encode()
    assert json.loads(written([], "json")) == []


def test_parquet_through_a_pipe(tmp_path):
    """No seeking and no telling: standard output may be a pipe."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as file, ScanWriter(file, SCHEMA, metadata=METADATA) as writer:
        writer.write(make_batch(10))
    with os.fdopen(read_end, "rb") as file:
        assert file.read() == written([make_batch(10)])


def test_failed_table_has_no_end(tmp_path):
    path = tmp_path / "x"

    def fail():
        with open(path, "wb") as file, ScanWriter(file, SCHEMA) as writer:
            writer.write(make_batch(10))
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert not path.read_bytes().endswith(b"PAR1") or path.stat().st_size == 4
    with pytest.raises(InputError):
        open_scan(str(path))


def test_full_disk_says_nothing_by_itself():
    """Arrow ends its file when it is destroyed, which must not fail aloud a second time."""
    code = """
import sys, numpy, pyarrow as pa
from kron2sum_cli.files.scan_columns import scan_schema
from kron2sum_cli.files.scan_table import ScanWriter, scan_batch
schema = scan_schema(["a"], [])
class Full:
    def write(self, data): raise OSError(28, "No space left on device")
try:
    with ScanWriter(Full(), schema) as writer:
        columns = {f.name: ["x"] * 70000 if f.type == pa.string() else numpy.zeros(70000) for f in schema}
        writer.write(scan_batch(schema, columns))
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "28\n", "")


@pytest.mark.parametrize(("to", "separator"), [("tsv", "\t"), ("csv", ",")])
def test_text_reads_back_the_same(to, separator):
    batch = make_batch(300)
    rows = list(csv.DictReader(io.StringIO(written([batch], to).decode()), delimiter=separator))
    assert len(rows) == 300
    for row, true in zip(rows, batch.to_pylist(), strict=True):
        for name, value in true.items():
            cell = row[name]
            assert cell == "NA" if value is None else type(value)(cell) == value


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_floats_are_exact_in_text(values):
    schema = pa.schema([("BETA.a", pa.float64())])
    lines = written([pa.record_batch([pa.array(values)], schema=schema)], "tsv", schema).decode().split("\n")
    assert [float(line) for line in lines[1:-1]] == values


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=8))
def test_any_text_is_quoted_where_it_must_be(values):
    schema = pa.schema([("SNPID", pa.string()), ("POS", pa.int64())])
    batch = pa.record_batch([pa.array(values), pa.array(range(len(values)))], schema=schema)
    for to, separator in (("csv", ","), ("tsv", "\t")):
        text = written([batch], to, schema).decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
        assert rows[1:] == [[value, str(i)] for i, value in enumerate(values)]


def test_json_is_a_list_of_rows():
    batch = make_batch(20)
    assert json.loads(written([batch.slice(0, 3), batch.slice(3)], "json")) == batch.to_pylist()


def test_columns_of_similar_names_are_told_apart(tmp_path):
    (tmp_path / "x").write_bytes(written([make_batch(5)]))
    (batch,) = open_scan(str(tmp_path / "x")).iter_batches(["MLOG10P", "CHISQ"])
    assert batch.schema.names == ["MLOG10P", "CHISQ"]


def test_foreign_files_are_refused_with_what_they_are(tmp_path):
    foreign = {
        "empty": (b"", "is empty"),
        "text.tsv": (b"CHR\tPOS\n1\t2\n", "is text.*keep the .parquet"),
        "null.npz": (b"PK\x03\x04", "null model"),
        "x.gz": (b"\x1f\x8b\x08\x00", "gzip"),
        "x.bed": (b"\x6c\x1b\x01\xff", "PLINK .bed"),
        "other": (b"\x00\x01\x02\x03", "another kind"),
        "head": (b"PAR1", "only in part"),
    }
    for name, (content, message) in foreign.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            open_scan(str(tmp_path / name))
    with pytest.raises(InputError, match="nothing: cannot be read"):
        open_scan(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="cannot be read"):
        open_scan(str(tmp_path))


def test_foreign_parquet_is_refused(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x")
    with pytest.raises(InputError, match="not one of kron2sum scan"):
        open_scan(str(tmp_path / "x"))


def test_a_table_that_another_program_wrote_again_is_refused_as_such(tmp_path):
    (tmp_path / "scan").write_bytes(written([make_batch(20)]))
    pq.write_table(pq.read_table(tmp_path / "scan").slice(5), tmp_path / "again")
    with pytest.raises(InputError, match="another program has written this table of kron2sum scan again"):
        open_scan(str(tmp_path / "again"))


def read_all(path: Path) -> list[Any]:
    return [batch.to_pylist() for batch in open_scan(str(path)).iter_batches()]


def test_truncated_tables_are_refused(tmp_path):
    content = written([make_batch(200)])
    path = tmp_path / "x"
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="x: "):
            read_all(path)


def test_damaged_tables_never_give_other_numbers(tmp_path):
    """One bit of the data flipped: the checksum of the page does not match."""
    content = bytearray(written([make_batch(200)]))
    path = tmp_path / "x"
    path.write_bytes(content)
    true = read_all(path)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    random = np.random.default_rng(1)
    for position in random.integers(4, footer, size=150):
        damaged = bytearray(content)
        damaged[position] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        with suppress(InputError):
            assert read_all(path) == true


def test_every_column_is_declared_once_and_found_by_its_names():
    assert len({(column.name, column.of) for column in COLUMNS}) == len(COLUMNS)
    for schema in (SCHEMA, scan_schema(["a"], ["b"], counted=True, coupled=True), set_schema(["common"])):
        for field in schema:
            column = column_of(field.name)
            assert column is not None
            assert field.type == column.type
    assert column_of("COV.a.b") is not None
    assert [column_of(name) for name in ("INFO.1", "AXIS", "COV", "x", "")] == [None] * 5


@pytest.mark.parametrize(("name", "message"), [("INFO.1", "does not write"), ("BET.a", "does not write")])
def test_columns_of_other_programs_and_versions_are_refused(tmp_path, name, message):
    schema = pa.schema([("SNPID", pa.string()), (name, pa.float64())])
    (tmp_path / "x").write_bytes(written([], schema=schema))
    with pytest.raises(InputError, match=f"x: .*{name}.*{message}"):
        open_scan(str(tmp_path / "x"))
