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
