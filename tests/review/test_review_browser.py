"""The review page in a real browser, by keyboard alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.review_run import CLIPS_EACH, NASTY, write_run
from vtcav_ray.cli.review import export
from vtcav_ray.clips.decisions import FILE, Decisions, read_decisions
from vtcav_ray.review.clip_groups import ClipGroups
from vtcav_ray.review.server import ReviewServer
from vtcav_ray.review.session import Session
from vtcav_ray.runs.run import Run

pytestmark = pytest.mark.browser


@pytest.fixture
def server(run: Run) -> Iterator[ReviewServer]:
    with ReviewServer(Session(ClipGroups(run), run.folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser: Browser, server: ReviewServer) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems: list[str] = []
    elsewhere: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on("request", lambda r: elsewhere.append(r.url) if f"127.0.0.1:{server.port}/" not in r.url else None)
    page.goto(server.url)
    page.wait_for_selector("html[data-ready]")
    yield page
    context.close()
    assert [p for p in problems if "409" not in p] == []
    assert elsewhere == []


def wait_for(page: Page, run: Run, decided: int) -> Decisions:
    """Wait until there are `decided` decisions, and return them."""
    for _ in range(600):
        if len(found := read_decisions(run.folder)) == decided:
            return found
        page.wait_for_timeout(50)
    raise AssertionError(f"{len(found)} decisions, not {decided}")


def test_clips_and_walls_are_decided_by_keyboard_undone_and_kept(page: Page, run: Run, server: ReviewServer) -> None:
    assert "token" not in page.url
    expect(page.locator("h1")).to_have_text(f"{NASTY}/spatial")
    assert page.locator("#wall .clip").count() == CLIPS_EACH
    page.keyboard.press("a")
    page.keyboard.press("r")  # the focus has moved to the second clip
    expect(page.locator("#wall .clip").nth(0)).to_have_class("clip accept")
    expect(page.locator("#wall .clip").nth(1)).to_have_class("clip reject")
    clips = page.locator("#wall .clip").evaluate_all("all => all.map(c => c.dataset.clip)")
    decisions = wait_for(page, run, 2)
    assert decisions.verdict("", "", clips[0]) == "accept"
    assert decisions.verdict("", "", clips[1]) == "reject"
    page.keyboard.press("Shift+A")
    expect(page.locator("#about")).to_contain_text("5 accepted, 1 rejected, 0 not decided")  # it stays rejected
    page.keyboard.press("n")
    expect(page.locator("h1")).to_have_text(f"{NASTY}/spatiotemporal")
    page.keyboard.press("Shift+R")
    expect(page.locator("#wall .clip.reject")).to_have_count(CLIPS_EACH)
    page.keyboard.press("u")
    expect(page.locator("#wall .clip.reject")).to_have_count(0)
    expect(page.locator("#progress")).to_have_text("1 of 6 decided")
    kept = wait_for(page, run, 3)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("h1")).to_have_text(f"{NASTY}/spatiotemporal")
    page.keyboard.press("p")
    expect(page.locator("#wall .clip.reject")).to_have_count(1)
    # Progress is kept in the file, so another session also shows it.
    assert Session(ClipGroups(run), run.folder).state()["decisions"] == [
        [d.subject.set, d.subject.name, d.subject.clip_id, d.verdict] for d in kept.rows()
    ]


def test_an_object_is_rejected_in_all_kinds(page: Page, run: Run) -> None:
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    rejected = {d.subject.name for d in wait_for(page, run, 2).rows()}
    assert rejected == {f"{NASTY}/spatial", f"{NASTY}/spatiotemporal"}
    page.keyboard.press("u")
    wait_for(page, run, 0)


def test_previews_move_and_stop(page: Page) -> None:
    image = page.locator("#wall img").first
    expect(image).to_have_js_property("naturalWidth", 48)  # the page's policy forbids evaluating a string
    page.keyboard.press("Space")
    expect(image).to_be_hidden()
    expect(page.locator("#wall canvas").first).to_be_visible()
    page.keyboard.press("Space")
    expect(image).to_be_visible()


def test_a_file_that_is_broken_by_hand_is_reported_and_not_written_over(page: Page, run: Run) -> None:
    run.folder.write_bytes(FILE, b"set,name,clip_id,decision\nclass,lift,,perhaps\n")
    page.keyboard.press("a")
    expect(page.locator("#problem")).to_contain_text("line 2")
    assert b"perhaps" in run.folder.read_bytes(FILE)
    assert page.locator("#wall .clip.accept").count() == 0
    run.folder.write_bytes(FILE, b"set,name,clip_id,decision\nclass,lift,,reject\n")
    page.keyboard.press("a")
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#groups .sign.reject")).to_have_count(1)  # the decision written by hand is shown


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_off_or_covered(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("?")
    expect(page.locator("dialog[open]")).to_be_visible()
    page.keyboard.press("Escape")
    if width == 400:
        page.locator("#choose").select_option(label="lift")
        expect(page.locator("h1")).to_have_text("lift")
        assert page.locator("#wall .clip").count() == 3
    else:
        page.get_by_role("button", name="ball/spatial ", exact=False).first.click()
        expect(page.locator("h1")).to_have_text("ball/spatial")


@pytest.mark.full
def test_the_contact_sheet_opens_from_disk(browser: Browser, tmp_path: Path) -> None:
    run = write_run(str(tmp_path / "run"))
    export(run, str(tmp_path / "sheet.html"), 30)
    page = browser.new_page(viewport={"width": 400, "height": 800})
    requests: list[str] = []
    page.on("request", lambda r: requests.append(r.url))
    page.goto((tmp_path / "sheet.html").as_uri())
    assert page.locator("figure").count() == 4 * CLIPS_EACH + 3 + 4
    page.locator("figure img").last.scroll_into_view_if_needed()
    expect(page.locator("figure img").last).to_have_js_property("naturalWidth", 48)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator(".clips").first.evaluate("e => getComputedStyle(e).display") == "grid"  # the style works
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.close()
