"""The genetic architecture of the traits: correlations as a heat map, heritabilities beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.textpath import TextPath

from kron2sum_cli.export.effects import NORMAL_95
from kron2sum_cli.export.figure import BLUE, GREY, PALE, new_figure, panel_title, wrapped
from kron2sum_cli.export.results import Array
from kron2sum_cli.model.uncertainty import Estimates

MOST_NUMBERS = 12
"""Correlations among more traits than this are shown as colours alone."""

# All lengths are in inches.
_CELL, _SMALL_CELL, _LEAST_CELL = 0.5, 0.28, 0.12
_LEAST_SIDE = 1.9
_MARGIN, _GAP, _TOP = 0.08, 0.2, 0.38
_DOTS_WIDTH, _BAR_WIDTH, _BAR_LABELS = 1.6, 0.1, 0.5
_AXIS_LABELS, _SCALE_HEIGHT = 0.42, 1.6
_WHITE_TEXT_FROM = 0.65
_NAME_WIDTH, _LONG_NAME_WIDTH = 28, 60


def draw_architecture(traits: Sequence[str], estimates: Estimates) -> Figure:
    """Genetic correlations below the diagonal, residual ones above it, and heritabilities with 95% intervals.

    What is NaN in the estimates is left grey; an interval without a standard error is not drawn.
    """
    names = [wrapped(name, _NAME_WIDTH if len(traits) <= MOST_NUMBERS else _LONG_NAME_WIDTH) for name in traits]
    return _one_trait(names[0], estimates) if len(names) == 1 else _several_traits(names, estimates)


def correlations_shown(estimates: Estimates) -> tuple[Array, Array]:
    """Genetic correlations below the diagonal, residual ones above, NaN on it; and their standard errors: (p, p)."""
    below = np.tril(np.ones_like(estimates.rg, dtype=np.bool_), -1)
    r = np.where(below, estimates.rg, estimates.re)
    se = np.where(below, estimates.rg_se, estimates.re_se)
    np.fill_diagonal(r, np.nan)
    np.fill_diagonal(se, np.nan)
    return r, se


def _one_trait(name: str, estimates: Estimates) -> Figure:
    figure = new_figure(3.6, 1.1)
    axes = figure.subplots()
    axes.set_yticks([0], [name])
    _draw_heritabilities(axes, estimates)
    return figure


def _several_traits(names: Sequence[str], estimates: Estimates) -> Figure:
    """Names, heat map, heritabilities and the scale of colours side by side, the first three with common rows."""
    p = len(names)
    with_numbers = p <= MOST_NUMBERS
    side = max(_LEAST_SIDE, p * (_CELL if with_numbers else max(_LEAST_CELL, min(_SMALL_CELL, 10 / p))))
    size = 7.0 if side / p > 0.16 else 5.0
    longest = max(_width(line, size) for name in names for line in name.splitlines())
    left = _MARGIN + longest + 0.06
    bottom = max(_AXIS_LABELS, _MARGIN + 0.1 + longest * (0.75 if with_numbers else 1.0))
    edges = np.cumsum([left, side, _GAP, _DOTS_WIDTH, _GAP, _BAR_WIDTH, _BAR_LABELS]).tolist()
    figure = new_figure(edges[-1], bottom + side + _TOP)
    figure.set_layout_engine("none")
    heat = _add_axes(figure, left, bottom, side, side)
    image = _draw_correlations(heat, estimates)
    slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    heat.set_xticks(range(p), names, fontsize=size, **(slanted if with_numbers else {"rotation": 90}))
    heat.set_yticks(range(p), names, fontsize=size)
    dots = _add_axes(figure, edges[2], bottom, _DOTS_WIDTH, side)
    _draw_heritabilities(dots, estimates)
    dots.set_ylim(p - 0.5, -0.5)
    dots.set_yticks([])
    scale = _add_axes(figure, edges[4], bottom + side - min(side, _SCALE_HEIGHT), _BAR_WIDTH, min(side, _SCALE_HEIGHT))
    colours = figure.colorbar(image, cax=scale, ticks=[-1, -0.5, 0, 0.5, 1])
    colours.outline.set_visible(False)
    colours.set_label("correlation", labelpad=1)
    what = "correlation (SE)" if with_numbers else "correlation"
    x, y = _MARGIN / figure.get_figwidth(), 1 - 0.04 / figure.get_figheight()
    figure.text(x, y, f"{what}: genetic below,\nresidual above the diagonal", va="top", fontweight="bold")
    return figure


def _add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _width(text: str, size: float) -> float:
    return float(TextPath((0, 0), text, size=size, usetex=False).get_extents().width) / 72


def _draw_correlations(axes: Axes, estimates: Estimates) -> AxesImage:
    r, se = correlations_shown(estimates)
    p = len(r)
    axes.set_facecolor(PALE)
    image = axes.imshow(r, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    if p <= MOST_NUMBERS:
        _write_numbers(axes, r, se)
    axes.plot([-0.5, p - 0.5], [-0.5, p - 0.5], color=GREY, linewidth=0.6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def _write_numbers(axes: Axes, r: Array, se: Array) -> None:
    """Every correlation, and below it its standard error in brackets."""
    for (i, j), value in np.ndenumerate(r):
        if i == j:
            continue
        colour = "white" if abs(value) > _WHITE_TEXT_FROM else "black"
        error = f"({se[i, j]:.2f})" if np.isfinite(se[i, j]) else "(n/a)"
        number = "n/a" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
        for text, size, up in ((number, 7, 3.5), ("" if np.isnan(value) else error, 5.5, -5.5)):
            axes.annotate(
                text,
                (float(j), float(i)),
                (0, up),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=size,
                color=colour,
            )


def _draw_heritabilities(axes: Axes, estimates: Estimates) -> None:
    lines = np.arange(len(estimates.h2))
    half = NORMAL_95 * estimates.h2_se
    low, high = np.maximum(estimates.h2 - half, 0), np.minimum(estimates.h2 + half, 1)
    axes.hlines(lines, low, high, color=BLUE, linewidth=1)
    axes.plot(estimates.h2, lines, "o", color=BLUE, markersize=4, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xlabel("h²", labelpad=1)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    panel_title(axes, "heritability, 95% interval")
