"""Export: tables joined, chosen, sorted and converted."""

import csv
import io
import json
import os
import re
import sys
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scan_metadata_of import scan_metadata_of

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.export import export as export_module
from kron2sum_cli.export import rows as row_selection
from kron2sum_cli.export.export import export
from kron2sum_cli.files import table_writers
from kron2sum_cli.files.scan_columns import scan_schema
from kron2sum_cli.files.scan_metadata import ScanMetadata, Span
from kron2sum_cli.files.scan_table import ScanWriter, open_scan, scan_batch
from kron2sum_cli.progress import NoProgress
from kron2sum_cli.settings import ExportSettings

TOTAL = 1000
TRAITS = ["height", "weight"]
SCHEMA = scan_schema(TRAITS, ["common"])


def metadata(start: int, stop: int, **changes: Any) -> ScanMetadata:
    span = Span(((start, stop),), ((0, TOTAL),), TOTAL)
    return scan_metadata_of(TRAITS, span, ["common"], counts={"variants read": stop - start}, **changes)


def make_rows() -> pa.RecordBatch:
    random = np.random.default_rng(3)
    mlog10p = np.round(random.exponential(size=TOTAL), 2)
    mlog10p[random.random(TOTAL) < 0.05] = np.nan
    columns: dict[str, Any] = {name: random.normal(size=TOTAL) for name in SCHEMA.names}
    columns |= {name: [f"{name}{i}" for i in range(TOTAL)] for name in ("SNPID", "EA", "NEA")}
    columns |= {name: np.full(TOTAL, 2) for name in ("N", "DF", "DF.common")}
    columns["CHR"] = [str(code) for code in random.choice(["2", "10", "X", "1", "contig"], size=TOTAL)]
    columns["POS"] = random.integers(1, 500, size=TOTAL)
    columns["MLOG10P"], columns["P"] = mlog10p, 10**-mlog10p
    return scan_batch(SCHEMA, columns)


ROWS = make_rows()
TABLE = pa.Table.from_batches([ROWS]).replace_schema_metadata(None)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """An empty folder, and row groups of 64 rows so that edges are met."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(table_writers, "_SMALLEST_GROUP", 32)
    monkeypatch.setattr(table_writers, "LARGEST_GROUP", 64)


def write_scan(path: str, start: int = 0, stop: int = TOTAL, **changes: Any) -> str:
    with open(path, "wb") as file, ScanWriter(file, SCHEMA, metadata=metadata(start, stop, **changes)) as writer:
        writer.write(ROWS.slice(start, stop - start))
    return path


def run(*inputs: str, **options: Any) -> None:
    export(ExportSettings(inputs=inputs, **options), NoProgress())


def exported(*inputs: str, **options: Any) -> pa.Table:
    run(*inputs, out="out.parquet", to="parquet", **options)
    return pq.read_table("out.parquet").replace_schema_metadata(None)


def test_tsv_on_standard_output(capfdbinary):
    run(write_scan("scan.parquet"))
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[0] == "\t".join(SCHEMA.names)
    assert len(lines) == TOTAL + 1


def test_whole_table_comes_out_byte_for_byte():
    write_scan("scan.parquet")
    exported("scan.parquet")
    assert Path("out.parquet").read_bytes() == Path("scan.parquet").read_bytes()


@pytest.mark.parametrize("edges", [(0, 500, 1000), (0, 1, 63, 64, 65, 700, 1000), (0, 0, 1000)])
def test_shards_make_the_unsharded_file_byte_for_byte(edges):
    write_scan("scan.parquet")
    parts = [write_scan(f"{i}.parquet", *span) for i, span in enumerate(pairwise(edges))]
    exported(*reversed(parts))
    assert Path("out.parquet").read_bytes() == Path("scan.parquet").read_bytes()
    run(*parts, out="parts.tsv")
    run("scan.parquet", out="scan.tsv")
    assert Path("parts.tsv").read_bytes() == Path("scan.tsv").read_bytes()


def test_missing_shard_is_named_and_allowed_on_request(caplog):
    parts = [write_scan("a.parquet", 0, 300), write_scan("b.parquet", 400, 1000)]
    with pytest.raises(InputError, match=r"variants 301 to 400 of 1000 are missing from a.parquet, b.parquet"):
        run(*parts)
    with pytest.raises(InputError, match="variants 301 to 1000"):
        run("a.parquet")
    table = exported(*parts, allow_gaps=True)
    assert table.equals(pa.concat_tables([TABLE.slice(0, 300), TABLE.slice(400)]).combine_chunks())
    assert "variants 301 to 400 of 1000 are missing" in caplog.text


def test_overlap_and_other_columns_are_refused():
    write_scan("a.parquet", 0, 600)
    write_scan("b.parquet", 500, 1000)
    with pytest.raises(InputError, match="overlaps"):
        run("a.parquet", "b.parquet", out="out.tsv")
    schema = scan_schema(TRAITS, [])
    with open("c.parquet", "wb") as file, ScanWriter(file, schema, metadata=metadata(600, 1000)) as writer:
        writer.write(ROWS.slice(600).select(schema.names))
    with pytest.raises(InputError, match=r"c.parquet: has other columns than a.parquet \(CHISQ.common"):
        run("a.parquet", "c.parquet", out="out.tsv")
    assert not Path("out.tsv").exists()


@pytest.mark.parametrize("number", [1, 7, 300, 5000])
def test_top(number, monkeypatch):
    monkeypatch.setattr(row_selection, "_FEWEST_CANDIDATES", 50)
    table = exported(write_scan("scan.parquet"), top=number)
    frame = TABLE.to_pandas().dropna(subset=["MLOG10P"])
    best = frame.sort_values("MLOG10P", ascending=False, kind="stable").head(number)
    assert table.column("SNPID").to_pylist() == list(best["SNPID"])


def test_p_below():
    table = exported(write_scan("scan.parquet"), p_below=0.05)
    frame = TABLE.to_pandas()
    assert table.column("SNPID").to_pylist() == list(frame.SNPID[frame.P < 0.05])
    assert exported("scan.parquet", p_below=1e-300).num_rows == 0


def test_sort_by_position_p_and_column():
    write_scan("scan.parquet")
    frame = TABLE.to_pandas()
    frame["rank"] = frame.CHR.map({"1": 1, "2": 2, "10": 10, "X": 23, "contig": 99})
    orders = {
        "position": frame.sort_values(["rank", "POS"], kind="stable"),
        "p": frame.sort_values("MLOG10P", ascending=False, kind="stable"),
        "BETA.height": frame.sort_values("BETA.height", kind="stable"),
        "-BETA.height": frame.sort_values("BETA.height", ascending=False, kind="stable"),
        "SNPID": frame.sort_values("SNPID", kind="stable"),
    }
    for key, order in orders.items():
        assert exported("scan.parquet", sort=key).column("SNPID").to_pylist() == list(order.SNPID), key


def test_sort_after_top_and_of_nothing():
    write_scan("scan.parquet")
    table = exported("scan.parquet", top=20, sort="SNPID")
    assert table.column("SNPID").to_pylist() == sorted(exported("scan.parquet", top=20).column("SNPID").to_pylist())
    assert exported("scan.parquet", p_below=1e-300, sort="position").num_rows == 0


def test_columns_in_the_order_asked_for():
    write_scan("scan.parquet")
    columns = ("SNPID", "BETA.*", "CHR-SNPID", "MLOG10P")
    names = ["SNPID", "BETA.height", "BETA.weight", "CHR", "POS", "MLOG10P"]
    assert exported("scan.parquet", columns=columns).schema.names == names
    assert exported("scan.parquet", columns=("SNPID",), top=3, sort="-POS").schema.names == ["SNPID"]


def test_p_values_by_a_pattern():
    write_scan("scan.parquet")
    asked = ("P.*", "P")
    table = exported("scan.parquet", columns=asked)
    assert table.schema.names == ["P.height", "P.weight", "P.common", "P"]
    np.testing.assert_allclose(table["P.weight"].to_numpy(), 10 ** -TABLE["MLOG10P.weight"].to_numpy())
    assert exported("scan.parquet", columns=asked, traits=("weight",)).schema.names == ["P.weight", "P.common", "P"]
    with pytest.raises(InputError, match=r"no column 'P\.x\*'"):
        run("scan.parquet", columns=("P.x*",))


def test_unknown_names_are_met_with_suggestions():
    write_scan("scan.parquet")
    with pytest.raises(InputError, match=r"BETA.hieght.*--columns.*did you mean 'BETA.height'"):
        run("scan.parquet", columns=("BETA.hieght",))
    with pytest.raises(InputError, match=r"hieght.*--trait.*did you mean 'height'"):
        run("scan.parquet", traits=("hieght",))
    with pytest.raises(InputError, match=r"MLOG10.*--sort.*MLOG10P"):
        run("scan.parquet", sort="MLOG10")


def test_trait():
    names = exported(write_scan("scan.parquet"), traits=("weight",)).schema.names
    dropped = ("BETA.height", "SE.height", "MLOG10P.height", "AXIS.1", "AXIS.2")
    assert names == [name for name in SCHEMA.names if name not in dropped]


def test_export_of_an_export():
    """It says what it is: it can be exported on, but not joined."""
    write_scan("scan.parquet")
    exported("scan.parquet", columns=("SNPID", "P"), p_below=0.1)
    Path("out.parquet").rename("some.parquet")
    assert open_scan("some.parquet").metadata.export == {
        "top": None,
        "p_below": 0.1,
        "sort": None,
        "columns": ["SNPID", "P"],
    }
    assert exported("some.parquet", p_below=0.01).num_rows < open_scan("some.parquet").num_rows
    with pytest.raises(InputError, match="some.parquet.*MLOG10P.*--top"):
        run("some.parquet", top=3)
    with pytest.raises(InputError):
        run("some.parquet", "scan.parquet")


def test_csv_and_json_agree(capfdbinary):
    write_scan("scan.parquet")
    run("scan.parquet", to="csv", top=5)
    rows = list(csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode())))
    run("scan.parquet", to="json", top=5)
    records = json.loads(capfdbinary.readouterr().out)
    assert [row["SNPID"] for row in rows] == [record["SNPID"] for record in records]
    assert [float(row["BETA.weight"]) for row in rows] == [record["BETA.weight"] for record in records]


def test_standard_input_and_pipes(monkeypatch):
    write_scan("scan.parquet")
    content = Path("scan.parquet").read_bytes()
    with open("scan.parquet", "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        run("-", out="a.parquet", to="parquet")
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(content))
    writer.start()
    run("pipe", out="b.parquet", to="parquet")
    writer.join()
    assert Path("a.parquet").read_bytes() == Path("b.parquet").read_bytes() == content


@pytest.mark.parametrize("digits", [1, 4, 17])
def test_rounded_numbers_are_written_with_no_more_digits(digits):
    values = np.array([2.4071234e-60, -7.7249e-24, 3.19812e-12, 0.123456, -98765.4321, 6.02214076e23, 9.9999e99, 0.0])
    batch = pa.record_batch({"a": pa.array([*values, None])})
    (found,) = row_selection.rounded(batch, digits).to_pydict().values()
    assert found == [*(float(f"{value:.{digits - 1}e}") for value in values), None]


def test_inputs_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="nothing.parquet: there is no such file; make it with kron2sum scan"):
        run("nothing.parquet")
    with pytest.raises(InputError, match="null.npz: there is no such file; make it with kron2sum fit"):
        run("null.npz")
    with pytest.raises(InputError, match="is a directory; give a file in it"):
        run(str(tmp_path))
    Path("text").write_text("CHR\tPOS\n")
    with pytest.raises(InputError, match="text: is text"):
        run("text")


@pytest.fixture
def null_model(monkeypatch):
    np.savez("null.npz", x=1)
    monkeypatch.setattr(export_module, "read_null", lambda path: SimpleNamespace(path=path))
    names = {"\t": "tsv", ",": "csv"}
    monkeypatch.setattr(
        export_module,
        "estimates_table",
        lambda null, separator, digits: f"{names[separator]} of {null.path}\n".encode(),
    )
    monkeypatch.setattr(export_module, "estimates_json", lambda null: f"json of {null.path}\n".encode())


@pytest.mark.parametrize("to", ["tsv", "csv", "json"])
def test_null_model(null_model, to, capfdbinary):
    run("null.npz", to=to)
    assert capfdbinary.readouterr().out.decode() == f"{to} of null.npz\n"


def test_null_model_through_a_pipe(null_model, capfdbinary, monkeypatch):
    monkeypatch.setattr(export_module, "read_null", lambda path: SimpleNamespace(path=len(np.load(path))))
    os.mkfifo("pipe")
    content = Path("null.npz").read_bytes()
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(content))
    writer.start()
    run("pipe")
    writer.join()
    assert capfdbinary.readouterr().out == b"tsv of 1\n"


def test_the_picture_of_a_null_model_is_not_drawn_of_a_scan():
    with pytest.raises(
        UsageError, match=r"scan.parquet: is a table of a scan; --plot architecture is for a null model"
    ):
        run(write_scan("scan.parquet"), plot="architecture", out="a.png")
    assert not Path("a.png").exists()


def test_null_model_has_no_rows_nor_other_formats(null_model):
    with pytest.raises(UsageError, match="it is written as tsv, csv, json"):
        run("null.npz", to="parquet")
    with pytest.raises(UsageError, match="--top, --trait"):
        run("null.npz", top=3, traits=("height",))
    with pytest.raises(UsageError, match="export it alone"):
        run(write_scan("scan.parquet"), "null.npz")


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_the_extra_for_pictures_the_message_says_how_to_get_it(package, monkeypatch):
    write_scan("scan.parquet")
    monkeypatch.setitem(sys.modules, package, None)
    for options in ({"plot": "manhattan", "out": "m.png"}, {"report": "scan.html"}):
        with pytest.raises(UsageError, match=rf"pictures need {package}.*pip install 'kron2sum-cli\[plot\]'"):
            run("scan.parquet", **options)


def test_gwas_ssf_without_a_variant_is_refused_with_the_reasons():
    """The alleles of these variants are of other letters than the standard's."""
    write_scan("scan.parquet")
    with pytest.raises(InputError, match=r"no variant that GWAS-SSF has room for .*[0-9]+ variants with other alleles"):
        run("scan.parquet", to="ssf", out="ssf.tsv")
    assert list(Path().glob("ssf*")) == []


def test_gwas_ssf_that_lacks_many_variants_warns(caplog):
    columns = {name: ROWS.column(name) for name in ROWS.schema.names}
    half = [letter for _ in range(TOTAL // 2) for letter in ("A", "A0")]
    columns |= {"EA": half, "NEA": ["C"] * TOTAL, "EAF": np.full(TOTAL, 0.5), "CHR": ["1"] * TOTAL}
    with open("scan.parquet", "wb") as file, ScanWriter(file, SCHEMA, metadata=metadata(0, TOTAL)) as writer:
        writer.write(scan_batch(SCHEMA, columns))
    run("scan.parquet", to="ssf", out="ssf.tsv")
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(r"[0-9]+ of 1000 variants are not in the files", said)
