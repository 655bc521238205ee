"""The comparison's page in a real browser: moved effects, the filter, a cell over the runs, no serious axe finding."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from playwright.sync_api import Browser

from tests.helpers.browser import AXE, sound_page
from tests.helpers.page_figures import comparison
from vtcav_ray.compare import COMPARISON
from vtcav_ray.compare.page import build_page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_the_page_shows_what_moved(browser: Browser, tmp_path: Path, scheme: str, width: int) -> None:
    file = tmp_path / "compare.html"
    file.write_text(build_page(comparison(), ["e0", "e1", "e2"]), encoding="utf-8")
    # First with the page's content security policy; axe needs a page without it.
    with sound_page(browser, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        assert page.locator("tbody tr").count() == 1  # the effect that moved
        assert "1 effect moved beyond its uncertainty, of 8 comparisons" in page.locator(".lead").inner_text()
        assert page.locator("#chart h3").inner_text().startswith("lift × up/spatiotemporal")
        assert page.locator("#chart circle").count() == 3  # its effect in three runs
        page.get_by_label("moved only").uncheck()
        assert page.locator("tbody tr").count() == 8
        page.get_by_label("Find effects").fill("drop")
        assert page.locator("tbody tr").count() == 4
        page.locator("tbody th button").first.click()
        assert page.locator("#chart h3").inner_text().startswith("drop × ")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    with sound_page(browser, bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []


@pytest.mark.full
def test_the_page_opens_on_the_largest_significant_change(browser: Browser, tmp_path: Path) -> None:
    rows = comparison().to_pylist()
    rows[0] |= {"change": 9.0, "effect_b": 9.1}  # larger, but not significant
    file = tmp_path / "compare.html"
    file.write_text(build_page(pa.Table.from_pylist(rows, schema=COMPARISON), ["e0", "e1", "e2"]), encoding="utf-8")
    with sound_page(browser) as page:
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        assert page.locator("#chart h3").inner_text().startswith("lift × up/spatiotemporal")
        with page.expect_download() as found:
            page.get_by_role("button", name="Save as CSV: Comparison of runs").click()
        assert len(Path(found.value.path()).read_text(encoding="utf-8").splitlines()) == 1 + len(rows)
