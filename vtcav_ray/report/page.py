"""One self-contained HTML file: the summary as text, and the data that the page's scripts draw.

What a reader needs first (banner, summary, what was not decided, warnings, the run) is plain HTML. It appears at once
and also without JavaScript. `assets/*.js` draw the charts, the matrix and the evidence from the data blocks, and insert
text with `textContent`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vtcav_ray.pages import Shell, asset, render
from vtcav_ray.pages.render import CHARTS, HERE, SAVING, data_url, function
from vtcav_ray.report.data import ACCURACY_COLUMNS, ReportData
from vtcav_ray.report.explained import pack_examples
from vtcav_ray.report.packed_tables import pack_cells, pack_nulls, pack_videos
from vtcav_ray.report.previews import Preview
from vtcav_ray.report.score_cells import read_cells
from vtcav_ray.report.sections import sections

ROOM = "vtcav_ray.report"
SCRIPTS = (
    "store.js",
    "words.js",
    "routes.js",
    "address.js",
    "marks.js",
    "clips.js",
    "charts.js",
    "evidence.js",
    "explained.js",
    "matrix.js",
    "classes.js",
    "concepts.js",
    "examples.js",
    "search.js",
    "print.js",
    "app.js",
)


def build_report(data: ReportData) -> str:
    """Build the report as one HTML file that opens from disk and loads nothing from the network.

    Args:
        data: of a finished run; every part except the scores may be empty.
    """
    cells = read_cells(data.scores, data.layers)
    head, packed = pack_cells(cells)
    videos, packed_videos = pack_videos(cells, data.sensitivities)
    nulls, packed_nulls = pack_nulls(cells, data.nulls)
    explained, packed_examples = pack_examples(data.explained)
    placed = sections(data, cells)
    own = function(asset(HERE, "theme.js", "tips.js", *SAVING), asset(ROOM, *SCRIPTS))
    shell = Shell(
        title=f"{data.title} · Video-TCAV",
        styles=[asset(HERE, "page.css")],
        scripts=[asset(HERE, *CHARTS), own],
        data={"facts": {**_facts(data), **head, "videos": videos, "nulls": nulls, "explained": explained}},
        packed={"cells": packed, "videos": packed_videos, "nulls": packed_nulls, "explained": packed_examples},
        images=True,
        inline_styles=True,
    )
    return render(
        ROOM,
        "report.html",
        shell=shell,
        title=data.title,
        bar=[(section.id, section.title) for section in placed],
        sections=placed,
        links=data.links,
        untrained=data.models if data.untrained else (),
        version=data.versions.get("vtcav-ray", ""),
    )


def _facts(data: ReportData) -> dict[str, Any]:
    return {
        "title": data.title,
        "alpha": data.alpha,
        "effect": data.effect,
        "correction": data.correction,
        "untrained": data.untrained,
        "classClips": data.class_clips,
        "concepts": {
            name: {
                "clips": facts.clips,
                "videos": facts.videos,
                "previews": [_preview(p) for p in facts.previews],
                "parts": facts.parts,
            }
            for name, facts in data.concepts.items()
        },
        "examples": {
            name: {video: _preview(p) for video, p in of_class.items()}
            for name, of_class in data.examples.previews.items()
        },
        "examplesNote": data.examples.note,
        "accuracies": _accuracies(data),
        "entanglement": [
            {
                "layer": one.layer,
                "concepts": list(one.concepts),
                # The page shows hundredths.
                "cosine": np.nan_to_num(one.cosine * 100).round().astype(int).ravel().tolist(),
            }
            for one in data.entanglement
        ],
    }


def _preview(preview: Preview) -> dict[str, Any]:
    return {
        "src": data_url(preview.image, "image/webp"),
        "video": preview.video_id,
        "width": preview.width,
        "height": preview.height,
        "frames": preview.frames,
    }


def _accuracies(data: ReportData) -> list[dict[str, Any]]:
    """Return the held-out accuracies of the single CAVs against random sets, in hundredths.

    The form is [{layer, concept or null, kind, values}]. A concept's accuracies are under its name. Those of the random
    sets are under their pool (a kind, or a concept with random clips of its own), as are the concept's, so that each
    concept is shown beside the random clips that it is compared with.
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
