"""Manhattan plots: -log10 p along the genome, a panel a test, aligned or mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from kron2sum_cli.reports.clumping import Clumping
from kron2sum_cli.reports.figure import (
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
from kron2sum_cli.reports.genome import Genome, measure_genome, placed_batches
from kron2sum_cli.reports.labels import MARKER, Label, place_labels
from kron2sum_cli.reports.lead_variants import clump_candidates, find_candidates
from kron2sum_cli.reports.scan_view import Array, ScanTest, ScanView, numbers
from kron2sum_cli.reports.thinning import Thinner

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
