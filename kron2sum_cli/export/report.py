"""A scan as one self-contained HTML page: what was found, how, and from what."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kron2sum_cli.export.architecture import MOST_NUMBERS, correlations_shown, draw_architecture
from kron2sum_cli.export.effects import draw_effects, effect_columns, lead_effects
from kron2sum_cli.export.figure import render
from kron2sum_cli.export.genome import Genome, read_genome
from kron2sum_cli.export.loci import Loci, LocusInterval, find_loci, locus_intervals
from kron2sum_cli.export.manhattan import number_of_independent_tests
from kron2sum_cli.export.plots import MOST_EFFECT_PANELS, MOST_EFFECTS, MOST_PANELS, PictureSettings, manhattan_of
from kron2sum_cli.export.qq import QQ, draw_qq, qq_data
from kron2sum_cli.export.results import JOINT, Array, ScanResults, ScanTest, column_values, significance_text
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.scan_columns import CARRIERS, END, NVAR, START, TOP, TOP_SHARE
from kron2sum_cli.files.scan_metadata import ScanMetadata
from kron2sum_cli.model.inflation import DEFLATED, INFLATED

MOST_LOCI = 200
"""Lead variants in the table: of more, the strongest."""

MOST_TRAITS_ACROSS = 4
"""Effects on more traits than this have tables of their own, a row a trait."""

LEADS_ACROSS = 8
"""Lead variants side by side in such a table."""

MOST_LEADS_ACROSS = 40
"""Lead variants in all such tables: of more, the strongest."""

LONGEST_LIST = 48
"""Traits whose test a lead variant passes: where their names are longer than this, they are counted."""

DASH = "–"
"""A cell without a value."""

_DOTS_PER_INCH = 160
_CSS_PIXELS = 110
_HASH_DIGITS = 12


class Cell(str):
    """The text of a cell of a table, which may stand out and have a second line."""

    strong: bool = False
    note: str = ""

    def __new__(cls, text: str, note: str = "", strong: bool = False) -> "Cell":
        """A cell."""
        cell = super().__new__(cls, text)
        cell.note, cell.strong = note, strong
        return cell


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Headings may all be empty; the ``caption`` stands above. Columns in ``texts`` are aligned as text.
    """

    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    texts: tuple[int, ...] = (0,)
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: PNG in base64, its width in CSS pixels, a text instead of it, and one below."""

    base64: str
    width: int
    description: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page that can be linked to; its parts are paragraphs, tables and pictures."""

    name: str
    heading: str
    parts: Sequence[str | Table | Picture]


def scan_report(scan: ScanResults, settings: PictureSettings, null: NullFile | None) -> str:
    """The report of a scan as one HTML page.

    With the null model of the scan it has heritabilities, standard errors and how the model was fitted, without it the
    correlations alone, which the scan knows too. Raises InputError if the table lacks a column, or genotypes lack a
    variant of it.
    """
    genome = read_genome(scan)
    loci = find_loci(scan, genome, scan.all_tests, _columns_of_leads(scan), settings.clumping)
    curves = qq_data(scan, scan.all_tests, settings.by_frequency)
    sections = [
        Section("findings", "Findings", _findings(scan, loci, curves)),
        Section("genome", "Along the genome", [_manhattan(scan, genome, settings)]),
        Section("leads", f"Lead {scan.noun}s", _leads(scan, genome, loci, settings)),
        Section("inflation", "Inflation", _inflation(scan, loci, curves, settings)),
        Section("architecture", "Genetic architecture", _architecture(scan, null)),
        Section("run", "What was run", _run(scan, null)),
        Section("counts", "Counts", [Table(("", ""), [(name, f"{n:,}") for name, n in scan.metadata.counts.items()])]),
    ]
    loader = PackageLoader("kron2sum_cli.export", "templates")
    template = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = template.get_template("report.html")
    return page.render(title="kron2sum scan", headline=_headline(scan), sections=sections).lstrip() + "\n"


def _columns_of_leads(scan: ScanResults) -> list[str]:
    """What the table of lead variants or sets shows, beside place, name, alleles and tests."""
    if scan.is_of_sets:
        return [START.name, END.name, NVAR.name, CARRIERS.name, *_strongest_members(scan)]
    refit = [name for name in ("MLOG10P_REFIT",) if name in scan.columns]
    return ["EAF", "N", "MLOG10P", *refit, *effect_columns(scan.traits)]


def _strongest_members(scan: ScanResults) -> list[str]:
    return [name for name in (TOP.name, TOP_SHARE.name) if name in scan.columns]


def _headline(scan: ScanResults) -> str:
    traits, samples = len(scan.metadata.traits), scan.metadata.null.samples
    tested = scan.metadata.counts.get("sets" if scan.is_of_sets else "variants tested")
    variants = f", {tested:,} {scan.noun}s tested" if tested is not None else ""
    return f"{traits} trait{'s' * (traits != 1)}, {samples:,} samples{variants}"


def _findings(scan: ScanResults, loci: Loci, curves: Sequence[QQ]) -> list[str]:
    """What came of the scan, in a few sentences."""
    traits = scan.metadata.traits
    names = ", ".join(traits) if len(", ".join(traits)) <= 2 * LONGEST_LIST else f"{len(traits)} traits"
    if scan.is_of_sets:
        tests = ", ".join(test.label for test in scan.all_tests)
    else:
        many = len(scan.traits) > MOST_TRAITS_ACROSS
        of_traits = ["each trait"] if many else [test.label for test in scan.trait_tests]
        tests = ", ".join([JOINT, *of_traits, *(f"the test {test.label}" for test in scan.further_tests)])
    together = f"{names} together ({tests})" if len(traits) > 1 or scan.is_of_sets else names
    main = curves[0]
    loco = ", each with its own chromosome left out of the relationship matrix (LOCO)" if _left_out(scan) else ""
    said = (
        f"{main.everything.count:,} {scan.noun}s were tested for effects on {together} in"
        f" {scan.metadata.null.samples:,} samples{loco}. "
    )
    level = loci.thresholds.text
    number = len(loci.together.leads)
    found = f"{number:,} {'locus has' if number == 1 else 'loci have'}" if number else f"No {scan.noun} has"
    where = "at least one" if number else "any"
    return [f"{said}{found} {level} in {where} test{_strongest_text(loci)}.", _inflation_text(scan, curves)]


def _left_out(scan: ScanResults) -> int:
    """How many null models leave out a chromosome each (LOCO)."""
    return len(scan.metadata.nulls) - 1


def _strongest_text(loci: Loci) -> str:
    """The variant with the smallest p, and the test."""
    candidates = loci.candidates
    if not len(candidates.excess) or np.isnan(candidates.excess).all():
        return ""
    best = int(np.nanargmax(candidates.excess))
    row = candidates.rows.slice(best, 1).to_pylist()[0]
    values = [column_values(candidates.rows.slice(best, 1), test.column)[0] for test in loci.tests]
    k = int(np.nanargmax([value - loci.thresholds.of(test) for value, test in zip(values, loci.tests, strict=True)]))
    test = loci.tests[k]
    return f"; the strongest is {row['SNPID']} ({_place(row)}), p = {p_text(values[k])} in the {_test_text(test)}"


def _test_text(test: ScanTest) -> str:
    """A test in a sentence."""
    return test.label if test.label == JOINT else f"test {'' if test.df_column else 'of '}{test.label}"


def _inflation_text(scan: ScanResults, curves: Sequence[QQ]) -> str:
    main = curves[0]
    value = main.everything.inflation
    if not np.isfinite(value):
        return f"No {scan.noun} has a statistic, so that there is no λ."
    rest = [curve.everything.inflation for curve in curves[1:] if np.isfinite(curve.everything.inflation)]
    others = f", and between {min(rest):.3f} and {max(rest):.3f} in the others" if len(rest) > 1 else ""
    said = f"λ is {value:.3f} in the {_test_text(main.test)}{others}: "
    if scan.metadata.null.reduced:
        return said + (
            "the trait design has fewer columns than traits, so that means of traits are taken for effects of variants,"
            " and λ says nothing of the rest."
        )
    if value < DEFLATED:
        said += "smaller than 1, so that the tests find too little."
        if _left_out(scan):
            return said
        cause = "If the relationship matrix was made from the scanned variants, each variant"
        if _scans_its_matrix(scan.metadata):
            cause = "The relationship matrix was made from the scanned variants, so that each"
        return f"{said} {cause} competes with itself in it: fit again with --loco, which leaves the chromosome out."
    if value > INFLATED:
        return said + (
            "greater than 1. Many small effects spread over long linkage disequilibrium do that, in crosses and"
            " families above all, and so do structure that the model does not hold, traits far from normal and errors"
            " of genotypes: look whether the excess is at all p-values or only at the small ones."
        )
    return said + "close to 1, as without inflation."


def _scans_its_matrix(metadata: ScanMetadata) -> bool:
    """Whether the relationship matrix was made from files that were scanned."""
    scanned = {record.name for record in metadata.inputs.get("geno", ())}
    scanned |= {record.name for part in metadata.parts for record in part.geno}
    return not scanned.isdisjoint(metadata.null.grm)


def _run(scan: ScanResults, null: NullFile | None) -> list[str | Table]:
    metadata, record = scan.metadata, scan.metadata.null
    chromosomes = _left_out(scan)
    made_by = "" if null is None else _settings_text(to_json(null.grm.options))
    facts = {
        "program": f"kron2sum {metadata.version}",
        "traits": ", ".join(metadata.traits),
        "samples": f"{record.samples:,}",
        "covariates": ", ".join(record.covariates) or "none",
        "null model": f"{record.method.upper()}, log-likelihood {record.lml:.4f}",
        "leave one chromosome out": f"yes, {chromosomes} null models" if chromosomes else "no",
        "transform of the traits": record.transform,
        "rank of C0": _rank_text(len(metadata.traits), record.rank),
        "relationship matrix": ", ".join(record.grm) or "none",
        **({"made of genotypes by": made_by} if made_by else {}),
        "null model's hash": record.hash,
        "filters": _settings_text(to_json(metadata.filters)) or "none",
        "settings": _settings_text(to_json(metadata.settings)) or "defaults",
    }
    tables: list[str | Table] = [Table(("", ""), list(facts.items()), (0, 1))]
    inputs = [(role, record) for role, records in metadata.inputs.items() for record in records]
    inputs += [("geno", record) for part in metadata.parts for record in part.geno]
    files = [(role, one.name, f"{one.size:,}", f"{one.hash[:_HASH_DIGITS]}…") for role, one in inputs]
    return [*tables, Table(("input", "file", "bytes", "hash"), files, (0, 1, 3))] if files else tables


def _rank_text(p: int, rank: int | None) -> str:
    if rank is None:
        return DASH
    return f"{rank}, full" if rank == p else f"{rank} of {p}"


def _settings_text(settings: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {_plain(value)}" for name, value in settings.items())


def _plain(value: Any) -> str:
    """A value of the metadata without quotes and brackets where it is a text or a list of texts."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _architecture(scan: ScanResults, null: NullFile | None) -> list[str | Table | Picture]:
    traits = list(scan.metadata.traits)
    if null is None:
        return _correlations_of_scan(scan, traits)
    estimates = null.whole.estimates
    rows = [_heritability(null, j) for j in range(len(traits))]
    headings = ("trait", "h²", "SE", "95% interval (profile likelihood)")[: 4 if null.metadata.profile else 3]
    caption = "heritabilities; standard errors by the delta method"
    parts: list[str | Table | Picture] = [Table(headings, [row[: len(headings)] for row in rows], caption=caption)]
    if 1 < len(traits) <= MOST_NUMBERS:
        r, se = correlations_shown(estimates)
        parts.append(_correlation_table(traits, r, se))
    description = "heat map of genetic and residual correlations, and heritabilities with their intervals"
    return [*parts, _picture(lambda: draw_architecture(traits, estimates), description, "")]


def _heritability(null: NullFile, j: int) -> Sequence[str]:
    estimates, trait = null.whole.estimates, null.traits[j]
    profile = null.metadata.profile.get(trait)
    interval = f"{_number(profile.low)} to {_number(profile.high)}" if profile else DASH
    return trait, _number(estimates.h2[j]), _number(estimates.h2_se[j]), interval


def _correlations_of_scan(scan: ScanResults, traits: Sequence[str]) -> list[str | Table | Picture]:
    """What the metadata of a scan know without its null model."""
    note = "Heritabilities and standard errors are in the report when it is given the null model of the scan too."
    if not 1 < len(traits) <= MOST_NUMBERS:
        return [note]
    C0, C1 = scan.metadata.null.C0, scan.metadata.null.C1
    below = np.tril(np.ones_like(C0, dtype=np.bool_), -1)
    return [_correlation_table(traits, np.where(below, _correlation(C0), _correlation(C1)), None), note]


def _correlation(C: Array) -> Array:
    """Correlations of a covariance matrix, NaN for what has no variance."""
    variance = np.diag(C)
    deviation = np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.asarray(C / np.multiply.outer(deviation, deviation))


def _correlation_table(traits: Sequence[str], r: Array, se: Array | None) -> Table:
    rows = []
    for i, trait in enumerate(traits):
        numbers = [_with_error(r[i, j], None if se is None else se[i, j]) for j in range(len(traits))]
        rows.append([trait, *("" if i == j else number for j, number in enumerate(numbers))])
    what = "correlations" if se is None else "correlations (standard errors)"
    return Table(("", *traits), rows, caption=f"{what}: genetic below, residual above the diagonal")


def _inflation(
    scan: ScanResults, loci: Loci, curves: Sequence[QQ], settings: PictureSettings
) -> list[str | Table | Picture]:
    rows = [
        (
            curve.test.label,
            str(curve.df) if curve.test.df_column or not scan.is_of_sets else DASH,
            f"{curve.everything.count:,}",
            _number(curve.everything.inflation),
            f"{loci.significant[curve.test.column]:,}",
            f"{len(loci.by_test[curve.test.column].leads):,}",
        )
        for curve in curves
    ]
    level = loci.thresholds.text
    shown = [curve for curve in curves if curve.test in scan.main_tests]
    classes = "; lines: the same for each class of minor allele frequency" if settings.by_frequency else ""
    caption = (
        f"Observed against expected −log₁₀ p. Grey: 95% of the ordered p-values of independent {scan.noun}s without"
        f" effects{classes}. λ is the median χ² over that of its distribution."
    )
    picture = _picture(lambda: draw_qq(shown), "quantile-quantile plots of every test", caption)
    return [Table(("test", "df", f"{scan.noun}s", "λ", level, f"lead {scan.noun}s"), rows), picture]


def _manhattan(scan: ScanResults, genome: Genome, settings: PictureSettings) -> Picture:
    draw = manhattan_of(scan, scan.main_tests, settings.clumping)
    mark = "The red line on the scale" if len(scan.main_tests) > MOST_PANELS else "Dashed"
    number = number_of_independent_tests(scan)
    dotted = f"0.05 over the number of {scan.noun}s tested (Bonferroni)"
    if number is not None:
        dotted = f"0.05 over the {number:,} independent tests that the variants amount to (Li et al. 2012)"
    if scan.metadata.thresholds:
        dotted = f"what 5% of {scan.metadata.settings.bootstrap:,} simulated scans exceed"
    level = significance_text(settings.clumping.significance).replace("≤", "=")
    elsewhere = ", where it is another" if scan.is_of_sets or scan.metadata.thresholds else ""
    caption = f"{mark}: {level}. Dotted{elsewhere}: {dotted}. Diamonds: lead {scan.noun}s of each test."
    if scan.is_of_sets:
        caption += " A set stands in the middle of its variants."
    if genome.without_position:
        placed = (
            "are in the order of the table" if genome.unplaced.any() else "stand at the one before them in the file"
        )
        caption += f" {genome.without_position:,} {scan.noun}s without a position {placed}."
    what = "each test of sets" if scan.is_of_sets else "the joint test and of every trait"
    return _picture(draw, f"-log10 p of {what} along the genome", caption, _DOTS_PER_INCH)


def _leads(scan: ScanResults, genome: Genome, loci: Loci, settings: PictureSettings) -> list[str | Table | Picture]:
    level = loci.thresholds.text
    leads = loci.together.leads
    parts: list[str | Table | Picture] = []
    if not leads.size:
        parts.append(f"No {scan.noun} has {level} in any test.")
    elif scan.is_of_sets:
        parts += _lead_sets(scan, loci, leads[:MOST_LOCI], settings)
    else:
        shown = leads[:MOST_LOCI]
        more = f" The strongest {len(shown)} of {len(leads):,} are listed." if len(shown) < len(leads) else ""
        by_itself = genome.unplaced.any() and settings.clumping.linkage is None
        unplaced = " A variant without a position is a locus by itself." if by_itself else ""
        parts.append(
            f"Variants with {level} in at least one test, {settings.clumping.description}. Effects are of one more"
            " effect allele (EA) in the joint model, with standard errors; below them stands the p of the trait's own"
            f" test. What passes is shaded. The 1.5 LOD interval is by the test with the smallest p.{unplaced}{more}"
        )
        intervals = locus_intervals(scan, genome, loci, settings.clumping.window)
        parts += _lead_tables(scan, loci, shown, intervals)
    if len(scan.traits) <= MOST_EFFECT_PANELS and not scan.is_of_sets:
        data = lead_effects(loci, genome, scan.traits, settings.clumping, MOST_EFFECTS)
        caption = "Each variant with its effect allele."
        description = "effects of the strongest variants on every trait, with 95% intervals"
        parts.append(_picture(lambda: draw_effects(data), description, caption))
    return parts


def _lead_sets(
    scan: ScanResults, loci: Loci, leads: NDArray[np.intp], settings: PictureSettings
) -> list[str | Table | Picture]:
    """Lead sets with the p of every way to test them."""
    members = _strongest_members(scan)
    rows = []
    for lead, size in zip(leads.tolist(), loci.together.sizes.tolist(), strict=False):
        row = loci.candidates.rows.slice(lead, 1).to_pylist()[0]
        passed = loci.passed(lead)
        start, end = row[START.name], row[END.name]
        place = DASH if start is None or end is None else f"{row['CHR']}:{_megabases((start, end))}"
        cells = [row["SNPID"], place, f"{row[NVAR.name]:,}", f"{row[CARRIERS.name]:,}"]
        cells += [Cell(p_text(row[test.column]), strong=test in passed) for test in scan.main_tests]
        if members:
            share = row[TOP_SHARE.name]
            cells += [row[TOP.name] or DASH, DASH if share is None else f"{share:.0%}"]
        rows.append([*cells, str(size), ", ".join(test.label for test in passed)])
    tests = [test.label for test in scan.main_tests]
    strongest = ["strongest variant", "its share"] if members else []
    headings = ("set", "place, Mb", "variants", "carriers", *tests, *strongest, "sets", "passes")
    texts = (0, 1, *([headings.index("strongest variant")] if members else []), len(headings) - 1)
    level = loci.thresholds.text
    more = len(loci.together.leads) - len(leads)
    said = (
        f"Sets with {level} in at least one test; a lead set is the strongest within"
        f" {settings.clumping.window / 1000:g} kb, from middle to middle. What passes is shaded."
        + (f" The strongest {len(leads)} are listed, {more:,} more are not." if more else "")
        + (" The strongest variant is the one with the largest share of the statistic of skat." if members else "")
    )
    return [said, Table(headings, rows, texts)]


def _lead_tables(
    scan: ScanResults, loci: Loci, leads: NDArray[np.intp], intervals: Sequence[LocusInterval]
) -> list[Table]:
    """Lead variants with their effects, or of many traits the variants first and then tables of effects."""
    joint = {"MLOG10P": "joint p"} if len(scan.metadata.traits) > 1 else {}
    joint |= {"MLOG10P_REFIT": "joint p, refit"} if "MLOG10P_REFIT" in scan.columns else {}
    across = scan.traits if len(scan.traits) <= MOST_TRAITS_ACROSS else ()
    found = [(loci.candidates.rows.slice(lead, 1).to_pylist()[0], loci.passed(lead)) for lead in leads.tolist()]
    rows = []
    for (row, passed), size, interval in zip(found, loci.together.sizes.tolist(), intervals, strict=False):
        columns = {test.column for test in passed}
        cells = [
            row["SNPID"],
            _place(row),
            _megabases(interval.lod),
            _allele(row["EA"]),
            _allele(row["NEA"]),
            _number(row["EAF"]),
        ]
        cells += [f"{row['N']:,}", *(Cell(p_text(row[name]), strong=name in columns) for name in joint)]
        cells += [_effect_cell(row, trait, columns) for trait in across]
        rows.append([*cells, str(size), _passed_text(scan, passed)])
    headings = ("variant", "place", "1.5 LOD, Mb", "EA", "other", "EAF", "N", *joint.values(), *across, "variants")
    tables = [Table((*headings, "passes"), rows, (0, 1, 2, 3, 4, len(headings)))]
    if across:
        return tables
    for start in range(0, min(len(found), MOST_LEADS_ACROSS), LEADS_ACROSS):
        block = found[start : start + LEADS_ACROSS]
        effects = [
            [trait, *(_effect_cell(row, trait, {test.column for test in passed}) for row, passed in block)]
            for trait in scan.traits
        ]
        names = [f"{row['SNPID']} {_allele(row['EA'])}" for row, _ in block]
        tables.append(Table(("effect on", *names), effects, caption="effects of the lead variants, a row a trait"))
    return tables


def _effect_cell(row: Mapping[str, Any], trait: str, passed: set[str]) -> Cell:
    column = f"MLOG10P.{trait}"
    effect = f"{_short(row[f'BETA.{trait}'])} ({_short(row[f'SE.{trait}'])})"
    return Cell(effect, p_text(row[column]), column in passed)


def _passed_text(scan: ScanResults, passed: Sequence[ScanTest]) -> str:
    """Tests by name; of many traits their number, as the shaded cells show which."""
    traits = [test.label for test in passed if test in scan.trait_tests]
    if len(", ".join(traits)) > LONGEST_LIST:
        traits = [f"{len(traits)} of {len(scan.traits)} traits"]
    joint = [test.label for test in passed if test == scan.joint]
    further = [test.label for test in passed if test in scan.further_tests]
    return ", ".join([*joint, *traits, *further])


def p_text(mlog10p: float | None) -> str:
    """A p-value from its -log10, however small.

    >>> p_text(0.30103), p_text(7.5), p_text(1234.5), p_text(None)
    ('0.5', '3.2e-8', '3.2e-1235', '–')
    """
    if mlog10p is None or np.isnan(mlog10p):
        return DASH
    if mlog10p < 3:
        return f"{10.0**-mlog10p:.2g}"
    exponent = int(np.ceil(mlog10p))
    mantissa = f"{10.0 ** (exponent - mlog10p):.1f}"
    return f"{mantissa}e-{exponent}" if mantissa != "10.0" else f"1.0e-{exponent - 1}"


def _place(row: Mapping[str, Any]) -> str:
    position = f"{row['POS']:,}" if row["POS"] > 0 else "?"
    return f"{row['CHR']}:{position}"


def _megabases(interval: tuple[int, int] | None) -> str:
    return DASH if interval is None else " to ".join(f"{position / 1e6:.2f}" for position in interval)


def _allele(allele: str | None) -> str:
    text = allele or "?"
    return text if len(text) <= 12 else f"{text[:10]}… ({len(text)})"


def _number(value: float | None) -> str:
    return DASH if value is None or not np.isfinite(value) else f"{value:.4f}"


def _short(value: float | None) -> str:
    return DASH if value is None or not np.isfinite(value) else f"{value:.3g}".replace("-", "−")


def _with_error(value: float, se: float | None) -> str:
    if not np.isfinite(value):
        return DASH
    text = f"{value:.3f}".replace("-", "−")
    return text if se is None else f"{text} ({se:.3f})" if np.isfinite(se) else f"{text} ({DASH})"


def _picture(draw: Callable[[], Figure], description: str, caption: str, pixels_per_inch: int = _CSS_PIXELS) -> Picture:
    """A picture of the page; its width stands in bytes 16 to 20 of a PNG."""
    png = render(draw, "png", _DOTS_PER_INCH)
    width = round(int.from_bytes(png[16:20], "big") * pixels_per_inch / _DOTS_PER_INCH)
    return Picture(base64.b64encode(png).decode(), width, description, caption)
