"""-log10 p of many traits along the genome, as colours: a row a trait, below the joint test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from kron2sum_cli.export.figure import PAGE_WIDTH, PALE, VERMILION, freeze_layout, new_figure, panel_title, wrapped
from kron2sum_cli.export.genome import Genome, located_batches
from kron2sum_cli.export.leads import Loci
from kron2sum_cli.export.manhattan import (
    Y_LABEL,
    Label,
    Manhattan,
    draw_points,
    genome_ticks,
    height_of_axis,
    lead_labels,
    manhattan_data,
    name_leads,
    thin_ticks,
)
from kron2sum_cli.export.results import Array, ScanResults, ScanTest, column_values

BINS = 720
"""Stretches that the genome is cut into: a colour is the largest -log10 p in one."""

COLOURS = "magma_r"

DIAMONDS_APART = 0.02
"""Share of the genome within which only the strongest lead variant of a row has a diamond."""

_TOP_HEIGHT, _ROW_HEIGHT, _LEAST_HEIGHT, _MOST_HEIGHT = 1.8, 0.16, 1.2, 7.0
_NAME_WIDTH = 40


@dataclass(frozen=True)
class HeatMap:
    """A Manhattan panel, and rows of colours under it.

    Attributes
    ----------
    top : Manhattan
        Of one panel, that of the first test.
    tests : tuple of ScanTest, length t
        A row each.
    largest : Array (t, b)
        The largest -log10 p of each test in each of b stretches of the axis, NaN where there is none.
    leads : tuple of tuple of Label
        For each test its lead variants, of those close together the strongest.
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
    axes.set_yticks(range(count), [wrapped(test.label, _NAME_WIDTH) for test in data.tests])
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    return image
