"""One self-contained HTML file: the summary written out, and the data that the page's scripts draw from.

What a reader needs first (banner, summary, what was not decided, warnings, the run) is plain HTML, so that it is on the
screen at once and also without JavaScript. Charts, the matrix and the evidence are drawn by `assets/*.js` from data in
`<script type="application/json">`. Text from the data is escaped here, and inserted with `textContent` there. A content
security policy lets only the scripts run that were put in here, and lets nothing be loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from vtcav_ray.report import parts
from vtcav_ray.report.cells import read_cells
from vtcav_ray.report.columns import pack_cells, pack_nulls, pack_videos
from vtcav_ray.report.data import ACCURACY_COLUMNS, ReportData

# Observable Plot (ISC) draws SVG, which CSS styles for light, dark and print, and a screen reader can read; with D3
# (ISC) it is 0.5 MB. plotly.js is 4.6 MB and draws its own colours, so dark mode and print would need a redraw.
LIBRARIES = ("d3.min.js", "plot.umd.min.js")
SCRIPTS = (
    "words.js",
    "store.js",
    "routes.js",
    "marks.js",
    "charts.js",
    "evidence.js",
    "matrix.js",
    "classes.js",
    "concepts.js",
    "app.js",
)


def build_report(data: ReportData) -> str:
    """The report as one HTML file that opens from disk and asks the network for nothing.

    Args:
        data: of a finished run; any part but the scores may be empty.
    """
    cells = read_cells(data.scores, data.layers)
    head, packed = pack_cells(cells)
    videos, packed_videos = pack_videos(cells, data.sensitivities)
    nulls, packed_nulls = pack_nulls(cells, data.nulls)
    scripts = ["\n".join(asset(name) for name in LIBRARIES), _page_script()]
    return "".join(
        (
            "<!doctype html>\n",
            '<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{escape(data.title)} · Video-TCAV</title>\n",
            f"<style>\n{asset('page.css')}</style>\n</head>\n<body>\n",
            parts.header(data),
            "<main>\n",
            parts.banner(data),
            parts.summary(data, cells),
            parts.places(),
            parts.run_section(data),
            "</main>\n",
            parts.footer(data),
            json_script("facts", {**_facts(data), **head, "videos": videos, "nulls": nulls}),
            f'<script type="text/plain" id="cells">{packed}</script>\n',
            f'<script type="text/plain" id="videos">{packed_videos}</script>\n',
            f'<script type="text/plain" id="nulls">{packed_nulls}</script>\n',
            *(f"<script>{script}</script>\n" for script in scripts),
            "</body>\n</html>\n",
        )
    )


def _facts(data: ReportData) -> dict[str, Any]:
    return {
        "title": data.title,
        "alpha": data.alpha,
        "correction": data.correction,
        "untrained": data.untrained,
        "classClips": data.class_clips,
        "concepts": {
            name: {
                "clips": facts.clips,
                "videos": facts.videos,
                "previews": [
                    {
                        "src": f"data:image/webp;base64,{base64.b64encode(p.image).decode()}",
                        "video": p.video_id,
                        "width": p.width,
                        "height": p.height,
                        "frames": p.frames,
                    }
                    for p in facts.previews
                ],
            }
            for name, facts in data.concepts.items()
        },
        "accuracies": _accuracies(data),
        "entanglement": [
            {
                "layer": one.layer,
                "concepts": list(one.concepts),
                # Hundredths: what the page shows.
                "cosine": np.nan_to_num(one.cosine * 100).round().astype(int).ravel().tolist(),
            }
            for one in data.entanglement
        ],
    }


def _accuracies(data: ReportData) -> list[dict[str, Any]]:
    """Held-out accuracies of the single CAVs against random sets, in hundredths.

    A concept's are under its name; the random sets' own are under their kind, since a still concept is compared with
    still random clips: [{layer, concept or null, kind, values}].
    """
    if data.accuracies is None:
        return []
    columns = [data.accuracies[c].to_pylist() for c in ACCURACY_COLUMNS]
    found: dict[tuple[str, str | None, str], list[int]] = {}
    for layer, concept, negatives, is_null, accuracy in zip(*columns, strict=True):
        if accuracy is not None and np.isfinite(accuracy) and negatives.startswith("random/"):
            kind = negatives.removeprefix("random/").partition("#")[0]
            found.setdefault((layer, None if is_null else concept, kind), []).append(round(accuracy * 100))
    return [{"layer": la, "concept": c, "kind": kind, "values": values} for (la, c, kind), values in found.items()]


def _page_script() -> str:
    """The page's own files in one function, so that nothing of them is global."""
    return '(() => {\n"use strict";\n' + "\n".join(asset(name) for name in SCRIPTS) + "\n})();\n"


def policy(scripts: Sequence[str]) -> str:
    """The content security policy of a page that runs these scripts and loads nothing."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    # Plot puts a <style> element into each chart, and charts are positioned by style attributes.
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def json_script(name: str, value: Any) -> str:
    """JSON inside a script element: `</script>` and `<!--` can't occur in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def asset(name: str) -> str:
    """A file of the page's own, ready to stand in it."""
    text = (files("vtcav_ray.report") / "assets" / name).read_text(encoding="utf-8")
    # The HTML parser ends a script at the first `</script`, wherever it stands.
    assert "</script" not in text.lower(), name
    return text
