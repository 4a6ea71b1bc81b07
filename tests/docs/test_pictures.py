"""The figures of power on the home page are those of simulated tests."""

import importlib.util
from types import ModuleType

import numpy as np
import pytest
from command_on_path import ROOT
from scipy.stats import chi2, norm


def pictures() -> ModuleType:
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["both traits alike", "both, in opposite directions", "one of the traits"])
def test_power_of_both_tests(name: str) -> None:
    """Draws of the two z scores of a variant: the joint test is zᵀR⁻¹z, single traits are |z|."""
    module = pictures()
    effect = module.EFFECTS[name]
    row = next(line for line in (ROOT / "docs" / "index.md").read_text().splitlines() if line.startswith(f"| {name}"))
    for r, cell in zip((-0.6, 0.0, 0.6), row.split("|")[2:5], strict=True):
        joint = float(module.power_of_joint_test(effect, np.array([r]))[0])
        single = float(module.power_of_single_tests(effect, np.array([r]))[0])
        assert cell.strip() == f"{joint:.2f}, {single:.2f}"
        R = np.array([[1, r], [r, 1]])
        mean = np.sqrt(module.SAMPLES * module.SHARE) * np.array(effect)
        z = np.random.default_rng(1).multivariate_normal(mean, R, size=40_000)
        found = np.einsum("ij,jk,ik->i", z, np.linalg.inv(R), z) > chi2.isf(module.ALPHA, 2)
        assert abs(found.mean() - joint) < 0.01
        found = (np.abs(z) > norm.isf(module.ALPHA / 4)).any(axis=1)
        assert abs(found.mean() - single) < 0.01
