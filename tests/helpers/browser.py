"""Debian's Chromium, and axe-core to look for accessibility problems."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Dialog, Page, sync_playwright

from tests.helpers.programs import find_chromium

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


class Tab:
    """A tab, and what happened in it while a test had it.

    Attributes:
        page: Playwright's page.
        problems: errors of scripts, messages on the console, and dialogs.
        requests: the URLs that were requested.
    """

    def __init__(self, browser: Browser, options: dict[str, Any]) -> None:
        self._options = options
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(60_000)  # a busy machine is slow, not broken
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _dismiss(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def leave(self) -> None:
        """Remove what the test left: what the page stored, the size, the emulated media, and the page."""
        self.page.evaluate("localStorage.clear(); sessionStorage.clear()")
        self.page.set_viewport_size(self._options["viewport"])
        wanted = {name: self._options.get(name, "null") for name in ("color_scheme", "reduced_motion")}
        self.page.emulate_media(media="null", **wanted)
        self.page.goto("about:blank")


_free: dict[str, list[Tab]] = {}  # options -> tabs that no test has


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser that asks the network for nothing by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            _free.clear()
            browser.close()


@contextmanager
def tab(browser: Browser, **options: Any) -> Iterator[Tab]:
    """Lend a tab, 1280 pixels wide unless the options of `Browser.new_page` say otherwise.

    Tests with the same options have the same tab, one after the other: a new one costs two seconds of CPU time. After a
    failure, the tab is closed.
    """
    options = {"viewport": {"width": 1280, "height": 900}} | options
    free = _free.setdefault(json.dumps(options, sort_keys=True), [])
    lent = free.pop() if free else Tab(browser, options)
    lent.problems.clear()
    lent.requests.clear()
    try:
        yield lent
    except BaseException:
        lent.page.close()
        raise
    lent.leave()
    free.append(lent)


@contextmanager
def sound_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """Open a page in a tab (`tab`). At the end, no script may have failed, and the console is empty."""
    with tab(browser, **options) as lent:
        yield lent.page
    assert lent.problems == []
