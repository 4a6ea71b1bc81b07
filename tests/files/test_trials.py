"""Tables of trials with a row a plot: which means they become, what is said of them, what is refused."""

import random
from pathlib import Path

import numpy as np
import pytest

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.files.sample_table import SampleTable
from kron2sum_cli.files.trials import read_trial_table

TRIAL = """\
plot,line,env,rep,yield,height
1,a,10,1,1.5,100
2,a,10,2,2.5,NA
3,a,9,1,7,90
4,b,10,1,4,80
5,b,9,1,NA,70
6,,10,3,9,9
7,b,,1,border,1
8,c,9,1,3,60
9,c,9,2,.,62
10,c,9,3,6,64
"""
COLUMNS = ("line", "env", "yield")
NAN = np.nan


def read(tmp_path: Path, text: str, columns: tuple[str, ...] = COLUMNS, *args: object) -> SampleTable:
    path = tmp_path / "trial.csv"
    path.write_text(text, encoding="utf-8")
    return read_trial_table(str(path), columns, *args)  # type: ignore[arg-type]


def test_means_of_lines_in_environments(tmp_path: Path) -> None:
    """By hand: line a in environment 10 is (1.5 + 2.5) / 2, line c in 9 is (3 + 6) / 2."""
    table = read(tmp_path, TRIAL)
    assert (table.samples.fids, table.samples.iids) == (None, ("a", "b", "c"))
    assert table.names == ("9", "10")  # in the order of numbers
    np.testing.assert_array_equal(table.values, [[7, 2], [NAN, 4], [4.5, NAN]])
    assert table.levels == (None, None)
    assert table.path.endswith("trial.csv")


def test_every_plot_is_counted(tmp_path: Path) -> None:
    table = read(tmp_path, TRIAL)
    assert table.counts == {
        "plots in the phenotype file": 10,
        "plots without a line": 1,
        "plots without an environment": 1,
        "plots in environments that are not analysed": 0,
        "plots without a value of yield": 2,
    }
    assert read(tmp_path, TRIAL, COLUMNS, ["10"]).counts == {
        "plots in the phenotype file": 10,
        "plots without a line": 1,
        "plots without an environment": 1,
        "plots in environments that are not analysed": 5,
        "plots without a value of yield": 0,
    }


def test_several_values(tmp_path: Path) -> None:
    table = read(tmp_path, TRIAL, (*COLUMNS, "height"))
    assert table.names == ("yield.9", "yield.10", "height.9", "height.10")
    np.testing.assert_array_equal(table.values, [[7, 2, 90, 100], [NAN, 4, 70, 80], [4.5, NAN, 62, NAN]])
    assert table.counts["plots without a value of height"] == 1


def test_environments_of_several_columns(tmp_path: Path) -> None:
    text = "line,site,year,yield\na,Lyon,2023,1\na,Lyon,2024,2\nb,Pisa,2023,3\nb,Pisa,NA,4\n"
    table = read(tmp_path, text, ("line", "site+year", "yield"))
    assert table.names == ("Lyon.2023", "Lyon.2024", "Pisa.2023")
    np.testing.assert_array_equal(table.values, [[1, 2, NAN], [NAN, NAN, 3]])
    assert table.counts["plots without an environment"] == 1
    one = read(tmp_path, text.replace("site,year", "site+year,x"), ("line", "site+year", "yield"))
    assert one.names == ("Lyon", "Pisa")
    with pytest.raises(InputError, match=r"there is no column 'rep' \(--pheno-long\)"):
        read(tmp_path, text, ("line", "site+rep", "yield"))


def test_numbers_of_rows_by_r_are_no_column(tmp_path: Path) -> None:
    table = read(tmp_path, '"line" "env" "yield"\n"1" "a" "e" 3\n"2" "b" "e" 4\n'.replace('"', ""))
    assert table.samples.iids == ("a", "b")
    np.testing.assert_array_equal(table.values, [[3], [4]])


def test_a_value_without_any_plot_is_missing(tmp_path: Path) -> None:
    table = read(tmp_path, "line env yield oil\na 1 2 NA\nb 1 3 NA\n", (*COLUMNS, "oil"))
    assert table.names == ("yield.1", "oil.1")
    np.testing.assert_array_equal(table.values, [[2, NAN], [3, NAN]])
    assert table.notes == ("each mean of a line in an environment is of 1 plot",)


def test_names_choose_environments(tmp_path: Path) -> None:
    table = read(tmp_path, TRIAL, (*COLUMNS, "height"), ["height.9", "yield.10"])
    assert table.names == ("height.9", "yield.10")
    np.testing.assert_array_equal(table.values, [[90, 2], [70, 4], [62, NAN]])
    with pytest.raises(InputError, match=r"trial.csv: there is no column '11' \(--pheno-name\); .* 9, 10"):
        read(tmp_path, TRIAL, COLUMNS, ["11"])


def test_the_order_of_plots_never_matters(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=400) * 10.0 ** rng.integers(-8, 8, size=400)
    rows = [f"l{k % 7} e{k % 3} {value!r}" for k, value in enumerate(values.tolist())]
    whole = read(tmp_path, "\n".join(["line env yield", *rows]))
    random.Random(2).shuffle(rows)
    shuffled = read(tmp_path, "\n".join(["line env yield", *rows]))
    order = [shuffled.samples.iids.index(line) for line in whole.samples.iids]
    assert shuffled.names == whole.names
    np.testing.assert_array_equal(shuffled.values[order], whole.values)
    for i, line in enumerate(whole.samples.iids):
        for j, environment in enumerate(whole.names):
            own = values[[k for k in range(400) if (f"l{k % 7}", f"e{k % 3}") == (line, environment)]]
            assert whole.values[i, j] == pytest.approx(own.mean(), rel=1e-12)


def test_missing_codes_delimiters_and_decimal_commas(tmp_path: Path) -> None:
    text = "line;env;yield\nL 1;Oslo;1,5\nL 1;Oslo;2,5\nL 2;Oslo;-99\n-99;Oslo;1\n"
    table = read(tmp_path, text, COLUMNS, None, frozenset({"-99"}))
    assert table.samples.iids == ("L 1", "L 2")
    np.testing.assert_array_equal(table.values, [[2], [NAN]])
    assert table.counts["plots without a line"] == 1


def test_of_how_many_plots_the_means_are(tmp_path: Path) -> None:
    assert read(tmp_path, TRIAL).notes == (
        "trait 9: means of 2 lines, each of 1 to 2 plots (median 1.5)",
        "trait 10: means of 2 lines, each of 1 to 2 plots (median 1.5)",
    )
    assert read(tmp_path, TRIAL, COLUMNS, ["10"]).warnings == ()
    assert read(tmp_path, "line env yield\na 1 1\nb 1 2\n").notes == (
        "each mean of a line in an environment is of 1 plot",
    )
    mixed = "line env yield\n" + "a 1 1\nb 1 2\na 2 2\na 2 3\nb 2 1\nb 2 4\nc 3 NA\n"
    assert read(tmp_path, mixed).notes == (
        "trait 1: means of 2 lines, each of 1 plot",
        "trait 2: means of 2 lines, each of 2 plots",
    )


def test_unequal_numbers_of_plots_are_warned_of(tmp_path: Path) -> None:
    """Of ten lines one may have more plots than twice the median, not two."""
    plots = [f"l{k} {env} {k}" for env in ("e1", "e2") for k in range(10) for _ in range(2)]
    extra = ["l0 e1 1"] * 3
    assert read(tmp_path, "\n".join(["line env yield", *plots, *extra])).warnings == ()
    extra += ["l1 e1 1"] * 4
    (warning,) = read(tmp_path, "\n".join(["line env yield", *plots, *extra])).warnings
    assert "trial.csv: the model takes all means of a trait as equally precise" in warning
    assert "those of e1 are of 2 to 6 plots (median 2); leave out" in warning
    extra += ["l0 e2 1", "l1 e2 1"] * 4
    (warning,) = read(tmp_path, "\n".join(["line env yield", *plots, *extra])).warnings
    assert "and 1 other trait is like it" in warning


def test_minus_nine_is_warned_of(tmp_path: Path) -> None:
    table = read(tmp_path, "line env yield\na 1 -9\na 1 3\nb 1 -9\n")
    assert table.warnings[0].endswith(
        "trait 'yield' is -9 in 2 plots and has no other value from -10 to -8; if -9 stands for missing, give"
        " --missing-code -9"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("line env value\na 1 1\n", r"line 1: there is no column 'yield' \(--pheno-long\); .* line, env, value"),
        ("line,env,yield,line\na,1,1,b\n", r"line 1: the name 'line' is there twice"),
        ("line,env,yield\n", r"line 1: there is no plot below the header"),
        ("line,env,yield\na,1\n", r"line 2: the row is too short: 2 fields, but the header has 3"),
        ("line env yield\n1 a 1 1\nb 1 1\n", r"line 2: the row is too long: 4 fields"),
        ("line,env,yield\n\na,1,1\na,2,tall\n", r"line 4: trait 'yield' of plot 'a 2' is 'tall', not a number"),
        ("line,env,yield\na,1,inf\n", r"line 2: trait 'yield' of plot 'a 1' is infinite"),
        ("line\tenv\tyield\na\t1\t1,5\n", r"line 2: .* '1,5', not a number; the decimal mark .* 1.5"),
        ("line,env,yield\n,1,1\nNA,2,1\n", r"none of its 2 rows has a line \(line\) and an environment \(env\)"),
    ],
)
def test_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match="trial.csv.*" + message):
        read(tmp_path, text)


def test_refuses_traits_that_cannot_be_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a in b\.c and a\.b in c would both be the trait 'a\.b\.c'; rename"):
        read(tmp_path, "line env a a.b\nx b.c 1 1\nx c 1 1\n", ("line", "env", "a", "a.b"))
    with pytest.raises(UsageError, match="--pheno-long chooses the column 'line' twice"):
        read(tmp_path, TRIAL, ("line", "env", "line"))
