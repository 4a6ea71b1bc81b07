"""Null models against those that GEMMA printed: log-likelihoods, and standard errors of C0 and C1.

    python benchmarks/null_against_gemma.py --data DIR --reference DIR

The data's DIR holds mouse_hs1940.grm.bin and .grm.id (GEMMA's kinship of its example mice) and mouse_sim10.csv;
the other the logs of ``gemma -lmm`` for its first 3, 5 and 10 traits, gemma_sim3_lmm3.log.txt and so on. GEMMA centres
the kinship on the analysed samples, and so is ours here.

Where both ended at the same maximum so must the standard errors be. GEMMA's search with ten traits ends below the
maximum, which is another point: standard errors are then compared at its own estimates.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from kron2sum_cli.genotypes.relationship import open_relationship
from kron2sum_cli.model.contrasts import Contrasts, rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.spectrum import Array, Spectrum, spectrum_of_relationship
from kron2sum_cli.model.trait_axes import axes_of_covariances
from kron2sum_cli.model.uncertainty import estimates_of

LOGS = ("gemma_sim3_lmm3", "gemma_sim5_lmm2", "gemma_sim10_lmm3")


@dataclass(frozen=True)
class TheirFit:
    """What GEMMA's log says of one method: the log-likelihood, the estimates and their standard errors."""

    lml: float
    C0: Array
    C1: Array
    C0_se: Array
    C1_se: Array


def read_log(path: Path, method: str) -> TheirFit:
    """The fit by REMLE or MLE in a log of ``gemma -lmm``."""
    lines = path.read_text().splitlines()
    p = next(int(line.split("=")[1]) for line in lines if "number of phenotypes" in line)
    lml = next(float(line.split("=")[1]) for line in lines if line.startswith(f"## {method} log-likelihood"))
    found = []
    for name in ("Vg", "Ve"):
        estimate = next(i for i, line in enumerate(lines) if line.startswith(f"## {method} estimate for {name}"))
        found += [_triangle(lines[estimate + 1 : estimate + 1 + p]), _triangle(lines[estimate + 2 + p :][:p])]
    C0, C0_se, C1, C1_se = found
    return TheirFit(lml, C0, C1, C0_se, C1_se)


def _triangle(lines: list[str]) -> Array:
    """A symmetric matrix of which at least the lower triangle is printed."""
    C = np.zeros((len(lines), len(lines)))
    for j, line in enumerate(lines):
        C[j, : j + 1] = [float(word) for word in line.split()[: j + 1]]
    return C + np.tril(C, -1).T


def compare(spectrum: Spectrum, data: Contrasts, theirs: TheirFit, method: str) -> str:
    """A row of the table."""
    reml = method == "REMLE"
    ours = fit(data, data.ntraits, reml)
    axes = axes_of_covariances(theirs.C0, theirs.C1, data.mean_eigenvalue)
    at_theirs = evaluate(data, axes, reml)
    errors = [_largest_difference(spectrum, point, theirs) for point in (ours.point, at_theirs)]
    ahead = ours.point.lml - at_theirs.lml
    return (
        f"{data.ntraits:>6} {method:>6} {ours.point.lml:>13.4f} {theirs.lml:>11.2f} {ahead:>17.5f}"
        f" {errors[0]:>12.2%} {errors[1]:>16.4%} {ours.certificate.active_C0:>10}"
    )


def _largest_difference(spectrum: Spectrum, point: Point, theirs: TheirFit) -> float:
    """Of standard errors at a point from GEMMA's, relative to these."""
    p, X = point.data.ntraits, np.ones((spectrum.nsamples, 1))
    ours = estimates_of(point, spectrum.Qx, p, spectrum.mean_diagonal, np.eye(p), X)
    pairs = ((ours.C0_se, theirs.C0_se), (ours.C1_se, theirs.C1_se))
    return max(float(np.max(np.abs(a / b - 1))) for a, b in pairs)


def rows(data: Path, reference: Path) -> Iterator[str]:
    """A row for every log and method."""
    file = open_relationship(str(data / "mouse_hs1940.grm.bin"))
    K = file.load(np.arange(len(file.samples))).K
    assert K is not None
    K = K - K.mean(axis=0)
    K = K - K.mean(axis=1, keepdims=True)
    spectrum = spectrum_of_relationship(K, np.ones((len(K), 1)))
    table = pd.read_csv(data / "mouse_sim10.csv", dtype={"FID": str, "IID": str}).set_index("IID")
    Y = table.loc[list(file.samples.iids)].drop(columns="FID").to_numpy(float)
    for log in LOGS:
        for method in ("REMLE", "MLE"):
            theirs = read_log(reference / f"{log}.log.txt", method)
            yield compare(spectrum, rotate_traits(spectrum, Y[:, : len(theirs.C0)]), theirs, method)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    options = parser.parse_args()
    print("How far our maximum is above the likelihood at GEMMA's estimates (which print more digits than its own")
    print("likelihood); the largest relative difference of standard errors, at our maximum and at GEMMA's estimates.")
    print("traits method           lml GEMMA's log  above estimates   se at ours   se at estimates  C0 = 0 on")
    with threadpool_limits(1):
        for row in rows(options.data, options.reference):
            print(row, flush=True)


if __name__ == "__main__":
    main()
