"""The review page: a skeleton (`assets/review.html`), filled by `assets/review.js` from `/api/state`."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from string import Template

ASSETS = ("review.css", "review.js")  # what the page may ask for


def build_page(title: str) -> str:
    """The page as HTML. Everything else that it shows comes later, as JSON, and is inserted as text."""
    return Template(read_asset("review.html")).substitute(title=escape(title))


def read_asset(name: str) -> str:
    """The text of a file in `assets`."""
    return (files("vtcav_ray.review") / "assets" / name).read_text(encoding="utf-8")
