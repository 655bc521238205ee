"""Single class examples in the report: where they are linked, what they show, with and without JavaScript."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import sound_page
from tests.helpers.every_page import report_page
from tests.helpers.report_factory import explained, report_data, world_rows
from tests.helpers.waiting import wait_for
from vtcav_ray.report import build_report
from vtcav_ray.report.explained import pack_examples
from vtcav_ray.report.mistakes import MOST_MISTAKES, example_id, mistaken

pytestmark = pytest.mark.browser

ADDRESS = "#example/lift/video_000"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_page(), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    with sound_page(browser) as page:
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        yield page


def opened_example(page: Page) -> str:
    page.wait_for_selector("dialog#example[open] svg.plot")
    return page.locator("#example-title").inner_text()


def test_the_driven_clips_the_mistakes_and_the_class_lead_to_an_example(page: Page) -> None:
    page.locator(".driven-clips a").first.click()
    assert opened_example(page) == "lift video_000"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog#example", state="hidden")
    assert not page.evaluate("location.hash").startswith("#example")
    # By keyboard: charts that are drawn while the page scrolls move a link away from the pointer.
    page.locator("#mistakes td, #mistakes th").get_by_role("link").first.press("Enter")
    assert opened_example(page).endswith("video_000")
    page.keyboard.press("Escape")
    page.locator(".class-examples summary").click()
    page.locator(".class-examples a").last.press("Enter")
    assert opened_example(page) == "lift video_003"
    page.keyboard.press("Escape")
    page.get_by_label("wrong answers only").check()
    rows = page.locator("#examples tbody tr")
    assert rows.count() == 4
    rows.nth(1).get_by_role("link").press("Enter")
    assert opened_example(page) == "put_down video_000"


def test_a_link_that_is_followed_while_an_example_closes_opens_its_own(page: Page) -> None:
    page.locator(".driven-clips a").first.click()
    assert opened_example(page) == "lift video_000"
    # In one task, so the event of the closed dialog comes after the new address.
    page.evaluate("document.getElementById('example').close(); location.hash = '#example/lift/video_003'")
    expect(page.locator("#example-title")).to_contain_text("video_003")
    expect(page.locator("dialog#example")).to_be_visible()
    assert page.evaluate("location.hash").startswith("#example/lift/video_003")


def test_an_example_shows_answer_presence_push_and_interval(page: Page) -> None:
    page.evaluate(f"location.hash = '{ADDRESS}'")
    opened_example(page)
    dialog = page.locator("#example")
    said = "The model answers put_down (probability 0.700), which is wrong. The true class is lift (probability 0.200)."
    assert dialog.locator(".verdict").inner_text() == said
    assert dialog.locator(".answers li").count() == 4
    cells = dialog.locator("tbody tr").first.locator("th, td").all_inner_texts()
    assert [cell.replace("\u00a0", " ").strip() for cell in cells] == [
        "cup down/spatiotemporal", "head", "80 %", "+1.00", "+0.80 … +1.20", "−0.50", "+1.20",
    ]  # fmt: skip
    with page.expect_download() as found:
        dialog.get_by_role("button", name="Save as CSV: Concepts of video_000").first.click()
    rows = list(csv.DictReader(Path(found.value.path()).read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 16
    assert float(rows[0]["push"]) == pytest.approx(1.0, abs=1e-3)


def test_an_example_goes_back_to_the_evidence_and_on_to_its_neighbours(page: Page) -> None:
    page.evaluate("location.hash = '#cell/lift/cup%20up%2Fspatiotemporal/random/late'")
    page.wait_for_selector("dialog#evidence[open]")
    page.locator("#evidence .thumb a, #evidence a.explain").first.click()
    opened_example(page)
    page.get_by_role("button", name="Next example").click()
    expect(page.locator("#example-title")).to_have_text("lift video_001")
    page.locator("#example").get_by_role("button", name="Close").click()
    page.wait_for_selector("dialog#evidence[open]")
    assert page.evaluate("location.hash").startswith("#cell/lift/")


def test_without_javascript_the_links_lead_to_plain_html(browser: Browser, file: Path) -> None:
    context = browser.new_context(
        java_script_enabled=False, reduced_motion="reduce", viewport={"width": 400, "height": 800}
    )
    page = context.new_page()
    page.goto(file.as_uri())
    page.locator(".driven-clips a").first.click()
    article = page.locator(f'[id="{ADDRESS[1:]}"]')
    wait_for(lambda: article.evaluate("e => Math.abs(e.getBoundingClientRect().top) < 200"))
    assert "which is wrong. The true class is lift" in article.inner_text()
    assert article.locator("tbody tr").count() == 8
    context.close()


def test_every_listed_mistake_has_an_address_that_the_page_knows() -> None:
    data = report_data(explained=explained())
    wrong, more = mistaken(data.explained)
    assert (len(wrong), more) == (4, 0)
    html = build_report(data)
    for one in wrong:
        assert f'<article class="plain-example" id="{one.address[1:]}">' in html
    many = explained(tuple(f"c{k}" for k in range(MOST_MISTAKES + 7)))
    assert mistaken(many)[1] == 7


def test_names_are_written_as_javascript_does() -> None:
    assert example_id("a b/c", "v'1#?.mp4") == "example/a%20b%2Fc/v'1%23%3F.mp4"


@pytest.mark.full
def test_400_classes_with_4000_examples_stay_small_and_open(browser: Browser, tmp_path: Path) -> None:
    names = tuple(f"class_{k:03d}" for k in range(400))
    many = explained(names, videos=10)
    rows = [row for row in world_rows(names) if row["concept"].endswith("/spatiotemporal")]
    assert len(pack_examples(many)[1]) < 3_000_000
    data = report_data(rows, explained=many, sensitivities=None, nulls=None)
    file = tmp_path / "report.html"
    file.write_text(build_report(data), encoding="utf-8")
    assert file.stat().st_size < 30_000_000
    with sound_page(browser) as page:
        page.goto(f"{file.as_uri()}#example/class_399/video_009")
        assert opened_example(page) == "class_399 video_009"
        page.keyboard.press("Escape")
        assert page.locator("#examples tbody tr").count() == 40  # the others are drawn on demand


@pytest.mark.full
def test_a_run_without_answers_says_so() -> None:
    assert "run it again to see its" in build_report(replace(report_data(), explained=None))
