"""The cost of missing cells is known beforehand."""

import tracemalloc

import numpy as np
from missing_oracle import problem

from kron2sum_cli.model.missing.fitting import missing_cost
from kron2sum_cli.model.missing.information import information
from kron2sum_cli.model.missing.likelihood import evaluate
from kron2sum_cli.model.missing.observed import observed_cells
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import axes_of_covariances


def test_counts() -> None:
    missing = np.zeros((100, 3), bool)
    missing[:30, 0] = missing[20:40, 1] = True
    cost = missing_cost(missing, 2, 100)
    assert (cost.ncells, cost.nrows) == (50, 40)
    assert cost.scan_ratio > 1
    assert missing_cost(np.zeros((100, 3), bool), 2, 100).ncells == 0
    thin = missing_cost(missing, 2, 10)
    assert thin.fit_bytes < cost.fit_bytes
    assert thin.likelihood_flops < cost.likelihood_flops


def test_memory_is_an_upper_bound_and_not_far_off() -> None:
    dense, G = problem(1, 0.4, n=500, r=700)
    spectrum = spectrum_of_features(G, np.empty((500, 0)))
    filled = observed_cells(spectrum, dense.Y, dense.A, dense.X)
    axes = axes_of_covariances(dense.C0, dense.C1, filled.mean_eigenvalue)
    tracemalloc.start()
    data = observed_cells(spectrum, dense.Y, dense.A, dense.X)
    point = evaluate(data, axes, True)
    point.curvature(np.eye(3), np.eye(3))
    information(point)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bound = missing_cost(np.isnan(dense.Y), 2, 500).fit_bytes
    assert peak <= bound <= 3 * peak
