"""A relationship matrix that cannot tell genetic from residual variance."""

from pathlib import Path

import numpy as np
import pytest

from kron2sum_cli.cli import run

FIT = "fit -q --pheno y.csv --grm K.txt --grm-id g.fam --out x.npz"


@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize("missing", ["drop", "exact"])
def test_a_multiple_of_the_identity_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], scale: float, missing: str
) -> None:
    np.savetxt(folder / "K.txt", scale * np.eye(60))
    assert run([*FIT.split(), "--missing", missing]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "warning: the relationship matrix is a multiple of the identity given the covariates" in line


def test_other_matrices_are_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savetxt(folder / "K.txt", np.diag(np.linspace(0.9, 1.1, 60)))
    assert run(FIT.split()) in (0, 3)
    assert "multiple of the identity" not in capsys.readouterr().err
