"""The genetic architecture of the traits: correlations as a heat map, heritabilities beside it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kron2sum_cli.model.uncertainty import Estimates
from kron2sum_cli.reports.effects import NORMAL_95
from kron2sum_cli.reports.figure import BLUE, GREY, PALE, new_figure, panel_title, shortened
from kron2sum_cli.reports.scan_view import Array

MOST_NUMBERS = 12
"""Correlations among more traits than this are colours without numbers."""

_CELL, _SMALL_CELL, _LEAST_CELL = 0.52, 0.3, 0.13


def draw_architecture(traits: Sequence[str], estimates: Estimates) -> Figure:
    """Genetic correlations below the diagonal, residual ones above it, and heritabilities with 95% intervals.

    Parameters
    ----------
    traits : the p names, in the order of the estimates
    estimates : of a null model; what is NaN there is left grey, an interval without a standard error is not drawn
    """
    p = len(traits)
    names = [shortened(trait) for trait in traits]
    if p == 1:
        figure = new_figure(3.6, 1.1)
        axes = figure.subplots()
        axes.set_yticks([0], names)
        _draw_heritabilities(axes, estimates)
        return figure
    cell = _CELL if p <= MOST_NUMBERS else max(_LEAST_CELL, min(_SMALL_CELL, 10 / p))
    side = cell * p
    figure = new_figure(side + 3.4, max(side + 1.6, 2.4))
    heat, dots = figure.subplots(1, 2, width_ratios=(side, 1.5), sharey=True)
    _draw_correlations(heat, names, estimates)
    _draw_heritabilities(dots, estimates)
    dots.tick_params(axis="y", length=0)
    return figure


def correlations_shown(estimates: Estimates) -> tuple[Array, Array]:
    """Genetic correlations below the diagonal and residual ones above, NaN on it, and their standard errors (p, p)."""
    below = np.tril(np.ones_like(estimates.rg, dtype=np.bool_), -1)
    r = np.where(below, estimates.rg, estimates.re)
    se = np.where(below, estimates.rg_se, estimates.re_se)
    np.fill_diagonal(r, np.nan)
    np.fill_diagonal(se, np.nan)
    return r, se


def _draw_correlations(axes: Axes, names: Sequence[str], estimates: Estimates) -> None:
    p = len(names)
    r, se = correlations_shown(estimates)
    axes.set_facecolor(PALE)
    image = axes.imshow(r, cmap="RdBu_r", vmin=-1, vmax=1, aspect="equal", interpolation="nearest")
    if p <= MOST_NUMBERS:
        _write_numbers(axes, r, se)
    axes.plot([-0.5, p - 0.5], [-0.5, p - 0.5], color=GREY, linewidth=0.6)
    small = {"fontsize": 7 if p <= 35 else 5}
    axes.set_xticks(
        range(p),
        names,
        rotation=45 if p <= MOST_NUMBERS else 90,
        ha="right" if p <= MOST_NUMBERS else "center",
        rotation_mode="anchor" if p <= MOST_NUMBERS else "default",
        **small,
    )
    axes.set_yticks(range(p), names, **small)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    panel_title(axes, "correlations: genetic below, residual above the diagonal")
    bar = axes.get_figure().colorbar(
        image,
        ax=axes,
        location="bottom",
        shrink=min(1.0, 2.0 / p + 0.3),
        aspect=25,
        pad=0.02,
        ticks=[-1, -0.5, 0, 0.5, 1],
    )
    bar.outline.set_visible(False)


def _write_numbers(axes: Axes, r: Array, se: Array) -> None:
    for (i, j), value in np.ndenumerate(r):
        if i == j:
            continue
        colour = "white" if abs(value) > 0.65 else "black"
        if np.isnan(value):
            axes.text(j, i, "n/a", ha="center", va="center", fontsize=6.5, color=GREY)
            continue
        axes.text(j, i - 0.12, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        error = f"({se[i, j]:.2f})" if np.isfinite(se[i, j]) else "(n/a)"
        axes.text(j, i + 0.22, error, ha="center", va="center", fontsize=5.5, color=colour)


def _draw_heritabilities(axes: Axes, estimates: Estimates) -> None:
    lines = np.arange(len(estimates.h2))
    half = NORMAL_95 * estimates.h2_se
    axes.hlines(lines, np.maximum(estimates.h2 - half, 0), np.minimum(estimates.h2 + half, 1), color=BLUE, linewidth=1)
    axes.plot(estimates.h2, lines, "o", color=BLUE, markersize=4)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xlabel("h²")
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    panel_title(axes, "heritability, 95% interval")
