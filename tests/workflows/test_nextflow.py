"""The Nextflow modules: names, versions, commands; and the workflow itself where Nextflow is installed."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command_on_path import ROOT, copy_of_checkout, environment_with_command

from kron2sum_cli import __version__

MODULES = ROOT / "workflows" / "nextflow" / "modules" / "kron2sum"
NAMES = ("fit", "scan", "export")


def main_nf(name: str) -> str:
    return (MODULES / name / "main.nf").read_text()


def section(text: str, name: str) -> str:
    """The lines under a label of a process."""
    found = re.search(rf"^    {name}:\n(.*?)(?=\n    \w+:\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def command(name: str, values: dict[str, str], part: str = "script") -> str:
    """The shell commands of a process, as Nextflow would write them for these values."""
    quoted = re.search(r'"""\n(.*?)"""', section(main_nf(name), part), re.DOTALL)
    assert quoted is not None
    return re.sub(r"\$\{([\w.]+)\}", lambda found: values[found[1]], quoted[1].replace("\\\\", "\\"))


@pytest.mark.parametrize("name", NAMES)
def test_a_module_describes_its_inputs_and_outputs(name: str) -> None:
    yaml = pytest.importorskip("yaml")
    meta = yaml.safe_load((MODULES / name / "meta.yml").read_text())
    process = main_nf(name)
    assert meta["name"] == f"kron2sum_{name}" and f"process KRON2SUM_{name.upper()} {{" in process
    inputs = [item for row in meta["input"] for item in (row if isinstance(row, list) else [row])]
    assert [key for item in inputs for key in item] == re.findall(r"(?:val|path)[( ](\w+)", section(process, "input"))
    assert list(meta["output"]) == re.findall(r"emit: (\w+)", section(process, "output"))
    environment = yaml.safe_load((MODULES / name / "environment.yml").read_text())
    assert environment["dependencies"][-1] == {"pip": [f"kron2sum-cli=={__version__}"]}


def test_the_commands_make_the_bytes_of_one_scan(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = copy_of_checkout(tmp_path, "example_data") / "example_data"

    def run(script: str) -> None:
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, script + done.stderr

    task = {"task.cpus": "1", "args": "", "memory": "--memory 2000"}
    fit = {"pheno": "phenotypes.csv", "covariates": "--covar covariates.csv", "relationship": "genotypes.bed"}
    run(command("fit", task | fit | {"prefix": "null"}))
    for shard in ("1", "2"):
        scan = {"null_model": "null.npz", "genotypes": "genotypes.bed", "shard": shard, "shards": "2"}
        run(command("scan", task | scan | {"prefix": f"part.{shard}-of-2"}))
    tables = {"tables": "part.2-of-2.parquet part.1-of-2.parquet", "format": "parquet", "prefix": "joined"}
    run(command("export", task | tables))
    run("kron2sum scan --out one.parquet")
    assert (folder / "joined.parquet").read_bytes() == (folder / "one.parquet").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_makes_what_the_outputs_ask_for(name: str, tmp_path: Path) -> None:
    script = command(name, {"prefix": "stub", "format": "parquet"}, "stub")
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, check=True)
    patterns = re.findall(r'path\("\*\.([^"]+)"\)', section(main_nf(name), "output"))
    suffixes = [pattern.strip("{}").split(",") for pattern in patterns]
    made = [path.suffix[1:] for path in tmp_path.iterdir()]
    assert len(made) == len(suffixes) and all(set(made) & set(choices) for choices in suffixes)


def nextflow() -> list[str]:
    """The command that starts Nextflow, from the path or from the jars in ``NEXTFLOW_CLASSPATH``."""
    jars = os.environ.get("NEXTFLOW_CLASSPATH")
    if jars and shutil.which("java"):
        return ["java", f"@{ROOT}/workflows/nextflow/java.options", "-cp", jars, "nextflow.cli.Launcher"]
    return ["nextflow"] if shutil.which("nextflow") else []


needs_nextflow = pytest.mark.skipif(not nextflow(), reason="Nextflow is neither on the path nor in NEXTFLOW_CLASSPATH")


def workflow_folder(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the workflow beside the example data, and an environment in which it runs without the network."""
    offline = {"NXF_OFFLINE": "true", "NXF_ANSI_LOG": "false", "NXF_HOME": str(tmp_path / "nextflow")}
    folder = copy_of_checkout(tmp_path, "example_data", "workflows/nextflow") / "workflows" / "nextflow"
    return folder, environment_with_command(tmp_path / "bin") | offline


@needs_nextflow
def test_a_workflow_killed_and_resumed_makes_the_bytes_of_one_scan(tmp_path: Path) -> None:
    folder, environment = workflow_folder(tmp_path)
    command = [*nextflow(), "run", "main.nf", "--shards", "4"]

    killed = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    # Nextflow has noted that the first shard is done when the second one's log is there.
    while killed.poll() is None and len(list(folder.glob("results/logs/*.scan.log"))) < 2:
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    printed = killed.communicate()[0].decode()
    assert killed.returncode == -signal.SIGKILL, printed
    assert not (folder / "results" / "example.parquet").exists()

    resumed = subprocess.run(
        [*command, "-resume"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "Cached process > KRON2SUM_FIT" in resumed.stdout and "Cached process > KRON2SUM_SCAN" in resumed.stdout
    assert "Submitted process > KRON2SUM_SCAN" in resumed.stdout
    geno = "../../example_data/genotypes.bed"
    scan = f"kron2sum scan --null results/example.npz --geno {geno} --maf 0.01 --out one.parquet"
    subprocess.run(scan.split(), cwd=folder, env=environment, check=True, capture_output=True)
    assert (folder / "results" / "example.parquet").read_bytes() == (folder / "one.parquet").read_bytes()


@needs_nextflow
def test_independent_samples_without_covariates(tmp_path: Path) -> None:
    folder, environment = workflow_folder(tmp_path)
    options = ("--grm", "none", "--covar", "false", "--shards", "1")
    done = subprocess.run(
        [*nextflow(), "run", "main.nf", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = (folder / "results" / "example.fit.log").read_text()
    assert "no two of the 366 samples are related" in log and "1 covariate" in log
    assert (folder / "results" / "example.parquet").exists()
