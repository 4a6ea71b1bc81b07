"""Draw the pictures of the home page into docs/images: a joint test beside single traits, and the power of both.

python docs/pictures.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import chi2, multivariate_normal, ncx2, norm

IMAGES = Path(__file__).parent / "images"
EXAMPLE = Path(__file__).parent.parent / "example_data"

ALPHA = 5e-8
SAMPLES = 3000
SHARE = 0.01
"""Share of the variance of a trait that the variant explains."""

EFFECTS = {"both traits alike": (1, 1), "both, in opposite directions": (1, -1), "one of the traits": (1, 0)}


def draw_example() -> None:
    """Scan example_data as the LOCO page does, and draw the joint test above the single traits."""
    tables = f"--pheno {EXAMPLE}/phenotypes.csv --covar {EXAMPLE}/covariates.csv"
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            f"fit {tables} --grm {EXAMPLE}/genotypes.bed --loco",
            "scan",
            f"export --plot manhattan --out {IMAGES}/joint-test.svg --log {folder}/plot.log",
        ):
            subprocess.run([sys.executable, "-m", "kron2sum_cli", *command.split(), "--quiet"], cwd=folder, check=True)


def power_of_joint_test(effect: tuple[int, int], correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power of the χ² test with 2 degrees of freedom, its noncentrality ``n bᵀ Σ⁻¹ b``."""
    b = np.sqrt(SHARE) * np.array(effect)
    noncentrality = SAMPLES * (b @ b - 2 * correlation * b[0] * b[1]) / (1 - correlation**2)
    return np.asarray(ncx2.sf(chi2.isf(ALPHA, 2), 2, noncentrality))


def power_of_single_tests(effect: tuple[int, int], correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chance that one of the two single-trait tests, each at half of α, finds the variant."""
    mean = np.sqrt(SAMPLES * SHARE) * np.array(effect)
    z = float(norm.isf(ALPHA / 4))
    missed = [
        multivariate_normal(mean, [[1, r], [r, 1]]).cdf([z, z], lower_limit=[-z, -z]) for r in correlation.tolist()
    ]
    return 1 - np.asarray(missed)


def draw_power() -> None:
    """Power against the correlation of two traits, for three kinds of effects."""
    correlation = np.linspace(-0.9, 0.9, 73)
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, len(EFFECTS), sharey=True)
    for axes, (name, effect) in zip(panels, EFFECTS.items(), strict=True):
        axes.plot(correlation, power_of_joint_test(effect, correlation), label="joint test", color="#0072b2", lw=2)
        axes.plot(
            correlation, power_of_single_tests(effect, correlation), label="single traits", color="#d55e00", ls="--"
        )
        axes.set(title=name, xlabel="correlation of the traits", ylim=(-0.02, 1.02))
    panels[0].set_ylabel("power")
    panels[0].legend(frameon=False)
    figure.savefig(IMAGES / "power.svg", metadata={"Date": None})


def main() -> None:
    """Draw both."""
    mpl.rcParams["svg.hashsalt"] = "kron2sum"
    IMAGES.mkdir(exist_ok=True)
    draw_example()
    draw_power()
    some = np.array([-0.6, 0.0, 0.6])
    for name, effect in EFFECTS.items():
        print(name, *(f"{p:.2f}" for p in power_of_joint_test(effect, some)), "joint,", end=" ")
        print(*(f"{p:.2f}" for p in power_of_single_tests(effect, some)), "single")


if __name__ == "__main__":
    main()
