"""Tests in which traits of very different units share a contrast: no number may depend on the units."""

from dataclasses import replace

import numpy as np
import pytest
from missing_oracle import Array, Observed, problem

from kron2sum_cli.model.block_scanner import diagonal_scanner
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.hypotheses import named_hypothesis, reduction
from kron2sum_cli.model.likelihood import Point
from kron2sum_cli.model.likelihood import evaluate as evaluate_complete
from kron2sum_cli.model.missing.fitting import climb
from kron2sum_cli.model.missing.likelihood import ObservedPoint, evaluate
from kron2sum_cli.model.missing.observed import observed_cells, observed_spectrum
from kron2sum_cli.model.missing.refit import ObservedRefitter
from kron2sum_cli.model.missing.scanner import observed_scanner
from kron2sum_cli.model.sets.fixed_effects import reduce_set
from kron2sum_cli.model.sets.scanner import CompleteSetScanner, ObservedSetScanner
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import axes_of_covariances

UNITS = np.array([1e5, 1.0, 1e-4])


DESIGN = named_hypothesis("specific", ("a", "b", "c")).full
"""A basis of effects on all traits, every vector of which has several traits."""


def in_units(dense: Observed, units: Array) -> Observed:
    return replace(dense, Y=dense.Y * units, C0=units[:, None] * dense.C0 * units, C1=units[:, None] * dense.C1 * units)


def observed_point(units: Array) -> ObservedPoint:
    dense, G = problem(5)
    dense = in_units(dense, units)
    spectrum, shift = observed_spectrum(G, dense.X, True, True)
    data = observed_cells(spectrum, dense.Y, dense.A, dense.X, shift)
    return evaluate(data, axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue), True)


def complete_point(units: Array) -> Point:
    dense, G = problem(5)
    dense = in_units(dense, units)
    data = rotate_traits(spectrum_of_features(G, dense.X), np.nan_to_num(dense.Y))
    return evaluate_complete(data, axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue), True)


def variants() -> Array:
    return np.random.default_rng(8).binomial(2, 0.4, size=(60, 3)).astype(float)


def test_a_variant_given_the_observed_cells() -> None:
    def chisq(units: Array) -> Array:
        point = observed_point(units)
        found = observed_scanner(point, np.float64).statistics(variants())
        return reduction(found.u, found.v, DESIGN, point.axes.T)

    np.testing.assert_allclose(chisq(UNITS), chisq(np.ones(3)), rtol=1e-7)


@pytest.mark.parametrize("complete", [True, False])
def test_a_set_of_variants(complete: bool) -> None:
    def reduced(units: Array) -> tuple[float, int]:
        if complete:
            point = complete_point(units)
            scanner = CompleteSetScanner(diagonal_scanner(point, np.empty((60, 0)), np.float64, None))
        else:
            point = observed_point(units)
            scanner = ObservedSetScanner(observed_scanner(point, np.float64))
        found = reduce_set(scanner.rotate(variants()).scores(np.arange(3)), DESIGN, point.axes.T)
        return found.chisq, found.rank

    plain, scaled = reduced(np.ones(3)), reduced(UNITS)
    assert plain[1] == scaled[1] == 9
    assert scaled[0] == pytest.approx(plain[0], rel=1e-7)


def test_a_refit_on_the_observed_cells() -> None:
    def refitted(units: Array) -> tuple[Array, Array]:
        point = observed_point(units)
        null = climb(point.data, point.axes, 3, point.reml)
        found = ObservedRefitter((null,)).refit(variants()[:, :1], DESIGN)
        return found.lml - null.point.lml, found.beta / units

    plain, scaled = refitted(np.ones(3)), refitted(UNITS)
    np.testing.assert_allclose(scaled[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(scaled[1], plain[1], rtol=1e-4)
