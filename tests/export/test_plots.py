"""Pictures: what is drawn is what the table says, nothing significant is lost, and names do not collide."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, combinations, pairwise
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scan_views import column, simulated, view_of
from scipy import stats

pytest.importorskip("matplotlib")

import matplotlib as mpl
from matplotlib.figure import Figure

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.export import loci as lead_variants
from kron2sum_cli.export.architecture import correlations_shown, draw_architecture
from kron2sum_cli.export.effects import LeadEffects, draw_effects, effect_columns, lead_effects
from kron2sum_cli.export.figure import render, shortened, wrapped
from kron2sum_cli.export.genome import located_batches, read_genome
from kron2sum_cli.export.loci import Clumping, clump, find_candidates, find_loci
from kron2sum_cli.export.manhattan import (
    BINS,
    Label,
    Manhattan,
    Thinner,
    draw_heat_map,
    draw_manhattan,
    draw_mirrored,
    heat_map_data,
    manhattan_data,
    name_rows,
    place_labels,
)
from kron2sum_cli.export.plots import MOST_EFFECT_PANELS, PICTURE_FORMATS, PictureSettings, picture_format, plot_scan
from kron2sum_cli.export.qq import CLASS_NAMES, draw_qq, inflation_of, qq_data
from kron2sum_cli.export.results import (
    ScanResults,
    ScanTest,
    sets_as_variants,
    stored_columns_of_sets,
    thresholds_of_tests,
)
from kron2sum_cli.files.scan_columns import set_schema
from kron2sum_cli.files.scan_metadata import INDEPENDENT_TESTS
from kron2sum_cli.files.scan_table import scan_batch
from kron2sum_cli.model.uncertainty import Estimates
from kron2sum_cli.option_values import GenomeWide
from kron2sum_cli.settings import SCAN_PLOTS

Array = NDArray[np.float64]

TRAITS = ("height", "weight")
CLUMPING = Clumping(significance=10**-7.3)
THRESHOLD = 7.3


@pytest.fixture(scope="module")
def view() -> ScanResults:
    return view_of(simulated(3000, TRAITS, peaks=8), TRAITS)


def manhattan(view: ScanResults, tests: Sequence[ScanTest] | None = None) -> Manhattan:
    genome, tests = read_genome(view), view.main_tests if tests is None else tests
    return manhattan_data(view, genome, tests, find_loci(view, genome, tests, [], CLUMPING))


def effects(view: ScanResults, most: int, clumping: Clumping = CLUMPING) -> LeadEffects:
    genome = read_genome(view)
    loci = find_loci(view, genome, view.all_tests, effect_columns(view.traits), clumping)
    return lead_effects(loci, genome, view.traits, clumping, most)


def values(view: ScanResults, name: str) -> Array:
    return np.array(column(view, name), dtype=float)


def in_batches(view: ScanResults, size: int) -> ScanResults:
    def rows(names: Sequence[str]) -> Any:
        for batch in view.rows(names):
            yield from (batch.slice(start, size) for start in range(0, len(batch), size))

    return replace(view, rows=rows)


def changed(view: ScanResults, **columns: Sequence[Any]) -> ScanResults:
    """The same table with other columns."""

    def rows(names: Sequence[str]) -> Any:
        table = pa.Table.from_batches(view.rows(names))
        for name, new in columns.items():
            if name in names:
                at = table.schema.get_field_index(name)
                table = table.set_column(at, name, pa.array(new, table.schema.field(name).type))
        yield from table.combine_chunks().to_batches()

    return replace(view, rows=rows)


def without_rows(view: ScanResults) -> ScanResults:
    return replace(view, rows=lambda names: (batch.slice(0, 0) for batch in view.rows(names)))


def without_statistics(view: ScanResults) -> ScanResults:
    names = [name for name in view.columns if name.startswith(("MLOG10P", "BETA", "SE", "CHISQ", "DF"))]
    return changed(view, **{name: [None] * len(column(view, "POS")) for name in names})


# Thinning

POINTS = st.lists(st.tuples(st.floats(0, 1), st.one_of(st.floats(0, 20), st.just(float("nan")))), max_size=60)


def thinned(points: list[tuple[float, float]], batch: int) -> list[tuple[float, float]]:
    thinner = Thinner(1.0, 5.0, (4, 3))
    for start in range(0, len(points), batch):
        x, y = np.array(points[start : start + batch]).T
        thinner.add(x, y, np.zeros(len(x), dtype=np.intp))
    x, y, _ = thinner.points()
    return list(zip(x.tolist(), y.tolist(), strict=True))


@given(POINTS, st.integers(1, 20))
def test_thinning_never_drops_a_significant_point(points: list[tuple[float, float]], batch: int) -> None:
    kept = thinned(points, batch)
    assert [point for point in kept if point[1] >= 5] == [point for point in points if point[1] >= 5]


@given(POINTS, st.integers(1, 20))
def test_every_cell_of_the_picture_keeps_its_first_point_whatever_the_batches(
    points: list[tuple[float, float]], batch: int
) -> None:
    first: dict[tuple[int, int], tuple[float, float]] = {}
    expected = []
    for x, y in points:
        cell = (min(int(x * 4), 3), min(int(y * (3 / 5)), 2)) if y < 5 else None
        if cell is not None and cell not in first:
            first[cell] = (x, y)
            expected.append((x, y))
        elif y >= 5:
            expected.append((x, y))
    assert thinned(points, batch) == expected


def test_memory_of_points_does_not_grow_with_their_number() -> None:
    random = np.random.default_rng(0)
    thinner = Thinner(1.0, 5.0, (100, 50))
    for _ in range(20):
        thinner.add(random.random(100_000), random.exponential(0.43, 100_000), np.zeros(100_000, dtype=np.intp))
    assert len(thinner.points()[0]) <= 100 * 50 + 2 * 20 * 100_000 * 1e-5 * 5


# Places


def test_chromosomes_stand_in_their_order_and_do_not_overlap() -> None:
    columns = simulated(400, TRAITS, chromosomes=["10", "2", "X", "chr1", "MT"])
    genome = read_genome(view_of(columns, TRAITS))
    assert genome.labels == ["1", "2", "10", "X", "MT"]
    assert np.all(genome.start[1:] > genome.start[:-1] + genome.width[:-1])
    assert genome.length == genome.start[-1] + genome.width[-1]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_variant_without_a_position_stands_at_the_one_before_it_on_its_chromosome(size: int) -> None:
    columns = simulated(7, ["y"])
    columns |= {"CHR": ["1", "1", "1", "2", "2", "2", "2"], "POS": np.array([0, 8, -9, 0, 5, 0, 9])}
    view = in_batches(view_of(columns, ["y"]), size)
    genome = read_genome(view)
    assert genome.without_position == 4
    placed = [positions.tolist() for _, _, positions in located_batches(view, [], genome)]
    assert list(chain.from_iterable(placed)) == [0, 8, 8, 0, 5, 5, 9]
    x = [genome.x(codes, positions) for _, codes, positions in located_batches(view, [], genome)]
    assert np.all(np.diff(np.concatenate(x)) >= 0)


def test_a_chromosome_without_any_position_has_a_place_too() -> None:
    columns = simulated(6, ["y"]) | {"CHR": ["1", "1", "1", "0", "0", "0"], "POS": np.array([1, 50, 100, 0, 0, 0])}
    genome = read_genome(view_of(columns, ["y"]))
    assert genome.labels == ["1", "unplaced"]
    assert np.all(genome.width > 0)


def test_variants_without_a_map_stand_side_by_side_and_are_loci_of_their_own() -> None:
    columns = simulated(300, ["y"], peaks=0) | {"CHR": ["0"] * 300, "POS": np.zeros(300, dtype=np.int64)}
    columns["MLOG10P.y"] = columns["MLOG10P"] = np.where(np.isin(np.arange(300), (10, 11, 200)), 9.0, 0.5)
    view = in_batches(view_of(columns, ["y"]), 70)
    genome = read_genome(view)
    x = np.concatenate([genome.x(codes, positions) for _, codes, positions in located_batches(view, [], genome)])
    assert np.all(np.diff(x) > 0)
    (clumps,) = find_loci(view, genome, view.main_tests, [], CLUMPING).by_test.values()
    assert clumps.leads.size == 3 and clumps.sizes.tolist() == [1, 1, 1]


def test_unplaced_variants_that_are_linked_are_one_locus() -> None:
    unplaced, mlog10p = np.ones(4, np.bool_), np.array([9.0, 8.0, 10.0, 7.0])
    linked = np.eye(4, dtype=np.bool_)
    linked[2, 3] = linked[2, 0] = True
    chromosomes, positions = np.zeros(4, np.intp), np.arange(1, 5)
    found = clump(chromosomes, positions, mlog10p, 10**9, unplaced, lambda lead, others: linked[lead, others])
    assert (found.leads.tolist(), found.sizes.tolist()) == ([2, 1], [3, 1])


def test_many_scaffolds_share_one_stretch_beside_the_chromosomes() -> None:
    names = [*(f"scaffold_{k}" for k in range(500)), "1", "2", "X", "MT"]
    chromosomes = [*(names[k % 500] for k in range(1500)), *(["1"] * 900), *(["2"] * 900), *(["X"] * 50), *(["MT"] * 9)]
    size = len(chromosomes)
    position = np.where(np.arange(size) < 1500, np.arange(size) // 500 * 900 + 1, np.arange(size) * 90_000)
    columns = simulated(size, ["y"]) | {"CHR": chromosomes, "POS": position}
    genome = read_genome(view_of(columns, ["y"]))
    assert [name for name, _, _ in genome.ticks] == ["1", "2", "X", "MT", "500\nscaffolds"]
    assert np.count_nonzero(genome.pooled) == 500
    assert np.all(np.diff(genome.start) > 0)
    *_, (_, start, end) = genome.ticks
    assert end - start < 0.1 * genome.length


def test_of_scaffolds_alone_none_is_a_vertical_line() -> None:
    columns = simulated(1279 * 2, ["y"]) | {"CHR": [f"s{k // 2}" for k in range(1279 * 2)], "POS": [5, 905] * 1279}
    genome = read_genome(view_of(columns, ["y"]))
    assert [name for name, _, _ in genome.ticks] == ["1,279\nscaffolds"]
    assert np.all(genome.width > 0.5 * genome.length / 1279)


# Lead variants

LOCI = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40), st.integers(0, 5)), max_size=40)


@given(LOCI, st.integers(0, 20))
def test_clumps_are_those_of_the_definition(variants: list[tuple[int, int, int]], window: int) -> None:
    left = sorted(range(len(variants)), key=lambda i: (-variants[i][2], i))
    leads, sizes = [], []
    while left:
        code, position, _ = variants[left[0]]
        near = [i for i in left if variants[i][0] == code and abs(variants[i][1] - position) <= window]
        leads.append(left[0])
        sizes.append(len(near))
        left = [i for i in left if i not in near]
    codes, positions, scores = np.array(variants, dtype=np.int64).reshape(-1, 3).T
    found = clump(codes, positions, scores.astype(float), window, np.zeros(len(codes), np.bool_))
    assert (found.leads.tolist(), found.sizes.tolist()) == (leads, sizes)


@given(LOCI, st.integers(0, 20), st.integers(0, 2**32 - 1), st.sampled_from([None, 1, 3]))
def test_linked_clumps_are_those_of_the_definition(
    variants: list[tuple[int, int, int]], window: int, seed: int, most: int | None
) -> None:
    linked = np.random.default_rng(seed).random((len(variants), len(variants))) < 0.5
    left = sorted(range(len(variants)), key=lambda i: (-variants[i][2], i))
    leads, sizes = [], []
    while left and len(leads) != most:
        lead, *others = left
        code, position, _ = variants[lead]
        near = {i for i in others if variants[i][0] == code and abs(variants[i][1] - position) <= window}
        taken = {i for i in near if linked[lead, i]}
        leads.append(lead)
        sizes.append(1 + len(taken))
        left = [i for i in others if i not in taken]
    codes, positions, scores = np.array(variants, dtype=np.int64).reshape(-1, 3).T
    placed = np.zeros(len(codes), np.bool_)
    found = clump(codes, positions, scores.astype(float), window, placed, lambda i, near: linked[i, near], most)
    assert (found.leads.tolist(), found.sizes.tolist()) == (leads, sizes)


@pytest.mark.parametrize("size", [10, 300, 10_000])
@pytest.mark.parametrize("most", [5, 100_000])
def test_candidates_are_all_significant_variants_and_the_strongest_others(
    view: ScanResults, monkeypatch: pytest.MonkeyPatch, size: int, most: int
) -> None:
    monkeypatch.setattr(lead_variants, "MOST_CANDIDATES", most)
    thresholds = thresholds_of_tests(view, view.main_tests, CLUMPING.significance)
    found = find_candidates(in_batches(view, size), read_genome(view), view.main_tests, ["SNPID"], thresholds)
    scores = np.fmax.reduce([values(view, test.column) for test in view.main_tests])
    order = np.argsort(-np.where(np.isnan(scores), -1, scores), kind="stable")
    number = min(max(most, int(np.sum(scores >= THRESHOLD))), int(np.sum(~np.isnan(scores))))
    expected = np.sort(order[:number])
    names = np.array(column(view, "SNPID"))
    assert found.rows.column("SNPID").to_pylist() == names[expected].tolist()
    assert found.row_numbers.tolist() == expected.tolist()
    np.testing.assert_allclose(found.excess, scores[expected] - THRESHOLD, atol=1e-12)


# Manhattan


def test_points_of_the_picture_are_those_of_the_table(view: ScanResults) -> None:
    data = manhattan(view)
    for panel, name in zip(data.panels, ["MLOG10P", "MLOG10P.height", "MLOG10P.weight"], strict=True):
        all_y = values(view, name)
        high = np.sort(all_y[all_y >= THRESHOLD])
        assert high.size
        np.testing.assert_array_equal(np.sort(panel.y[panel.y >= THRESHOLD]), high)
        assert set(panel.y.tolist()) <= set(all_y.tolist())
    assert [panel.test.label for panel in data.panels] == ["joint test", *TRAITS]


def test_the_figure_draws_these_points_and_marks_the_leads(view: ScanResults) -> None:
    data = manhattan(view)
    drawn: list[Figure] = []
    render(lambda: drawn.append(draw_manhattan(data)) or drawn[0], "png", 50)  # type: ignore[func-returns-value]
    for axes, panel in zip(drawn[0].axes, data.panels, strict=True):
        first, second, _, leads = axes.lines[:4]
        y = np.concatenate([np.asarray(first.get_ydata()), np.asarray(second.get_ydata())])
        np.testing.assert_array_equal(np.sort(y), np.sort(panel.y))
        assert list(leads.get_ydata()) == [lead.y for lead in panel.leads]
        assert axes.get_ylim()[1] > panel.top


def test_bonferronis_line_counts_the_variants_that_have_a_statistic(view: ScanResults) -> None:
    data = manhattan(view)
    tested = np.count_nonzero(~np.isnan(values(view, "MLOG10P")))
    assert data.tested == tested and 10**-data.bonferroni == pytest.approx(0.05 / tested)
    for axes in draw_manhattan(data).axes:
        assert [data.bonferroni] * 2 in [list(line.get_ydata()) for line in axes.lines]
        assert f"0.05 / {tested:,}" in [text.get_text() for text in axes.texts]


def test_the_dotted_line_is_that_of_a_bootstrap_where_there_was_one(view: ScanResults) -> None:
    levels = {name: {"0.05": 3.25 + k, "0.1": 3.0} for k, name in enumerate(["any", *TRAITS])}
    data = manhattan(replace(view, metadata=replace(view.metadata, thresholds=levels)))
    assert [panel.simulated for panel in data.panels] == [3.25 + k for k in range(len(levels))]
    for axes, panel in zip(draw_manhattan(data).axes, data.panels, strict=True):
        lines = [list(line.get_ydata()) for line in axes.lines]
        assert [panel.simulated] * 2 in lines and [data.bonferroni] * 2 not in lines
        assert "5% of scans" in [text.get_text() for text in axes.texts]


def test_bonferronis_line_counts_independent_tests_where_the_scan_says_how_many(view: ScanResults) -> None:
    counts = {**view.metadata.counts, INDEPENDENT_TESTS: 123}
    data = manhattan(replace(view, metadata=replace(view.metadata, counts=counts)))
    assert 10**-data.bonferroni == pytest.approx(0.05 / 123)
    for axes in draw_manhattan(data).axes:
        assert "0.05 / 123 tests" in [text.get_text() for text in axes.texts]


def test_significance_over_the_whole_scan_is_that_of_each_test(view: ScanResults) -> None:
    """Thresholds are those of `model.bootstrap.threshold`: the 2nd largest of 39 at 0.05."""
    ends = {name: 5.0 + k for k, name in enumerate(["any", *TRAITS])}
    largest = {name: (*[1.0] * 37, end, end + 1) for name, end in ends.items()}
    simulated = replace(view, metadata=replace(view.metadata, largest=largest))
    clumping, genome = Clumping(GenomeWide(0.05), window=0), read_genome(view)
    loci = find_loci(simulated, genome, view.main_tests, [], clumping)
    names = np.array(column(view, "SNPID"))
    passing = np.zeros(len(names), dtype=np.bool_)
    for test, end in zip(view.main_tests, ends.values(), strict=True):
        passes = values(view, test.column) >= end
        assert loci.significant[test.column] == np.sum(passes)
        passing |= passes
    assert 0 < passing.sum() < len(names)
    leads = loci.candidates.take(loci.together.leads)
    assert set(leads.rows.column("SNPID").to_pylist()) <= set(names[passing])
    assert sum(loci.together.sizes) == passing.sum()
    panels = manhattan_data(simulated, genome, view.main_tests, loci).panels
    assert [panel.threshold for panel in panels] == list(ends.values())
    assert loci.thresholds.text == "genome-wide p ≤ 0.05"
    with pytest.raises(
        InputError, match=r"gw:0.01 needs 99 simulated scans with the test any, and it has 39; scan with --b"
    ):
        find_loci(simulated, genome, view.main_tests, [], Clumping(GenomeWide(0.01)))


def test_lead_variants_are_named(view: ScanResults) -> None:
    (panel,) = manhattan(view, view.main_tests[:1]).panels
    y = values(view, "MLOG10P")
    strongest = int(np.nanargmax(y))
    assert panel.leads[0].text == column(view, "SNPID")[strongest]
    assert panel.leads[0].y == y[strongest]


def labels_of(figure: Figure) -> list[list[Any]]:
    return [[text.get_window_extent() for text in axes.texts] for axes in figure.axes]


@pytest.mark.parametrize("seed", range(5))
def test_names_stay_in_the_panel_and_off_each_other(seed: int) -> None:
    random = np.random.default_rng(seed)

    def draw() -> Figure:
        figure = Figure(figsize=(4, 2), dpi=100)
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 10))
        figure.draw_without_rendering()
        points = np.column_stack([random.random(15), random.uniform(2, 8, 15)])
        names = [Label(f"rs{i:06}", x, y) for i, (x, y) in enumerate(points.tolist())]
        written = place_labels(axes, names, points)
        assert written == len(axes.texts) >= 5
        (boxes,) = labels_of(figure)
        frame = axes.get_window_extent()
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 + 1 and box.y0 >= frame.y0 for box in boxes)
        return figure

    render(draw, "png", 50)


def test_of_points_above_each_other_the_first_is_named() -> None:
    figure = Figure(figsize=(4, 2), dpi=100)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 10))
    assert place_labels(axes, [Label("a", 0.5, 8), Label("b", 0.501, 4), Label("c", 0.9, 4)], np.empty((0, 2))) == 2
    assert [text.get_text() for text in axes.texts] == ["a", "c"]


def test_names_of_chromosomes_do_not_touch() -> None:
    columns = simulated(600, ["y"], chromosomes=[f"scaffold_{i}" for i in range(60)])
    data = manhattan(view_of(columns, ["y"]))

    def draw() -> Figure:
        figure = draw_manhattan(data)
        figure.draw_without_rendering()
        shown = [label.get_window_extent() for label in figure.axes[0].get_xticklabels() if label.get_text()]
        assert 5 < len(shown) < 60
        assert not any(a.overlaps(b) for a, b in combinations(shown, 2))
        return figure

    render(draw, "png", 50)


def test_one_chromosome_has_positions_under_it() -> None:
    columns = simulated(100, ["y"], chromosomes=["chr7"])
    view = view_of(columns, ["y"])
    (axes,) = draw_manhattan(manhattan(view)).axes
    assert axes.get_xlabel() == "position on chromosome 7 (Mb)"
    first = min(columns["POS"])
    for label, x in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True):
        assert float(label.get_text()) * 1e6 == pytest.approx(x + first)


def test_every_test_can_be_drawn() -> None:
    view = view_of(simulated(500, TRAITS, ("common", "mine")), TRAITS, ("common", "mine"))
    chosen = replace(view, chosen_tests=("mine", "any", "height"))
    assert [test.column for test in chosen.drawn_tests] == ["MLOG10P.mine", "MLOG10P", "MLOG10P.height"]
    whole = plot_scan("manhattan", view, "png", PictureSettings())
    assert plot_scan("manhattan", chosen, "png", PictureSettings()) != whole
    two = replace(view, chosen_tests=("mine", "common"))
    assert plot_scan("mirrored", two, "png", PictureSettings()).startswith(b"\x89PNG")


def test_sets_of_variants_are_drawn_in_their_middle() -> None:
    schema = set_schema(["common"], ["fixed", "skat"])
    random = np.random.default_rng(2)
    columns: dict[str, Any] = {name: random.uniform(0, 3, 50) for name in schema.names}
    columns |= {"SET": [f"gene{k}" for k in range(50)], "CHR": ["1"] * 30 + ["2"] * 19 + [None], "TOP": ["v"] * 50}
    columns |= {"START": np.arange(50) * 1000 + 1, "END": np.arange(50) * 1000 + 900}
    columns |= {name: np.full(50, 2) for name in ("NVAR", "NVAR_LEFT_OUT", "CARRIERS", "DF", "DF.common")}
    columns["MLOG10P_SET.skat"][7] = 9.0
    batch = scan_batch(schema, columns)

    def rows(names: Sequence[str]) -> Any:
        yield sets_as_variants(batch.select(stored_columns_of_sets(names)), names)

    names = tuple(dict.fromkeys([*schema.names, "CHR", "POS", "SNPID", "EA", "NEA"]))
    view = replace(view_of(simulated(5, TRAITS), TRAITS), columns=names, rows=rows)
    assert [test.label for test in view.main_tests] == ["fixed", "skat"]
    assert [test.label for test in view.further_tests] == ["fixed.common", "skat.common"]
    assert column(view, "POS") == (np.arange(50) * 1000 + 450).tolist()
    genome = read_genome(view)
    assert genome.labels == ["1", "2", "unplaced"]
    loci = find_loci(view, genome, view.all_tests, [], CLUMPING)
    assert loci.candidates.rows.take(loci.together.leads).column("SNPID").to_pylist() == ["gene7"]
    for kind in ("manhattan", "qq"):
        assert plot_scan(kind, view, "png", PictureSettings()).startswith(b"\x89PNG")


def test_many_traits_are_rows_of_colours_with_the_largest_value_of_every_stretch() -> None:
    traits = [f"t{k}" for k in range(12)]
    view = view_of(simulated(4000, traits, peaks=6), traits)
    genome = read_genome(view)
    loci = find_loci(view, genome, view.main_tests, [], CLUMPING)
    data = heat_map_data(in_batches(view, 333), genome, view.main_tests, loci)
    assert [test.label for test in data.tests] == traits and len(data.top.panels) == 1
    located = [genome.x(codes, positions) for _, codes, positions in located_batches(view, [], genome)]
    stretch = np.minimum((np.concatenate(located) / genome.length * BINS).astype(int), BINS - 1)
    for row, test in zip(data.largest, data.tests, strict=True):
        y = values(view, test.column)
        for k in np.unique(stretch[~np.isnan(y)]).tolist()[:50]:
            assert row[k] == np.nanmax(y[stretch == k])
    inside = [
        slice(int(start / genome.length * BINS), int(end / genome.length * BINS)) for _, start, end in genome.ticks
    ]
    assert all(np.isfinite(data.largest[:, part]).all() for part in inside)
    upper, lower, _ = draw_heat_map(data).axes
    assert [label.get_text() for label in lower.get_yticklabels()] == traits
    assert upper.get_xlim() == lower.get_xlim()


def test_of_many_tests_a_quantile_plot_has_two_panels() -> None:
    traits = [f"t{k}" for k in range(9)]
    view = view_of(simulated(300, traits), traits)
    first, others = (axes for axes in draw_qq(qq_data(view, view.main_tests)).axes if axes.get_title(loc="left"))
    assert (first.get_title(loc="left"), others.get_title(loc="left")) == ("joint test", "9 other tests")
    assert len(others.get_legend().get_texts()) == 9  # type: ignore[union-attr]


def test_the_key_of_very_many_tests_has_the_extremes_and_stays_on_the_page() -> None:
    traits = [f"trait_{k}" for k in range(40)]
    view = view_of(simulated(30, traits, peaks=0), traits)
    data = qq_data(view, view.main_tests)

    def draw() -> Figure:
        figure = draw_qq(data)
        key = figure.axes[1].get_legend()
        assert key is not None
        said = sorted(float(text.get_text().split("= ")[1]) for text in key.get_texts())
        everything = sorted(qq.everything.inflation for qq in data[1:])
        assert said == pytest.approx([*everything[:10], *everything[-10:]], abs=6e-4)
        box, page = key.get_window_extent(), figure.bbox
        assert box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1
        return figure

    render(draw, "png", 50)


@pytest.mark.parametrize(("count", "named"), [(80, 80), (200, 100)])
def test_names_of_very_many_rows_do_not_touch(count: int, named: int) -> None:
    tests = [cast(ScanTest, SimpleNamespace(label=f"trait_{k}")) for k in range(count)]
    figure = Figure(figsize=(2, 7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_ylim(count - 0.5, -0.5)
    name_rows(axes, tests, 72 * 7 / count)
    figure.draw_without_rendering()
    names = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(names) == named and not any(a.overlaps(b) for a, b in pairwise(names))


def test_traits_in_one_unit_have_one_axis() -> None:
    one_unit, se = simulated(200, TRAITS), {}
    for factor, shared in ((3.0, True), (40.0, False)):
        se = {name: np.asarray(one_unit[name].to_numpy(zero_copy_only=False)) for name in ("BETA.weight", "SE.weight")}
        view = view_of(one_unit | {name: factor * values for name, values in se.items()}, TRAITS)
        limits = {axes.get_xlim() for axes in draw_effects(effects(view, 4, Clumping(0.5))).axes}
        assert (len(limits) == 1) == shared


def test_mirrored_panels_share_the_genome(view: ScanResults) -> None:
    upper, lower = draw_mirrored(manhattan(view, view.trait_tests)).axes
    assert upper.get_xlim() == lower.get_xlim()
    assert upper.get_ylim()[0] == 0 and lower.get_ylim()[1] == 0 and lower.get_ylim()[0] > THRESHOLD


def test_a_scan_of_one_trait_has_one_panel() -> None:
    view = view_of(simulated(50, ["y"]), ["y"])
    assert [test.label for test in view.main_tests] == ["y"]


# QQ


def test_quantiles_and_their_band() -> None:
    view = view_of(simulated(700, TRAITS), TRAITS)
    found = qq_data(view, view.main_tests)
    for qq, name, df in zip(found, ["MLOG10P", "MLOG10P.height", "MLOG10P.weight"], (2, 1, 1), strict=True):
        y = values(view, name)
        y = np.sort(y[~np.isnan(y)])[::-1]
        n = y.size
        ranks = np.arange(1, n + 1)
        assert (qq.df, qq.everything.count) == (df, n)
        np.testing.assert_array_equal(qq.everything.observed, y)
        np.testing.assert_allclose(qq.everything.expected, -np.log10((ranks - 0.5) / n))
        np.testing.assert_allclose(10**-qq.everything.low, stats.beta.ppf(0.975, ranks, n + 1 - ranks))
        np.testing.assert_allclose(10**-qq.everything.high, stats.beta.ppf(0.025, ranks, n + 1 - ranks))


def test_the_band_holds_ordered_p_values_of_independent_tests() -> None:
    random = np.random.default_rng(4)
    n, repeats = 40, 2000
    p = np.sort(random.random((repeats, n)), axis=1)
    columns = simulated(n, ["y"], peaks=0)
    columns |= {name: np.ones(n) for name in columns if name not in ("CHR", "POS", "SNPID", "EA", "NEA", "EAF")}
    (qq,) = qq_data(view_of(columns, ["y"]), view_of(columns, ["y"]).main_tests)
    inside = (-np.log10(p) >= qq.everything.low) & (-np.log10(p) <= qq.everything.high)
    np.testing.assert_allclose(inside.mean(axis=0), 0.95, atol=0.025)


def test_classes_are_by_minor_allele_frequency_with_edges_above(monkeypatch: pytest.MonkeyPatch) -> None:
    frequencies = [0.001, 0.999, 0.01, 0.99, 0.049, 0.05, 0.95, 0.2, 0.8, 0.5, 0.6, float("nan")]
    columns = simulated(len(frequencies), ["y"], peaks=0) | {"EAF": frequencies}
    columns |= {name: np.ones(12) for name in columns if name.startswith(("MLOG10P", "DF"))}
    view = view_of(columns, ["y"])
    monkeypatch.setattr("kron2sum_cli.export.qq.FEWEST_IN_CLASS", 1)
    (qq,) = qq_data(view, view.main_tests, by_frequency=True)
    assert {curve.name: curve.count for curve in qq.classes} == dict(zip(CLASS_NAMES, (2, 3, 2, 4), strict=True))
    assert qq.everything.count == 12


def test_classes_are_drawn_when_asked_for_and_have_100_variants_or_more(view: ScanResults) -> None:
    assert all(qq.classes == () for qq in qq_data(view, view.main_tests))
    minor = np.minimum(values(view, "EAF"), 1 - values(view, "EAF"))
    for qq, test in zip(qq_data(view, view.main_tests, by_frequency=True), view.main_tests, strict=True):
        sizes = np.bincount(np.digitize(minor[~np.isnan(values(view, test.column))], (0.01, 0.05, 0.2)), minlength=4)
        expected = {name: size for name, size in zip(CLASS_NAMES, sizes.tolist(), strict=True) if size >= 100}
        assert {curve.name: curve.count for curve in qq.classes} == expected
        assert 0 < len(expected) < 4


def test_of_many_p_values_the_smallest_are_all_drawn() -> None:
    view = view_of(simulated(20_000, ["y"]), ["y"])
    (qq,) = qq_data(view, view.main_tests)
    ranks = qq.everything.ranks
    assert ranks[:1000].tolist() == list(range(1, 1001))
    assert ranks[-1] == qq.everything.count and len(ranks) <= 2000 and np.all(np.diff(ranks) > 0)


@pytest.mark.parametrize("df", [1, 2, 10])
def test_inflation_is_that_of_the_median(df: int) -> None:
    chisq = stats.chi2.rvs(df, size=100_001, random_state=1) * 1.2
    expected = np.median(chisq) / stats.chi2.median(df)
    assert inflation_of(-stats.chi2.logsf(chisq, df) / np.log(10), df) == pytest.approx(expected)
    assert np.isnan(inflation_of(np.empty(0), df))


def test_the_figure_says_lambda(view: ScanResults) -> None:
    data = qq_data(view, view.main_tests)
    for axes, qq in zip(draw_qq(data).axes, data, strict=False):
        said = [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]
        assert said[0] == f"all: λ = {qq.everything.inflation:.3f}"
        assert [name.partition(":")[0] for name in said[1:]] == [curve.name for curve in qq.classes]


@pytest.mark.parametrize("size", [7, 2000])
def test_the_key_covers_no_points(size: int) -> None:
    view = view_of(simulated(size, TRAITS, peaks=1, seed=4), TRAITS)

    def draw() -> Figure:
        figure = draw_qq(qq_data(view, view.main_tests))
        figure.draw_without_rendering()
        for axes in figure.axes:
            key = axes.get_legend()
            assert key is not None
            points = [axes.transData.transform(line.get_xydata()) for line in axes.lines if line.get_marker() == "o"]
            assert key.get_window_extent().count_contains(np.concatenate(points)) == 0
        return figure

    render(draw, "png", 50)


# Effects


def test_effects_are_those_of_the_leads_of_any_test(view: ScanResults) -> None:
    data = effects(view, 4)
    names = column(view, "SNPID")
    rows = [names.index(name) for name in data.variants]
    y = np.fmax.reduce([values(view, test.column) for test in view.all_tests])
    assert y[rows[0]] == np.nanmax(y) and np.all(np.diff(y[rows]) <= 0) and len(rows) == 4
    for j, trait in enumerate(TRAITS):
        np.testing.assert_array_equal(data.beta[:, j], values(view, f"BETA.{trait}")[rows])
        np.testing.assert_array_equal(data.se[:, j], values(view, f"SE.{trait}")[rows])
    assert list(data.alleles) == [column(view, "EA")[row] for row in rows]


def test_the_figure_draws_intervals_and_fills_what_is_significant(view: ScanResults) -> None:
    data = effects(view, 5)
    for j, axes in enumerate(draw_effects(data).axes):
        segments = np.array([path.vertices for path in axes.collections[-1].get_paths()])
        np.testing.assert_allclose(segments[:, 0, 0], data.beta[:, j] - 1.959964 * data.se[:, j])
        np.testing.assert_allclose(segments[:, 1, 0], data.beta[:, j] + 1.959964 * data.se[:, j])
        filled = next(line for line in axes.lines if line.get_markerfacecolor() != "white" and line.get_marker() == "o")
        significant = data.mlog10p[:, j] >= THRESHOLD
        np.testing.assert_array_equal(filled.get_xdata(), data.beta[significant, j])
    names = [label.get_text() for label in draw_effects(data).axes[0].get_yticklabels()]
    assert names == [f"{variant}-{allele}" for variant, allele in zip(data.variants, data.alleles, strict=True)]


def test_without_significant_variants_the_strongest_are_shown() -> None:
    view = view_of(simulated(100, TRAITS, peaks=0), TRAITS)
    assert len(effects(view, 10, Clumping(significance=1e-50)).variants) == 10


def test_variants_that_pass_no_test_are_not_shown_beside_those_that_do() -> None:
    """Of ten variants two pass a trait's test, and none the joint one."""
    columns = simulated(10, TRAITS, peaks=0) | {"POS": np.arange(1, 11) * 10_000_000, "CHR": ["1"] * 10}
    columns |= {name: np.full(10, 5.0) for name in columns if name.startswith("MLOG10P")}
    columns["MLOG10P.weight"] = np.where(np.isin(np.arange(10), (3, 7)), 9.0, 1.0)
    view = view_of(columns, TRAITS)
    data = effects(view, 10)
    assert list(data.variants) == ["rs4", "rs8"] and data.title == "2 lead variants"
    assert effects(view, 1).title == "the strongest 1 of 2 lead variants"
    nothing = effects(view, 10, Clumping(significance=1e-20))
    assert len(nothing.variants) == 10 and nothing.title.startswith("no variant has p ≤ 1e-20 in any test")


# Architecture


def estimates(p: int) -> Estimates:
    random = np.random.default_rng(p)
    pairs = {name: random.uniform(-0.9, 0.9, (p, p)) for name in ("rg", "re")}
    errors = {f"{name}_se": random.uniform(0, 0.3, (p, p)) for name in ("rg", "re")}
    h2 = {"h2": random.random(p), "h2_se": random.uniform(0, 0.2, p)}
    return cast(Estimates, SimpleNamespace(**pairs, **errors, **h2))


def test_genetic_correlations_stand_below_residual_ones_above_the_diagonal() -> None:
    e = estimates(4)
    r, se = correlations_shown(e)
    for i, j in combinations(range(4), 2):
        assert (r[j, i], se[j, i]) == (e.rg[j, i], e.rg_se[j, i])
        assert (r[i, j], se[i, j]) == (e.re[i, j], e.re_se[i, j])
    assert np.all(np.isnan(np.diag(r)))


def test_the_heat_map_says_these_numbers_and_the_dots_are_heritabilities() -> None:
    e = estimates(3)
    e.rg[2, 0] = e.rg_se[2, 0] = e.h2_se[1] = np.nan
    heat, dots, _ = draw_architecture(["a", "b", "c"], e).axes
    said = [text.get_text() for text in heat.texts]
    assert f"{e.rg[1, 0]:.2f}".replace("-", "−") in said and f"({e.rg_se[1, 0]:.2f})" in said
    assert f"{e.re[0, 1]:.2f}".replace("-", "−") in said and "n/a" in said
    np.testing.assert_array_equal(dots.lines[-1].get_xdata(), e.h2)
    assert heat.get_ylim() == dots.get_ylim()


@pytest.mark.parametrize("p", [1, 2, 12, 13, 40])
def test_architectures_of_any_number_of_traits_are_drawn(p: int) -> None:
    names = [f"trait_{j}" for j in range(p)]
    assert render(lambda: draw_architecture(names, estimates(p)), "png").startswith(b"\x89PNG")


# Files


def test_pictures_are_the_same_bytes_every_time_whatever_the_users_settings(view: ScanResults) -> None:
    for to in PICTURE_FORMATS:
        first = plot_scan("manhattan", view, to, PictureSettings())
        with mpl.rc_context({"font.size": 20, "svg.hashsalt": "other", "axes.grid": True}):
            assert plot_scan("manhattan", in_batches(view, 333), to, PictureSettings()) == first
        assert not re.search(rb"CreationDate|<dc:date>|Matplotlib v", first)


@pytest.mark.parametrize("kind", SCAN_PLOTS)
@pytest.mark.parametrize("empty", [without_rows, without_statistics])
def test_tables_without_anything_to_draw_are_drawn(view: ScanResults, kind: str, empty: Any) -> None:
    assert plot_scan(kind, empty(view), "png", PictureSettings()).startswith(b"\x89PNG")


def test_formats_are_told_by_the_suffix() -> None:
    assert [picture_format(f"a.b.{suffix}") for suffix in ("png", "SVG", "pdf")] == ["png", "svg", "pdf"]
    for out in ("-", "a.jpg", "png"):
        with pytest.raises(UsageError, match=re.escape(f"--out {out}: a picture is a .png, .svg or .pdf")):
            picture_format(out)


def test_pictures_with_too_many_or_too_few_panels_are_refused_with_the_way_out() -> None:
    many = [f"t{j}" for j in range(MOST_EFFECT_PANELS + 1)]
    with pytest.raises(UsageError, match="--plot effects: 25 traits are too many .* --trait"):
        plot_scan("effects", view_of(simulated(5, many), many), "png", PictureSettings())
    for traits in (("a",), ("a", "b", "c")):
        with pytest.raises(UsageError, match="--plot mirrored: shows two traits"):
            plot_scan("mirrored", view_of(simulated(5, traits), traits), "png", PictureSettings())


def test_one_of_two_traits_is_mirrored_by_the_joint_test(view: ScanResults) -> None:
    assert plot_scan("mirrored", replace(view, traits=("weight",)), "png", PictureSettings()).startswith(b"\x89PNG")


def test_a_table_without_the_columns_is_refused_by_name(view: ScanResults) -> None:
    lacking = replace(view, columns=tuple(name for name in view.columns if name != "EAF"))
    with pytest.raises(InputError, match="has no column EAF"):
        plot_scan("qq", lacking, "png", PictureSettings(by_frequency=True))


def test_names_are_drawn_as_they_are_and_letters_without_a_shape_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    traits = ("$x^{$", "<b>身高</b>")
    view = view_of(simulated(100, traits), traits)
    assert plot_scan("manhattan", view, "svg", PictureSettings()).startswith(b"<?xml")
    assert "2 letters of names are not in the font" in caplog.text


def test_long_names_lose_their_middle() -> None:
    assert shortened("x" * 28) == "x" * 28
    assert len(shortened("a" * 40 + "b")) == 28 and shortened("a" * 40 + "b").endswith("b")


@pytest.mark.parametrize("name", ["concentration_of_LDL_in_plasma", "x" * 100, "a b", "days to flowering, 2019"])
def test_long_names_of_traits_are_shown_whole_in_lines(name: str) -> None:
    lines = wrapped(name, 14).splitlines()
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert all(len(line) <= 14 and not line.startswith(" ") for line in lines)
