"""`gradcam.html` in the run folder: one self-contained file, in the report's own look. All of it is plain HTML.

The figures are those of the tables; what is said of them is in `sentences`. Text from the data is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np

from vtcav_ray.gradcam import figures, parts
from vtcav_ray.gradcam.compare import compare
from vtcav_ray.gradcam.page_data import PageData, Picture
from vtcav_ray.results import Run

PAGE = "gradcam.html"
RECORD = "gradcam.json"
MAX_PICTURES = 48  # about 100 kB each


def write_page(run: Run) -> None:
    """Write the page into the run folder.

    Raises:
        ConfigError: the run has no complete stage `gradcam`.
    """
    run.folder.write_bytes(PAGE, build_page(page_data(run)).encode())


def page_data(run: Run) -> PageData:
    """Read what the page shows from a run's tables."""
    manifest, folder = run.manifest("gradcam"), run.stage("gradcam")
    record = run.folder.read_json(RECORD)
    clips = run.table("gradcam")
    clip_count = manifest["metrics"].get("clips", 0)
    pictures = []
    drawn = folder.read("overlays")
    for row in (drawn.to_pylist() if drawn is not None else [])[:MAX_PICTURES]:
        pictures.append(
            Picture(
                row["clip_id"],
                row["class"],
                row["mode"],
                row["layer"],
                folder.folder.read_bytes(row["webp"]),
                f"gradcam/{folder.key}/{row['mp4']}",
                row["height"],
                row["width"],
            )
        )
    given = manifest["ingredients"]["gradcam"]
    return PageData(
        title=run.config.name,
        layer=record["layer"],
        clips=clips,
        summary=run.table("gradcam_summary"),
        aggregate=folder.read("aggregate"),
        comparisons=[
            compare(run, clips, tuple(pair["classes"]), tuple(pair["concepts"])) for pair in record["compare"]
        ],
        pictures=pictures,
        failures=[row for row in run.table("failures").to_pylist() if row["stage"] == "gradcam"],
        seconds=manifest["metrics"].get("clip_seconds", 0) / clip_count if clip_count else None,
        model=manifest["notes"]["model"],
        untrained=manifest["notes"]["untrained"],
        report="report.html" if run.folder.exists("report.html") else "",
        window={"window": given["window"], "stride": given["stride"]},
    )


def build_page(data: PageData) -> str:
    """The page as one HTML file that opens from disk and asks the network for nothing."""
    script = _asset("vtcav_ray.gradcam", "gradcam.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
    )
    style = _asset("vtcav_ray.report", "page.css") + _asset("vtcav_ray.gradcam", "gradcam.css")
    return "".join(
        (
            "<!doctype html>\n",
            '<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{escape(data.title)} · Grad-CAM beside Video-TCAV</title>\n",
            f"<style>\n{style}</style>\n</head>\n<body>\n",
            parts.header(data),
            "<main>\n",
            parts.summary(data),
            parts.side_by_side(data),
            parts.pictures(data),
            figures.measures(data),
            parts.whole_class(data),
            parts.clips(data),
            parts.definitions(data),
            "</main>\n",
            "<footer><p>Made by vtcav-ray.</p></footer>\n",
            f"<script>{script}</script>\n</body>\n</html>\n",
        )
    )


def finite_top(maps: Sequence[np.ndarray]) -> float:
    """The largest number of some maps; 0: there is none."""
    values = [float(np.nanmax(m)) for m in maps if np.isfinite(m).any()]
    return max(values, default=0.0)


def _asset(package: str, name: str) -> str:
    return (files(package) / "assets" / name).read_text(encoding="utf-8")
