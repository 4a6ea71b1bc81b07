"""The conda recipe, the Dockerfile and the citation say what pyproject.toml and the version say."""

import re
import tomllib

import pytest
from command_on_path import ROOT

from kron2sum_cli import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"matplotlib": "matplotlib-base"}


def conda(requirement: str) -> str:
    """A requirement of pip as conda writes it."""
    name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
    return f"{CONDA_NAMES.get(name, name)} {bounds}".lower()


def test_the_conda_recipe_has_the_version_and_the_requirements() -> None:
    yaml = pytest.importorskip("yaml")
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())
    extras = PROJECT["optional-dependencies"]
    run = [f"python {PROJECT['requires-python']}", *map(conda, [*PROJECT["dependencies"], *extras["plot"]])]
    assert recipe["context"]["version"] == __version__
    assert recipe["requirements"]["run"] == run
    assert recipe["requirements"]["run_constraints"] == [*map(conda, [*extras["pgen"], *extras["vcf"]])]
    assert recipe["build"]["python"]["entry_points"] == [f"kron2sum = {PROJECT['scripts']['kron2sum']}"]
    assert recipe["about"]["license"] == PROJECT["license"]


def test_the_citation_has_the_version() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__ and citation["license"] == PROJECT["license"]


def test_the_dockerfile_copies_what_the_package_is_built_of() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (?!--)(.*) \S+$", dockerfile, re.MULTILINE) for name in line.split()}
    assert copied == {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "kron2sum_cli"}
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in kept if line.startswith("!")}
    (extras,) = re.findall(r"/source\[(.*)\]", dockerfile)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
