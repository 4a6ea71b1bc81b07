"""Settings made in a program, without the command line."""

import pytest

from kron2sum_cli.errors import UsageError
from kron2sum_cli.option_values import format_of
from kron2sum_cli.settings import CommonSettings, ExportSettings, FitSettings, ScanSettings


def test_all_problems_of_a_record_are_reported():
    """Those between fields; each field alone is checked by its option."""
    with pytest.raises(UsageError) as caught:
        FitSettings("-", ("-", "g", "g"), pheno_names=("a", "a"), covar_names=("x",), out="n.csv")
    assert len(str(caught.value).splitlines()) == 5
    with pytest.raises(UsageError) as caught:
        ScanSettings(null="-", extract="-", tests=("comon",), to="tsv", sets="s", set_tests=("skato",), bootstrap=9)
    assert len(str(caught.value).splitlines()) == 4
    with pytest.raises(UsageError) as caught:
        ExportSettings(inputs=("a", "a"), to="csv", out="x.json", null="n")
    assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(UsageError) as caught:
        CommonSettings(log="-", quiet=True, verbose=True)
    assert len(str(caught.value).splitlines()) == 2


def test_input_paths():
    fit = FitSettings("y", ("g", "h"), covar="x", keep="k", remove="r", grm_id="i", grm_extract="e", trait_design="A")
    assert set(fit.input_paths) == {"y", "g", "h", "x", "k", "r", "i", "e", "A"}
    scan = ScanSettings("n", ("v", "w"), "l", "s", None, "f", extract="a", exclude="b", tests=("any", "mine=c"))
    assert set(scan.input_paths) == {"n", "v", "w", "l", "s", "f", "a", "b", "c"}
    assert ExportSettings(inputs=("p", "q")).input_paths == ("p", "q")


def test_settings_are_values():
    assert ScanSettings() == ScanSettings()
    assert hash(ScanSettings()) == hash(ScanSettings())
    with pytest.raises(AttributeError):
        ScanSettings().out = "x"


@pytest.mark.parametrize(
    ("out", "named"), [("a.tsv", "tsv"), ("a.b.CSV", "csv"), ("a.npz", "json"), ("tsv", "json"), ("-", "json")]
)
def test_format_of(out, named):
    assert format_of(out, ("tsv", "csv", "json"), "json") == named
    assert format_of("a.parquet", ("tsv",), "tsv") == "tsv"
