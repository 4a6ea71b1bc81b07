"""The command ``kron2sum`` for shells and other programs that tests start."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment_with_command(folder: Path) -> dict[str, str]:
    """The environment, with ``kron2sum`` of this Python and this checkout on the path.

    Parameters
    ----------
    folder : where the command is put
    """
    folder.mkdir()
    command = folder / "kron2sum"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kron2sum_cli "$@"\n')
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KRON2SUM_")}
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT)}


def copy_of_checkout(folder: Path, *names: str) -> Path:
    """A folder with copies of some folders of the checkout, without what earlier runs left in them."""
    made = ("*.npz", "*.parquet", "*.log")
    for name in names:
        leftovers = shutil.ignore_patterns("__pycache__", "results", "work", "jars", ".snakemake", ".nextflow*", *made)
        shutil.copytree(ROOT / name, folder / name, ignore=leftovers)
    return folder
