"""Settings made in a program, without the command line."""

import pytest

from kron2sum_cli.errors import UsageError
from kron2sum_cli.settings import CommonSettings, ExportSettings, FitSettings, ScanSettings, format_of


def test_all_problems_of_a_record_are_reported():
    with pytest.raises(UsageError) as caught:
        FitSettings("y", ("g",), transform="log", grm_scale="x", missing="guess", profile="rg", grm_geno=-1)
    assert len(str(caught.value).splitlines()) == 5
    with pytest.raises(UsageError) as caught:
        ScanSettings(precision="half", stat="t", to="json", shard=(0, 2), refit=float("nan"))
    assert len(str(caught.value).splitlines()) == 5
    with pytest.raises(UsageError) as caught:
        ExportSettings(inputs=(), to="xlsx", top=0)
    assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(UsageError) as caught:
        CommonSettings(threads=0, memory_mib=0, seed=-1)
    assert len(str(caught.value).splitlines()) == 3


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
