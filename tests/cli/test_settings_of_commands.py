"""What is typed, or set in the environment or a file, is what the pipeline is asked to do."""

import pytest

from kron2sum_cli.genotypes.chromosomes import Region
from kron2sum_cli.settings import CommonSettings, ExportSettings, FitSettings, ScanSettings

FIT = ("fit", "--pheno", "y.csv", "--grm", "g.bed")


def common(log=None, **changes):
    return CommonSettings(**{"threads": 3, "log": log, **changes})


def test_fit_by_default(settings_of):
    assert settings_of(*FIT) == FitSettings(pheno="y.csv", grm=("g.bed",), common=common("null.npz.log"))


def test_fit_with_everything(settings_of):
    found = settings_of(
        *FIT,
        *("--grm", "h.bed", "--grm-list", "more.txt"),
        *("--pheno-name", "a,b", "--pheno-name", "c-e", "--covar", "x.csv", "--covar-name", "age,sex"),
        *("--cat-covar", "sex,centre", "--missing-code", "-9,none", "--no-intercept", "--keep", "keep.txt"),
        *("--remove", "remove.txt", "--transform", "rank-normal", "--grm-id", "g.fam", "--grm-scale", "centered"),
        *("--grm-maf", "0.05", "--grm-geno", "0.1", "--grm-extract", "v.txt", "--ml", "--rank", "2"),
        *("--trait-design", "A.csv", "--loco", "--missing", "drop", "--drop-redundant", "--allow-unconverged"),
        *("--profile", "h2", "--out", "my.npz", "--threads", "8", "--memory", "4000", "--seed", "5"),
        *("--log", "my.log", "-v"),
    )
    assert found == FitSettings(
        pheno="y.csv",
        grm=("g.bed", "h.bed"),
        grm_list="more.txt",
        pheno_names=("a", "b", "c-e"),
        covar="x.csv",
        covar_names=("age", "sex"),
        cat_covar_names=("sex", "centre"),
        missing_codes=("-9", "none"),
        intercept=False,
        keep="keep.txt",
        remove="remove.txt",
        transform="rank-normal",
        grm_id="g.fam",
        grm_scale="centered",
        grm_maf=0.05,
        grm_geno=0.1,
        grm_extract="v.txt",
        method="ml",
        rank=2,
        trait_design="A.csv",
        loco=True,
        missing="drop",
        drop_redundant=True,
        allow_unconverged=True,
        profile="h2",
        out="my.npz",
        common=common("my.log", threads=8, memory_mib=4000, seed=5, verbose=True),
    )


def test_rank_can_be_chosen(settings_of):
    assert settings_of(*FIT, "--rank", "auto").rank == "auto"


def test_scan_by_default(settings_of):
    assert settings_of("scan") == ScanSettings(common=common("scan.parquet.log"))


def test_scan_with_everything(settings_of):
    found = settings_of(
        *("scan", "--null", "n.npz", "--geno", "v.bed", "--pgen", "w.pgen", "--geno-list", "more.txt"),
        *("--sample", "v.sample", "--fam", "v.fam", "--extract", "a.txt", "--exclude", "b.txt"),
        *("--chr", "1-3,X", "--chr", "7", "--region", "chr6:25,000,000-34000000", "--region", "1:5-6"),
        *("--maf", "0.01", "--mac", "5", "--max-missing", "0.1", "--hwe", "1e-6", "--test", "common"),
        *("--test", "trait:height", "--test", "mine=c,1.csv", "--refit", "0", "--shard", "2/10"),
        *("--precision", "double", "--stat", "f", "--to", "tsv", "--out", "-", "-q"),
        *("--condition", "rs1,2", "--condition", "rs3", "--condition-list", "given.txt"),
        *("--bootstrap", "1000", "--resample", "permute"),
    )
    assert found == ScanSettings(
        null="n.npz",
        geno=("v.bed", "w.pgen"),
        geno_list="more.txt",
        sample="v.sample",
        fam="v.fam",
        extract="a.txt",
        exclude="b.txt",
        chromosomes=(("1", "2", "3"), ("X",), ("7",)),
        regions=(Region("6", 25_000_000, 34_000_000), Region("1", 5, 6)),
        maf=0.01,
        mac=5.0,
        max_missing=0.1,
        hwe=1e-6,
        tests=("common", "trait:height", "mine=c,1.csv"),
        conditions=("rs1,2", "rs3"),
        condition_list="given.txt",
        bootstrap=1000,
        resample="permute",
        refit=0.0,
        shard=(2, 10),
        precision="double",
        stat="f",
        to="tsv",
        out="-",
        common=common(quiet=True),
    )


@pytest.mark.parametrize("alias", ["--geno", "--bed", "--pgen", "--bgen", "--vcf"])
def test_genotypes_by_any_name(settings_of, alias):
    assert settings_of("scan", alias, "v").geno == ("v",)
    assert settings_of("scan", alias, "v", "--geno", "w").geno == ("v", "w")


@pytest.mark.parametrize(
    ("arguments", "to", "out"),
    [
        ((), "parquet", "scan.parquet"),
        (("--to", "tsv"), "tsv", "scan.tsv"),
        (("--out", "x.tsv"), "tsv", "x.tsv"),
        (("--out", "x.txt"), "tsv", "x.txt"),
        (("--out", "x.csv"), "csv", "x.csv"),
        (("--out", "x.csv.gz"), "csv", "x.csv.gz"),
        (("--out", "x.parquet.zst"), "parquet", "x.parquet.zst"),
        (("--out", "tsv"), "parquet", "tsv"),
        (("--out", "x.assoc", "--to", "tsv"), "tsv", "x.assoc"),
        (("--out", "x.gz", "--to", "tsv"), "tsv", "x.gz"),
    ],
)
def test_format_of_a_scan(settings_of, arguments, to, out):
    found = settings_of("scan", *arguments)
    assert (found.to, found.out) == (to, out)


def test_export_by_default(settings_of):
    assert settings_of("export") == ExportSettings(common=common())


def test_export_with_everything(settings_of):
    found = settings_of(
        *("export", "a.parquet", "b.parquet", "--to", "csv", "--top", "10", "--p-below", "5e-8"),
        *("--sort", "-BETA.a", "--columns", "SNPID,BETA.*", "--columns", "P", "--trait", "a,b"),
        *("--allow-gaps", "--out", "hits.txt"),
    )
    assert found == ExportSettings(
        inputs=("a.parquet", "b.parquet"),
        to="csv",
        top=10,
        p_below=5e-8,
        sort="-BETA.a",
        columns=("SNPID", "BETA.*", "P"),
        traits=("a", "b"),
        allow_gaps=True,
        out="hits.txt",
        common=common("hits.txt.log"),
    )


@pytest.mark.parametrize(
    ("out", "to"), [("x.csv", "csv"), ("x.PARQUET", "parquet"), ("x.json.GZ", "json"), ("x", "tsv")]
)
def test_format_of_an_export(settings_of, out, to):
    assert settings_of("export", "--out", out).to == to


@pytest.mark.parametrize("out", ["-", "/dev/null", "/dev/stdout"])
def test_streams_have_no_log(settings_of, out):
    assert settings_of("export", "--out", out).common.log is None


def test_environment(settings_of, monkeypatch):
    environment = {
        "KRON2SUM_SCAN_THREADS": "4",
        "KRON2SUM_SCAN_BED": "v.bed",
        "KRON2SUM_SCAN_TEST": "mine=c 1.csv",
        "KRON2SUM_SCAN_CHR": "1,X",
        "KRON2SUM_SCAN_MAX_MISSING": "0.2",
        "KRON2SUM_SCAN_QUIET": "1",
        "KRON2SUM_FIT_THREADS": "99",
        "KRON2SUM_VERSION": "1",
        "KRON2SUM_SCAN_MAF": "",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settings_of("scan") == ScanSettings(
        geno=("v.bed",),
        tests=("mine=c 1.csv",),
        chromosomes=(("1",), ("X",)),
        max_missing=0.2,
        common=common("scan.parquet.log", threads=4, quiet=True),
    )
    assert settings_of("scan", "--threads", "2").common.threads == 2


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("GENO", "1.bed:2.bed", "geno", ("1.bed", "2.bed")),
        ("TEST", "common; only:body weight;mine=c 1.csv;", "tests", ("common", "only:body weight", "mine=c 1.csv")),
        ("CHR", "1-2,X", "chromosomes", (("1", "2"), ("X",))),
        ("REGION", "1:1-5  2:1,000-2,000", "regions", (Region("1", 1, 5), Region("2", 1000, 2000))),
        ("CONDITION", "rs1 2:5:A:G", "conditions", ("rs1", "2:5:A:G")),
        ("SET_TEST", "skat burden", "set_tests", ("skat", "burden")),
    ],
)
def test_several_values_of_one_variable(settings_of, monkeypatch, name, value, field, expected):
    monkeypatch.setenv(f"KRON2SUM_SCAN_{name}", value)
    monkeypatch.setenv("KRON2SUM_SCAN_WINDOWS", "1mb" if name == "SET_TEST" else "")
    assert getattr(settings_of("scan"), field) == expected


def test_mistyped_variable(settings_of, monkeypatch, capsys):
    for name in ("KRON2SUM_SCAN_REFITT", "KRON2SUM_SCAN_THREADS", "KRON2SUM_FIT_PHENOS"):
        monkeypatch.setenv(name, "1")
    settings_of("scan", "-q")
    assert capsys.readouterr().err == (
        "kron2sum scan: warning: KRON2SUM_SCAN_REFITT in the environment is no option;"
        " did you mean KRON2SUM_SCAN_REFIT?\n"
    )


@pytest.mark.parametrize(
    ("name", "value", "method", "intercept"),
    [
        ("ML", "1", "ml", True),
        ("ML", "false", "reml", True),
        ("REML", "no", "ml", True),
        ("NO_INTERCEPT", "true", "reml", False),
        ("INTERCEPT", "0", "reml", False),
    ],
)
def test_flags_in_the_environment(settings_of, monkeypatch, name, value, method, intercept):
    monkeypatch.setenv(f"KRON2SUM_FIT_{name}", value)
    found = settings_of(*FIT)
    assert (found.method, found.intercept) == (method, intercept)
    assert settings_of(*FIT, "--reml", "--intercept").method == "reml"


CONFIG = """
[fit]
pheno = "y.csv"
pheno-name = ["a", "b c"]
grm = "g.bed"
ml = true
no-intercept = true
rank = 2
grm_maf = 0.02
covar = "x.csv"
covar-name = "age,sex"
loco = true

[scan]
threads = 5
test = ["any", "common"]
chr = [1, "X"]
bed = "v.bed"
refit = 1e-6
shard = "1/2"
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    return str(path)


def test_configuration(settings_of, config):
    assert settings_of("fit", "--config", config) == FitSettings(
        pheno="y.csv",
        pheno_names=("a", "b c"),
        grm=("g.bed",),
        method="ml",
        intercept=False,
        rank=2,
        grm_maf=0.02,
        covar="x.csv",
        covar_names=("age", "sex"),
        loco=True,
        common=common("null.npz.log", config=config),
    )
    assert settings_of("scan", "--config", config) == ScanSettings(
        tests=("any", "common"),
        chromosomes=(("1",), ("X",)),
        geno=("v.bed",),
        refit=1e-6,
        shard=(1, 2),
        common=common("scan.parquet.log", threads=5, config=config),
    )
    assert settings_of("export", "--config", config) == ExportSettings(common=common(config=config))


def test_precedence(settings_of, config, monkeypatch):
    """Command line before environment before file before default."""
    threads = [settings_of("scan").common.threads, settings_of("scan", "--config", config).common.threads]
    monkeypatch.setenv("KRON2SUM_SCAN_THREADS", "6")
    threads.append(settings_of("scan", "--config", config).common.threads)
    threads.append(settings_of("scan", "--config", config, "--threads", "7").common.threads)
    assert threads == [3, 5, 6, 7]
    monkeypatch.setenv("KRON2SUM_FIT_REML", "1")
    assert settings_of("fit", "--config", config).method == "reml"
    assert settings_of("fit", "--config", config, "--ml").method == "ml"


def test_names_with_commas_stand_in_quotes(settings_of, monkeypatch):
    assert settings_of("export", "--trait", '"BMI, adjusted", b "x"').traits == ("BMI, adjusted", 'b "x"')
    monkeypatch.setenv("KRON2SUM_EXPORT_COLUMNS", 'P,"BETA.a,b"')
    assert settings_of("export").columns == ("P", "BETA.a,b")


def test_configuration_from_the_environment(settings_of, config, monkeypatch):
    monkeypatch.setenv("KRON2SUM_SCAN_CONFIG", config)
    settings = settings_of("scan")
    assert settings.common.threads == 5
    assert settings.input_paths == ("null.npz", "v.bed", config)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("[scam]\n", ["no command [scam]; did you mean scan?"]),
        ("[scan]\nthraeds = 3\n", ["[scan]: no option 'thraeds'; did you mean threads?"]),
        ("[fit]\npheno_nmae = 'a'\n", ["[fit]: no option 'pheno_nmae'; did you mean pheno-name?"]),
        ("scan = 3\n", ["scan must be a table"]),
        ("maf = 0.1\n[scan]\n", ["maf stands above the tables; move it below [scan]"]),
        ("pheno-name = 'a'\n", ["pheno-name stands above the tables; move it below [fit]"]),
        ("mfa = 0.1\n", ["mfa stands above the tables; move it below [fit] or [scan] or [export]"]),
        ("[scan]\nquiet = 'yes'\n", ["quiet = 'yes': must be true or false"]),
        ("[scan]\nthreads = true\n", ["threads = True: must be a text or a number"]),
        ("[scan]\nnull = ['a', 'b']\n", ["must be a text or a number"]),
        ("[fit]\nml = true\nreml = false\n", ["sets what another key sets already"]),
        ("[scan]\nconfig = 'x'\n", ["no option 'config'"]),
        ("[scan]\na1 = 1\nb2 = 1\n", ["'a1'", "'b2'"]),
    ],
)
def test_wrong_configuration(failure_of, tmp_path, text, messages):
    (tmp_path / "c.toml").write_text(text)
    code, errors = failure_of("scan", "--config", "c.toml")
    assert code == 2
    for message in messages:
        assert message in errors
    assert errors.startswith("kron2sum scan: error: c.toml: ")


def test_values_of_the_configuration_are_checked_like_typed_ones(failure_of, tmp_path):
    (tmp_path / "c.toml").write_text("[scan]\nthreads = 4.5\n")
    code, errors = failure_of("scan", "--config", "c.toml")
    assert code == 2
    assert "'--threads': '4.5' is not a valid integer" in errors
    assert "from the file of --config" in errors


def test_configuration_that_cannot_be_read(failure_of, tmp_path):
    (tmp_path / "c.toml").write_bytes(b"[scan\n")
    assert failure_of("scan", "--config", "c.toml")[0] == 1
    (tmp_path / "c.toml").write_bytes(b"x = '\xff'\n")
    assert "is not a TOML file" in failure_of("scan", "--config", "c.toml")[1]
    code, errors = failure_of("scan", "--config", "nothing.toml")
    assert code == 1
    assert "nothing.toml: there is no such file; check the path" in errors
