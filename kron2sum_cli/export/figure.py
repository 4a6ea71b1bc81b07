"""How every picture looks, and how it becomes a file that is the same for the same data."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

logger = logging.getLogger("kron2sum.export")

# Okabe and Ito's colours, told apart by all kinds of colour vision and, mostly, in grey.
BLUE, SKY, VERMILION, GREEN = "#0072B2", "#56B4E9", "#D55E00", "#009E73"
PURPLE, ORANGE, BLACK = "#CC79A7", "#E69F00", "#000000"
GREY, PALE = "#7F7F7F", "#E6E6E6"

DOTS_PER_INCH = 300
PAGE_WIDTH = 7.2
"""Inches: the width of two columns of a journal."""

LONGEST_NAME = 28
"""Letters of the name of a variant; longer ones lose their middle."""

LONGEST_WRAPPED = 240
"""Letters of the name of a trait, which is shown whole up to here."""

_STYLE: dict[Any, Any] = {
    "figure.dpi": DOTS_PER_INCH,
    "savefig.dpi": DOTS_PER_INCH,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that it is the same everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a trait may be called $x$
    "svg.hashsalt": "kron2sum",
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
}
_NO_DATE = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches that no window belongs to."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def render(draw: Callable[[], Figure], to: str, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    """A picture as the bytes of a PNG, SVG or PDF file."""
    file = io.BytesIO()
    with matplotlib.rc_context(), _missing_letters_logged():
        matplotlib.rcdefaults()  # the user's own settings would make other pictures of the same data
        matplotlib.rcParams.update(_STYLE)
        draw().savefig(file, format=to, metadata=_NO_DATE[to], dpi=dots_per_inch)
    return file.getvalue()


@contextmanager
def _missing_letters_logged() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = {str(warning.message) for warning in caught if "missing from font" in str(warning.message)}
    if missing:
        logger.warning("%d letters of names are not in the font of the picture and appear as boxes", len(missing))
    for warning in caught:
        if str(warning.message) not in missing:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def freeze_layout(figure: Figure) -> None:
    """Lay the panels out and keep them there, so that what is measured now holds in the file."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """A name with its middle left out where it is too long to draw.

    >>> shortened("mean_corpuscular_haemoglobin_concentration", 20)
    'mean_corpu…entration'
    """
    if len(name) <= longest:
        return name
    head = longest // 2
    return f"{name[:head]}…{name[len(name) - (longest - head - 1) :]}"


def wrapped(name: str, width: int) -> str:
    """A name in lines of at most so many letters, broken after a space or a sign where there is one.

    >>> wrapped("mean_corpuscular_haemoglobin_concentration", 20).splitlines()
    ['mean_corpuscular_', 'haemoglobin_', 'concentration']
    """
    rest, lines = shortened(name, LONGEST_WRAPPED), []
    while len(rest) > width:
        cut = max((found.end() for found in re.finditer(r"[\s_.,:;/-]", rest[:width])), default=width)
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return "\n".join([*lines, rest])


def panel_title(axes: Axes, text: str) -> None:
    """A title over the left end of a panel."""
    axes.set_title(text, loc="left", fontweight="bold", pad=4)


def say_nothing_to_draw(axes: Axes) -> None:
    """Say in a panel that no variant has its statistic."""
    text = "no variant has\nthis statistic"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
