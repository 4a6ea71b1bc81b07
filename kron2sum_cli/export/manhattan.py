"""Manhattan plots: -log10 p along the genome, a panel a test, aligned or mirrored; of many tests rows of colours."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
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
    PALE,
    SKY,
    VERMILION,
    freeze_layout,
    new_figure,
    panel_title,
    say_nothing_to_draw,
    shortened,
    wrapped,
)
from kron2sum_cli.export.genome import UNPLACED_LABEL, Genome, located_batches
from kron2sum_cli.export.loci import Loci
from kron2sum_cli.export.results import Array, ScanResults, ScanTest, column_values, name_in_metadata
from kron2sum_cli.files.scan_metadata import INDEPENDENT_TESTS
from kron2sum_cli.settings import FAMILY_WISE


class Thinner:
    """Keeps every point at the threshold or above, and below it the first one in each cell of a grid.

    Memory is that of the grid and of the points kept. Which points are kept does not depend on how they are cut
    into batches.

    x runs from 0 to ``length``. Every point is kept whose y is ``threshold`` or more; ``cells`` are columns of the grid
    over x, and rows over 0 to the threshold.
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

_OFFSETS_UP = (4.0, 12.0, 20.0, 28.0)
_OFFSETS_ACROSS = (0.0, 0.3, -0.3, 0.6, -0.6, 0.95, -0.95)


@dataclass(frozen=True)
class Label:
    """A text at a point of a panel, in the units of its axes."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class _LabelBox:
    """Where a name may stand, in pixels: its box, where the line from its point ends, and points (k, 2) on the line."""

    box: Bbox
    end: Array
    line: Array


class _Occupied:
    """What is taken in a panel already, in pixels."""

    def __init__(self, axes: Axes, points: Array) -> None:
        self.frame = axes.get_window_extent()
        self.dots = axes.transData.transform(points) if len(points) else np.empty((0, 2))
        self.boxes: list[Bbox] = []
        self.lines = np.empty((0, 2))

    def add(self, label_box: _LabelBox) -> None:
        self.boxes.append(label_box.box)
        self.lines = np.concatenate([self.lines, label_box.line])

    def is_free(self, label_box: _LabelBox, pixels: float) -> bool:
        padded = label_box.box.padded(pixels)
        inside = label_box.box.y0 >= self.frame.y0 and label_box.box.y1 <= self.frame.y1 + 2 * pixels
        over_names = any(padded.overlaps(box) or box.count_contains(label_box.line) for box in self.boxes)
        return inside and not over_names and not padded.count_contains(self.lines)


def place_labels(axes: Axes, labels: Sequence[Label], points: Array, upward: bool = True) -> int:
    """Write names beside their points where there is room, the first ones first.

    Of points that stand above each other, closer than the width of a marker, only the first is named.

    The size and limits of ``axes`` are final. Labels come in order of importance; ``points`` (m, 2) are better not
    covered. A name stands above its point where ``upward``, else below. Returns how many were written.
    """
    figure = axes.get_figure()
    assert figure is not None
    pixels = figure.dpi / 72  # a printer's point in pixels
    occupied = _Occupied(axes, points)
    named: list[float] = []
    for label in labels:
        point = axes.transData.transform((label.x, label.y))
        if any(abs(point[0] - x) < MARKER * pixels for x in named):
            continue
        text = axes.text(label.x, label.y, label.text, fontsize=FONT_SIZE, ha="center", va="center")
        text.set_in_layout(False)
        near = _label_boxes(point, text.get_window_extent(), occupied.frame, pixels, upward)
        free = [label_box for label_box in near if occupied.is_free(label_box, pixels)]
        if not free:
            text.remove()
            continue
        off_dots = (one for one in free if not one.box.padded(MARKER * pixels).count_contains(occupied.dots))
        label_box = next(off_dots, free[0])
        named.append(point[0])
        occupied.add(label_box)
        _write(axes, text, label, label_box, pixels)
    return len(named)


def _label_boxes(point: Array, size: Bbox, frame: Bbox, pixels: float, upward: bool) -> Iterator[_LabelBox]:
    sign = 1 if upward else -1
    half = size.width / 2
    along = np.linspace(0.1, 0.9, 17)[:, None]  # a line without its two ends
    for up in _OFFSETS_UP:
        for across in _OFFSETS_ACROSS:
            middle = min(max(point[0] + across * size.width, frame.x0 + half + 3 * pixels), frame.x1 - half)
            near = point[1] + sign * up * pixels
            low, high = sorted((near, near + sign * size.height))
            box = Bbox.from_extents(middle - half, low, middle + half, high)
            end = np.array([np.clip(point[0], box.x0, box.x1), near])
            yield _LabelBox(box, end, point + along * (end - point))


def _write(axes: Axes, text: Text, label: Label, label_box: _LabelBox, pixels: float) -> None:
    """Move a name into its box, with a thin line from its point where it does not stand right at it."""
    to_data = axes.transData.inverted()
    box = label_box.box
    middle = to_data.transform(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))
    text.set_position((float(middle[0]), float(middle[1])))
    start = axes.transData.transform((label.x, label.y))
    if np.hypot(*(label_box.end - start)) > 1.5 * _OFFSETS_UP[0] * pixels:
        end = to_data.transform(label_box.end)
        line = ([label.x, float(end[0])], [label.y, float(end[1])])
        axes.plot(*line, color=GREY, linewidth=0.4, zorder=1.5, scalex=False, scaley=False)


MOST_LABELS = 12
"""Names in a panel: of more lead variants the strongest."""

Y_LABEL = "−log₁₀ p"

NAME_HEIGHT = 16.0
"""Room for a name over the highest point, in printer's points."""

_CELL = 2 / DOTS_PER_INCH
_PANEL_HEIGHT, _LEAST_PANEL_HEIGHT, _PAGE_HEIGHT = 1.6, 0.8, 9.2
_TITLE_WIDTH = 90
_NEAR_THRESHOLD = 0.03
_CELLS = (int(PAGE_WIDTH / _CELL), int(_PANEL_HEIGHT / _CELL))


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    - ``x``, ``y``, ``chromosome`` (m,): place on the axis, -log10 p and chromosome of each point drawn.
    - ``leads``: places, -log10 p and names of the lead variants of the test, the strongest first.
    - ``threshold``: -log10 p of significance.
    - ``simulated``: -log10 p that `FAMILY_WISE` of the simulated scans exceed; None without a bootstrap.
    """

    test: ScanTest
    x: Array
    y: Array
    chromosome: NDArray[np.intp]
    leads: tuple[Label, ...]
    threshold: float
    simulated: float | None = None

    @property
    def top(self) -> float:
        """The highest point."""
        return float(self.y.max()) if self.y.size else 0.0


@dataclass(frozen=True)
class Manhattan:
    """Panels over one genome.

    Panels are from top to bottom. ``tested`` is to how many independent tests the variants amount, where the scan says
    that (``independent``); else how many variants have a statistic, in the test that has most.
    """

    genome: Genome
    panels: tuple[Panel, ...]
    tested: int
    independent: bool = False

    @property
    def bonferroni(self) -> float:
        """-log10 of `FAMILY_WISE` over the number of tests."""
        return float(-np.log10(FAMILY_WISE / max(self.tested, 1)))


def manhattan_data(scan: ScanResults, genome: Genome, tests: Sequence[ScanTest], loci: Loci) -> Manhattan:
    """The points to draw, a panel a test: all that are significant, and of the others as many as a picture can show."""
    thinners = [Thinner(genome.length, loci.thresholds.of(test), _CELLS) for test in tests]
    tested = np.zeros(len(tests), dtype=np.int64)
    for batch, chromosomes, positions in located_batches(scan, [test.column for test in tests], genome):
        x = genome.x(chromosomes, positions)
        for k, (thinner, test) in enumerate(zip(thinners, tests, strict=True)):
            mlog10p = column_values(batch, test.column)
            tested[k] += np.count_nonzero(~np.isnan(mlog10p))
            thinner.add(x, mlog10p, chromosomes)
    level = f"{FAMILY_WISE:g}"
    panels = []
    for test, thinner in zip(tests, thinners, strict=True):
        simulated = scan.metadata.thresholds.get(name_in_metadata(scan, test), {}).get(level)
        leads, threshold = lead_labels(genome, test, loci), loci.thresholds.of(test)
        panels.append(Panel(test, *thinner.points(), leads, threshold, simulated))
    number = number_of_independent_tests(scan)
    return Manhattan(genome, tuple(panels), number or int(tested.max()), number is not None)


def number_of_independent_tests(scan: ScanResults) -> int | None:
    """To how many independent tests the variants of a scan amount; None where it does not say."""
    return None if scan.is_of_sets else scan.metadata.counts.get(INDEPENDENT_TESTS)


def lead_labels(genome: Genome, test: ScanTest, loci: Loci) -> tuple[Label, ...]:
    """Names of the lead variants of a test at their places, the strongest first."""
    leads = loci.by_test[test.column].leads
    found = loci.candidates.take(leads)
    x = genome.x(found.chromosomes, found.positions).tolist()
    y = column_values(found.rows, test.column).tolist()
    names = found.rows.column("SNPID").to_pylist()
    return tuple(Label(*label) for label in zip(names, x, y, strict=True))


def draw_manhattan(data: Manhattan) -> Figure:
    """Panels one below the other over one genome."""
    count = len(data.panels)
    height = min(_PANEL_HEIGHT, max(_LEAST_PANEL_HEIGHT, _PAGE_HEIGHT / count))
    height += 0.6 if count == 1 else 0
    figure = new_figure(PAGE_WIDTH, 0.6 + count * height)
    all_axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(all_axes, data.panels, strict=True):
        draw_points(axes, data, panel)
        panel_title(axes, wrapped(panel.test.label, _TITLE_WIDTH))
        axes.set_ylim(0, height_of_axis(panel, height))
    genome_ticks(all_axes[-1], data.genome)
    figure.supylabel(Y_LABEL, fontsize=8)
    freeze_layout(figure)
    thin_ticks(all_axes[-1], data.genome)
    for axes, panel in zip(all_axes, data.panels, strict=True):
        name_leads(axes, panel)
    return figure


def draw_mirrored(data: Manhattan) -> Figure:
    """Two panels, the second upside down below the first."""
    figure = new_figure(PAGE_WIDTH, 4.4)
    upper, lower = figure.subplots(2, 1)
    for axes, panel in zip((upper, lower), data.panels, strict=True):
        draw_points(axes, data, panel)
        axes.set_ylim(0, height_of_axis(panel, 2.0))
    lower.invert_yaxis()
    lower.spines["bottom"].set_visible(False)
    lower.spines["top"].set_visible(True)
    lower.set_xticks([])
    first, second = (wrapped(panel.test.label, _TITLE_WIDTH) for panel in data.panels)
    panel_title(upper, first)
    lower.text(0, -0.03, second, transform=lower.transAxes, fontweight="bold", va="top")
    genome_ticks(upper, data.genome)
    figure.supylabel(Y_LABEL, fontsize=8)
    freeze_layout(figure)
    thin_ticks(upper, data.genome)
    name_leads(upper, data.panels[0])
    name_leads(lower, data.panels[1], upward=False)
    return figure


def height_of_axis(panel: Panel, height: float) -> float:
    """The top of the y axis of a panel so many inches high, title included."""
    points = 72 * height - 26
    room = NAME_HEIGHT if panel.leads else 2.0
    return max(panel.top, panel.threshold) * points / (points - room)


def draw_points(axes: Axes, data: Manhattan, panel: Panel) -> None:
    """The points of a panel, the line of significance and the marks of the leads."""
    axes.set_xlim(-0.005 * data.genome.length, 1.005 * data.genome.length)
    dots: dict[str, Any] = {"marker": "o", "markersize": 1.7, "markeredgewidth": 0, "linestyle": "none"}
    for parity, colour in enumerate((BLUE, SKY)):
        shown = panel.chromosome % 2 == parity
        axes.plot(panel.x[shown], panel.y[shown], color=colour, rasterized=True, zorder=2, **dots)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    axes.axhline(panel.threshold, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=1)
    x, y = [lead.x for lead in panel.leads], [lead.y for lead in panel.leads]
    axes.plot(x, y, "D", color=VERMILION, markersize=MARKER, zorder=3)
    if not panel.y.size:
        say_nothing_to_draw(axes)
        return
    line, text = data.bonferroni, f"{FAMILY_WISE:g} / {data.tested:,}{' tests' * data.independent}"
    if panel.simulated is not None:
        line, text = panel.simulated, f"{FAMILY_WISE:.0%} of scans"
    if abs(line - panel.threshold) > _NEAR_THRESHOLD * panel.threshold:
        axes.axhline(line, color=GREY, linewidth=0.6, linestyle=":", zorder=1)
        place = axes.get_yaxis_transform()
        axes.text(1.003, line, text, transform=place, fontsize=5, color=GREY, rotation=90, va="center")


def name_leads(axes: Axes, panel: Panel, upward: bool = True) -> None:
    """Write the names of the strongest leads."""
    high = panel.y >= panel.threshold
    points = np.column_stack([panel.x[high], panel.y[high]])
    names = [Label(shortened(lead.text), lead.x, lead.y) for lead in panel.leads[:MOST_LABELS]]
    place_labels(axes, names, points, upward)


def genome_ticks(axes: Axes, genome: Genome) -> None:
    """Names of the chromosomes under their middles, or of a single one its positions."""
    ticks = genome.ticks
    if len(genome.chromosomes) == 1:
        first, last = int(genome.first[0]), int(genome.last[0])
        positions = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(first, last)
        shown = np.array([position for position in positions if first <= position <= last], dtype=np.int64)
        unplaced = bool(genome.unplaced[0])
        names = [f"{position:,}" if unplaced else f"{position / 1e6:.10g}" for position in shown.tolist()]
        axes.set_xticks(genome.x(np.zeros(len(shown), dtype=np.intp), shown), names)
        where = f"position on chromosome {genome.labels[0]} (Mb)"
        axes.set_xlabel("variants without a position, in the order of the table" if unplaced else where)
        return
    axes.set_xticks([(start + end) / 2 for _, start, end in ticks], [name for name, _, _ in ticks])
    axes.set_xlabel("chromosome" if len(ticks) > 1 else "")
    axes.tick_params(axis="x", length=2)


def thin_ticks(axes: Axes, genome: Genome) -> None:
    """Leave out names of chromosomes that would touch one before, or that of the scaffolds or unplaced variants."""
    if len(genome.chromosomes) == 1:
        return
    labels = axes.get_xticklabels()
    names = [label.get_text() for label in labels]
    edges = [(box.x0, box.x1 + 0.2 * box.height) for box in (label.get_window_extent() for label in labels)]
    shown: list[int] = []
    for k in sorted(range(len(names)), key=lambda k: "\n" not in names[k] and names[k] != UNPLACED_LABEL):
        if all(edges[k][0] > edges[other][1] or edges[k][1] < edges[other][0] for other in shown):
            shown.append(k)
    axes.set_xticks(axes.get_xticks(), [name if k in shown else "" for k, name in enumerate(names)])


BINS = 720
"""Stretches that the genome is cut into: a colour is the largest -log10 p in one."""

COLOURS = "magma_r"

DIAMONDS_APART = 0.02
"""Share of the genome within which only the strongest lead variant of a row has a diamond."""

_TOP_HEIGHT, _ROW_HEIGHT, _LEAST_HEIGHT, _MOST_HEIGHT = 1.8, 0.16, 1.2, 7.0
_NAME_WIDTH = 40
_NAME_SIZE, _LEAST_NAME_SIZE = 7.0, 4.0


@dataclass(frozen=True)
class HeatMap:
    """A Manhattan panel, and rows of colours under it.

    ``top`` is of one panel, that of the first test. ``largest`` (t, b) is the largest -log10 p of each of the t tests
    in each of b stretches of the axis, NaN where there is none, and ``leads`` has for each test its lead variants, of
    those close together the strongest.
    """

    top: Manhattan
    tests: tuple[ScanTest, ...]
    largest: Array
    leads: tuple[tuple[Label, ...], ...]


def heat_map_data(scan: ScanResults, genome: Genome, tests: Sequence[ScanTest], loci: Loci) -> HeatMap:
    """What a heat map of two or more tests shows; the first test has the panel on top."""
    rows = tests[1:]
    largest = np.full((len(rows), BINS), np.nan)
    for batch, chromosomes, positions in located_batches(scan, [test.column for test in rows], genome):
        share = genome.x(chromosomes, positions) / genome.length
        stretch = np.minimum((share * BINS).astype(np.intp), BINS - 1)
        for row, test in zip(largest, rows, strict=True):
            np.fmax.at(row, stretch, column_values(batch, test.column))
    _fill_gaps(largest, genome)
    top = manhattan_data(scan, genome, tests[:1], loci)
    leads = tuple(_apart(lead_labels(genome, test, loci), DIAMONDS_APART * genome.length) for test in rows)
    return HeatMap(top, tuple(rows), largest, leads)


def _fill_gaps(largest: Array, genome: Genome) -> None:
    """Give stretches without variants the value of the nearest one on the chromosome, in place."""
    for _, start, end in genome.ticks:
        first, last = int(start / genome.length * BINS), int(np.ceil(end / genome.length * BINS))
        for row in largest[:, first:last]:
            known = np.flatnonzero(np.isfinite(row))
            if known.size:
                edges = (known[1:] + known[:-1]) / 2
                row[:] = row[known[np.searchsorted(edges, np.arange(len(row)))]]


def _apart(leads: Sequence[Label], distance: float) -> tuple[Label, ...]:
    """Of leads, the strongest first, those that are not so close to a stronger one."""
    shown: list[Label] = []
    for lead in leads:
        if all(abs(lead.x - other.x) > distance for other in shown):
            shown.append(lead)
    return tuple(shown)


def draw_heat_map(data: HeatMap) -> Figure:
    """The first test as points, the others as rows of colours, their lead variants as diamonds."""
    count = len(data.tests)
    height = min(max(_ROW_HEIGHT * count, _LEAST_HEIGHT), _MOST_HEIGHT)
    figure = new_figure(PAGE_WIDTH, 0.7 + _TOP_HEIGHT + height)
    ratios: dict[str, Any] = {"height_ratios": [_TOP_HEIGHT, height]}
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw=ratios)
    (panel,) = data.top.panels
    draw_points(upper, data.top, panel)
    panel_title(upper, wrapped(panel.test.label, 90))
    upper.set_ylabel(Y_LABEL)
    upper.set_ylim(0, height_of_axis(panel, _TOP_HEIGHT))
    colours = _draw_rows(lower, data)
    name_rows(lower, data.tests, 72 * height / count)
    scale = figure.colorbar(colours, ax=lower, pad=0.01, fraction=0.03, aspect=25)
    scale.outline.set_visible(False)
    scale.set_label(Y_LABEL)
    scale.ax.axhline(panel.threshold, color=VERMILION, linewidth=1)
    genome_ticks(lower, data.top.genome)
    freeze_layout(figure)
    thin_ticks(lower, data.top.genome)
    name_leads(upper, panel)
    return figure


def _draw_rows(axes: Axes, data: HeatMap) -> ScalarMappable:
    genome, count = data.top.genome, len(data.tests)
    known = data.largest[np.isfinite(data.largest)]
    limit = max(data.top.panels[0].threshold, float(known.max()) if known.size else 0.0)
    axes.set_facecolor(PALE)
    image = axes.imshow(
        data.largest,
        cmap=COLOURS,
        norm=Normalize(0, limit),
        aspect="auto",
        interpolation="nearest",
        extent=(0, genome.length, count - 0.5, -0.5),
    )
    for _, start, _ in genome.ticks[1:]:
        axes.axvline(start, color="white", linewidth=0.6)
    for row, leads in enumerate(data.leads):
        x = [lead.x for lead in leads]
        axes.plot(x, [row] * len(x), "D", color="white", markeredgecolor="black", markeredgewidth=0.5, markersize=3)
    axes.spines[:].set_visible(False)
    return image


def name_rows(axes: Axes, tests: Sequence[ScanTest], row_height: float) -> None:
    """Names of the rows, of so many points each, in letters that fit; of very low ones every second, third, ..."""
    size = min(_NAME_SIZE, 0.9 * row_height)
    step = max(1, math.ceil(_LEAST_NAME_SIZE / size))
    name = wrapped if size == _NAME_SIZE else shortened
    rows = range(0, len(tests), step)
    size = min(_NAME_SIZE, size * step)
    axes.set_yticks(rows, [name(tests[row].label, _NAME_WIDTH) for row in rows], fontsize=size)
    axes.tick_params(axis="y", length=0)
