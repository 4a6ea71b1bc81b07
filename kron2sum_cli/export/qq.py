"""Quantile-quantile plots: observed against expected -log10 p, by minor-allele-frequency class, with λ and its band."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
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
    say_nothing_to_draw,
    shortened,
    wrapped,
)
from kron2sum_cli.export.results import Array, ScanResults, ScanTest, column_values
from kron2sum_cli.model.inflation import inflation

CLASS_EDGES = (0.01, 0.05, 0.2)
"""Minor allele frequencies between the classes; a frequency at an edge belongs to the class above."""

CLASS_NAMES = ("MAF < 1%", "1% to 5%", "5% to 20%", "≥ 20%")
_CLASS_COLOURS = (ORANGE, PURPLE, GREEN, BLUE)

FEWEST_IN_CLASS = 100
"""A class of fewer variants is not drawn: its λ says nothing."""

MOST_PANELS = 7
"""The traits of more tests than this share one panel."""

LEVEL = 0.95
"""The band holds each ordered p-value of independent tests under the null hypothesis with this probability."""

COLOURS = colormaps["viridis"]
_EVERY_RANK = 1000
_FURTHER_RANKS = 1000
_PANEL = 2.3
_MOST_IN_ROW = 3
_MOST_IN_KEY = 20
"""Of more tests in a panel the key has those with the smallest and with the largest λ."""

_TITLE_WIDTH = 30


@dataclass(frozen=True)
class Curve:
    """Ordered p-values of one class of variants, the smallest first.

    - ``name``, ``count``: the class, and n, how many variants it has.
    - ``inflation``: λ; NaN without variants.
    - ``ranks`` (k,): which of the n ordered p-values are drawn, counted from 1.
    - ``expected``, ``observed`` (k,): -log10 of ``(rank - 1/2) / n``, and of the p-value.
    - ``low``, ``high`` (k,): the band of that rank's -log10 p.
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
    """One test and its degrees of freedom: all variants together, and those of each class of frequencies, if any."""

    test: ScanTest
    df: int
    everything: Curve
    classes: tuple[Curve, ...]


def qq_data(scan: ScanResults, tests: Sequence[ScanTest], by_frequency: bool = False) -> list[QQ]:
    """Ordered p-values of every test; memory holds those of one test at a time (9 bytes a variant).

    Classes of minor allele frequency, where they are asked for, have `FEWEST_IN_CLASS` variants or more each.
    """
    classes = _classes(scan) if by_frequency else None
    return [_of_test(scan, test, classes) for test in tests]


def inflation_of(mlog10p: Array, df: int) -> float:
    """Genomic control λ of a test; NaN without variants."""
    return inflation(10.0 ** -float(np.median(mlog10p)), df) if mlog10p.size else float("nan")


def _classes(scan: ScanResults) -> NDArray[np.int8]:
    """The class of every variant by its minor allele frequency; of those without one the last index plus one."""
    parts = [np.empty(0, dtype=np.int8)]
    for batch in scan.read(["EAF"]):
        frequency = column_values(batch, "EAF")
        minor = np.minimum(frequency, 1 - frequency)
        # Frequencies are counts over counts: 0.01 may come as 1 - 0.99.
        of_batch = np.digitize(minor + 1e-12, CLASS_EDGES)
        parts.append(np.where(np.isnan(minor), len(CLASS_NAMES), of_batch).astype(np.int8))
    return np.concatenate(parts)


def _of_test(scan: ScanResults, test: ScanTest, classes: NDArray[np.int8] | None) -> QQ:
    mlog10p = np.concatenate([np.empty(0), *(column_values(batch, test.column) for batch in scan.read([test.column]))])
    known = ~np.isnan(mlog10p)
    df = scan.degrees_of_freedom(test)
    curves = []
    if classes is not None:
        members = [(name, known & (classes == k)) for k, name in enumerate(CLASS_NAMES)]
        curves = [_curve(name, mlog10p[of], df) for name, of in members if np.count_nonzero(of) >= FEWEST_IN_CLASS]
    return QQ(test, df, _curve("all", mlog10p[known], df), tuple(curves))


def _curve(name: str, values: Array, df: int) -> Curve:
    n = len(values)
    ordered = np.sort(values)[::-1]
    ranks = _drawn_ranks(n)
    tail = (1 - LEVEL) / 2
    high, low = (-np.log10(stats.beta.ppf(q, ranks, n - ranks + 1)) for q in (tail, 1 - tail))
    expected = -np.log10((ranks - 0.5) / n)
    return Curve(name, n, inflation_of(values, df), ranks, expected, ordered[ranks - 1], low, high)


def _drawn_ranks(n: int) -> NDArray[np.int64]:
    """All of the smallest p-values, and of the others as many as a picture can show."""
    first = np.arange(1, min(n, _EVERY_RANK) + 1)
    if n <= _EVERY_RANK:
        return first
    return np.unique(np.concatenate([first, np.geomspace(_EVERY_RANK, n, _FURTHER_RANKS).astype(np.int64)]))


def draw_qq(data: Sequence[QQ]) -> Figure:
    """A panel a test: its band filled for all variants, and for each class between two lines of its colour.

    Of more tests than `MOST_PANELS` the first has a panel, and the others one together.
    """
    many = len(data) > MOST_PANELS
    count = 2 if many else len(data)
    columns = 2 if count == 4 else min(count, _MOST_IN_ROW)
    rows = -(-count // columns)
    panel = 3.1 if many else _PANEL
    figure = new_figure(panel * columns + (1.0 if columns == 1 else 0.1), panel * rows + 0.35)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, qq in zip(panels, data[:1] if many else data, strict=False):
        panel_title(axes, wrapped(qq.test.label, _TITLE_WIDTH))
        _draw_panel(axes, qq)
    if many:
        panel_title(panels[1], f"{len(data) - 1} other tests")
        _draw_together(panels[1], data[1:])
    for unused in panels[count:]:
        unused.set_axis_off()
    figure.supxlabel("expected −log₁₀ p", fontsize=8)
    figure.supylabel("observed −log₁₀ p", fontsize=8)
    freeze_layout(figure)
    for axes in panels[:count]:
        _move_key_off_points(axes)
    return figure


def _draw_panel(axes: Axes, qq: QQ) -> None:
    if not qq.everything.count:
        say_nothing_to_draw(axes)
        axes.set(xticks=[], yticks=[])
        return
    _draw_band(axes, qq.everything)
    _draw_points(axes, qq.everything, BLACK, 2)
    colours = dict(zip(CLASS_NAMES, _CLASS_COLOURS, strict=True))
    for curve in qq.classes:
        for edge in (curve.low, curve.high):
            axes.plot(curve.expected, edge, color=colours[curve.name], linewidth=0.5, zorder=1.2)
        _draw_points(axes, curve, colours[curve.name], 2)
    _set_limits(axes, [qq.everything, *qq.classes])
    axes.legend(loc="upper left", fontsize=6.5, handletextpad=0, borderpad=0, labelspacing=0.2, markerscale=2)


def _draw_together(axes: Axes, data: Sequence[QQ]) -> None:
    """Curves of many tests in one panel, told apart by a colour each as far as colours go."""
    curves = {qq.test.label: qq.everything for qq in data if qq.everything.count}
    if not curves:
        say_nothing_to_draw(axes)
        axes.set(xticks=[], yticks=[])
        return
    _draw_band(axes, max(curves.values(), key=lambda curve: curve.count))
    by_inflation = sorted(curves, key=lambda name: curves[name].inflation)
    many = len(curves) > _MOST_IN_KEY
    named = {*by_inflation[: _MOST_IN_KEY // 2], *by_inflation[-_MOST_IN_KEY // 2 :]} if many else set(curves)
    for k, (name, curve) in enumerate(curves.items()):
        colour = COLOURS(k / max(len(curves) - 1, 1))
        label = f"{shortened(name)}: λ = {curve.inflation:.3f}" if name in named else "_"  # not in the key
        _draw_points(axes, curve, colour, 1.4, label)
    _set_limits(axes, list(curves.values()))
    title = f"smallest {_MOST_IN_KEY // 2} and largest {_MOST_IN_KEY // 2} λ" if many else None
    size = 5.0 if many else 6.0
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(**place, title=title, title_fontsize=size, fontsize=size, handletextpad=0, markerscale=3)


def _draw_band(axes: Axes, curve: Curve) -> None:
    """The band of all variants, and the line of equal quantiles."""
    axes.fill_between(curve.expected, curve.low, curve.high, color=PALE, linewidth=0, zorder=1)
    right = float(curve.expected[0])
    axes.plot([0, right], [0, right], color=GREY, linewidth=0.6, zorder=1.5)


def _set_limits(axes: Axes, curves: Sequence[Curve]) -> None:
    axes.set_xlim(0, 1.03 * max(float(curve.expected[0]) for curve in curves))
    axes.set_ylim(0, 1.08 * max(max(float(curve.observed[0]), float(curve.high[0])) for curve in curves))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))


def _move_key_off_points(axes: Axes) -> None:
    """Leave the key where it is unless points lie under it, as those of few variants may."""
    key = axes.get_legend()
    if key is None:
        return
    box = key.get_window_extent()
    points = [line for line in axes.lines if line.get_marker() == "o"]
    if any(box.count_contains(axes.transData.transform(line.get_xydata())) for line in points):
        key.set_loc("best")


def _draw_points(axes: Axes, curve: Curve, colour: Any, size: float, label: str = "") -> None:
    label = label or f"{curve.name}: λ = {curve.inflation:.3f}"
    dots: dict[str, Any] = {"markersize": size, "markeredgewidth": 0, "rasterized": True}
    axes.plot(curve.expected, curve.observed, "o", color=colour, label=label, **dots)
