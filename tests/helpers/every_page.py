"""Every page of the project that a reader opens, built from made-up figures, and the words on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

from tests.helpers import gradcam_figures
from tests.helpers.page_figures import EXPLAINED, comparison, watch_page
from tests.helpers.report_factory import preview, report_data
from vtcav_ray.compare.page import build_page as build_compare
from vtcav_ray.gradcam.page import build_page as build_gradcam
from vtcav_ray.maps.page import CellMaps, MapsData, Picture
from vtcav_ray.maps.page import build_page as build_maps
from vtcav_ray.report import build_report
from vtcav_ray.report.examples import Driven, Examples
from vtcav_ray.why.page import build_page as build_explain

ATTRIBUTES = ("aria-label", "aria-description", "data-tip", "title", "placeholder", "alt")
TEXTS = """names => [...document.querySelectorAll('body > a, header, main, footer, dialog[open]')].flatMap((part) =>
    [part.innerText, ...[...part.querySelectorAll('*')].flatMap((e) => names.map((n) => e.getAttribute(n) ?? ''))])"""


def report_page() -> str:
    driven = Driven("cup up/spatiotemporal", "late", "video_000", "video_001", 0.02, -0.01)
    shown = {f"video_{k:03d}": preview("cup up/spatiotemporal", k) for k in range(4)}
    return build_report(report_data(examples=Examples({"lift": driven}, {"lift": shown})))


def maps_page() -> str:
    row: dict[str, Any] = {"class": "lift", "layer": "early", "concept": "moving up/context", "against": "random"}
    row |= {name + end: 0.9 for name in ("deletion", "pointing", "inside", "timing") for end in ("", "_low", "_high")}
    score = {"effect": 0.4, "significant": True, "q": 0.004, "z": 12.0}
    webp, height, width = gradcam_figures.example_clip()
    picture = Picture("class/lift/0", webp, "x.mp4", height, width)
    cells = [
        CellMaps({**row, "localised": True, "note": "", "n_present": 12}, score, [picture]),
        CellMaps({**row, "layer": "late", "localised": False, "note": "Not localised at this layer.", "n_present": 9},
                 {**score, "significant": False}),
    ]  # fmt: skip
    failure = {"clip_id": "class/lift/7", "error_kind": "decode", "message": "The file ends early."}
    return build_maps(MapsData("quickstart", cells, [failure], ["One warning."], "m@1", report="report.html"))


PAGES: dict[str, Callable[[], str]] = {
    "report": report_page,
    "explain": lambda: build_explain([EXPLAINED], "quickstart", [("b.mp4", "The file ends early.")]),
    "compare": lambda: build_compare(comparison(), ["e0", "e1", "e2"]),
    "gradcam": lambda: build_gradcam(gradcam_figures.page_data()),
    "watch": watch_page,
    "maps": maps_page,
}


def open_everything(page: Page) -> None:
    """Open all that a page hides: details, charts out of view, rows under a button."""
    page.wait_for_selector("html[data-ready]")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")


def texts(page: Page) -> list[str]:
    """Return every text that a reader sees, or hears from a screen reader."""
    return list(page.evaluate(TEXTS, list(ATTRIBUTES)))
