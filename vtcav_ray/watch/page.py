"""The report over training: how each concept effect changes between checkpoints. One HTML file, made here."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtcav_ray.pages import Shell, asset, render
from vtcav_ray.pages.render import HERE, SAVING, function
from vtcav_ray.runs.run import REPORT_PAGE, Run
from vtcav_ray.store.folder import Folder
from vtcav_ray.tables import CELL_KEY, EFFECT
from vtcav_ray.watch.registry import CheckpointRecord, CheckpointRecords

ROOM = "vtcav_ray.watch"
PAGE = "report.html"
MOST_CLASSES = 40
COLUMNS = (*CELL_KEY, *EFFECT, "tcav_score", "significant")
WIDTH, HEIGHT, MARGIN = 180, 56, 7


@dataclass(frozen=True)
class Point:
    """One effect at one checkpoint. `score` is the TCAV score in [0, 1]; effect and interval are in logits."""

    effect: float
    low: float
    high: float
    score: float | None
    significant: bool


Points = dict[int, Point]  # index of the checkpoint -> its point
Series = Mapping[tuple[str, str, str], Points]  # (class, concept, layer) -> its points


def update_report(folder: Folder) -> str:
    """Write `registry.parquet` and `report.html` from the records, and return the report's URL."""
    registry = CheckpointRecords(folder)
    records = registry.write_table()
    shared = Folder(folder.url.rstrip("/").rsplit("/", 1)[0], folder.storage_options)
    folder.write_bytes(PAGE, build_page(records, read_series(records, shared), layer_order(records, shared)).encode())
    return f"{folder.url}/{PAGE}"


def read_series(records: Sequence[CheckpointRecord], shared: Folder) -> dict[tuple[str, str, str], Points]:
    """Read the effects against random clips of every finished record."""
    found: dict[tuple[str, str, str], Points] = defaultdict(dict)
    for number, record in enumerate(records):
        if record.run is None:
            continue
        run = Run(shared.below(record.run).url, shared.storage_options)
        for row in run.table("scores", columns=list(COLUMNS)).to_pylist():
            if row["against"] == "random" and row["effect"] is not None and np.isfinite(row["effect"]):
                found[row["class"], row["concept"], row["layer"]][number] = _point(row)
    return dict(found)


def layer_order(records: Sequence[CheckpointRecord], shared: Folder) -> list[str]:
    """Return the layers as the newest finished run's config lists them; empty: no run is finished."""
    done = [record.run for record in records if record.run is not None]
    return list(Run(shared.below(done[-1]).url, shared.storage_options).config.activations.layers) if done else []


def _point(row: dict[str, Any]) -> Point:
    effect = row["effect"]
    low, high = (v if v is not None and np.isfinite(v) else effect for v in (row["ci_low"], row["ci_high"]))
    score = row["tcav_score"] if row["tcav_score"] is not None and np.isfinite(row["tcav_score"]) else None
    return Point(effect, low, high, score, bool(row["significant"]))


def build_page(records: Sequence[CheckpointRecord], series: Series, layers: Sequence[str] = ()) -> str:
    """Build the page. It loads nothing, and is complete without its scripts, which only save and change colours.

    Args:
        records: of the checkpoints, in the order of training.
        series: the effects.
        layers: order of the layers; others follow in the order of the effects.
    """
    found = _classes(len(records), series, layers)
    shell = Shell(
        title="Over training · Video-TCAV",
        styles=[asset(HERE, "page.css"), asset(ROOM, "watch.css")],
        scripts=[function(asset(HERE, "theme.js", *SAVING), asset(ROOM, "watch.js"), asset(HERE, "saving.js"))],
        data={"points": _points(records, series, {one.name for one in found})},
        images=True,
    )
    return render(
        ROOM,
        "watch.html",
        shell=shell,
        done=sum(r.status == "done" for r in records),
        clips_changed=len({r.keys.get("clips") for r in records if r.status == "done"}) > 1,
        checkpoints=[_checkpoint(record) for record in records],
        classes=found,
        more_classes=max(0, len({name for name, _, _ in series}) - MOST_CLASSES),
        size=(WIDTH, HEIGHT),
    )


def _points(records: Sequence[CheckpointRecord], series: Series, shown: Collection[str]) -> dict[str, Any]:
    """Return the figures of the charts: column names, and one row per effect and checkpoint."""
    columns = ("class", "concept", "layer", "checkpoint", "effect", "ci_low", "ci_high", "tcav_score", "significant")
    rows = [
        [*key, records[i].name, *(float(f"{v:.5g}") for v in (p.effect, p.low, p.high)), p.score, p.significant]
        for key, points in series.items()
        if key[0] in shown
        for i, p in sorted(points.items())
    ]
    return {"columns": columns, "rows": rows}


@dataclass(frozen=True)
class CheckpointRow:
    """A row of the table of checkpoints. `about`: the model or the error; `address`: of its report, or empty."""

    name: str
    address: str
    step: str
    status: str
    about: str


@dataclass(frozen=True)
class ClassTable:
    """A class's charts: (concept, one chart per layer; None: the concept has no effect there)."""

    name: str
    layers: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Spark | None]]]


@dataclass(frozen=True)
class Spark:
    """A small chart, in pixels: x is the checkpoint's place in training, y the effect in logits. Zero is visible.

    Attributes:
        zero: y of zero effect.
        band, line: `x,y x,y ...` of the interval's outline and of the effect.
        marks: (`up`, `down` or `open`, x, y) of each checkpoint.
        last: figures of the newest checkpoint.
    """

    zero: float
    band: str
    line: str
    marks: Sequence[tuple[str, float, float]]
    last: Point


def _checkpoint(record: CheckpointRecord) -> CheckpointRow:
    done = record.status == "done"
    return CheckpointRow(
        name=record.name,
        address="" if record.run is None else posixpath.join("..", record.run, REPORT_PAGE),
        step="" if record.step is None else str(record.step),
        status=record.status,
        about=(record.model if done else record.error) or "",
    )


def _classes(count: int, series: Series, order: Sequence[str]) -> list[ClassTable]:
    """Return the classes with the largest effects, sorted by name."""
    largest: dict[str, float] = defaultdict(float)
    for (name, _, _), points in series.items():
        largest[name] = max(largest[name], *(abs(p.effect) for p in points.values()))
    shown = sorted(largest, key=lambda name: (-largest[name], name))[:MOST_CLASSES]
    return [_class(name, count, series, order) for name in sorted(shown)]


def _class(name: str, count: int, series: Series, order: Sequence[str]) -> ClassTable:
    mine = {(concept, layer): points for (cls, concept, layer), points in series.items() if cls == name}
    found_layers = dict.fromkeys(layer for _, layer in mine)
    layers = [*(x for x in order if x in found_layers), *(x for x in found_layers if x not in order)]
    rows = []
    for concept in sorted({concept for concept, _ in mine}):
        found = [mine.get((concept, layer)) for layer in layers]
        rows.append((concept, [spark(points, count) if points else None for points in found]))
    return ClassTable(name, layers, rows)


def spark(points: Points, count: int) -> Spark:
    """Lay out the chart of one effect.

    Args:
        points: at least one.
        count: number of all checkpoints, including those without this effect.
    """
    top = max(0.0, *(p.high for p in points.values()))
    bottom = min(0.0, *(p.low for p in points.values()))
    span = (top - bottom) or 1.0

    def x(i: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (i / (count - 1) if count > 1 else 0.5)

    def y(value: float) -> float:
        return MARGIN + (HEIGHT - 2 * MARGIN) * (top - value) / span

    order = sorted(points)
    band = [(x(i), y(points[i].high)) for i in order] + [(x(i), y(points[i].low)) for i in reversed(order)]
    return Spark(
        zero=y(0),
        band=_pairs(band),
        line=_pairs([(x(i), y(points[i].effect)) for i in order]),
        marks=[(_direction(points[i]), x(i), y(points[i].effect)) for i in order],
        last=points[order[-1]],
    )


def _direction(point: Point) -> str:
    if not point.significant:
        return "open"
    return "up" if point.effect > 0 else "down"


def _pairs(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
