"""Effects of the strongest variants on every trait, with 95% intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kron2sum_cli.export.figure import (
    BLUE,
    GREY,
    PALE,
    new_figure,
    panel_title,
    shortened,
    shortened_apart,
    without_axes,
)
from kron2sum_cli.export.genome import measure_genome
from kron2sum_cli.export.leads import Clumping, clump_candidates, find_candidates
from kron2sum_cli.export.results import Array, ScanView, level_text

NORMAL_95 = 1.959964
"""Half the width of a 95% interval in standard errors."""

_MOST_IN_ROW = 5
_LONGEST_ALLELE = 8


@dataclass(frozen=True)
class TopEffects:
    """Lead variants and their effects, the strongest first.

    Attributes
    ----------
    variants, alleles : (k,) names and effect alleles
    traits : names of the p traits
    beta, se, mlog10p : (k, p) effect of one more effect allele in the joint model, its standard error, its -log10 p
    threshold : -log10 p of significance
    """

    variants: tuple[str, ...]
    alleles: tuple[str, ...]
    traits: tuple[str, ...]
    beta: Array
    se: Array
    mlog10p: Array
    threshold: float


def effects_data(view: ScanView, threshold: float, clumping: Clumping, top: int) -> TopEffects:
    """The strongest lead variants by the joint test, whether significant or not.

    Parameters
    ----------
    view : the table
    threshold : -log10 p of significance
    clumping : which variants belong to a lead variant
    top : how many variants, at most
    """
    kinds = ("BETA", "SE", "MLOG10P")
    columns = [f"{kind}.{trait}" for kind in kinds for trait in view.traits]
    found = find_candidates(view, measure_genome(view), view.main_tests[:1], columns, threshold)
    (strongest,) = clump_candidates(found, [found.scores], -np.inf, clumping, top)
    rows = found.rows.take(strongest.leads)
    beta, se, mlog10p = (_matrix(rows, kind, view.traits) for kind in kinds)
    variants, alleles = (tuple(rows.column(name).to_pylist()) for name in ("SNPID", "EA"))
    return TopEffects(variants, alleles, view.traits, beta, se, mlog10p, threshold)


def _matrix(rows: Any, kind: str, traits: Sequence[str]) -> Array:
    columns = [np.asarray(rows.column(f"{kind}.{trait}").to_numpy(), dtype=float) for trait in traits]
    return np.column_stack(columns)


def draw_effects(data: TopEffects) -> Figure:
    """A panel a trait, a line a variant; filled where the trait's own test is significant."""
    count, lines = len(data.traits), max(len(data.variants), 1)
    columns = min(count, _MOST_IN_ROW)
    rows = -(-count // columns)
    figure = new_figure(1.6 + 1.25 * max(columns, 2), 0.8 + rows * (0.45 + 0.17 * lines))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for j, title in enumerate(shortened_apart(data.traits, 18 if columns > 2 else 28)):
        axes = panels[j // columns, j % columns]
        _draw_panel(axes, data, j)
        panel_title(axes, title)
    without_axes(list(panels.flat)[count:])
    panels[0, 0].set_ylim(lines - 0.4, -0.6)
    figure.supxlabel("effect of one more effect allele, 95% interval", fontsize=8)
    _key(figure, data.threshold)
    return figure


def _draw_panel(axes: Axes, data: TopEffects, j: int) -> None:
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    lines = np.arange(len(data.variants))
    if not len(lines):
        nothing = "no variant has\nthis statistic"
        axes.text(0.5, 0.5, nothing, transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set(xticks=[], yticks=[])
        return
    for line in lines[::2]:
        axes.axhspan(line - 0.5, line + 0.5, color=PALE, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=1)
    beta, half = data.beta[:, j], NORMAL_95 * data.se[:, j]
    axes.hlines(lines, beta - half, beta + half, color=BLUE, linewidth=0.9, zorder=2)
    for significant, face in ((True, BLUE), (False, "white")):
        shown = (data.mlog10p[:, j] >= data.threshold) == significant
        axes.plot(beta[shown], lines[shown], "o", markersize=4, color=BLUE, markerfacecolor=face, markeredgewidth=0.9)
    names = [_name(variant, allele) for variant, allele in zip(data.variants, data.alleles, strict=True)]
    axes.set_yticks(lines, names)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.margins(x=0.06)


def _name(variant: str, allele: str) -> str:
    """Variant and effect allele, as the GWAS Catalog writes them."""
    return f"{shortened(variant)}-{shortened(allele or '?', _LONGEST_ALLELE)}"


def _key(figure: Figure, threshold: float) -> None:
    def mark(face: str) -> Line2D:
        return Line2D([], [], marker="o", linestyle="none", markersize=4, color=BLUE, markerfacecolor=face)

    labels = [f"p ≤ {level_text(threshold)} for this trait", "larger p"]
    figure.legend(
        [mark(BLUE), mark("white")], labels, loc="outside upper right", ncols=2, handletextpad=0.1, borderpad=0
    )
