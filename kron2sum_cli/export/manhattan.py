"""Manhattan plots: -log10 p along the genome, a panel a test, aligned or mirrored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from kron2sum_cli.export.figure import (
    BLUE,
    DOTS_PER_INCH,
    GREY,
    PAGE_WIDTH,
    SKY,
    VERMILION,
    freeze_layout,
    new_figure,
    panel_title,
    shortened,
    shortened_apart,
)
from kron2sum_cli.export.genome import Genome, measure_genome, placed_batches
from kron2sum_cli.export.leads import Clumping, clump_candidates, find_candidates
from kron2sum_cli.export.results import Array, ScanTest, ScanView, numbers


class Thinner:
    """Keeps every point at the threshold or above, and below it the first one in each cell of a grid.

    Memory is that of the grid and of the points kept. Which points are kept does not depend on how they are cut
    into batches.

    Parameters
    ----------
    length : x runs from 0 to this
    threshold : y from which on every point is kept
    cells : columns of the grid over x, and rows over 0 to the threshold
    """

    def __init__(self, length: float, threshold: float, cells: tuple[int, int]) -> None:
        self._length, self._threshold, self._cells = length, threshold, cells
        self._occupied = np.zeros(cells[0] * cells[1], dtype=np.bool_)
        self._kept: list[tuple[Array, Array, NDArray[np.intp]]] = []

    def add(self, x: Array, y: Array, group: NDArray[np.intp]) -> None:
        """Take points (b,) with their groups; those with y NaN are left out."""
        high = np.flatnonzero(y >= self._threshold)
        low = np.flatnonzero(y < self._threshold)
        columns, rows = self._cells
        column = np.minimum((x[low] * (columns / self._length)).astype(np.intp), columns - 1)
        row = np.minimum((y[low] * (rows / self._threshold)).astype(np.intp), rows - 1)
        cell = column * rows + row
        free = np.flatnonzero(~self._occupied[cell])
        cells, first = np.unique(cell[free], return_index=True)
        self._occupied[cells] = True
        kept = np.sort(np.concatenate([high, low[free[first]]]))
        if kept.size:
            self._kept.append((x[kept], y[kept], group[kept]))

    def points(self) -> tuple[Array, Array, NDArray[np.intp]]:
        """x, y and group of the points kept, in the order they came."""
        if not self._kept:
            return np.empty(0), np.empty(0), np.empty(0, dtype=np.intp)
        x, y, group = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        return x, y, group


FONT_SIZE = 6.5
MARKER = 2.8
"""Size of the marker of a named point, in printer's points."""

_RISES = (4.0, 12.0, 20.0, 28.0)
_SHIFTS = (0.0, 0.3, -0.3, 0.6, -0.6, 0.95, -0.95)


@dataclass(frozen=True)
class Label:
    """A text at a point of a panel, in the units of its axes."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class _Place:
    """Where a name may stand, in pixels: its box, and where the line from its point ends."""

    box: Bbox
    end: tuple[float, float]


class _Panel:
    """What is taken in a panel already, in pixels."""

    def __init__(self, axes: Axes, points: Array) -> None:
        self.frame = axes.get_window_extent()
        self.dots = axes.transData.transform(points) if len(points) else np.empty((0, 2))
        self.boxes: list[Bbox] = []
        self.lines = np.empty((0, 2))

    def take(self, place: _Place, line: Array) -> None:
        self.boxes.append(place.box)
        self.lines = np.concatenate([self.lines, line])

    def is_free(self, place: _Place, line: Array, unit: float) -> bool:
        padded = place.box.padded(unit)
        inside = place.box.y0 >= self.frame.y0 and place.box.y1 <= self.frame.y1 + 2 * unit
        over_names = any(padded.overlaps(box) or _covers(box, line) for box in self.boxes)
        return inside and not over_names and not _covers(padded, self.lines)


def place_labels(axes: Axes, labels: Sequence[Label], points: Array, upward: bool = True) -> int:
    """Write names beside their points where there is room, the first ones first.

    Of points that stand above each other, closer than the width of a marker, only the first is named.

    Parameters
    ----------
    axes : a panel whose size and limits are final
    labels : in order of importance
    points : (m, 2) points that are better not covered
    upward : whether a name stands above its point, or below

    Returns
    -------
    How many were written.
    """
    figure = axes.get_figure()
    assert figure is not None
    unit = figure.dpi / 72
    panel = _Panel(axes, points)
    named: list[float] = []
    for label in labels:
        point = axes.transData.transform((label.x, label.y))
        if any(abs(point[0] - x) < MARKER * unit for x in named):
            continue
        text = axes.text(label.x, label.y, label.text, fontsize=FONT_SIZE, ha="center", va="center")
        text.set_in_layout(False)
        place = _best_place(point, text.get_window_extent(), panel, unit, upward)
        if place is None:
            text.remove()
            continue
        named.append(point[0])
        panel.take(place, _line(point, place.end))
        _write(axes, text, label, place, unit)
    return len(named)


def _best_place(point: Array, size: Bbox, panel: _Panel, unit: float, upward: bool) -> _Place | None:
    """The first place near the point that is free, and, if there is one, that covers no dot."""
    second_best = None
    for place in _places(point, size, panel.frame, unit, upward):
        if not panel.is_free(place, _line(point, place.end), unit):
            continue
        if not _covers(place.box.padded(MARKER * unit), panel.dots):
            return place
        second_best = second_best or place
    return second_best


def _places(point: Array, size: Bbox, frame: Bbox, unit: float, upward: bool) -> Iterator[_Place]:
    sign = 1 if upward else -1
    half = size.width / 2
    for rise in _RISES:
        for shift in _SHIFTS:
            middle = min(max(point[0] + shift * size.width, frame.x0 + half + 3 * unit), frame.x1 - half)
            near = point[1] + sign * rise * unit
            box = Bbox.from_extents(middle - half, near, middle + half, near + sign * size.height)
            box = Bbox.from_extents(box.xmin, box.ymin, box.xmax, box.ymax)
            yield _Place(box, (min(max(point[0], box.x0), box.x1), near))


def _line(start: Array, end: tuple[float, float]) -> Array:
    """Points along a straight line, without its two ends."""
    share = np.linspace(0.1, 0.9, 17)[:, None]
    return np.asarray(start + share * (np.array(end) - start))


def _covers(box: Bbox, dots: Array) -> bool:
    x, y = dots[:, 0], dots[:, 1]
    return bool(np.any((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)))


def _write(axes: Axes, text: Text, label: Label, place: _Place, unit: float) -> None:
    """Move a name to its place, with a thin line from its point where it does not stand right at it."""
    to_data = axes.transData.inverted()
    middle = to_data.transform(((place.box.x0 + place.box.x1) / 2, (place.box.y0 + place.box.y1) / 2))
    text.set_position((float(middle[0]), float(middle[1])))
    start = axes.transData.transform((label.x, label.y))
    if np.hypot(*(np.array(place.end) - start)) > 1.5 * _RISES[0] * unit:
        end = to_data.transform(place.end)
        line = ([label.x, float(end[0])], [label.y, float(end[1])])
        axes.plot(*line, color=GREY, linewidth=0.4, zorder=1.5, scalex=False, scaley=False)


MOST_LABELS = 12
"""Names in a panel: of more lead variants the strongest."""

Y_LABEL = "−log₁₀ p"

NAME_HEIGHT = 16.0
"""Room for a name over the highest point, in printer's points."""

_CELL = 2 / DOTS_PER_INCH
_PANEL_HEIGHT, _LEAST_PANEL_HEIGHT, _PAGE_HEIGHT = 1.6, 0.8, 9.2
_LONGEST_TITLE = 60
_CELLS = (int(PAGE_WIDTH / _CELL), int(_PANEL_HEIGHT / _CELL))


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    Attributes
    ----------
    test : the test
    x, y, chromosome : (m,) place, -log10 p and chromosome of each point drawn
    leads : (k,) places, -log10 p and names of the lead variants, the strongest first
    """

    test: ScanTest
    x: Array
    y: Array
    chromosome: NDArray[np.intp]
    leads: tuple[Label, ...]

    @property
    def top(self) -> float:
        """The highest point."""
        return float(self.y.max()) if self.y.size else 0.0


@dataclass(frozen=True)
class Manhattan:
    """Panels over one genome, and the -log10 p of genome-wide significance."""

    genome: Genome
    panels: tuple[Panel, ...]
    threshold: float


def manhattan_data(view: ScanView, tests: Sequence[ScanTest], threshold: float, clumping: Clumping) -> Manhattan:
    """The points to draw: all that are significant, and of the others as many as a picture can show.

    Parameters
    ----------
    view : the table
    tests : a panel each
    threshold : -log10 p of significance
    clumping : which variants belong to a lead variant
    """
    genome = measure_genome(view)
    thinners = [Thinner(genome.length, threshold, _CELLS) for _ in tests]
    for batch, codes, positions in placed_batches(view, [test.column for test in tests], genome):
        x = genome.x(codes, positions)
        for thinner, test in zip(thinners, tests, strict=True):
            thinner.add(x, numbers(batch, test.column), codes)
    leads = _leads(view, genome, tests, threshold, clumping)
    panels = (
        Panel(test, *thinner.points(), leads=names) for test, thinner, names in zip(tests, thinners, leads, strict=True)
    )
    return Manhattan(genome, tuple(panels), threshold)


def _leads(
    view: ScanView, genome: Genome, tests: Sequence[ScanTest], threshold: float, clumping: Clumping
) -> list[tuple[Label, ...]]:
    """Lead variants of every test."""
    found = find_candidates(view, genome, tests, [], threshold)
    names = found.rows.column("SNPID").to_pylist()
    x = genome.x(found.codes, found.positions)
    scores = [np.asarray(found.rows.column(test.column).to_numpy(), dtype=float) for test in tests]
    loci = clump_candidates(found, scores, threshold, clumping)
    return [
        tuple(Label(names[i], float(x[i]), float(values[i])) for i in clumps.leads.tolist())
        for clumps, values in zip(loci, scores, strict=True)
    ]


def draw_manhattan(data: Manhattan) -> Figure:
    """Panels one below the other over one genome."""
    count = len(data.panels)
    height = min(_PANEL_HEIGHT, max(_LEAST_PANEL_HEIGHT, _PAGE_HEIGHT / count))
    height += 0.6 if count == 1 else 0
    figure = new_figure(PAGE_WIDTH, 0.6 + count * height)
    all_axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel, title in zip(all_axes, data.panels, _titles(data), strict=True):
        _draw_points(axes, data, panel)
        panel_title(axes, title)
        axes.set_ylim(0, _limit(panel, data.threshold, height))
    _genome_ticks(all_axes[-1], data.genome)
    figure.supylabel(Y_LABEL, fontsize=8)
    freeze_layout(figure)
    _thin_ticks(all_axes[-1], data.genome)
    for axes, panel in zip(all_axes, data.panels, strict=True):
        _name_leads(axes, panel, data.threshold)
    return figure


def draw_mirrored(data: Manhattan) -> Figure:
    """Two panels, the second upside down below the first."""
    figure = new_figure(PAGE_WIDTH, 4.4)
    upper, lower = figure.subplots(2, 1)
    for axes, panel in zip((upper, lower), data.panels, strict=True):
        _draw_points(axes, data, panel)
        axes.set_ylim(0, _limit(panel, data.threshold, 2.0))
    lower.invert_yaxis()
    lower.spines["bottom"].set_visible(False)
    lower.spines["top"].set_visible(True)
    lower.set_xticks([])
    first, second = _titles(data)
    panel_title(upper, first)
    lower.text(0, -0.03, second, transform=lower.transAxes, fontweight="bold", va="top")
    _genome_ticks(upper, data.genome)
    figure.supylabel(Y_LABEL, fontsize=8)
    freeze_layout(figure)
    _thin_ticks(upper, data.genome)
    _name_leads(upper, data.panels[0], data.threshold)
    _name_leads(lower, data.panels[1], data.threshold, upward=False)
    return figure


def _titles(data: Manhattan) -> list[str]:
    return shortened_apart([panel.test.label for panel in data.panels], _LONGEST_TITLE)


def _limit(panel: Panel, threshold: float, height: float) -> float:
    """The top of the y axis of a panel so many inches high, title included."""
    points = 72 * height - 26
    room = NAME_HEIGHT if panel.leads else 2.0
    return max(panel.top, threshold) * points / (points - room)


def _draw_points(axes: Axes, data: Manhattan, panel: Panel) -> None:
    axes.set_xlim(-0.005 * data.genome.length, 1.005 * data.genome.length)
    dots: dict[str, Any] = {"marker": "o", "markersize": 1.7, "markeredgewidth": 0, "linestyle": "none"}
    for parity, colour in enumerate((BLUE, SKY)):
        shown = panel.chromosome % 2 == parity
        axes.plot(panel.x[shown], panel.y[shown], color=colour, rasterized=True, zorder=2, **dots)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    axes.axhline(data.threshold, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=1)
    x, y = [lead.x for lead in panel.leads], [lead.y for lead in panel.leads]
    axes.plot(x, y, "D", color=VERMILION, markersize=MARKER, zorder=3)
    if not panel.y.size:
        axes.text(0.5, 0.5, "no variant has this statistic", transform=axes.transAxes, ha="center", color=GREY)


def _name_leads(axes: Axes, panel: Panel, threshold: float, upward: bool = True) -> None:
    high = panel.y >= threshold
    points = np.column_stack([panel.x[high], panel.y[high]])
    names = [Label(shortened(lead.text), lead.x, lead.y) for lead in panel.leads[:MOST_LABELS]]
    place_labels(axes, names, points, upward)


def _genome_ticks(axes: Axes, genome: Genome) -> None:
    """Names of the chromosomes under their middles, or of a single one its positions."""
    if len(genome.chromosomes) == 1:
        first, last = int(genome.first[0]), int(genome.last[0])
        ticks = [tick for tick in MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(first, last) if first <= tick <= last]
        axes.set_xticks([tick - first for tick in ticks], [f"{tick / 1e6:.10g}" for tick in ticks])
        axes.set_xlabel(f"position on chromosome {genome.labels[0]} (Mb)")
        return
    axes.set_xticks(genome.start + genome.width / 2, genome.labels)
    axes.set_xlabel("chromosome")
    axes.tick_params(axis="x", length=2)


def _thin_ticks(axes: Axes, genome: Genome) -> None:
    """Leave out names of chromosomes that would touch the one before."""
    if len(genome.chromosomes) == 1:
        return
    right, names = -np.inf, []
    for name, label in zip(genome.labels, axes.get_xticklabels(), strict=True):
        box = label.get_window_extent()
        fits = box.x0 > right + 0.2 * box.height
        names.append(name if fits else "")
        right = box.x1 if fits else right
    axes.set_xticks(axes.get_xticks(), names)
