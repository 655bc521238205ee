"""The page over training in a real browser: its charts, no horizontal scroll, no serious axe finding."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.helpers.browser import AXE, sound_page
from tests.helpers.page_figures import watch_page
from vtcav_ray.watch.page import Point, build_page
from vtcav_ray.watch.registry import CheckpointRecord


def test_points_are_placed_by_checkpoint_and_effect() -> None:
    page = watch_page()
    assert "4 checkpoints, 3 done, 1 failed" in page
    # Effects from -0.7 to 1.5 span 42 px from y = 7 px; three of four checkpoints span 166 px from x = 7 px.
    assert '<circle class="down" cx="7.0" cy="45.2" r="2.6"/><circle class="open" cx="62.3" cy="35.6" r="2.6"/>' in page
    assert '<circle class="up" cx="117.7" cy="16.5" r="2.6"/>' in page
    assert "last +1.00 [+0.50, +1.50], score 0.90" in page


def test_layers_keep_the_configs_order_and_small_effects_their_digits() -> None:
    small = {0: Point(-0.0004, -0.0009, -0.0001, None, True)}
    series = {("lift", "up/context", layer): small for layer in ("answer", "early", "head", "late", "middle")}
    record = CheckpointRecord("0", "u", "epoch_0.pth", 0, "f", 1, "done", run="checkpoints/e0", model="m@1")
    page = build_page([record], series, ["early", "middle", "late", "head"])
    heads = [f">{layer}</th>" for layer in ("early", "middle", "late", "head", "answer")]
    places = [page.index(head) for head in heads]
    assert places == sorted(places)
    assert "last −0.00040 [−0.00090, −0.00010]" in page
    assert "0.00 " not in page


def test_the_policy_allows_its_own_style_and_script_alone() -> None:
    assert "unsafe-inline" not in watch_page()
    assert watch_page().count("script-src 'sha256-") == 1


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("dark", 400), pytest.param("light", 1280, marks=pytest.mark.full)])
def test_the_page_is_styled_accessible_and_never_scrolls_sideways(
    browser: Browser, tmp_path: Path, scheme: str, width: int
) -> None:
    file = tmp_path / "report.html"
    file.write_text(watch_page(), encoding="utf-8")
    with sound_page(browser, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("svg.spark").first.evaluate("e => getComputedStyle(e).width") == "180px"  # its own style
    with sound_page(browser, bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        page.goto(file.as_uri())
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
