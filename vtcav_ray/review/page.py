"""The review page: a skeleton (`templates/review.html`), filled by `assets/review.js` from `/api/state`."""

from __future__ import annotations

from vtcav_ray.pages import Shell, asset, render

ROOM = "vtcav_ray.review"
ASSETS = ("review.css", "review.js")  # the files that the page may request


def build_page(title: str) -> str:
    """Build the page's HTML. All other content arrives later as JSON and is inserted as text."""
    return render(ROOM, "review.html", shell=Shell(f"{title} · review", styles=()), title=title)


def read_asset(name: str) -> str:
    """Return the text of a file in `assets`."""
    return str(asset(ROOM, name))
