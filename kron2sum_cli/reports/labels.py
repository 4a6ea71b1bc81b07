"""Names beside points, none over another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from kron2sum_cli.reports.figure import GREY
from kron2sum_cli.reports.scan_view import Array

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
