"""The page in a real browser: it draws, filters, opens the evidence, follows links, and makes no network request."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers import report_factory as factory
from tests.helpers.browser import tab
from tests.helpers.report_factory import NASTY, cell, report_data
from tests.helpers.waiting import wait_for
from vtcav_ray.report import ReportData, build_report

pytestmark = pytest.mark.browser

# A telephone is the harder one. tests/pages/test_every_page.py has the page at both.
WIDTHS = [400, pytest.param(1280, marks=pytest.mark.full)]
CELL = "#cell/lift/" + quote("cup up/spatiotemporal", safe="") + "/random/"


@dataclass(frozen=True)
class Opened:
    """A report that is opened in a tab."""

    page: Page
    url: str

    def go(self, address: str = "") -> Page:
        self.page.goto(self.url + address)
        self.page.wait_for_selector("html[data-ready]")
        return self.page


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(build_report(report_data()), encoding="utf-8")
    return path


@contextmanager
def opening(browser: Browser, file: Path, **options: Any) -> Iterator[Opened]:
    """Open a report in a tab. At the end, nothing may have failed, and nothing was requested from the network."""
    with tab(browser, **options) as lent:
        yield Opened(lent.page, file.as_uri())
    assert lent.problems == []
    assert [url for url in lent.requests if not url.startswith(("file:", "data:", "about:"))] == []


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Opened]:
    with opening(browser, file) as opened:
        yield opened


def write(tmp_path: Path, data: ReportData) -> Path:
    path = tmp_path / "report.html"
    path.write_text(build_report(data), encoding="utf-8")
    return path


def sensitivities_of(row: dict) -> list[float]:
    found = factory.sensitivities(factory.world_rows()).to_pylist()
    keys = ("class", "layer", "concept")
    return [f["sensitivity"] for f in found if all(f[k] == row[k] for k in keys)]


def scroll_through(page: Page) -> None:
    """Scroll to every lazily drawn chart once. A chart that comes into view is drawn within two frames.

    Playwright waits for a script without limit, so the script itself fails if the browser draws no frame.
    """
    page.evaluate(
        "async () => { for (let y = 0; y < document.documentElement.scrollHeight; y += 400) {"
        " scrollTo({top: y, behavior: 'instant'});"
        " await new Promise((drawn, failed) => {"
        " setTimeout(() => failed(new Error(`no frame in 60 s at ${y} pixels`)), 60000);"
        " requestAnimationFrame(() => requestAnimationFrame(drawn)); }); } }"
    )


def test_every_part_is_drawn(opened: Opened) -> None:
    page = opened.go()
    scroll_through(page)
    expect(page.locator(".strip svg.plot")).to_have_count(4)
    assert page.locator("#matrix .cell").count() == 4 * 24
    expect(page.locator("#class .class-row svg.plot")).to_have_count(2 * 4)
    assert page.locator(".card .preview img").count() == 12 * 4
    expect(page.locator(".card svg.plot")).to_have_count(12)
    page.get_by_role("button", name="Show all 24 concepts").click()
    assert page.locator(".card").count() == 24


def test_the_matrix_filters_and_sorts(opened: Opened) -> None:
    page = opened.go()
    page.get_by_label("Find classes").fill("push")
    assert page.locator("#matrix .row-head").all_inner_texts() == ["push_left", "push_right"]
    page.get_by_label("Find classes").fill("")
    page.locator("#matrix").get_by_label("Find concepts").fill("cup right")
    page.get_by_role("checkbox", name="motion controls").uncheck()
    assert page.locator("#matrix .cell").count() == 4 * 2
    page.locator("#matrix .head-cell button").first.click()
    assert page.locator("#matrix .row-head").first.inner_text() == "push_right"  # raised most by `cup right`
    assert page.locator("#matrix .row-head").last.inner_text() == "push_left"
    assert page.locator("#matrix .head-cell").first.get_attribute("aria-sort") == "descending"
    page.get_by_label("with a significant effect").check()
    assert page.locator("#matrix .row-head").all_inner_texts() == ["push_right", "push_left"]
    page.locator("#matrix").get_by_label("Find concepts").fill("no such")
    assert "widen the filters" in page.locator("#matrix-caption").inner_text()


def test_marks_differ_in_shape_and_the_layer_changes_them(opened: Opened) -> None:
    page = opened.go()
    page.locator("#matrix").get_by_role("radio", name="early").check()
    shapes = {key: page.locator(f"#matrix .cell.{key} path").first.get_attribute("d") for key in ("not-learnable",)}
    assert page.locator("#matrix .cell.raises").count() == 0
    page.locator("#matrix").get_by_role("radio", name="late").check()
    for key in ("raises", "lowers"):
        shapes[key] = page.locator(f"#matrix .cell.{key} path").first.get_attribute("d")
    assert len(set(shapes.values())) == 3
    assert page.locator("#matrix .cell.raises").count() == 8


def test_a_cell_opens_its_whole_evidence_and_the_address_can_be_shared(opened: Opened) -> None:
    page = opened.go()
    page.locator("#matrix .cell.raises").first.click()
    page.wait_for_selector("dialog[open]")
    shared = page.evaluate("location.hash")
    assert shared.startswith("#cell/")
    columns = page.locator("dialog tr[data-column]").evaluate_all("rows => rows.map(r => r.dataset.column)")
    assert set(columns) == set(factory.table([]).column_names) - {"class", "layer", "concept", "kind", "against"}
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")
    assert not page.evaluate("location.hash").startswith("#cell/")
    opened.go(shared)
    page.wait_for_selector("dialog[open]")


def test_the_evidence_shows_the_planted_numbers(opened: Opened) -> None:
    row = next(
        r
        for r in factory.world_rows()
        if (r["class"], r["concept"], r["layer"]) == ("lift", "cup up/spatiotemporal", "late")
    )
    page = opened.go(CELL + "late")
    page.wait_for_selector("dialog[open]")
    shown = {
        name: page.locator(f'dialog tr[data-column="{name}"] td').first.inner_text()
        for name in row
        if name not in ("class", "layer", "concept", "kind", "against")
    }
    assert float(shown["effect"]) == pytest.approx(row["effect"], abs=0.005)
    assert float(shown["tcav_score"]) == pytest.approx(row["tcav_score"], abs=0.0005)
    assert shown["q"] == "0.003"
    assert shown["significant"] == "yes"
    assert (shown["n"], shown["R"], shown["n_random"]) == ("30", "50", "300")
    assert shown["decided_by"] == "effect"
    assert f"raises the logit by {row['effect']:.2f}" in page.locator("dialog .verdict").inner_text()
    page.wait_for_selector("dialog .pictures svg rect")
    null = next(
        n
        for n in factory.nulls(factory.world_rows()).to_pylist()
        if all(n[k] == row[k] for k in ("class", "concept", "layer", "against"))
    )
    for number, name in enumerate(("effect_counts", "score_counts")):
        bars = page.locator("dialog .pictures svg").nth(number).locator("rect")
        heights = bars.evaluate_all("bars => bars.map(b => Number(b.getAttribute('height')))")
        counts = [count for count in null[name] if count]
        expected = [count / max(counts) for count in counts]
        assert [h / max(heights) for h in heights] == pytest.approx(expected, abs=1 / 31 + 0.01)
    videos = page.locator("dialog .videos")
    expect(videos.locator("svg circle")).to_have_count(30)
    assert videos.locator("li").count() == 10
    driven = sum(value > 0 for value in sensitivities_of(row))
    assert f"{driven} of 30 rise along" in videos.inner_text()
    page.locator("dialog .tabs a", has_text="early").click()
    wait_for(lambda: page.evaluate("document.querySelector('dialog .verdict').textContent.startsWith('Not decided')"))


def test_chart_marks_are_links_to_their_evidence(opened: Opened) -> None:
    page = opened.go("#class/put_down")
    assert page.locator(".class-head h3").inner_text().startswith("put_down")
    page.wait_for_selector("#class .class-row svg.plot a")
    expect(page.locator("#class .class-row svg.plot").first.locator("a")).to_have_count(6 * 4)
    page.locator("#class .class-row svg.plot a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.locator("dialog h2").inner_text().strip().startswith("put_down")


def test_the_matrix_is_used_from_the_keyboard(opened: Opened) -> None:
    page = opened.go()
    page.locator("#matrix .cell[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp", "End", "Home", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.at.r + ',' + document.activeElement.at.c") == "0,1"
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("document.querySelector('dialog').contains(document.activeElement)")


def test_a_concept_link_shows_its_card_and_previews_can_be_stopped(opened: Opened) -> None:
    page = opened.go("#concept/" + quote("cup up/spatiotemporal", safe=""))
    wait_for(lambda: page.evaluate("document.activeElement.classList.contains('card')"))
    card = page.locator("#" + page.evaluate("document.activeElement.id"))
    # Not inner_text(): a card that is not drawn yet (content-visibility) returns its text before styling.
    assert (card.locator("h3").text_content() or "").replace("/", " ").split() == ["cup", "up", "spatiotemporal"]
    near = card.locator("table.near")
    rows = near.locator("tbody tr").evaluate_all("rows => rows.map(r => [...r.children].map(c => c.textContent))")
    assert len(rows) == 5
    at = next(one for one in report_data().entanglement if one.layer == "late")
    mine = at.cosine[list(at.concepts).index("cup up/spatiotemporal")]
    for name, *cosines in rows:
        shown = float(cosines[factory.LAYERS.index("late")].replace("−", "-"))
        assert shown == pytest.approx(mine[list(at.concepts).index(name)], abs=0.006)
    assert rows[0][0] == at.concepts[np.argsort(-abs(mine))[1]]  # the nearest one besides itself
    image = card.locator("img").first
    image.wait_for(state="visible")
    page.get_by_role("button", name="Pause previews").click()
    assert not image.is_visible()
    assert card.locator("canvas").first.is_visible()


def test_previews_stand_still_for_those_who_want_stillness(browser: Browser, file: Path) -> None:
    with opening(browser, file, reduced_motion="reduce") as opened:
        page = opened.go()
        assert page.locator("html.paused").count() == 1
        assert page.get_by_role("button", name="Play previews").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_until_they_are_chosen(browser: Browser, file: Path, scheme: str) -> None:
    with opening(browser, file, color_scheme=scheme) as opened:
        page = opened.go()
        ground = "getComputedStyle(document.body).backgroundColor"
        first = page.evaluate(ground)
        assert (sum(map(int, first[4:-1].split(","))) > 600) == (scheme == "light")
        button = page.get_by_role("button", name="Colours: as the system")
        button.click()
        assert page.evaluate(ground) == "rgb(250, 249, 247)"
        page.get_by_role("button", name="Colours: light").click()
        assert page.evaluate(ground) == "rgb(19, 21, 25)"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(browser: Browser, file: Path, width: int) -> None:
    with opening(browser, file, viewport={"width": width, "height": 800}) as opened:
        page = opened.go()
        scroll_through(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto(opened.url + CELL + "head")
        page.wait_for_selector("dialog[open]")
        assert page.evaluate("document.querySelector('dialog').scrollWidth") <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_nor_with_many_layers_of_long_names(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    places = ("", "@moving", "@still")
    many = [f"{layer}{place}" for layer in ("early", "middle", "late") for place in places]
    monkeypatch.setattr(factory, "LAYERS", (*many, "head"))
    (tmp_path / "report.html").write_text(build_report(report_data()), encoding="utf-8")
    with opening(browser, tmp_path / "report.html", viewport={"width": width, "height": 800}) as opened:
        page = opened.go()
        scroll_through(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Content wider than its card scrolls within the card, also by keyboard.
        tables = page.locator(".card .scroll[tabindex='0']")
        assert tables.count() > 0
        assert tables.first.evaluate("(e) => e.scrollWidth > e.clientWidth")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no cells"),
        pytest.param([cell()], id="one cell"),
        pytest.param([cell(effect=None, tcav_score=None, ci_low=None, null_sd=None)], id="nulls"),
        pytest.param([cell(effect=math.inf, null_sd=0.0, tcav_null_sd=0.0)], id="infinite"),
        pytest.param([cell(against="cup up/frozen"), cell(against="rest of spatiotemporal")], id="no random"),
    ],
)
def test_thin_data_draws_without_an_error(browser: Browser, tmp_path: Path, rows: list) -> None:
    data = report_data(rows, concepts={}, accuracies=None, entanglement=(), stages=(), config={})
    with opening(browser, write(tmp_path, data)) as opened:
        page = opened.go()
        scroll_through(page)
        for node in page.locator("#matrix .cell:not(.empty)").all():
            node.click()
            page.wait_for_selector("dialog[open]")
            page.keyboard.press("Escape")


def test_names_from_the_data_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    concept = NASTY.replace("/", "÷") + "/spatial"
    row = cell(**{"class": NASTY, "concept": concept, "note": NASTY})
    with opening(browser, write(tmp_path, report_data([row]))) as opened:
        page = opened.go()
        scroll_through(page)
        assert page.locator("#matrix .row-head").inner_text() == NASTY
        page.locator("#matrix .cell").click()
        page.wait_for_selector("dialog[open]")
        assert NASTY in page.locator("dialog h2").inner_text()
        assert page.locator('dialog tr[data-column="note"] td').first.inner_text() == NASTY
        page.reload()
        page.wait_for_selector("dialog[open]")


@pytest.mark.parametrize("address", ["#cell/lift/nothing/random/late", "#class/nobody", "#concept/%E0%A4%A", "#run"])
def test_a_broken_link_shows_the_page(browser: Browser, file: Path, address: str) -> None:
    with opening(browser, file) as opened:
        page = opened.go(address)
        assert not page.locator("dialog[open]").count()


def test_the_summary_is_there_without_javascript(browser: Browser, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.get_by_role("heading", name="What the model uses").is_visible()
    assert page.locator(".verdict", has_text="Uses").first.is_visible()
    assert page.get_by_text("drawn by JavaScript").first.is_visible()
    context.close()


@pytest.mark.full
def test_printing_draws_every_chart(opened: Opened) -> None:
    page = opened.go()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator(".card svg.plot")).to_have_count(12)
    expect(page.locator(".class-row svg.plot")).to_have_count(2 * 4)
    tables = page.locator(".print-matrix table")
    assert tables.count() == 3
    shown = tables.locator("thead th").evaluate_all("heads => heads.map(h => h.innerText.replace(/\\s+/g, '/'))")
    assert len(shown) == 24  # a heading for every concept
    assert set(page.locator(".print-matrix tbody tr").evaluate_all("rows => rows.map(r => r.cells.length)")) == {10, 7}
    assert not page.locator(".controls").first.is_visible()
