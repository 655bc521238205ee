"""What holds for every page: WCAG A and AA, plain words, tables and charts that can be saved, no sideways scrolling."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.helpers.browser import WCAG, sound_page, violations
from tests.helpers.every_page import PAGES, open_everything, texts
from tests.helpers.plain_words import INSIDE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, build in PAGES.items():
        (folder / f"{name}.html").write_text(build(), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in PAGES}


@contextmanager
def open_page(browser: Browser, file: Path) -> Iterator[Page]:
    """Open a page as its readers do, with its own policy; nothing may be written to the console."""
    with sound_page(browser) as page:
        page.goto(file.as_uri())
        open_everything(page)
        yield page


@pytest.fixture(scope="module")
def opened(browser: Browser, files: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that several tests read. Don't change what it shows."""
    with open_page(browser, files[request.param]) as page:
        yield page


def saved(page: Page, button: Any, folder: Path) -> Path:
    with page.expect_download() as found:
        button.click()
    target = folder / found.value.suggested_filename
    found.value.save_as(target)
    return target


@pytest.mark.parametrize(("scheme", "width"), [("dark", 400), pytest.param("light", 1280, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation(browser: Browser, files: dict[str, Path], name: str, scheme: str, width: int) -> None:
    options: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    # The policy would block axe.
    with sound_page(browser, bypass_csp=True, reduced_motion="reduce", **options) as page:
        page.goto(files[name].as_uri())
        open_everything(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page, WCAG) == []
        if name == "report":
            page.locator("#matrix .cell:not(.empty)").first.click()
            page.wait_for_selector("dialog#evidence[open]")
            assert violations(page, WCAG) == []
            page.evaluate("location.hash = '#example/lift/video_000'")
            page.wait_for_selector("dialog#example[open] svg.plot")
            assert violations(page, WCAG) == []


@pytest.mark.parametrize("opened", PAGES, indirect=True)
def test_a_newcomer_reads_no_word_of_the_code(opened: Page) -> None:
    found = texts(opened)
    assert len(" ".join(found)) > 500
    assert [text for text in found if INSIDE.search(text)] == []


@pytest.mark.full
def test_the_evidence_and_an_example_have_none_either(browser: Browser, files: dict[str, Path]) -> None:
    with open_page(browser, files["report"]) as page:
        page.locator("#matrix .cell:not(.empty)").first.click()
        page.wait_for_selector("dialog#evidence[open]")
        found = texts(page)
        page.evaluate("location.hash = '#example/lift/video_000'")
        page.wait_for_selector("dialog#example[open] svg.plot")
        found += texts(page)
    assert "raises the logit" in " ".join(found)
    assert "which is wrong. The true class is lift" in " ".join(found)
    assert [text for text in found if INSIDE.search(text)] == []


@pytest.mark.parametrize("opened", PAGES, indirect=True)
def test_every_table_and_chart_can_be_saved(opened: Page, tmp_path: Path) -> None:
    unsaved = opened.evaluate(
        "[...document.querySelectorAll('main table:not(.print-matrix table), main :is(svg.plot, .overlay, .panel)')]"
        ".filter((e) => e.checkVisibility() && !e.closest('noscript')).filter((e) => {"
        "  for (let at = e; at.parentElement && at.tagName !== 'MAIN'; at = at.parentElement)"
        "    if (at.nextElementSibling?.matches('.save') || at.querySelector(':scope > .save')) return false;"
        "  return true; }).map((e) => e.outerHTML.slice(0, 200))"
    )
    assert unsaved == []
    for kind, check in (("PNG", _is_picture), ("CSV", _is_table)):
        buttons = opened.locator(f"main .save button:visible:text-is('{kind}')")
        for i in (0, buttons.count() - 1):
            check(saved(opened, buttons.nth(i), tmp_path))


def _is_picture(file: Path) -> None:
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 20
        colors = picture.convert("RGB").getcolors(1 << 24)
    assert colors is not None
    assert len(colors) > 5  # something is drawn


def _is_table(file: Path) -> None:
    rows = list(csv.reader(file.open(encoding="utf-8")))
    assert len(rows) > 1
    assert len({len(row) for row in rows}) == 1
