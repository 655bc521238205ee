"""axe-core finds nothing serious. The keyboard reaches the matrix's headings, which axe can't check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.helpers.browser import AXE
from tests.helpers.report_factory import report_data
from vtcav_ray.report import build_report

pytestmark = pytest.mark.browser

SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(build_report(report_data()), encoding="utf-8")
    return path


def serious(page: Page) -> list[Any]:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found if v["impact"] in SERIOUS]


def open_page(browser: Browser, file: Path, **options: Any) -> Page:
    # The page's content security policy would block axe.
    page = browser.new_page(bypass_csp=True, reduced_motion="reduce", **options)
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_axe_finds_nothing_serious(browser: Browser, file: Path, scheme: str, width: int) -> None:
    page = open_page(browser, file, color_scheme=scheme, viewport={"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # draws every chart, also those out of view
    assert serious(page) == []
    page.locator("#matrix .cell:not(.empty)").first.click()
    page.wait_for_selector("dialog[open]")
    assert serious(page) == []
    page.close()


def test_axe_would_find_something(browser: Browser, file: Path) -> None:
    page = open_page(browser, file)
    page.evaluate("document.getElementById('theme').removeAttribute('aria-label')")
    page.evaluate("const b = document.getElementById('theme'); b.removeAttribute('title'); b.textContent = ''")
    assert "button-name" in [name for name, _ in serious(page)]
    page.close()


def test_headings_are_reached_and_sort_from_the_keyboard(browser: Browser, file: Path) -> None:
    page = open_page(browser, file, viewport={"width": 1280, "height": 900})
    page.locator("#matrix .cell[tabindex='0']").focus()
    for key in ("ArrowUp", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    heads = page.locator("#matrix .head-cell")
    assert heads.nth(1).get_attribute("aria-sort") == "descending"
    assert heads.nth(0).get_attribute("aria-sort") is None
    page.close()
