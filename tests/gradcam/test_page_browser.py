"""The Grad-CAM page in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.helpers.browser import AXE, sound_page, tab
from tests.helpers.gradcam_figures import page_data
from vtcav_ray.gradcam.page import build_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "gradcam.html"
    path.write_text(build_page(page_data()), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_the_page_opens_offline_and_never_scrolls_sideways(
    browser: Browser, address: str, width: int, scheme: str
) -> None:
    with tab(browser, viewport={"width": width, "height": 800}, color_scheme=scheme) as lent:
        page = lent.page
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".verdict-box").first.is_visible()
        shown = page.locator(".overlay:visible")
        assert shown.evaluate_all("all => all.map(f => f.dataset.mode)") == ["clip", "clip"]
        page.get_by_role("radio", name="frame").check()
        assert shown.evaluate_all("all => all.map(f => f.dataset.mode)") == ["frame", "frame"]
        decoded = "image => image.decode().then(() => image.naturalWidth)"
        assert page.locator(".overlay:visible img").first.evaluate(decoded) > 400
        page.get_by_role("button", name="Pause pictures").click()
        assert page.locator(".overlay:visible canvas").first.is_visible()
        assert not page.locator(".overlay img").first.is_visible()
        ground = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(ground)
        assert (sum(map(int, before[4:-1].split(","))) > 600) == (scheme == "light")
        button = page.locator("#theme")
        button.click()
        button.click()
        assert page.evaluate(ground) == "rgb(19, 21, 25)"
    assert lent.problems == []
    assert [url for url in lent.requests if not url.startswith(("file:", "data:", "about:"))] == []


def test_the_page_is_there_without_javascript(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.get_by_text("Video-TCAV names the direction").first.is_visible()
    assert page.locator(".overlay:visible").count() == 2
    page.close()
    context.close()


@pytest.mark.full
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_axe_finds_nothing_serious(browser: Browser, address: str, width: int, scheme: str) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "reduced_motion": "reduce"}
    with sound_page(browser, bypass_csp=True, **options) as page:
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")] == []
