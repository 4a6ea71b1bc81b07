"""A scan as one self-contained HTML page: what was run, and what came of it."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from kron2sum_cli.errors import InputError
from kron2sum_cli.export.genome import measure_genome
from kron2sum_cli.export.leads import Candidates, Clumping, Clumps, clump_candidates, find_candidates
from kron2sum_cli.export.plots import MOST_PANELS, PlotSettings, drawing
from kron2sum_cli.export.results import Array, ScanTest, ScanView, level_text
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.scan_metadata import ScanMetadata

_COLUMNS = ("EAF", "N")


@dataclass(frozen=True)
class Locus:
    """A lead variant.

    Attributes
    ----------
    row : its columns of the result table
    size : how many significant variants belong to it, itself among them
    passes : the tests that it passes
    """

    row: Mapping[str, Any]
    size: int
    passes: tuple[ScanTest, ...]


@dataclass(frozen=True)
class Loci:
    """Lead variants, the strongest first.

    Attributes
    ----------
    found : the loci, each led by the variant with the smallest p of any test
    significant : for the column of every test how many variants pass it
    leads : for the column of every test how many loci it has when clumped by itself
    """

    found: tuple[Locus, ...]
    significant: Mapping[str, int]
    leads: Mapping[str, int]


def find_loci(view: ScanView, tests: Sequence[ScanTest], threshold: float, clumping: Clumping) -> Loci:
    """Clump the significant variants of all tests together, and of each by itself.

    Parameters
    ----------
    view : the table
    tests : those that count
    threshold : -log10 p of significance
    clumping : which variants belong to a lead variant
    """
    of_traits = [f"{kind}.{trait}" for trait in view.traits for kind in ("BETA", "SE", "MLOG10P")]
    refit = [name for name in ("MLOG10P_REFIT",) if name in view.columns]
    columns = [*_COLUMNS, "MLOG10P", *refit, *of_traits]
    found = find_candidates(view, measure_genome(view), tests, columns, threshold)
    by_test = [np.asarray(found.rows.column(test.column).to_numpy(), dtype=float) for test in tests]
    together, *each = clump_candidates(found, [found.scores, *by_test], threshold, clumping)
    names = [test.column for test in tests]
    significant = {name: int(np.sum(scores >= threshold)) for name, scores in zip(names, by_test, strict=True)}
    leads = {name: len(clumps.leads) for name, clumps in zip(names, each, strict=True)}
    return Loci(_loci(found, together, tests, threshold), significant, leads)


def _loci(found: Candidates, clumps: Clumps, tests: Sequence[ScanTest], threshold: float) -> tuple[Locus, ...]:
    rows = found.rows.take(clumps.leads).to_pylist()
    loci = []
    for row, size in zip(rows, clumps.sizes.tolist(), strict=True):
        values = {test: row[test.column] for test in tests}
        passes = tuple(test for test, value in values.items() if value is not None and value >= threshold)
        loci.append(Locus(row, size, passes))
    return tuple(loci)


STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1b1b1b; background: #fff;
  max-width: 84rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid #ccc; }
p { max-width: 50rem; }
.lead { color: #444; margin-top: 0; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #444; padding: .2rem 0 .4rem; white-space: nowrap; }
th, td { padding: .22rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { font-weight: 600; }
thead th { border-bottom: 1px solid #888; vertical-align: bottom; }
th.text, td.text { text-align: left; }
td.prose { white-space: normal; overflow-wrap: anywhere; min-width: 11rem; }
th.long { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
tbody th { position: sticky; left: 0; background: #fff; }
td.strong { background: #fdeadd; }
small { color: #555; }
code { font-size: .95em; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figcaption { color: #444; font-size: .87rem; max-width: 50rem; }
img { max-width: 100%; height: auto; }
nav a { margin-right: 1rem; }
a { color: #0060a0; }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; } tr, figure { break-inside: avoid; } }
"""

LONGEST_HEADING = 20
"""The heading of a column that has more letters may break into lines."""


@dataclass(frozen=True)
class Markup:
    """HTML that is finished: everything else is escaped where it is put in."""

    html: str


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and whether it is aligned as text."""

    heading: str
    is_text: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table, which may stand out, and may break its lines."""

    content: str | Markup
    strong: bool = False
    prose: bool = False


Content = str | Markup | Cell


def markup(content: str | Markup) -> str:
    """The HTML of a text or of markup."""
    return content.html if isinstance(content, Markup) else escape(content)


def table(columns: Sequence[Column], rows: Iterable[Sequence[Content]], caption: str = "") -> Markup:
    """A table whose first column names its rows; it scrolls sideways where the page is narrow."""
    head = "".join(f'<th scope="col"{_heading_classes(column)}>{escape(column.heading)}</th>' for column in columns)
    headings = f"<thead><tr>{head}</tr></thead>\n" if any(column.heading for column in columns) else ""
    body = "\n".join(f"<tr>{_row(columns, row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    return Markup(f'<div class="wide"><table>\n{title}{headings}<tbody>\n{body}\n</tbody>\n</table></div>')


def _row(columns: Sequence[Column], row: Sequence[Content]) -> str:
    cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
    first, *others = zip(columns, cells, strict=True)
    html = [f'<th scope="row"{_text(first[0])}>{markup(first[1].content)}</th>']
    html += [f"<td{_classes(column, cell)}>{markup(cell.content)}</td>" for column, cell in others]
    return "".join(html)


def _text(column: Column) -> str:
    return ' class="text"' if column.is_text else ""


def _heading_classes(column: Column) -> str:
    names = [
        name for name, holds in (("text", column.is_text), ("long", len(column.heading) > LONGEST_HEADING)) if holds
    ]
    return f' class="{" ".join(names)}"' if names else ""


def _classes(column: Column, cell: Cell) -> str:
    names = [
        name for name, holds in (("text", column.is_text), ("strong", cell.strong), ("prose", cell.prose)) if holds
    ]
    return f' class="{" ".join(names)}"' if names else ""


def paragraph(content: str | Markup) -> Markup:
    """A paragraph."""
    return Markup(f"<p>{markup(content)}</p>")


def image(png: bytes, description: str, caption: str, width: int) -> Markup:
    """A picture inside the page, shown so many CSS pixels wide."""
    data = base64.b64encode(png).decode()
    below = f"\n<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Markup(
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" alt="{escape(description)}">{below}</figure>'
    )


def section(name: str, heading: str, *content: Markup) -> Markup:
    """A part of the page that can be linked to."""
    body = "\n".join(part.html for part in content)
    return Markup(f'<section id="{escape(name)}">\n<h2>{escape(heading)}</h2>\n{body}\n</section>')


def page(title: str, lead: str, sections: Sequence[Markup], links: Sequence[tuple[str, str]]) -> str:
    """A whole page.

    Parameters
    ----------
    title, lead : what it is, and a sentence on it
    sections : the parts, in order
    links : for each the name and the heading
    """
    nav = "".join(f'<a href="#{escape(name)}">{escape(heading)}</a>' for name, heading in links)
    body = "\n".join(part.html for part in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        f'<nav aria-label="Contents">{nav}</nav>\n</header>\n'
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


MOST_LOCI = 200
"""Lead variants in the table: of more, the strongest."""

MOST_CORRELATIONS = 12
"""Correlations among more traits than this are not listed as numbers."""

LONGEST_LIST = 48
"""Traits whose test a lead variant passes: where their names are longer than this, they are counted."""

NOTHING = "–"

_DOTS_PER_INCH = 160
_CSS_PIXELS = 110
_HASH_DIGITS = 12


def scan_report(view: ScanView, settings: PlotSettings, null: NullFile | None) -> str:
    """The page.

    Parameters
    ----------
    view : the scan
    settings : significance, how lead variants are found, and how many of them have their effects drawn
    null : the null model of the scan (see `check_null_of`), for heritabilities and standard errors; without it the
        page has the correlations alone, which the scan knows too

    Raises
    ------
    InputError
        If the table lacks a column, or genotypes lack a variant of it.
    UsageError
        If matplotlib is missing.
    """
    tests = [*view.main_tests, *view.further_tests]
    loci = find_loci(view, tests, settings.threshold, settings.clumping)
    parts = {
        "run": ("What was run", _run(view)),
        "counts": ("Counts", [_counts(view.metadata.counts)]),
        "architecture": ("Genetic architecture", _architecture(view, null)),
        "inflation": ("Inflation", _inflation(view, tests, loci, settings)),
        "genome": ("Along the genome", [_manhattan(view, settings)]),
        "leads": ("Lead variants", _leads(view, loci, settings)),
    }
    sections = [section(name, heading, *content) for name, (heading, content) in parts.items()]
    links = [(name, heading) for name, (heading, _) in parts.items()]
    return page("kron2sum scan", _headline(view), sections, links)


def check_null_of(view: ScanView, null: NullFile) -> None:
    """Refuse a null model that is not that of the scan.

    Raises
    ------
    InputError
        Naming the hashes of both.
    """
    scanned_with = view.metadata.null.hash
    if null.hash != scanned_with:
        raise InputError(
            f"{view.name}: was scanned with another null model (hash {scanned_with[:_HASH_DIGITS]}) than the one given"
            f" ({null.hash[:_HASH_DIGITS]}); give that of the scan"
        )


def _headline(view: ScanView) -> str:
    traits, samples = len(view.metadata.traits), view.metadata.null.samples
    tested = view.metadata.counts.get("variants tested")
    variants = f", {tested:,} variants tested" if tested is not None else ""
    return f"{traits} trait{'s' * (traits != 1)}, {samples:,} samples{variants}"


def _run(view: ScanView) -> list[Markup]:
    metadata, null = view.metadata, view.metadata.null
    facts = {
        "program": f"kron2sum {metadata.version}",
        "traits": ", ".join(metadata.traits),
        "samples": f"{null.samples:,}",
        "covariates": ", ".join(null.covariates) or "none",
        "null model": f"{null.method.upper()}, log-likelihood {null.lml:.4f}",
        "null model's hash": null.hash,
        "filters": _settings_text(to_json(metadata.filters)) or "none",
        "settings": _settings_text(to_json(metadata.settings)) or "defaults",
    }
    rows = [(name, Cell(value, prose=True)) for name, value in facts.items()]
    columns = [Column("", True), Column("", True)]
    files = list(_input_files(metadata))
    inputs = table([Column("input", True), Column("file", True), Column("bytes"), Column("hash", True)], files)
    return [table(columns, rows), inputs] if files else [table(columns, rows)]


def _settings_text(settings: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {_plain(value)}" for name, value in settings.items())


def _plain(value: Any) -> str:
    """A value of the metadata without quotes and brackets where it is a text or a list of texts."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _input_files(metadata: ScanMetadata) -> Iterator[Sequence[Content]]:
    """Every input file; of a table joined from several genotype files those of each part."""
    groups = [(role, record) for role, records in metadata.inputs.items() for record in records]
    groups += [("geno", record) for part in metadata.parts for record in part.geno]
    for role, record in groups:
        digits = Markup(f"<code>{record.hash[:_HASH_DIGITS]}</code>…") if record.hash.isalnum() else record.hash
        yield role, record.name, f"{record.size:,}", digits


def _counts(counts: Mapping[str, Any]) -> Markup:
    return table([Column("", True), Column("")], [(name, f"{value:,}") for name, value in counts.items()])


def _architecture(view: ScanView, null: NullFile | None) -> list[Markup]:
    traits = list(view.metadata.traits)
    if null is None:
        return _correlations_of_scan(view, traits)
    estimates = null.whole.estimates
    architecture, figure = drawing("architecture"), drawing("figure")
    drawn = figure.render(lambda: architecture.draw_architecture(traits, estimates), "png", _DOTS_PER_INCH)
    rows = [_heritability(null, j) for j in range(len(traits))]
    columns = [Column("trait", True), Column("h²"), Column("SE"), Column("95% interval (profile likelihood)")]
    shown = columns if null.profile else columns[:3]
    caption = "heritabilities; standard errors by the delta method"
    content = [table(shown, [row[: len(shown)] for row in rows], caption)]
    if 1 < len(traits) <= MOST_CORRELATIONS:
        r, se = architecture.correlations_shown(estimates)
        content.append(_correlation_table(traits, r, se))
    description = "heat map of genetic and residual correlations, and heritabilities with their intervals"
    return [*content, image(drawn, description, "", _width(drawn))]


def _heritability(null: NullFile, j: int) -> Sequence[str]:
    estimates, trait = null.whole.estimates, null.traits[j]
    profile = null.profile.get(trait)
    interval = f"{_number(profile.low)} to {_number(profile.high)}" if profile else NOTHING
    return trait, _number(estimates.h2[j]), _number(estimates.h2_se[j]), interval


def _correlations_of_scan(view: ScanView, traits: Sequence[str]) -> list[Markup]:
    """What the metadata of a scan know without its null model."""
    note = paragraph(
        "Heritabilities and standard errors are in the report when it is given the null model of the scan too."
    )
    if not 1 < len(traits) <= MOST_CORRELATIONS:
        return [note]
    C0, C1 = view.metadata.null.C0, view.metadata.null.C1
    below = np.tril(np.ones_like(C0, dtype=np.bool_), -1)
    r = np.where(below, _correlation(C0), _correlation(C1))
    return [_correlation_table(traits, r, None), note]


def _correlation(C: Array) -> Array:
    """Correlations of a covariance matrix, NaN for what has no variance."""
    variance = np.diag(C)
    deviation = np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.asarray(C / np.multiply.outer(deviation, deviation))


def _correlation_table(traits: Sequence[str], r: Array, se: Array | None) -> Markup:
    rows = []
    for i, trait in enumerate(traits):
        numbers = [_with_error(r[i, j], None if se is None else se[i, j]) for j in range(len(traits))]
        rows.append([trait, *("" if i == j else number for j, number in enumerate(numbers))])
    what = "correlations" if se is None else "correlations (standard errors)"
    caption = f"{what}: genetic below, residual above the diagonal"
    return table([Column("", True), *(Column(trait) for trait in traits)], rows, caption)


def _inflation(view: ScanView, tests: Sequence[ScanTest], loci: Loci, settings: PlotSettings) -> list[Markup]:
    qq, figure = drawing("qq"), drawing("figure")
    curves = qq.qq_data(view, tests)
    rows = [
        (
            curve.test.label,
            str(curve.df),
            f"{curve.everything.count:,}",
            _number(curve.everything.inflation),
            f"{loci.significant[curve.test.column]:,}",
            f"{loci.leads[curve.test.column]:,}",
        )
        for curve in curves
    ]
    level = f"p ≤ {level_text(settings.threshold)}"
    headings = ("df", "variants", "λ", level, "lead variants")
    columns = [Column("test", True), *(Column(heading) for heading in headings)]
    shown = [curve for curve in curves if curve.test in _drawn_tests(view)]
    drawn = figure.render(lambda: qq.draw_qq(shown), "png", _DOTS_PER_INCH)
    caption = (
        "Observed against expected −log₁₀ p. Grey: 95% of the ordered p-values of independent variants without effects;"
        " lines: the same for each class of minor allele frequency. λ is the median χ² over that of its distribution."
    )
    return [table(columns, rows), image(drawn, "quantile-quantile plots of every test", caption, _width(drawn))]


def _drawn_tests(view: ScanView) -> list[ScanTest]:
    """The joint test and the traits', or the joint test alone where these are too many for a picture."""
    tests = view.main_tests
    return tests if len(tests) <= MOST_PANELS else [view.joint]


def _manhattan(view: ScanView, settings: PlotSettings) -> Markup:
    manhattan, figure = drawing("manhattan"), drawing("figure")
    data = manhattan.manhattan_data(view, _drawn_tests(view), settings.threshold, settings.clumping)
    drawn = figure.render(lambda: manhattan.draw_manhattan(data), "png", _DOTS_PER_INCH)
    caption = f"Dashed: p = {level_text(settings.threshold)}. Diamonds: lead variants of each test."
    if data.genome.without_position:
        caption += (
            f" {data.genome.without_position:,} variants without a position stand at the one before them in the file."
        )
    return image(drawn, "Manhattan plots of the joint test and of every trait", caption, _width(drawn))


def _leads(view: ScanView, loci: Loci, settings: PlotSettings) -> list[Markup]:
    level = f"p ≤ {level_text(settings.threshold)}"
    if not loci.found:
        return [paragraph(f"No variant has {level} in any test.")]
    shown = loci.found[:MOST_LOCI]
    said = (
        f"Variants with {level} in at least one test, {settings.clumping.said}. Effects are of one more effect allele"
        " (EA) in the joint model, with standard errors; below them stands the p of the trait's own test. What passes"
        " is shaded."
    )
    if len(shown) < len(loci.found):
        said += f" The strongest {len(shown)} of {len(loci.found):,} are listed."
    joint = _joint_columns(view)
    columns = [Column(heading, True) for heading in ("variant", "place", "EA", "other")]
    columns += [Column(heading) for heading in ("EAF", "N", *joint.values(), *view.traits, "variants")]
    columns.append(Column("passes", True))
    rows = [_lead_row(view, locus, list(joint)) for locus in shown]
    return [paragraph(said), table(columns, rows), *_effects(view, settings)]


def _effects(view: ScanView, settings: PlotSettings) -> list[Markup]:
    if len(view.traits) >= MOST_PANELS:
        return []
    effects, figure = drawing("effects"), drawing("figure")
    data = effects.effects_data(view, settings.threshold, settings.clumping, settings.top)
    drawn = figure.render(lambda: effects.draw_effects(data), "png", _DOTS_PER_INCH)
    (test, *others) = view.main_tests
    by = f"the {test.label}" if others else f"the test of {test.label}"
    caption = f"The {len(data.variants)} strongest lead variants by {by}, each with its effect allele."
    return [
        image(drawn, "effects of the strongest variants on every trait, with 95% intervals", caption, _width(drawn))
    ]


def _joint_columns(view: ScanView) -> dict[str, str]:
    """Columns with -log10 p of the joint test and their headings; of one trait that is the trait's own test."""
    headings = {"MLOG10P": "joint p"} if len(view.metadata.traits) > 1 else {}
    return headings | ({"MLOG10P_REFIT": "joint p, refit"} if "MLOG10P_REFIT" in view.columns else {})


def _lead_row(view: ScanView, locus: Locus, joint: Sequence[str]) -> list[Content]:
    row = locus.row
    position = f"{row['POS']:,}" if row["POS"] > 0 else "?"
    cells: list[Content] = [row["SNPID"], f"{row['CHR']}:{position}", _allele(row["EA"]), _allele(row["NEA"])]
    cells += [_number(row["EAF"]), f"{row['N']:,}"]
    passed = {test.column for test in locus.passes}
    cells += [Cell(p_text(row[column]), strong=column in passed) for column in joint]
    for trait, test in zip(view.traits, view.trait_tests, strict=True):
        effect = f"{_short(row[f'BETA.{trait}'])} ({_short(row[f'SE.{trait}'])})"
        html = f"{effect}<br><small>{p_text(row[test.column])}</small>"
        cells.append(Cell(Markup(html), strong=test.column in passed))
    return [*cells, str(locus.size), Cell(_passed_text(view, locus.passes), prose=True)]


def _passed_text(view: ScanView, passes: Sequence[ScanTest]) -> str:
    """Tests by name; of many traits their number, as the shaded cells show which."""
    traits = [test.label for test in passes if test in view.trait_tests]
    if len(", ".join(traits)) > LONGEST_LIST:
        traits = [f"{len(traits)} of {len(view.traits)} traits"]
    joint = [test.label for test in passes if test == view.joint]
    further = [test.label for test in passes if test in view.further_tests]
    return ", ".join([*joint, *traits, *further])


def p_text(mlog10p: float | None) -> str:
    """A p-value from its -log10, however small.

    Examples
    --------
    >>> p_text(0.30103), p_text(7.5), p_text(1234.5), p_text(None)
    ('0.5', '3.2e-8', '3.2e-1235', '–')
    """
    if mlog10p is None or np.isnan(mlog10p):
        return NOTHING
    if mlog10p < 3:
        return f"{10.0**-mlog10p:.2g}"
    exponent = int(np.ceil(mlog10p))
    mantissa = f"{10.0 ** (exponent - mlog10p):.1f}"
    return f"{mantissa}e-{exponent}" if mantissa != "10.0" else f"1.0e-{exponent - 1}"


def _allele(allele: str | None) -> str:
    text = allele or "?"
    return text if len(text) <= 12 else f"{text[:10]}… ({len(text)})"


def _number(value: float | None) -> str:
    return NOTHING if value is None or not np.isfinite(value) else f"{value:.4f}"


def _short(value: float | None) -> str:
    return NOTHING if value is None or not np.isfinite(value) else f"{value:.3g}".replace("-", "−")


def _with_error(value: float, se: float | None) -> str:
    if not np.isfinite(value):
        return NOTHING
    text = f"{value:.3f}".replace("-", "−")
    return text if se is None else f"{text} ({se:.3f})" if np.isfinite(se) else f"{text} ({NOTHING})"


def _width(png: bytes) -> int:
    """CSS pixels of a picture that was drawn at `_DOTS_PER_INCH`: its width stands in bytes 16 to 20 of the file."""
    return round(int.from_bytes(png[16:20], "big") * _CSS_PIXELS / _DOTS_PER_INCH)
