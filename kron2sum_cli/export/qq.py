"""Quantile-quantile plots: observed against expected -log10 p, by minor-allele-frequency class, with λ and its band."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import stats

from kron2sum_cli.export.figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    freeze_layout,
    new_figure,
    panel_title,
    shortened_apart,
    without_axes,
)
from kron2sum_cli.export.results import Array, ScanTest, ScanView, numbers

CLASS_EDGES = (0.01, 0.05, 0.2)
"""Minor allele frequencies between the classes; a frequency at an edge belongs to the class above."""

CLASS_NAMES = ("MAF < 1%", "1% to 5%", "5% to 20%", "≥ 20%")
_CLASS_COLOURS = (ORANGE, PURPLE, GREEN, BLUE)

LEVEL = 0.95
"""The band holds each ordered p-value of independent tests under the null hypothesis with this probability."""

_EVERY_RANK = 1000
_FURTHER_RANKS = 1000
_PANEL = 2.3
_MOST_IN_ROW = 3


@dataclass(frozen=True)
class Curve:
    """Ordered p-values of one class of variants, the smallest first.

    Attributes
    ----------
    name : the class
    count : n, how many variants
    inflation : λ; NaN without variants
    ranks : (k,) which of the n ordered p-values are drawn, counted from 1
    expected, observed : (k,) -log10 of ``(rank - 1/2) / n``, and of the p-value
    low, high : (k,) the band of that rank's -log10 p
    """

    name: str
    count: int
    inflation: float
    ranks: NDArray[np.int64]
    expected: Array
    observed: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class QQ:
    """One test and its degrees of freedom: all variants together, and those of each class that has any."""

    test: ScanTest
    df: int
    everything: Curve
    classes: tuple[Curve, ...]


def qq_data(view: ScanView, tests: Sequence[ScanTest]) -> list[QQ]:
    """Ordered p-values of every test; memory holds those of one test at a time (9 bytes a variant)."""
    classes = _classes(view)
    return [_of_test(view, test, classes) for test in tests]


def inflation(mlog10p: Array, df: int) -> float:
    """Genomic control λ, the χ² of the median p-value over the median of the distribution.

    ``λ = F⁻¹(1 - median p) / F⁻¹(1/2)`` with F of χ² with `df` degrees of freedom (Devlin and Roeder 1999).
    """
    if not mlog10p.size:
        return float("nan")
    median = 10.0 ** -float(np.median(mlog10p))
    return float(stats.chi2.isf(median, df) / stats.chi2.ppf(0.5, df))


def _classes(view: ScanView) -> NDArray[np.int8]:
    """The class of every variant by its minor allele frequency; of those without one the last index plus one."""
    parts = [np.empty(0, dtype=np.int8)]
    for batch in view.read(["EAF"]):
        frequency = numbers(batch, "EAF")
        minor = np.minimum(frequency, 1 - frequency)
        # Frequencies are counts over counts: 0.01 may come as 1 - 0.99.
        of_batch = np.digitize(minor + 1e-12, CLASS_EDGES)
        parts.append(np.where(np.isnan(minor), len(CLASS_NAMES), of_batch).astype(np.int8))
    return np.concatenate(parts)


def _of_test(view: ScanView, test: ScanTest, classes: NDArray[np.int8]) -> QQ:
    values = np.concatenate([np.empty(0), *(numbers(batch, test.column) for batch in view.read([test.column]))])
    known = ~np.isnan(values)
    values, classes = values[known], classes[known]
    df = view.degrees_of_freedom(test)
    curves = [_curve(name, values[classes == k], df) for k, name in enumerate(CLASS_NAMES)]
    return QQ(test, df, _curve("all", values, df), tuple(curve for curve in curves if curve.count))


def _curve(name: str, values: Array, df: int) -> Curve:
    n = len(values)
    ordered = np.sort(values)[::-1]
    ranks = _drawn_ranks(n)
    tail = (1 - LEVEL) / 2
    high, low = (-np.log10(stats.beta.ppf(q, ranks, n - ranks + 1)) for q in (tail, 1 - tail))
    expected = -np.log10((ranks - 0.5) / n)
    return Curve(name, n, inflation(values, df), ranks, expected, ordered[ranks - 1], low, high)


def _drawn_ranks(n: int) -> NDArray[np.int64]:
    """All of the smallest p-values, and of the others as many as a picture can show."""
    first = np.arange(1, min(n, _EVERY_RANK) + 1)
    if n <= _EVERY_RANK:
        return first
    return np.unique(np.concatenate([first, np.geomspace(_EVERY_RANK, n, _FURTHER_RANKS).astype(np.int64)]))


def draw_qq(data: Sequence[QQ]) -> Figure:
    """A panel a test: its band filled for all variants, and for each class between two lines of its colour."""
    count = len(data)
    columns = 2 if count == 4 else min(count, _MOST_IN_ROW)
    rows = -(-count // columns)
    figure = new_figure(_PANEL * columns + (1.0 if columns == 1 else 0.1), _PANEL * rows + 0.35)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    titles = shortened_apart([qq.test.label for qq in data])
    for axes, qq, title in zip(panels, data, titles, strict=False):
        panel_title(axes, title)
        _draw_panel(axes, qq)
    without_axes(panels[count:])
    figure.supxlabel("expected −log₁₀ p", fontsize=8)
    figure.supylabel("observed −log₁₀ p", fontsize=8)
    freeze_layout(figure)
    for axes in panels[:count]:
        _move_key_off_points(axes)
    return figure


def _draw_panel(axes: Axes, qq: QQ) -> None:
    if not qq.everything.count:
        axes.text(0.5, 0.5, "no variant has\nthis statistic", transform=axes.transAxes, ha="center", color=GREY)
        axes.set(xticks=[], yticks=[])
        return
    everything = qq.everything
    axes.fill_between(everything.expected, everything.low, everything.high, color=PALE, linewidth=0, zorder=1)
    right = float(everything.expected[0])
    axes.plot([0, right], [0, right], color=GREY, linewidth=0.6, zorder=1.5)
    _draw_points(axes, everything, BLACK)
    colours = dict(zip(CLASS_NAMES, _CLASS_COLOURS, strict=True))
    for curve in qq.classes:
        for edge in (curve.low, curve.high):
            axes.plot(curve.expected, edge, color=colours[curve.name], linewidth=0.5, zorder=1.2)
        _draw_points(axes, curve, colours[curve.name])
    axes.set_xlim(0, 1.03 * right)
    curves = (everything, *qq.classes)
    axes.set_ylim(0, 1.08 * max(float(everything.observed[0]), *(float(curve.high[0]) for curve in curves)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    axes.legend(loc="upper left", fontsize=6.5, handletextpad=0, borderpad=0, labelspacing=0.2, markerscale=2)


def _move_key_off_points(axes: Axes) -> None:
    """Leave the key where it is unless points lie under it, as those of few variants may."""
    key = axes.get_legend()
    if key is None:
        return
    box = key.get_window_extent()
    points = [line for line in axes.lines if line.get_marker() == "o"]
    if any(box.count_contains(axes.transData.transform(line.get_xydata())) for line in points):
        key.set_loc("best")


def _draw_points(axes: Axes, curve: Curve, colour: str) -> None:
    label = f"{curve.name}: λ = {curve.inflation:.3f}"
    axes.plot(
        curve.expected, curve.observed, "o", color=colour, markersize=2, markeredgewidth=0, label=label, rasterized=True
    )
