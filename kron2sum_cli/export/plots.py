"""The pictures of `kron2sum export --plot` as the bytes of a file."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from kron2sum_cli.errors import UsageError
from kron2sum_cli.export.effects import draw_effects, effect_columns, lead_effects
from kron2sum_cli.export.figure import render
from kron2sum_cli.export.genome import read_genome
from kron2sum_cli.export.loci import Clumping, find_loci
from kron2sum_cli.export.manhattan import draw_heat_map, draw_manhattan, draw_mirrored, heat_map_data, manhattan_data
from kron2sum_cli.export.qq import draw_qq, qq_data
from kron2sum_cli.export.results import ScanResults, ScanTest

PICTURE_FORMATS = ("png", "svg", "pdf")

MOST_PANELS = 7
"""Of more tests than this (a joint test and six traits) a Manhattan plot is a heat map."""

MOST_EFFECTS, MOST_EFFECT_PANELS = 10, 24
"""Variants, and traits, in a picture of effects, at most."""


@dataclass(frozen=True)
class PictureSettings:
    """What pictures of a scan show.

    ``clumping`` has the significance, and says which variants are lead variants; ``by_frequency`` asks for classes of
    minor allele frequency in a QQ plot.
    """

    clumping: Clumping = field(default_factory=Clumping)
    by_frequency: bool = False


def picture_format(out: str) -> str:
    """The format that the suffix of an output names; another than `PICTURE_FORMATS` is refused."""
    suffix = os.path.splitext(out)[1].lower().removeprefix(".")
    if suffix not in PICTURE_FORMATS:
        raise UsageError(
            f"--out {out}: a picture is a .png, .svg or .pdf; end the name of the output with one of these"
        )
    return suffix


def plot_scan(kind: str, scan: ScanResults, to: str, settings: PictureSettings) -> bytes:
    """One of `settings.SCAN_PLOTS` of the results of a scan, as the bytes of a PNG, SVG or PDF file.

    Raises UsageError if there are too many or too few traits for the picture; InputError if the table lacks a column,
    or is damaged.
    """
    if kind == "qq":
        curves = qq_data(scan, scan.drawn_tests, settings.by_frequency)
        return render(lambda: draw_qq(curves), to)
    if kind == "effects":
        return render(_effects(scan, settings), to)
    tests = _two_tests(scan) if kind == "mirrored" else scan.drawn_tests
    return render(manhattan_of(scan, tests, settings.clumping, kind == "mirrored"), to)


def manhattan_of(
    scan: ScanResults, tests: Sequence[ScanTest], clumping: Clumping, mirrored: bool = False
) -> Callable[[], Figure]:
    """Draws tests along the genome: panels, or of many tests a heat map."""
    genome = read_genome(scan)
    loci = find_loci(scan, genome, tests, [], clumping)
    if len(tests) > MOST_PANELS:
        colours = heat_map_data(scan, genome, tests, loci)
        return lambda: draw_heat_map(colours)
    data = manhattan_data(scan, genome, tests, loci)
    return lambda: draw_mirrored(data) if mirrored else draw_manhattan(data)


def _effects(scan: ScanResults, settings: PictureSettings) -> Callable[[], Figure]:
    if len(scan.traits) > MOST_EFFECT_PANELS:
        raise UsageError(
            f"--plot effects: {len(scan.traits)} traits are too many for one picture; choose some with --trait"
        )
    genome = read_genome(scan)
    loci = find_loci(scan, genome, scan.all_tests, effect_columns(scan.traits), settings.clumping)
    data = lead_effects(loci, genome, scan.traits, settings.clumping, MOST_EFFECTS)
    return lambda: draw_effects(data)


def _two_tests(scan: ScanResults) -> list[ScanTest]:
    """Two tests or traits, or the joint test and one trait of several; of sets two ways to test them."""
    of_traits = len(scan.traits) == 2 and not scan.chosen_tests and not scan.is_of_sets
    tests = scan.trait_tests if of_traits else scan.drawn_tests
    if len(tests) != 2 and scan.is_of_sets:
        raise UsageError(
            f"--plot mirrored: shows two tests, and this table of sets has {len(tests)}"
            f" ({', '.join(test.label for test in tests)}); scan with two --set-test"
        )
    if len(tests) != 2:
        raise UsageError(
            f"--plot mirrored: shows two traits, or one and the joint test, and here are {len(tests)};"
            " choose with --trait A,B or --test A --test B"
        )
    return tests
