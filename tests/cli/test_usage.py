"""Help, versions, and what is wrong with a command line."""

import os
import shlex
import subprocess
import sys

import click
import pytest

from kron2sum_cli._version import __version__
from kron2sum_cli.cli import cli, run

COMMANDS = list(cli.commands)
OPTIONS = [
    pytest.param(command, param, id=f"{name}-{param.name}")
    for name, command in cli.commands.items()
    for param in command.params
    if isinstance(param, click.Option)
]
KRON2SUM = [sys.executable, "-c", "import sys; from kron2sum_cli.cli import main; sys.exit(main())"]


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr() == (f"kron2sum {__version__}\n", "")


def test_commands_in_the_order_of_work():
    assert cli.list_commands(click.Context(cli)) == ["fit", "scan", "export"]


@pytest.mark.parametrize(("command", "param"), OPTIONS)
def test_every_option_is_documented_and_in_a_group(command, param):
    assert param.help
    assert len(param.help) > 10
    assert param.group


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_and_ends_with_examples(name, capsys):
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    for param in cli.commands[name].params:
        for option in (*param.opts, *param.secondary_opts) if isinstance(param, click.Option) else ():
            assert option in text
    assert cli.commands[name].help in " ".join(text.split())
    last = text.rstrip().split("Examples:\n")[1]
    for example in cli.commands[name].examples:
        assert example in last
    assert run([name, "-h"]) == 0


@pytest.mark.parametrize("example", [example for command in cli.commands.values() for example in command.examples])
def test_examples_are_valid(example, settings_of):
    words = shlex.split(example.replace("\\\n", " ").split(" | ")[0])
    assert words[0] == "kron2sum"
    settings_of(*words[1:])


def test_no_command_shows_the_help_as_an_error(capsys):
    assert run([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: kron2sum" in captured.err
    assert "Commands:" in captured.err


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["scna"], ["kron2sum: error: no command 'scna'; did you mean scan?"]),
        (["xyz"], ["no command 'xyz'; there are fit, scan, export"]),
        (["scan", "--tread", "3"], ["kron2sum scan: error: ", "--tread", "--threads"]),
        (["scan", "extra"], ["extra"]),
        (["scan", "--threads"], ["--threads"]),
        (["scan", "--threads", "x"], ["'x' is not a valid integer"]),
        (["fit"], ["--pheno: a value is needed", "--grm: a value is needed"]),
        (["fit", "--rank", "two"], ["'two' is neither a whole number from 1 on nor auto"]),
        (["scan", "--shard", "3"], ["'3' is not I/N"]),
        (["scan", "--shard", "3/2"], ["'3/2': the part must lie between 1 and"]),
        (["fit", "--rank", "0"], ["'0' is neither a whole number from 1 on nor auto"]),
        (["scan", "--region", "5"], ["'5' is not chr:from-to"]),
        (["scan", "--chr", "1,,2"], ["an item is empty"]),
        (["fit", "--pheno-name", "a,,b"], ["a name is empty"]),
        (["fit", "--pheno-name", '"a,b'], ["quotes around a name do not match"]),
        (["scan", "--test", "comon"], ["--test comon: must be any, common"]),
        (["scan", "--test", "any=x.csv"], ["any has a meaning already"]),
        (["scan", "--test", "trait:height=x.csv"], ["trait:height has a meaning already"]),
        (["scan", "--test", "=x.csv"], ["must be NAME=FILE"]),
        (["scan", "--test", "only:"], ["name a trait"]),
        (["scan", "--test", "a=1", "--test", "a=2"], ["a named more than once"]),
        (["scan", "--precision", "half"], ["'half' is not one of 'single', 'double'"]),
        (["scan", "--maf", "0.7"], ["'--maf': 0.7 is not in the range 0<=x<=0.5"]),
        (["scan", "--mac", "-1"], ["'--mac': -1.0 is not in the range x>=0"]),
        (["scan", "--hwe", "nan"], ["'--hwe': nan is not a finite number"]),
        (["export", "--significance", "1"], ["'--significance': '1' is neither a P between 0 and 1 nor gw:LEVEL"]),
        (["export", "--clump-kb", "inf"], ["'--clump-kb': inf is not a finite number"]),
        (["export", "--digits", "18"], ["'--digits': 18 is not in the range 1<=x<=17"]),
        (["fit", "--seed", "-1"], ["'--seed': -1 is not in the range x>=0"]),
        (["scan", "--null", "-", "--geno", "-"], ["only one input can come from standard input"]),
        (["scan", "--geno", "-", "--resume"], ["give a file in place of --geno -"]),
        (["export", "-", "--report", "x.html", "--null", "-"], ["only one input can come from standard input"]),
        (["scan", "--log", ""], ["--log: a value is needed"]),
        (["scan", "--mac", "inf"], ["'--mac': inf is not a finite number"]),
        (["scan", "--null", ""], ["--null: a value is needed"]),
        (["scan", "--log", "-"], ["--log -: standard output holds results only"]),
        (["scan", "-q", "-v"], ["--quiet and --verbose exclude each other"]),
        (["scan", "--memory", "0"], ["'--memory': 0 is not in the range x>=1"]),
        (["scan", "--refit", "2"], ["'--refit': 2.0 is not in the range 0<=x<=1"]),
        (["export", "--top", "0"], ["'--top': 0 is not in the range x>=1"]),
        (["export", "--p-below", "0"], ["'--p-below': 0.0 is not in the range x>0"]),
        (["export", "a", "a"], ["a named more than once"]),
        (["scan", "--out", "s.json"], ["--out s.json: .json is not a format that is written; end the name with .tsv"]),
        (["scan", "--out", "s.tsv.bz2"], ["--out s.tsv.bz2: .bz2 is not a format that is written"]),
        (["scan", "--out", "s.xlsx", "-q", "-v"], [".xlsx is not a format", "--quiet and --verbose"]),
        (["scan", "--out", "s.tsv.xz", "--to", "tsv"], ["tsv is not written as .xz"]),
        (["scan", "--out", "s.tsv", "--to", "parquet"], ["the suffix says tsv, and --to parquet"]),
        (["export", "--out", "s.npz"], [".npz is not a format"]),
        (["export", "--out", "s.csv.gz", "--to", "json"], ["the suffix says csv, and --to json"]),
        (["export", "--out", "s.csv", "--to", "ssf"], ["the suffix says csv, and --to ssf"]),
        (["export", "--out", "s.tsv.zst", "--to", "ssf"], ["ssf is not written as .zst"]),
        (
            ["fit", "--pheno", "y", "--grm", "none", "--grm", "g"],
            ["--grm none: the samples are independent; leave out"],
        ),
        (["fit", "--pheno", "y", "--grm", "g", "--out", "n.parquet"], ["a null model is an .npz file"]),
        (["fit", "--pheno", "y", "--grm", "g", "--out", "n.h5"], ["a null model is an .npz file"]),
        (["fit", "--pheno", "y", "--grm", "g", "--out", "n.npz.gz"], ["a null model is an .npz file"]),
        (["scan", "--geno", "a", "--bed", "a"], ["--geno: a named more than once"]),
        (["fit", "--grm", "", "--pheno", "y"], ["--grm: a value is needed"]),
        (["scan", "--sample", "s", "--fam", "f"], ["--sample belongs to genotypes", "--fam belongs to genotypes"]),
        (["scan", "--geno", "a", "--geno", "b", "--bim", "c"], ["--bim has the variants of one file"]),
        (["scan", "--threads", "2", "--threads", "3"], ["--threads twice: this option takes one value"]),
        (["scan", "--extract=a", "--extract", "b"], ["--extract twice"]),
        (["fit", "--covar", "a", "--covar=a"], ["--covar twice"]),
        (["fit", "--ml", "--reml"], ["--ml and --reml exclude each other"]),
        (["export", "--report", "--out", "r.html"], ["--report: needs a value, and --out stands there"]),
        (["scan", "--extract", "-q"], ["--extract: needs a value, and -q stands there"]),
        (["scan", "--geno", "--maf=0.1"], ["--geno: needs a value, and --maf=0.1 stands there"]),
        (["export", "--report", "r.html", "--out", "y"], ["--report r.html names the page: leave out --out y"]),
        (["export", "--plot", "qq", "--out", "q.png", "--to", "csv"], ["--to csv: is for tables, not for --plot"]),
        (["export", "--check", "--top", "3"], ["--check writes nothing; leave out --out, --plot, --report, --top"]),
        (
            ["export", "--significance", "1e-5"],
            ["--significance is for lead variants (--leads), pictures and reports; rows"],
        ),
        (["export", "--clump-kb", "30"], ["--clump-kb is for lead variants"]),
        (["export", "--leads", "--map", "m"], ["--map belongs to genotypes: name them with --geno"]),
        (["fit", "--no-intercept", "--intercept"], ["--no-intercept and --intercept exclude each other"]),
    ],
)
def test_wrong_usage(failure_of, arguments, messages):
    code, errors = failure_of(*arguments)
    assert code == 2
    for message in messages:
        assert message in errors
    assert all(line.startswith(("kron2sum", "Try ")) for line in errors.splitlines())


def test_all_problems_are_told_at_once(failure_of):
    arguments = ["fit", "--covar-name", "a", "--cat-covar", "b,b", "--out", "n.csv", "-q", "-v"]
    code, errors = failure_of(*arguments)
    assert code == 2
    lines = errors.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("kron2sum fit: error: --") for line in lines)


def test_bad_environment_says_where_it_comes_from(failure_of, monkeypatch):
    monkeypatch.setenv("KRON2SUM_SCAN_THREADS", "many")
    code, errors = failure_of("scan")
    assert code == 2
    assert "KRON2SUM_SCAN_THREADS" in errors


def test_two_variables_for_one_option(failure_of, monkeypatch):
    monkeypatch.setenv("KRON2SUM_SCAN_BED", "a.bed")
    monkeypatch.setenv("KRON2SUM_SCAN_GENO", "b.bed")
    code, errors = failure_of("scan")
    assert code == 2
    assert "KRON2SUM_SCAN_GENO and KRON2SUM_SCAN_BED in the environment set the same option" in errors


@pytest.mark.parametrize(("command", "param"), OPTIONS)
def test_an_option_of_one_value_is_given_once(failure_of, command, param):
    """Whatever the option and its name; those that may be repeated say so in their help or take names."""
    if param.multiple or param.is_flag:
        return
    for first in param.opts:
        for second in param.opts:
            code, errors = failure_of(command.name, first, "1", f"{second}=2")
            assert code == 2
            assert first in errors and second in errors
            assert "takes one value; give it once" in errors


def test_flags_may_be_repeated(settings_of):
    assert settings_of("scan", "-q", "--quiet", "--resume", "--resume").resume


@pytest.mark.parametrize("command", [["fit", "--pheno", "y", "--grm", "g"], ["scan"], ["export", "--to", "parquet"]])
def test_binary_output_is_not_written_to_a_terminal(failure_of, command, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, errors = failure_of(*command, "--out", "-")
    assert code == 2
    assert "standard output is a terminal" in errors


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["fit", "--help"], ["scan", "-h"]])
def test_start_without_the_heavy_libraries(arguments):
    program = (
        "import sys; from kron2sum_cli.cli import run; code = run(sys.argv[1:]); "
        "heavy = {'numpy', 'scipy', 'pyarrow', 'pandas', 'rich'} & set(sys.modules); sys.exit(code or len(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True).returncode == 0


def test_a_scan_starts_no_threads_of_blas(tmp_path):
    program = (
        "from threadpoolctl import threadpool_info; from kron2sum_cli.cli import run; run(['scan']); "
        "print([library['num_threads'] for library in threadpool_info() if library['internal_api'] == 'openblas'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.strip("[]\n").split(", ")) <= {"1", ""}


def test_the_version_loads_no_library():
    """So that it is quick, as completions in a shell are."""
    program = "import sys; from kron2sum_cli.cli import run; run(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("kron2sum")
    assert not {"numpy", "scipy", "pandas", "pyarrow", "bed_reader", "rich"} & set(done.stdout.split())


def test_shell_completion():
    environment = {"_KRON2SUM_COMPLETE": "bash_complete", "COMP_WORDS": "kron2sum s", "COMP_CWORD": "1"}
    done = subprocess.run(KRON2SUM, env=os.environ | environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "plain,scan\n")
