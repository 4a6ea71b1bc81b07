"""Effects of lead variants on every trait, with 95% intervals."""

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
    say_nothing_to_draw,
    shortened,
    wrapped,
)
from kron2sum_cli.export.genome import Genome
from kron2sum_cli.export.loci import Clumping, Loci, clump_candidates
from kron2sum_cli.export.results import Array, column_values

NORMAL_95 = 1.959964
"""Half the width of a 95% interval in standard errors."""

ONE_UNIT = 5.0
"""Traits whose median standard errors differ by no more than this factor have one axis."""

_MOST_IN_ROW = 5
_LONGEST_ALLELE = 8


@dataclass(frozen=True)
class LeadEffects:
    """Lead variants and their effects, the strongest first.

    - ``variants``, ``alleles`` (k): names and effect alleles.
    - ``beta``, ``se``, ``mlog10p`` (k, p): effect of one more effect allele in the joint model, its standard error, its
      -log10 p.
    - ``thresholds`` (p): -log10 p of significance of each trait's test.
    - ``level``: significance in words, such as "p ≤ 5e-8".
    - ``found``: how many lead variants there are; 0 where none passes and the strongest variants are shown instead.
    """

    variants: tuple[str, ...]
    alleles: tuple[str, ...]
    traits: tuple[str, ...]
    beta: Array
    se: Array
    mlog10p: Array
    thresholds: tuple[float, ...]
    level: str
    found: int

    @property
    def title(self) -> str:
        """Which variants these are."""
        if not self.found:
            return f"no variant has {self.level} in any test: the strongest {len(self.variants)}"
        if self.found > len(self.variants):
            return f"the strongest {len(self.variants)} of {self.found} lead variants"
        return f"{self.found} lead variant{'s' * (self.found != 1)}"


def effect_columns(traits: Sequence[str]) -> list[str]:
    """The columns that `lead_effects` needs of the candidates."""
    return [f"{kind}.{trait}" for kind in ("BETA", "SE", "MLOG10P") for trait in traits]


def lead_effects(loci: Loci, genome: Genome, traits: Sequence[str], clumping: Clumping, most: int) -> LeadEffects:
    """Effects of the lead variants, the strongest of any test first; where none passes, of the strongest variants.

    The candidates of the loci have the columns that `effect_columns` names; ``most`` variants are shown at most.
    """
    leads, candidates = loci.together.leads, loci.candidates
    if not leads.size:
        (strongest,) = clump_candidates(candidates, genome, [candidates.excess], clumping, most)
    shown = leads[:most] if leads.size else strongest.leads
    rows = candidates.rows.take(shown)
    kinds = ("BETA", "SE", "MLOG10P")
    beta, se, mlog10p = (
        np.column_stack([column_values(rows, f"{kind}.{trait}") for trait in traits]) for kind in kinds
    )
    variants, alleles = (tuple(rows.column(name).to_pylist()) for name in ("SNPID", "EA"))
    thresholds = tuple(loci.thresholds.of_columns[f"MLOG10P.{trait}"] for trait in traits)
    return LeadEffects(
        variants, alleles, tuple(traits), beta, se, mlog10p, thresholds, loci.thresholds.text, len(leads)
    )


def draw_effects(data: LeadEffects) -> Figure:
    """A panel a trait, a line a variant; filled where the trait's own test is significant."""
    count, lines = len(data.traits), max(len(data.variants), 1)
    columns = min(count, _MOST_IN_ROW)
    rows = -(-count // columns)
    titles = [wrapped(trait, 18 if columns > 2 else 28) for trait in data.traits]
    title_height = 0.12 * max(title.count("\n") for title in titles)
    figure = new_figure(1.6 + 1.25 * max(columns, 2), 1.0 + rows * (0.45 + title_height + 0.17 * lines))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=has_one_unit(data.se))
    for j, title in enumerate(titles):
        axes = panels[j // columns, j % columns]
        _draw_panel(axes, data, j)
        panel_title(axes, title)
    for unused in panels.flat[count:]:
        unused.set_axis_off()
    for axes in panels.flat[max(count - columns, 0) : count]:
        axes.tick_params(labelbottom=True)
    panels[0, 0].set_ylim(lines - 0.4, -0.6)
    figure.supxlabel(f"effect of one more effect allele, 95% interval\n{data.title}", fontsize=8)
    dots: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 4, "color": BLUE}
    marks = [Line2D([], [], markerfacecolor=face, **dots) for face in (BLUE, "white")]
    key = [f"{data.level} for this trait", "larger p"]
    figure.legend(marks, key, loc="outside upper right", ncols=2, handletextpad=0.1, borderpad=0)
    return figure


def has_one_unit(se: Array) -> bool:
    """Whether effects on the traits can share an axis: their standard errors (k, p) are of about one size."""
    known = se[np.isfinite(se).all(axis=1)]
    if not known.size:
        return True
    medians = np.median(known, axis=0)
    return bool(medians.max() <= ONE_UNIT * medians.min())


def _draw_panel(axes: Axes, data: LeadEffects, j: int) -> None:
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    lines = np.arange(len(data.variants))
    if not len(lines):
        say_nothing_to_draw(axes)
        axes.set(xticks=[], yticks=[])
        return
    for line in lines[::2]:
        axes.axhspan(line - 0.5, line + 0.5, color=PALE, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=1)
    beta, half = data.beta[:, j], NORMAL_95 * data.se[:, j]
    axes.hlines(lines, beta - half, beta + half, color=BLUE, linewidth=0.9, zorder=2)
    for significant, face in ((True, BLUE), (False, "white")):
        shown = (data.mlog10p[:, j] >= data.thresholds[j]) == significant
        axes.plot(beta[shown], lines[shown], "o", markersize=4, color=BLUE, markerfacecolor=face, markeredgewidth=0.9)
    # Variant and effect allele, as the GWAS Catalog writes them.
    named = zip(map(shortened, data.variants), data.alleles, strict=True)
    axes.set_yticks(lines, [f"{name}-{shortened(allele or '?', _LONGEST_ALLELE)}" for name, allele in named])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.margins(x=0.06)
