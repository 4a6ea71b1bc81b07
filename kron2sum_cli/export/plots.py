"""The pictures of `kron2sum export --plot`: which there are, and how to get one as the bytes of a file.

matplotlib is an optional extra: this module imports what needs it only when a picture is drawn.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

import numpy as np

from kron2sum_cli.errors import UsageError
from kron2sum_cli.export.leads import Clumping
from kron2sum_cli.export.results import ScanTest, ScanView
from kron2sum_cli.model.uncertainty import Estimates

SCAN_PLOTS = ("manhattan", "mirrored", "qq", "effects")
"""Pictures of a result table."""

NULL_PLOTS = ("architecture",)
"""Pictures of a null model."""

PICTURE_FORMATS = ("png", "svg", "pdf")

SIGNIFICANCE = 5e-8
"""Genome-wide significance in human data."""

TOP = 10
MOST_PANELS = 24


@dataclass(frozen=True)
class PlotSettings:
    """What a picture of a scan shows.

    Attributes
    ----------
    significance : the p-value of genome-wide significance
    clumping : which variants belong to a lead variant
    top : variants in the picture of effects, at most
    """

    significance: float = SIGNIFICANCE
    clumping: Clumping = field(default_factory=Clumping)
    top: int = TOP

    @property
    def threshold(self) -> float:
        """-log10 of the significance."""
        return float(-np.log10(self.significance))


def picture_format(out: str) -> str:
    """The format that the suffix of an output names.

    Raises
    ------
    UsageError
        If it names none of `PICTURE_FORMATS`.
    """
    suffix = os.path.splitext(out)[1].lower().removeprefix(".")
    if suffix not in PICTURE_FORMATS:
        raise UsageError(
            f"--out {out}: a picture is a .png, .svg or .pdf; end the name of the output with one of these"
        )
    return suffix


def plot_scan(kind: str, view: ScanView, to: str, settings: PlotSettings) -> bytes:
    """Draw a picture of a result table.

    Parameters
    ----------
    kind : one of `SCAN_PLOTS`
    view : the table
    to : "png", "svg" or "pdf"
    settings : what it shows

    Raises
    ------
    UsageError
        If matplotlib is missing, or there are too many or too few traits for the picture.
    InputError
        If the table lacks a column, or is damaged.
    """
    render = drawing("figure").render
    if kind == "manhattan":
        manhattan = drawing("manhattan")
        data = manhattan.manhattan_data(view, _panels(kind, view), settings.threshold, settings.clumping)
        picture: bytes = render(lambda: manhattan.draw_manhattan(data), to)
    elif kind == "mirrored":
        manhattan = drawing("manhattan")
        data = manhattan.manhattan_data(view, _two_panels(view), settings.threshold, settings.clumping)
        picture = render(lambda: manhattan.draw_mirrored(data), to)
    elif kind == "qq":
        qq = drawing("qq")
        curves = qq.qq_data(view, _panels(kind, view))
        picture = render(lambda: qq.draw_qq(curves), to)
    else:
        _panels(kind, view)
        effects = drawing("effects")
        top = effects.effects_data(view, settings.threshold, settings.clumping, settings.top)
        picture = render(lambda: effects.draw_effects(top), to)
    return picture


def plot_architecture(traits: Sequence[str], estimates: Estimates, to: str) -> bytes:
    """Draw the correlations and heritabilities of a null model.

    Parameters
    ----------
    traits, estimates : of the null model
    to : "png", "svg" or "pdf"

    Raises
    ------
    UsageError
        If matplotlib is missing.
    """
    architecture = drawing("architecture")
    picture: bytes = drawing("figure").render(lambda: architecture.draw_architecture(traits, estimates), to)
    return picture


def drawing(name: str) -> ModuleType:
    """A module of this package that needs matplotlib.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    try:
        import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise UsageError(
            "pictures need matplotlib, which is not installed: pip install 'kron2sum-cli[plot]'"
        ) from error
    return import_module(f"kron2sum_cli.export.{name}")


def _panels(kind: str, view: ScanView) -> list[ScanTest]:
    tests = view.main_tests
    if len(tests) > MOST_PANELS:
        raise UsageError(
            f"--plot {kind}: {len(view.traits)} traits are too many for one picture; choose some with --trait"
        )
    return tests


def _two_panels(view: ScanView) -> list[ScanTest]:
    """Two traits, or the joint test and one trait of several."""
    tests = view.trait_tests if len(view.traits) == 2 else view.main_tests
    if len(tests) != 2:
        raise UsageError(
            f"--plot mirrored: shows two traits, or one and the joint test, and here are {len(view.traits)};"
            " choose with --trait A,B"
        )
    return tests
