"""Debian's Chromium, and axe-core to look for accessibility problems."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

AXE = Path(__file__).parents[1] / "report" / "axe" / "axe.min.js"  # axe-core 4.14.1, MPL-2.0, for tests only
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def violations(page: Page, tags: list[str]) -> list[tuple[str, list[str]]]:
    """Return the rules that axe-core finds violated, each with the elements; the page's policy must be bypassed."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("tags => axe.run(document, {runOnly: tags, resultTypes: ['violations']})", tags)["violations"]
    return [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser that asks the network for nothing by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def sound_page(browser: Browser) -> Iterator[Page]:
    """Open a page 1280 pixels wide. At the end, no script may have failed, and the console has no warning."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    yield page
    page.close()
    assert problems == []
