"""axe-core finds what is wrong, and keyboard focus is never lost, which axe can't check.

tests/pages/test_every_page.py checks that axe-core finds no violation of WCAG A and AA.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.helpers.browser import WCAG, sound_page, violations
from tests.helpers.report_factory import report_data, world_rows
from tests.helpers.waiting import wait_for
from vtcav_ray.report import build_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(build_report(report_data()), encoding="utf-8")
    return path


@contextmanager
def open_page(browser: Browser, file: Path) -> Iterator[Page]:
    # The page's content security policy would block axe.
    with sound_page(browser, bypass_csp=True, reduced_motion="reduce") as page:
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        yield page


def test_axe_would_find_something(browser: Browser, file: Path) -> None:
    with open_page(browser, file) as page:
        page.evaluate("document.getElementById('theme').removeAttribute('aria-label')")
        page.evaluate("const b = document.getElementById('theme'); b.removeAttribute('title'); b.textContent = ''")
        assert "button-name" in [name for name, _ in violations(page, WCAG)]


def test_headings_are_reached_and_sort_from_the_keyboard(browser: Browser, file: Path) -> None:
    with open_page(browser, file) as page:
        page.locator("#matrix .cell[tabindex='0']").focus()
        for key in ("ArrowUp", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        heads = page.locator("#matrix .head-cell")
        assert heads.nth(1).get_attribute("aria-sort") == "descending"
        assert heads.nth(0).get_attribute("aria-sort") is None


def test_the_matrix_is_four_keys_away(browser: Browser, file: Path) -> None:
    with open_page(browser, file) as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.locator("#to-matrix").evaluate("e => e === document.activeElement")
        assert page.locator("#to-matrix").is_visible()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.getAttribute('role')") == "gridcell"


def test_focus_is_never_lost(browser: Browser, tmp_path: Path) -> None:
    """What the reader uses may be redrawn or hidden; the keyboard's place stays in its section."""
    file = tmp_path / "report.html"
    file.write_text(build_report(report_data(world_rows(tuple(f"c{k}" for k in range(60))))), encoding="utf-8")
    with open_page(browser, file) as page:
        where = "document.activeElement.closest('section, dialog')?.id"
        page.locator("#matrix .head-cell button").first.focus()
        page.keyboard.press("Enter")  # sorts, and redraws the headings
        assert page.evaluate("document.activeElement.dataset.column") == "0"
        page.locator("#matrix .cell[tabindex='0']").focus()
        page.locator("#matrix .grid").evaluate("e => { e.scrollTop = e.scrollHeight; }")
        wait_for(lambda: page.evaluate("document.activeElement.at?.r > 20"))  # the focused row is not drawn any more
        assert page.locator("#matrix .cell[tabindex='0']").count() == 1
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog#evidence", state="hidden")
        assert page.evaluate(where) == "matrix"
        page.get_by_role("button", name="Show all 24 concepts").focus()
        page.keyboard.press("Enter")  # the button hides itself
        assert page.evaluate(where) == "concepts"
