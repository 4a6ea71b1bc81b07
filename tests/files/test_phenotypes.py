"""Tables of traits and covariates: what is read, and what is refused with which message."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.files.sample_table import SampleTable, read_sample_table

TABLE = "FID IID a b c\nf1 s1 1 2.5 -3e2\nf1 s2 4 5 6\n"


def read(tmp_path: Path, text: str, *args: object, **options: object) -> SampleTable:
    path = tmp_path / "y.txt"
    path.write_text(text, encoding="utf-8")
    return read_sample_table(str(path), *args, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("header", ["FID IID", "#FID IID"])
@pytest.mark.parametrize("delimiter", [" ", "\t", ",", "   "])
def test_with_fid(tmp_path: Path, header: str, delimiter: str) -> None:
    text = TABLE.replace("FID IID", header).replace(" ", delimiter)
    table = read(tmp_path, text)
    assert (table.samples.fids, table.samples.iids) == (("f1", "f1"), ("s1", "s2"))
    assert table.names == ("a", "b", "c")
    assert table.levels == (None, None, None)
    np.testing.assert_array_equal(table.values, [[1, 2.5, -300], [4, 5, 6]])
    assert table.path.endswith("y.txt")
    assert table.samples.source == table.path
    assert table.warnings == ()


@pytest.mark.parametrize("header", ["IID", "#IID"])
def test_without_fid(tmp_path: Path, header: str) -> None:
    table = read(tmp_path, f"{header},a\n1,2\n01,3\n")
    assert (table.samples.fids, table.samples.iids) == (None, ("1", "01"))


def test_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    """As a spreadsheet writes them where the comma is the decimal mark."""
    text = 'FID;IID;"a, b";site\n0;s1;1,5;Oslo, east\n0;s2;-2,25e1;NA\n0;s3;;Rome\n0;s4;.;Rome\n0;s5;7;Rome\n'
    table = read(tmp_path, text, None, categorical=["site"], kind="covariate")
    assert table.names == ("a, b", "site")
    assert table.samples.iids == ("s1", "s2", "s3", "s4", "s5")
    np.testing.assert_array_equal(table.values[:, 0], [1.5, -22.5, np.nan, np.nan, 7])
    assert table.levels == (None, ("Oslo, east", "Rome"))


def test_rows_of_blanks_are_no_samples(tmp_path: Path) -> None:
    for text in ("\n\nIID,a\n , \ns1,1\n\n,\ns2,2\n\n\n", 'IID,a\n\n"s1",1\n"",""\n\ns2,2\n\n'):
        table = read(tmp_path, text)
        assert table.samples.iids == ("s1", "s2")
        np.testing.assert_array_equal(table.values[:, 0], [1, 2])


def test_missing_codes(tmp_path: Path) -> None:
    cells = ["", "NA", "na", "nan", "NaN", "NAN", ".", "-9", "-9.0", "-9e0", "none", "1"]
    text = "IID,a\n" + "".join(f"s{i},{cell}\n" for i, cell in enumerate(cells))
    table = read(tmp_path, text, None, frozenset({"-9", "none"}))
    assert np.isnan(table.values[:-1, 0]).all()
    assert table.values[-1, 0] == 1


def test_a_missing_code_may_look_like_no_number_or_like_infinity(tmp_path: Path) -> None:
    table = read(tmp_path, "IID a\n1 not_known\n2 inf\n3 1\n", None, frozenset({"not_known", "inf"}))
    np.testing.assert_array_equal(table.values[:, 0], [np.nan, np.nan, 1])


def test_names_choose_and_order(tmp_path: Path) -> None:
    table = read(tmp_path, TABLE, ["c", "a"])
    assert table.names == ("c", "a")
    np.testing.assert_array_equal(table.values, [[-300, 1], [6, 4]])
    assert read(tmp_path, TABLE, ["b-c"]).names == ("b", "c")


def test_columns_not_chosen_may_hold_anything(tmp_path: Path) -> None:
    assert read(tmp_path, "IID a b\ns1 text 1\n", ["b"]).values.tolist() == [[1]]


def test_categorical(tmp_path: Path) -> None:
    text = "IID,age,site,sex\ns1,1,Oslo,F\ns2,2,NA,M\ns3,3,Bergen,F\n"
    table = read(tmp_path, text, None, categorical=["site", "sex"], kind="covariate")
    assert table.names == ("age", "site", "sex")
    assert table.levels == (None, ("Oslo", "Bergen"), ("F", "M"))
    np.testing.assert_array_equal(table.values, [[1, 0, 0], [2, np.nan, 1], [3, 1, 0]])
    chosen = read(tmp_path, text, ["age"], categorical=["sex"], kind="covariate")
    assert chosen.names == ("age", "sex")
    only = read(tmp_path, text, ["sex"], categorical=["sex"], kind="covariate")
    assert only.names == ("sex",)
    assert only.values[:, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("first", ["iid", "Line", "taxa", "#sample_ID", "animal id", "ID", "", "name"])
def test_what_the_column_of_samples_may_be_called(tmp_path, first) -> None:
    for delimiter in ",;\t":
        text = f"{first}{delimiter}a\ns1{delimiter}1\ns2{delimiter}2\n"
        table = read(tmp_path, text)
        assert (table.samples.fids, table.samples.iids, table.names) == (None, ("s1", "s2"), ("a",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s1 1\ns2 2\n", r"y.txt, line 1: the first line must be a header that starts with FID IID or IID"),
        ("\nfid a b\n1 1 1\n", r"y.txt, line 2: the first line .* but it starts with 'fid a b'; name the column"),
        ('"IID"\t"a"\ns1\t1\n', r"without quotes"),
        ("IID FID a\n1 1 1\n", r"starts with 'IID FID a'"),
        ("IID a b a\n", r"line 1: the name 'a' is there twice \(columns 2 and 4\)"),
        ("IID,a,,b\n", r"line 1: column 3 has no name"),
        ("IID\ns1\n", r"line 1: there is no trait beside the sample IDs"),
        ("IID a\n", r"line 1: there is no sample below the header"),
        ("IID a b\ns1 1 2\n\ns2 1\n", r"line 4: the row of sample 's2' is too short: 2 fields, .* has 3"),
        ("FID IID a\nf s1 1 2\n", r"line 2: the row of sample 'f s1' is too long: 4 fields, .* remove the delimiter"),
        ("IID\ta\ns1\t1\n\t2\n", r"line 3: the sample has an empty FID or IID"),
        ("FID IID a\nf s 1\ng s 2\nf s 3\n", r"line 4: sample 'f s' was already in line 2; .* replicates .* mean"),
        ("IID a bc\ns1 NA 1\ns2 1 tall\n", r"line 3: trait 'bc' of sample 's2' is 'tall', not a number"),
        ("IID\ta\ns1\t1,5\n", r"trait 'a' of sample 's1' is '1,5', not a number; the decimal mark .*write 1.5"),
        ('IID,a\ns1,"1,500"\n', r"the decimal mark .*: write 1.500, or 1500 if the comma stands between thousands"),
        ("IID;a\ns1;1,5\ns2;2.5\n", r"line 3: trait 'a' of sample 's2' is '2.5', and another sample has '1,5'"),
        ("IID;a\ns1;1.234,5\n", r"'1.234,5'.* write all numbers with the same decimal mark"),
        ("IID;a;b\ns1;1\n", r"line 2: the row of sample 's1' is too short: 2 fields"),
        ('IID,a\n"s\n1",1\ns2\n', r"line 4: the row of sample 's2' is too short"),
        ('IID,a\ns1,"1\ns2,2\n', r"line 2: not readable as CSV .*double quotes"),
        ("IID a\ns_1 1_000\n", r"'1_000', not a number"),
        ("IID a\ns1 \u0661\n", r"'\u0661', not a number"),
        ("IID a b\ns1 1 2\ns2 NA -inf\n", r"line 3: trait 'b' of sample 's2' is infinite"),
        ("IID a\ns1 1\ns2 1e51\n", r"line 3: trait 'a' of sample 's2' is 1e\+51, too large to be computed with"),
        ("IID a b\ns1 1 -1e300\n", r"line 2: trait 'b' of sample 's1' is -1e\+300, too large to be computed with"),
        ("IID a b\ns1 1 0\ns2 2 -1e-51\n", r"trait 'b' has no number larger than 1e-51, too small"),
        ("IID a\ns1 1e999\n", r"line 2: trait 'a' of sample 's1' is infinite"),
    ],
)
def test_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_unknown_and_repeated_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"y.txt, line 1: there is no column 'd' \(--pheno-name\)"):
        read(tmp_path, TABLE, ["d"])
    with pytest.raises(InputError, match=r"\(--covar-name\)"):
        read(tmp_path, TABLE, ["d"], kind="covariate")
    with pytest.raises(InputError, match=r"\(--cat-covar\)"):
        read(tmp_path, TABLE, categorical=["d"], kind="covariate")
    with pytest.raises(UsageError, match="chooses the column 'a' twice"):
        read(tmp_path, TABLE, ["a", "a"])
    with pytest.raises(InputError, match="there is no trait beside"):
        read(tmp_path, TABLE, [])


def test_text_in_a_covariate_suggests_cat_covar(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"covariate 'sex' of sample 's1' is 'M', .*--cat-covar"):
        read(tmp_path, "IID sex\ns1 M\n", kind="covariate")


def test_minus_nine_warning(tmp_path: Path) -> None:
    text = "IID a b c\n1 -9 -9 -7\n2 -9 -8.5 3\n3 4 5 6\n"
    (warning,) = read(tmp_path, text).warnings
    assert "trait 'a' is -9 in 2 samples" in warning
    assert "--missing-code -9" in warning
    assert read(tmp_path, text, None, frozenset({"-9"})).warnings == ()
    (warning,) = read(tmp_path, text, ["c"], categorical=["a"], kind="covariate").warnings
    assert "covariate 'a' is -9 in 2 samples" in warning


def test_longer_codes_are_warned_of_too(tmp_path: Path) -> None:
    text = "IID a b c d\n1 -99 -99 -999 -9999\n2 -999 -90 3 -9\n3 4 5 6 7\n"
    found = read(tmp_path, text).warnings
    codes = {"a": ["-99", "-999"], "b": [], "c": ["-999"], "d": ["-9", "-9999"]}
    expected = [(trait, code) for trait, some in codes.items() for code in some]
    assert sorted((w.split("'")[1], w.split()[-1]) for w in found) == sorted(expected)
    assert "trait 'c' is -999 in 1 sample and has no other value from -1110 to -888" in found[2]
    (warning,) = read(tmp_path, text, ["b"], categorical=["c"], kind="covariate").warnings
    assert "covariate 'c' is -999 in 1 sample" in warning


def test_many_columns(tmp_path: Path) -> None:
    q = 5_000
    text = "IID\t" + "\t".join(map(str, range(q))) + "\ns\t" + "\t".join(["0.5"] * q) + "\n"
    table = read(tmp_path, text)
    assert table.values.shape == (1, q)
    assert (table.values == 0.5).all()


NUMBERS = st.one_of(st.none(), st.just(0.0), st.floats(1e-50, 1e50), st.floats(-1e50, -1e-50))


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_values_round_trip_in_every_delimiter_and_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float | None, float | None]], shuffler: random.Random
) -> None:
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    expected = np.array([[np.nan if cell is None else cell for cell in row] for row in rows])
    for delimiter in "\t, ":
        lines = [["IID", "a", "b"]]
        lines += [[f"s{i}", *("NA" if cell is None else repr(cell) for cell in rows[i])] for i in order]
        text = "".join(delimiter.join(line) + "\n" for line in lines)
        table = read(tmp_path_factory.mktemp("table"), text)
        assert table.samples.iids == tuple(f"s{i}" for i in order)
        np.testing.assert_array_equal(table.values, expected[order])
