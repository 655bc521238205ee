"""What a reader does with the page: enlarge a clip, read a value at once, save a table, search, share, print."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.helpers import report_factory as factory
from tests.helpers.browser import sound_page
from tests.helpers.report_factory import preview, report_data, world_rows
from tests.helpers.waiting import wait_for
from vtcav_ray.report import ReportData, build_report
from vtcav_ray.report.examples import Driven, Examples

pytestmark = pytest.mark.browser

A4_WIDTH = 688  # pixels at 96 per inch: 210 mm without two margins of 14 mm


def data_with_examples(left_out: int = 0) -> ReportData:
    driven = Driven("cup up/spatiotemporal", "late", "video_000", "video_001", 0.02, -0.01)
    shown = {f"video_{k:03d}": preview("cup up/spatiotemporal", k) for k in range(4)}
    return report_data(examples=Examples({"lift": driven}, {"lift": shown}, left_out))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(build_report(data_with_examples(left_out=96)), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    with sound_page(browser) as page:
        open_at(page, file)
        yield page


def open_at(page: Page, file: Path, address: str = "") -> None:
    page.goto("about:blank")
    page.goto(file.as_uri() + address)
    page.wait_for_selector("html[data-ready]")


def test_the_most_and_least_driven_examples_play_and_enlarge(page: Page) -> None:
    pair = page.locator(".driven-clips figure")
    assert [text.split() for text in pair.locator("figcaption").all_inner_texts()] == [
        ["most", "driven", "video_000"],
        ["least", "driven", "video_001"],
    ]
    assert page.get_by_text("4 of 100 class examples have a preview").is_visible()
    small = pair.locator("img").first.bounding_box()
    pair.locator("button").first.click()
    page.wait_for_selector("#clip[open]")
    assert "video_000" in page.locator("#clip h2").inner_text()
    large = page.locator("#clip img").bounding_box()
    assert small is not None
    assert large is not None
    assert large["width"] > 4 * small["width"]
    page.get_by_role("button", name="Pause", exact=True).click()
    assert page.locator("#clip canvas").is_visible()
    assert not page.locator("#clip img").is_visible()
    page.keyboard.press("Escape")
    assert pair.locator("button").first.evaluate("e => e === document.activeElement")


def test_values_are_shown_on_hover_without_the_browsers_own_tooltips(page: Page) -> None:
    page.locator("#matrix .cell.raises").first.hover()
    tip = page.locator("#tip")
    assert "raises the logit" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.locator(".strip svg.plot a").first.hover()
    assert "logits" in tip.inner_text()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # draws every chart
    assert page.locator("svg.plot title").count() == 0


def saved(page: Page, name: str) -> str:
    with page.expect_download() as found:
        page.get_by_role("button", name=name, exact=True).first.click()
    return Path(found.value.path()).read_text(encoding="utf-8")


def test_tables_and_charts_can_be_saved(page: Page) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    rows = list(csv.DictReader(io.StringIO(saved(page, "Save as CSV: Classes by concepts"))))
    assert len(rows) == 4 * 24
    wanted = next(
        r for r in world_rows() if (r["class"], r["concept"], r["layer"]) == ("lift", rows[0]["concept"], "late")
    )
    assert (rows[0]["class"], rows[0]["layer"]) == ("lift", "late")
    assert float(rows[0]["effect"]) == pytest.approx(wanted["effect"], rel=1e-3)
    picture = saved(page, "Save as SVG: Classes by concepts")
    assert picture.count("<rect") > 4 * 24
    assert "var(" not in picture
    assert "color-mix" not in picture
    failures = list(csv.reader(io.StringIO(saved(page, "Save as CSV: Failures"))))
    assert failures[1][-2:] == ["The file ends after 1,204 bytes.", "1"]
    tables = page.locator("main table:visible").count()
    assert page.locator("main .save button", has_text="CSV").count() >= tables
    charts = page.locator("main svg.plot:visible").count()
    assert page.locator("main .save button", has_text="SVG").count() >= charts > 4


def test_saved_text_is_no_formula_and_numbers_stay_numbers(browser: Browser, tmp_path: Path) -> None:
    row = {**factory.report_data().failures.to_pylist()[0], "message": "=HYPERLINK(1)", "uri": "−5"}
    path = tmp_path / "report.html"
    failures = factory.report_data().failures.from_pylist([row], schema=factory.tables.FAILURES)
    path.write_text(build_report(report_data(failures=failures)), encoding="utf-8")
    with sound_page(browser) as page:
        open_at(page, path)
        line = list(csv.reader(io.StringIO(saved(page, "Save as CSV: Failures"))))[1]
        assert "'=HYPERLINK(1)" in line
        assert "-5" in line


def test_search_finds_classes_and_concepts(page: Page) -> None:
    search = page.get_by_role("combobox", name="Search classes and concepts")
    search.fill("push")
    assert page.locator("#found [role=option]").all_inner_texts() == ["push_left class", "push_right class"]
    search.press("ArrowDown")
    search.press("Enter")
    wait_for(lambda: page.evaluate("document.querySelector('.class-head h3').textContent.startsWith('push_right')"))
    search.fill("cup up/sp")
    assert page.locator("#found [role=option]").count() == 2
    search.fill("no such")
    assert "Nothing has this name" in page.locator("#found").inner_text()
    search.press("Escape")
    assert not page.locator("#found").is_visible()


def test_the_address_shares_the_state(page: Page, file: Path) -> None:
    page.locator("#matrix").get_by_role("radio", name="early").check()
    page.get_by_label("Find classes").fill("push")
    page.get_by_label("Colour shows").select_option("z")
    page.locator("#concepts").get_by_label("Find concepts").fill("cup up")
    shared = page.evaluate("location.hash")
    assert "matrix.layer=early" in shared
    open_at(page, file, shared)
    assert page.locator("#matrix").get_by_role("radio", name="early").is_checked()
    assert page.get_by_label("Find classes").input_value() == "push"
    assert page.get_by_label("Colour shows").input_value() == "z"
    assert page.locator("#matrix .row-head").all_inner_texts() == ["push_left", "push_right"]
    assert page.locator(".card").count() == 6
    page.locator("#matrix .cell:not(.empty)").first.click()
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("location.hash").startswith("#cell/push_left/")
    assert "matrix.layer=early" in page.evaluate("location.hash")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog#evidence", state="hidden")
    assert page.evaluate("location.hash") == shared
    open_at(page, file, "#matrix?matrix.layer=nowhere&matrix.against=x&class.unit=y&concepts.kind=z&matrix.by=a|b")
    assert page.locator("#matrix").get_by_role("radio", name="late").is_checked()


def test_no_table_is_wider_than_a4(page: Page) -> None:
    page.set_viewport_size({"width": A4_WIDTH, "height": 970})
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    wide = page.evaluate(
        "[...document.querySelectorAll('main table')]"
        ".filter((t) => t.offsetWidth && t.getBoundingClientRect().right > innerWidth + 1)"
        ".map((t) => t.closest('section').id + ' ' + t.className)"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= A4_WIDTH


def test_depths_of_seven_layers_fit_a_telephone(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "LAYERS", (*(f"block{k}" for k in range(1, 7)), "head"))
    path = tmp_path / "report.html"
    path.write_text(build_report(report_data()), encoding="utf-8")
    with sound_page(browser, viewport={"width": 400, "height": 800}) as page:
        open_at(page, path)
        assert page.locator(".depths").count() == 4
        assert page.locator(".depths").first.locator("tbody tr").first.locator("td").count() == 7
        reach = page.locator(".depths, .depths td").evaluate_all(
            "all => { const right = (e) => e.getBoundingClientRect().right;"
            " return Math.max(...all.map((e) => right(e) - right(e.closest('.finding')))); }"
        )
        assert reach <= 0


@pytest.mark.parametrize(("most", "opened"), [("early", "early"), ("answer", "late")])
def test_the_matrix_opens_on_the_layer_with_most_findings_and_never_on_the_answer(
    browser: Browser, tmp_path: Path, most: str, opened: str
) -> None:
    rows = world_rows()
    rows += [{**row, "layer": "answer", "degenerate": False} for row in rows if row["layer"] == "late"]
    rows = [{**row, "significant": True, "learnable": True} if row["layer"] == most else row for row in rows]
    path = tmp_path / "report.html"
    path.write_text(build_report(report_data(rows)), encoding="utf-8")
    with sound_page(browser) as page:
        open_at(page, path)
        assert page.locator("#matrix .corner").inner_text() == opened
