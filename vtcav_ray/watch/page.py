"""The report over training: how each concept effect goes from checkpoint to checkpoint. One HTML file, no scripts."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from vtcav_ray.results import Run
from vtcav_ray.storage import Folder
from vtcav_ray.watch.registry import Record, Registry

PAGE = "report.html"
MOST_CLASSES = 40
COLUMNS = ("class", "layer", "concept", "against", "effect_logits", "effect_ci_low", "effect_ci_high", "score",
           "significant")  # fmt: skip
WIDTH, HEIGHT, MARGIN = 180, 56, 7
STYLE = """
.spark { width: 180px; height: 56px; display: block; overflow: visible; }
.spark .zero { stroke: var(--line); }
.spark .band { fill: var(--band); stroke: none; }
.spark .line { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.spark circle { fill: var(--surface); stroke: var(--ink); stroke-width: 1.2; }
.spark circle.up { fill: var(--raises); stroke: var(--raises); }
.spark circle.down { fill: var(--lowers); stroke: var(--lowers); }
.sparks td { vertical-align: top; }
"""


@dataclass(frozen=True)
class Point:
    """One cell of one checkpoint. `score` is the TCAV score in [0, 1]; the rest is in logits."""

    effect: float
    low: float
    high: float
    score: float | None
    significant: bool


Series = dict[int, Point]  # index of the checkpoint -> its point


def update_report(folder: Folder) -> str:
    """Write `registry.parquet` and `report.html` anew from the records; returns the report's URL."""
    registry = Registry(folder)
    records = registry.write_table()
    shared = Folder(folder.url.rstrip("/").rsplit("/", 1)[0], folder.storage_options)
    folder.write_bytes(PAGE, build_page(records, read_series(records, shared)).encode())
    return f"{folder.url}/{PAGE}"


def read_series(records: Sequence[Record], shared: Folder) -> dict[tuple[str, str, str], Series]:
    """(class, concept, layer) -> effects against random clips, for every record that is done."""
    found: dict[tuple[str, str, str], Series] = defaultdict(dict)
    for number, record in enumerate(records):
        if record.run is None:
            continue
        run = Run(shared.below(record.run).url, shared.storage_options)
        for row in run.table("scores", columns=list(COLUMNS)).to_pylist():
            if row["against"] == "random" and row["effect_logits"] is not None and np.isfinite(row["effect_logits"]):
                found[row["class"], row["concept"], row["layer"]][number] = _point(row)
    return dict(found)


def _point(row: dict[str, Any]) -> Point:
    effect = row["effect_logits"]
    low, high = (
        v if v is not None and np.isfinite(v) else effect for v in (row["effect_ci_low"], row["effect_ci_high"])
    )
    score = row["score"] if row["score"] is not None and np.isfinite(row["score"]) else None
    return Point(effect, low, high, score, bool(row["significant"]))


def build_page(records: Sequence[Record], series: dict[tuple[str, str, str], Series]) -> str:
    """The page. All text from outside is escaped, and a policy lets no script run and nothing be loaded."""
    style = (files("vtcav_ray.report") / "assets" / "page.css").read_text(encoding="utf-8") + STYLE
    done = sum(r.status == "done" for r in records)
    clips = {r.keys.get("clips") for r in records if r.status == "done"}
    note = (
        '<div class="warnings"><p>The clips changed between checkpoints: figures before and after are not of the same '
        "clips. See <code>clips_key</code> in registry.parquet.</p></div>"
        if len(clips) > 1
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Over training · Video-TCAV</title>
<style>
{style}</style>
</head>
<body>
<main>
<section id="summary">
<h1>What the model uses, over training</h1>
<p class="lead">{len(records)} checkpoints, {done} done, {len(records) - done} failed. Each line is a concept's effect
on the class's logit, from the first checkpoint to the last, with its interval; a filled point is significant after
correction within its checkpoint, orange where the concept raises the class and blue where it lowers it. Checkpoints
share videos and clips, so their points are not independent of each other.</p>
{note}
</section>
{_checkpoints(records)}
{_classes(records, series)}
</main>
</body>
</html>
"""


def _checkpoints(records: Sequence[Record]) -> str:
    rows = []
    for r in records:
        link = escape(r.name)
        if r.run is not None:
            link = f'<a href="{escape(posixpath.join("..", r.run, "report.html"), quote=True)}">{link}</a>'
        step = "" if r.step is None else str(r.step)
        what = escape(r.model or "") if r.status == "done" else escape(r.error or "")
        rows.append(
            f'<tr><th scope="row">{link}</th><td class="n">{step}</td><td>{escape(r.status)}</td><td>{what}</td></tr>'
        )
    return f"""<section id="checkpoints"><h2>Checkpoints</h2>
<div class="scroll"><table class="plain">
<thead><tr><th>checkpoint</th><th class="n">step</th><th>status</th><th>model, or what went wrong</th></tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></section>"""


def _classes(records: Sequence[Record], series: dict[tuple[str, str, str], Series]) -> str:
    largest: dict[str, float] = defaultdict(float)
    for (name, _, _), points in series.items():
        largest[name] = max(largest[name], *(abs(p.effect) for p in points.values()))
    shown = sorted(largest, key=lambda name: (-largest[name], name))[:MOST_CLASSES]
    left = len(largest) - len(shown)
    more = (
        f'<p class="muted">{left} more classes, with smaller effects, are in the runs\' own tables.</p>' if left else ""
    )
    return "".join(_class(name, len(records), series) for name in sorted(shown)) + (more if left else "")


def _class(name: str, count: int, series: dict[tuple[str, str, str], Series]) -> str:
    mine = {(concept, layer): points for (cls, concept, layer), points in series.items() if cls == name}
    layers = list(dict.fromkeys(layer for _, layer in mine))
    rows = []
    for concept in sorted({concept for concept, _ in mine}):
        cells = "".join(f"<td>{_cell(mine.get((concept, layer), {}), count)}</td>" for layer in layers)
        rows.append(f'<tr><th scope="row">{escape(concept)}</th>{cells}</tr>')
    heads = "".join(f"<th>{escape(layer)}</th>" for layer in layers)
    return f"""<section><h2>{escape(name)}</h2><div class="scroll"><table class="plain sparks">
<thead><tr><th>concept</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>"""


def _cell(points: Series, count: int) -> str:
    if not points:
        return ""
    last = points[max(points)]
    score = "" if last.score is None else f", score {last.score:.2f}"
    return (
        f'{spark(points, count)}<span class="small muted">last {last.effect:+.2f} '
        f"[{last.low:+.2f}, {last.high:+.2f}]{score}</span>"
    )


def spark(points: Series, count: int) -> str:
    """A small chart: x is the checkpoint's place in training, y the effect in logits, zero always in view."""
    top = max(0.0, *(p.high for p in points.values()))
    bottom = min(0.0, *(p.low for p in points.values()))
    span = (top - bottom) or 1.0

    def x(i: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (i / (count - 1) if count > 1 else 0.5)

    def y(value: float) -> float:
        return MARGIN + (HEIGHT - 2 * MARGIN) * (top - value) / span

    order = sorted(points)
    band = [(x(i), y(points[i].high)) for i in order] + [(x(i), y(points[i].low)) for i in reversed(order)]
    line = [(x(i), y(points[i].effect)) for i in order]
    marks = "".join(
        f'<circle class="{_direction(points[i])}" cx="{x(i):.1f}" cy="{y(points[i].effect):.1f}" r="2.6"/>'
        for i in order
    )
    return (
        f'<svg class="spark" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="effect over {len(order)} checkpoints">'
        f'<line class="zero" x1="0" x2="{WIDTH}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>'
        f'<polygon class="band" points="{_pairs(band)}"/><polyline class="line" points="{_pairs(line)}"/>{marks}</svg>'
    )


def _direction(point: Point) -> str:
    if not point.significant:
        return "open"
    return "up" if point.effect > 0 else "down"


def _pairs(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
