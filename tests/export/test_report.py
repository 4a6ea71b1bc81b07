"""The report: well-formed, self-contained, escaped, and its numbers are those of the table."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from scan_metadata_of import HASH
from scan_views import column, mlog10p, simulated, view_of
from scipy import stats

pytest.importorskip("matplotlib")

from kron2sum_cli.errors import InputError
from kron2sum_cli.export import export as export_module
from kron2sum_cli.export.loci import Clumping
from kron2sum_cli.export.plots import MOST_PANELS, PictureSettings
from kron2sum_cli.export.qq import qq_data
from kron2sum_cli.export.report import MOST_LOCI, p_text, scan_report
from kron2sum_cli.export.results import ScanResults
from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.null_file import GrmRecord, NullFile
from kron2sum_cli.files.scan_metadata import INDEPENDENT_TESTS, ScanPart, Span
from kron2sum_cli.model.uncertainty import Interval
from kron2sum_cli.settings import ExportSettings

TRAITS = ("height", "weight")
SETTINGS = PictureSettings()
ATTACK = "<script>alert('1')</script>&\"x"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The elements of a page, of which every one must be closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {}
        self.tables: dict[str, list[list[list[str]]]] = {}
        self._section = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs)
        self.attributes.append((tag, values))
        if tag == "section":
            self._section = values["id"]
            self.sections[self._section] = ""
            self.tables[self._section] = []
        if tag == "table":
            self.tables[self._section].append([])
        if tag == "tr":
            self.tables[self._section][-1].append([])
        if tag in ("td", "th"):
            self.tables[self._section][-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._section:
            self.sections[self._section] += data
        if any(tag in ("td", "th") for tag in self.open):
            cell = self.tables[self._section][-1][-1]
            cell[-1] += data if not cell[-1] else " " + data


def report(view: ScanResults, null: NullFile | None = None, settings: PictureSettings = SETTINGS) -> Page:
    return Page(scan_report(view, settings, null))


def null_of(traits: tuple[str, ...], profile: bool = False, model_hash: str = HASH) -> NullFile:
    random = np.random.default_rng(1)
    p = len(traits)
    estimates = {name: random.uniform(-0.9, 0.9, (p, p)) for name in ("rg", "re")}
    estimates |= {f"{name}_se": random.uniform(0, 0.3, (p, p)) for name in ("rg", "re")}
    estimates |= {"h2": random.random(p), "h2_se": random.uniform(0, 0.2, p)}
    intervals = {trait: Interval(0.125, 0.875, False) for trait in traits} if profile else {}
    whole = SimpleNamespace(estimates=SimpleNamespace(**estimates), rank=p)
    grm = GrmRecord(("g.bed",), True, (), {"maf": 0.01, "scale": "standardized"})
    metadata = SimpleNamespace(profile=intervals, hash=model_hash)
    null = SimpleNamespace(traits=traits, whole=whole, metadata=metadata, grm=grm)
    return cast(NullFile, null)


@pytest.fixture(scope="module")
def view() -> ScanResults:
    return view_of(simulated(2000, TRAITS, ("common",), refit=True, peaks=6), TRAITS, ("common",), refit=True)


@pytest.fixture(scope="module")
def page(view: ScanResults) -> Page:
    return report(view)


# The page


def test_the_page_needs_nothing_from_outside(view: ScanResults) -> None:
    html = scan_report(view, SETTINGS, null_of(TRAITS))
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    for tag, attributes in Page(html).attributes:
        assert tag not in ("script", "link", "iframe", "object")
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style and "://" not in html


def test_pictures_have_a_text_and_links_lead_somewhere(page: Page) -> None:
    images = [attributes for tag, attributes in page.attributes if tag == "img"]
    assert len(images) == 3 and all(attributes["alt"] and int(attributes["width"]) > 100 for attributes in images)
    links = [attributes["href"] for tag, attributes in page.attributes if tag == "a"]
    assert links == [f"#{name}" for name in page.sections]


def test_the_same_scan_makes_the_same_page(view: ScanResults) -> None:
    assert scan_report(view, SETTINGS, None) == scan_report(view, SETTINGS, None)


def test_names_cannot_break_out_of_the_page() -> None:
    columns = simulated(300, [ATTACK, "b"]) | {"SNPID": [ATTACK] * 300, "EA": ["<i>"] * 300, "CHR": ["<b>"] * 300}
    view = view_of(columns, [ATTACK, "b"])
    metadata = replace(
        view.metadata,
        inputs={"geno": (FileRecord(ATTACK, 1, ATTACK),)},
        null=replace(view.metadata.null, covariates=(ATTACK,)),
        filters={ATTACK: ATTACK},
        counts={ATTACK: 1},
    )
    view = replace(view, metadata=metadata)
    html = scan_report(view, SETTINGS, null_of((ATTACK, "b")))
    page = Page(html)
    assert "<script" not in html and "<i>" not in html and "<b>" not in html
    assert all(ATTACK in page.sections[name] for name in ("run", "counts", "architecture", "inflation", "leads"))


# What it says


def test_it_says_what_was_run_and_how_many(page: Page, view: ScanResults) -> None:
    facts = dict(row for row in page.tables["run"][0] if len(row) == 2)
    assert facts["program"] == "kron2sum 1.2.3"
    assert facts["null model"] == "REML, log-likelihood -12.5000"
    assert facts["null model's hash"] == HASH
    assert facts["filters"] == "maf 0.001"
    assert facts["settings"] == "tests any, common; precision single; stat lr; refit 0.0001"
    assert page.tables["run"][1][1] == ["geno", "v.bed", "12,345", f"{HASH[:12]}…"]
    assert page.tables["counts"][0] == [["variants read", "2,007"], ["variants tested", "2,000"]]


def test_files_of_every_part_of_a_joined_scan_are_listed(view: ScanResults) -> None:
    part = ScanPart((FileRecord("chr2.bed", 1, HASH),), Span(((0, 1),), ((0, 1),), 1))
    joined = replace(view, metadata=replace(view.metadata, span=None, parts=(part,), inputs={}))
    assert report(joined).tables["run"][1][1][1] == "chr2.bed"


def test_inflation_is_that_of_every_test(page: Page, view: ScanResults) -> None:
    header, *rows = page.tables["inflation"][0]
    assert header == ["test", "df", "variants", "λ", "p ≤ 5e-8", "lead variants"]
    tests = [*view.main_tests, *view.further_tests]
    assert [row[0] for row in rows] == ["joint test", *TRAITS, "common"]
    for row, qq in zip(rows, qq_data(view, tests), strict=True):
        y = np.array(column(view, qq.test.column), dtype=float)
        assert row[1:4] == [str(qq.df), f"{np.sum(~np.isnan(y)):,}", f"{qq.everything.inflation:.4f}"]
        assert row[4] == f"{np.sum(y >= -np.log10(SETTINGS.clumping.significance)):,}"


def test_it_says_how_lead_variants_were_clumped(page: Page) -> None:
    said = "clumped by distance: a lead variant is the strongest within 500 kb."
    assert said in page.sections["leads"]


def test_lead_variants_are_listed_with_effects_and_what_they_pass(page: Page, view: ScanResults) -> None:
    header, *rows = page.tables["leads"][0]
    assert header == [
        *("variant", "place", "1.5 LOD, Mb", "EA", "other", "EAF", "N", "joint p", "joint p, refit"),
        *(*TRAITS, "variants", "passes"),
    ]
    table = {name: column(view, name) for name in view.columns}
    columns = {test.label: table[test.column] for test in [*view.main_tests, *view.further_tests]}
    assert rows
    for row in rows:
        i = table["SNPID"].index(row[0])
        passes = [
            label
            for label, values in columns.items()
            if values[i] is not None and values[i] >= -np.log10(SETTINGS.clumping.significance)
        ]
        assert row[-1] == ", ".join(passes) and passes
        assert row[1] == f"{table['CHR'][i]}:{table['POS'][i]:,}"
        first, last = map(float, row[2].split(" to "))
        assert first - 0.006 <= table["POS"][i] / 1e6 <= last + 0.006
        assert row[7:9] == [p_text(table["MLOG10P"][i]), p_text(table["MLOG10P_REFIT"][i])]
        for j, trait in enumerate(TRAITS):
            effect = f"{table[f'BETA.{trait}'][i]:.3g} ({table[f'SE.{trait}'][i]:.3g})".replace("-", "−")
            assert row[9 + j] == f"{effect} {p_text(table[f'MLOG10P.{trait}'][i])}"
    best = [max(values[table["SNPID"].index(row[0])] for values in columns.values()) for row in rows]
    assert best == sorted(best, reverse=True)


def test_of_many_traits_that_a_variant_passes_the_number_is_told() -> None:
    names = tuple(f"a_trait_with_a_long_name_{j}" for j in range(5))
    view = view_of(simulated(500, names, peaks=6), names)
    snps, mlog10p = column(view, "SNPID"), {name: column(view, f"MLOG10P.{name}") for name in names}
    counted = 0
    for row in report(view, settings=PictureSettings(Clumping(0.1))).tables["leads"][0][1:]:
        passed = [name for name in names if mlog10p[name][snps.index(row[0])] >= 1]
        expected = f"{len(passed)} of 5 traits" if len(passed) > 1 else "".join(passed)
        assert row[-1].removeprefix("joint test").removeprefix(", ") == expected
        counted += len(passed) > 1
    assert counted > 5


def test_a_wider_window_makes_fewer_and_larger_loci(view: ScanResults) -> None:
    pages = [report(view, settings=PictureSettings(clumping=Clumping(window=window))) for window in (0, 10**9)]
    narrow, wide = (page.tables["leads"][0][1:] for page in pages)
    assert len(wide) < len(narrow)
    assert sum(int(row[-2]) for row in narrow) == sum(int(row[-2]) for row in wide)
    assert all(row[-2] == "1" for row in narrow)


def test_of_very_many_leads_the_strongest_are_listed(monkeypatch: pytest.MonkeyPatch, view: ScanResults) -> None:
    monkeypatch.setattr("kron2sum_cli.export.report.MOST_LOCI", 2)
    page = report(view, settings=PictureSettings(clumping=Clumping(window=0)))
    assert len(page.tables["leads"][0]) == 3
    assert re.search(r"The strongest 2 of \d+ are listed", page.sections["leads"])
    assert MOST_LOCI >= 100


def test_without_significant_variants_it_says_so() -> None:
    view = view_of(simulated(100, TRAITS, peaks=0), TRAITS)
    assert "No variant has p ≤ 5e-8 in any test." in report(view).sections["leads"]


def test_a_variant_without_a_position_has_no_place_made_up() -> None:
    columns = simulated(50, TRAITS) | {"POS": np.full(50, -9)}
    page = report(view_of(columns, TRAITS), settings=PictureSettings(Clumping(0.5)))
    assert all(row[1].endswith(":?") for row in page.tables["leads"][0][1:])
    assert "50 variants without a position" in page.sections["genome"]


# Architecture


def test_without_the_null_model_it_has_the_correlations_that_the_scan_knows(page: Page) -> None:
    assert page.tables["architecture"][0] == [["", *TRAITS], ["height", "", "0.000"], ["weight", "0.500", ""]]
    assert "Heritabilities and standard errors are in the report when" in page.sections["architecture"]


@pytest.mark.parametrize("profile", [False, True])
def test_with_the_null_model_it_has_heritabilities_and_standard_errors(view: ScanResults, profile: bool) -> None:
    null = null_of(TRAITS, profile)
    e = null.whole.estimates
    page = report(view, null)
    heritabilities, correlations = page.tables["architecture"]
    interval = ["0.1250 to 0.8750"] if profile else []
    expected = [[t, f"{h:.4f}", f"{s:.4f}", *interval] for t, h, s in zip(TRAITS, e.h2, e.h2_se, strict=True)]
    assert heritabilities[1:] == expected
    below = f"{e.rg[1, 0]:.3f} ({e.rg_se[1, 0]:.3f})".replace("-", "−")
    above = f"{e.re[0, 1]:.3f} ({e.re_se[0, 1]:.3f})".replace("-", "−")
    assert correlations[1:] == [["height", "", above], ["weight", below, ""]]


def test_another_null_model_is_refused(view: ScanResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "read_null", lambda path: null_of(TRAITS, model_hash="f" * 64))
    with pytest.raises(InputError, match="memory: was scanned with another null model .hash 0123456789ab. than the"):
        export_module.null_of(view, ExportSettings(null="other.npz", report="scan.html"))


@pytest.mark.parametrize("traits", [1, 3, MOST_PANELS + 1])
def test_any_number_of_traits_has_a_report(traits: int) -> None:
    names = tuple(f"t{j}" for j in range(traits))
    page = report(view_of(simulated(60, names), names), null_of(names), PictureSettings(Clumping(0.01)))
    assert [row[0] for row in page.tables["inflation"][0][1:]] == [*(["joint test"] if traits > 1 else []), *names]
    assert ("joint p" in page.tables["leads"][0][0]) == (traits > 1)


def test_a_table_without_rows_has_a_report(view: ScanResults) -> None:
    empty: Any = replace(view, rows=lambda names: iter(()))
    assert "No variant has" in report(empty).sections["leads"]


@pytest.mark.parametrize(
    ("mlog10p", "text"),
    [(0.0, "1"), (2.9, "0.0013"), (3.0, "1.0e-3"), (7.0, "1.0e-7"), (7.30103, "5.0e-8"), (1e5 + 0.5, "3.2e-100001")],
)
def test_p_values_of_any_size_are_written(mlog10p: float, text: str) -> None:
    assert p_text(mlog10p) == text


def test_a_p_value_that_rounds_up_keeps_one_digit_before_the_point() -> None:
    assert p_text(7.0000001) == "1.0e-7"


# What a browser makes of it

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

MEASURED = """<script>
const width = document.documentElement.clientWidth;
const wide = [...document.querySelectorAll("SHOWN, img, p")].filter(e => e.getBoundingClientRect().right > width + 1);
const broken = [...document.images].filter(image => !image.complete || !image.naturalWidth);
document.title = `${document.images.length} pictures, ${broken.length} broken, ${wide.length} cut of ${width}`;
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("traits", [1, 4, 12, 16])
def test_a_browser_shows_all_of_it_on_the_screen_and_cuts_nothing_in_print(tmp_path: Path, traits: int) -> None:
    names = tuple(f"trait_{j}_of_the_second_year" for j in range(traits))
    view = view_of(simulated(300, names, ("common",), refit=True, peaks=3), names, ("common",), refit=True)
    html = scan_report(view, PictureSettings(Clumping(1e-3)), null_of(names))
    # The paper is A4 across less the margins of the page: 273 mm.
    # On the screen a wide table scrolls in its frame.
    for media, width, shown in (("screen", 1400, ".wide"), ("print", 1032, "table")):
        page = tmp_path / f"{media}.html"
        page.write_text(
            html.replace(f"@media {media}", "@media all").replace("</body>", MEASURED.replace("SHOWN", shown)),
            encoding="utf-8",
        )
        command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", page.as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        assert re.search(r"<title>(.*?)</title>", dom)[1] == f"4 pictures, 0 broken, 0 cut of {width}"  # type: ignore[index]


# Findings


def test_it_begins_with_what_was_found(page: Page, view: ScanResults) -> None:
    said = page.sections["findings"]
    tests = view.all_tests
    strongest = max(tests, key=lambda test: max(value or 0 for value in column(view, test.column)))
    y = column(view, strongest.column)
    best = max(range(len(y)), key=lambda k: y[k] or 0)
    leads = len(page.tables["leads"][0]) - 1
    assert next(iter(page.sections)) == "findings"
    assert f"{leads} loci have p ≤ 5e-8 in at least one test" in said
    assert f"the strongest is {column(view, 'SNPID')[best]} (" in said and f"p = {p_text(y[best])}" in said
    assert "λ is " in said and "in 1,000 samples" in said


@pytest.mark.parametrize(
    ("factor", "said"), [(0.5, "fit again with --loco"), (1.0, "as without inflation"), (1.6, "greater than 1")]
)
def test_it_says_what_the_inflation_means(factor: float, said: str) -> None:
    columns = simulated(2000, ["y"], peaks=0)
    chisq = factor * stats.chi2.isf((np.arange(2000) + 0.5) / 2000, 1)
    columns |= {name: mlog10p(chisq, 1) for name in ("MLOG10P", "MLOG10P.y")}
    assert said in report(view_of(columns, ["y"])).sections["findings"]


@pytest.mark.parametrize(
    ("grm", "said"),
    [
        (("v.bed",), "The relationship matrix was made from the scanned variants"),
        (("other.bed",), "If the relationship"),
    ],
)
def test_it_knows_whether_the_relationship_matrix_was_made_from_the_scanned_variants(
    grm: tuple[str, ...], said: str
) -> None:
    columns = simulated(2000, ["y"], peaks=0)
    chisq = 0.5 * stats.chi2.isf((np.arange(2000) + 0.5) / 2000, 1)
    view = view_of(columns | {name: mlog10p(chisq, 1) for name in ("MLOG10P", "MLOG10P.y")}, ["y"])
    null = replace(view.metadata.null, grm=grm)
    page = report(replace(view, metadata=replace(view.metadata, null=null)))
    assert said in page.sections["findings"] and "fit again with --loco" in page.sections["findings"]


@pytest.mark.parametrize("factor", [0.5, 1.6])
def test_under_a_trait_design_of_fewer_columns_it_gives_no_reason(factor: float) -> None:
    columns = simulated(2000, ["y"], peaks=0)
    chisq = factor * stats.chi2.isf((np.arange(2000) + 0.5) / 2000, 1)
    view = view_of(columns | {name: mlog10p(chisq, 1) for name in ("MLOG10P", "MLOG10P.y")}, ["y"])
    null = replace(view.metadata.null, grm=("v.bed",), reduced=True)
    said = report(replace(view, metadata=replace(view.metadata, null=null))).sections["findings"]
    assert "means of traits are taken for effects of variants, and λ says nothing of the rest" in said
    assert "relationship matrix" not in said and "linkage disequilibrium" not in said


def test_the_dotted_line_of_its_picture_is_explained(view: ScanResults) -> None:
    counts = {**view.metadata.counts, INDEPENDENT_TESTS: 1234}
    page = report(replace(view, metadata=replace(view.metadata, counts=counts)))
    assert "0.05 over the 1,234 independent tests that the variants amount to" in page.sections["genome"]


def test_it_names_how_the_null_model_was_fitted(view: ScanResults) -> None:
    scanned = replace(view.metadata.null, rank=1, transform="rank-normal", grm=("g.bed", "g.bim", "g.fam"))
    loco = replace(view.metadata.nulls[0], chromosome="1")
    metadata = replace(view.metadata, null=scanned, nulls=(*view.metadata.nulls, loco), null_of_chr={"1": "1"})
    page = report(replace(view, metadata=metadata), null_of(TRAITS))
    facts = dict(row for row in page.tables["run"][0] if len(row) == 2)
    assert facts["rank of C0"] == "1 of 2" and facts["transform of the traits"] == "rank-normal"
    assert facts["relationship matrix"] == "g.bed, g.bim, g.fam"
    assert facts["made of genotypes by"] == "maf 0.01; scale standardized"
    assert facts["leave one chromosome out"] == "yes, 1 null models" and "(LOCO)" in page.sections["findings"]
