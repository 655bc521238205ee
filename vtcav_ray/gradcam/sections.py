"""The content of each section of the Grad-CAM page, as plain values. The markup is in `templates/`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtcav_ray.gradcam import sentences
from vtcav_ray.gradcam.compare import CLIP, Comparison, Interval
from vtcav_ray.gradcam.measure_panels import short
from vtcav_ray.gradcam.measures import ALIGNED_SIDE
from vtcav_ray.gradcam.page_data import PageData
from vtcav_ray.gradcam.sentences import interval_of, with_interval
from vtcav_ray.gradcam.summary import ALL
from vtcav_ray.heatmaps.overlays import heat, square_png
from vtcav_ray.pages.wording import duration, probability, share, signed, whole
from vtcav_ray.tables import EFFECT

MAX_CLASSES = 12  # classes with mean maps
MAX_CLIPS = 300
MAX_FAILURES = 100
CLIP_COLUMNS = ("clip_id", "predicted", "predicted_reversed", "logit", "logit_change", "direction_predicted",
                "direction", "flicker", "track_flicker", "background_share", "track_agreement")  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A figure with its interval (empty: not known) and a note."""

    value: str
    ends: str = ""
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """Both methods on one pair of classes.

    Attributes:
        classes, concepts: the pairs that are compared.
        layer: the layer whose maps are described; None: there are no maps of both classes.
        verdict: one sentence about both methods.
        maps, tcav: the findings of each method, in sentences.
        videos: number of source videos of each class.
        layers: (layer, its figures), as `PAIR_HEADS` names them.
        scores: layer, class, concept, effect and q of the same concepts against random clips.
    """

    classes: tuple[str, str]
    concepts: tuple[str, str]
    layer: str | None
    verdict: str = ""
    maps: Sequence[str] = ()
    tcav: Sequence[str] = ()
    videos: tuple[int, int] = (0, 0)
    layers: Sequence[tuple[str, Sequence[Figure]]] = ()
    scores: Sequence[Sequence[str]] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """The columns of `layers`."""
        return (
            "layer",
            "maps of the two answers: r",
            "of one class: r",
            "AUC of the maps' drift",
            "AUC of the object's",
            f"{self.classes[0]}: effect",
            f"{self.classes[1]}: effect",
            "AUC of the effect",
        )


@dataclass(frozen=True)
class Place:
    """A part of the frame in words, and the maps' share of it, a row per class, layer and mode (`heads`)."""

    words: str
    rows: Sequence[Sequence[str]]

    @property
    def heads(self) -> tuple[str, ...]:
        """The columns of `rows`."""
        return ("class", "layer", "mode", "share of the map, median", "95 % interval", "share of the area", "videos")


@dataclass(frozen=True)
class MeanMap:
    """The mean map of a class and mode: PNG bytes, clips, and the mean in the box as a multiple of a uniform map."""

    mode: str
    png: bytes
    clips: int
    inside: float


@dataclass(frozen=True)
class MeanMaps:
    """Mean maps on one scale: the brightest colour's value, the colours from 0 up to it, the maps of each class."""

    top: float
    colours: Sequence[tuple[int, int, int]]
    classes: Sequence[tuple[str, Sequence[MeanMap]]]


@dataclass(frozen=True)
class ClipRows:
    """Clips at the page's layer in the last mode: their number, and the first rows (`CLIP_COLUMNS`) as text."""

    mode: str
    total: int
    rows: Sequence[Sequence[str]]


def points(data: PageData) -> list[str]:
    """Describe what the baseline can show, and what it costs."""
    found = []
    for mode in dict.fromkeys([*data.modes[:1], *data.modes[-1:]]):
        found.append(sentences.flicker_sentence(data.cells(ALL, data.layer, mode), data.layer, mode))
    if CLIP in data.modes:
        rows = data.cells(ALL, data.layer, CLIP)
        found.append(sentences.direction_sentence(rows, data.layer))
        found.append(sentences.background_sentence(rows, data.layer, CLIP))
        found.append(sentences.sanity_sentence(rows, data.layer, CLIP))
    costs = ", ".join(
        f"{whole(interval_of(data.cells(ALL, data.layer, mode).get('passes')).value)} in the mode {mode}"
        for mode in data.modes
    )
    cost = f"Forward and backward passes for one clip's map: {costs}; Video-TCAV takes one per class example."
    if data.seconds is not None:
        cost += f" With reversed clips and shuffled weights, one actor took {duration(data.seconds)} per clip."
    return [*found, cost]


def tiles(data: PageData) -> list[tuple[str, str]]:
    """Return the counts of what was examined: (figure, label)."""
    counts = {
        "clips": len(set(data.clips["clip_id"].to_pylist())),
        "source videos": len(set(data.clips["video_id"].to_pylist())),
        "classes": len(set(data.clips["class"].to_pylist())),
        "layers": len(data.layers),
        "modes": len(data.modes),
        "failures": len(data.failures),
    }
    return [(whole(number), word) for word, number in counts.items()]


def place(data: PageData) -> Place | None:
    """Collect which share of the maps lies in the place that was asked about; None: none was."""
    if data.place is None:
        return None
    x0, y0, x1, y1 = (f"{100 * end:.3g}" for end in data.place)
    order = sorted(data.places, key=lambda row: (row["class"] != ALL, row["class"]))
    rows = [
        [
            str(row["class"]),
            str(row["layer"]),
            str(row["mode"]),
            _percent(row["median"]),
            f"{_percent(row['ci_low'])} to {_percent(row['ci_high'])}" if row["ci_low"] is not None else "–",
            _percent(row["area"]),
            whole(row["n"]),
        ]
        for row in order
    ]
    return Place(f"{x0} to {x1} % of the width, {y0} to {y1} % of the height", rows)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def pair(data: PageData, compared: Comparison) -> Pair:
    """Collect the findings of both methods for one pair of classes."""
    layer = data.layer if data.layer in compared.maps else next(iter(compared.maps), None)
    if layer is None:
        return Pair(compared.classes, compared.concepts, None)
    maps, tcav = compared.maps[layer], compared.tcav.get(layer)
    if tcav is not None:
        findings = sentences.tcav_of_pair(compared, tcav, layer)
    else:
        findings = [compared.reason or f"The run has no activations of the layer {layer}."]
    return Pair(
        classes=compared.classes,
        concepts=compared.concepts,
        layer=layer,
        verdict=sentences.verdict(maps, tcav),
        maps=sentences.maps_of_pair(compared, maps, layer),
        tcav=findings,
        videos=maps.videos,
        layers=[(name, _layer_figures(compared, name)) for name in compared.maps],
        scores=[_score_row(row) for row in compared.scores],
    )


def _layer_figures(compared: Comparison, layer: str) -> list[Figure]:
    maps, tcav = compared.maps[layer], compared.tcav.get(layer)
    found = [_figure(maps.direction), _figure(maps.direction_same), _figure(maps.drift_area)]
    found.append(Figure(share(maps.track_area.value)))
    if tcav is None:
        return [*found, *[Figure("–")] * 3]
    effects = zip(tcav.effect, tcav.p, strict=True)
    found += [_figure(effect, sign=True, note=f"p {probability(p)}") for effect, p in effects]
    return [*found, _figure(tcav.area)]


def _figure(figure: Interval, *, sign: bool = False, note: str = "") -> Figure:
    value, _, ends = with_interval(figure, sign=sign).partition(" [")
    return Figure(value, f"[{ends}" if ends else "", note)


def _score_row(row: Mapping[str, Any]) -> list[str]:
    effect = with_interval(Interval(*(_number(row[name]) for name in EFFECT)), sign=True)
    return [row["layer"], row["class"], row["concept"], effect, probability(_number(row["q"]))]


def mean_maps(data: PageData) -> MeanMaps | None:
    """Collect the mean maps around the object's box at the page's layer; None: no clip has a track."""
    rows = [r for r in data.aggregate.to_pylist() if r["layer"] == data.layer] if data.aggregate is not None else []
    names = [n for n in dict.fromkeys(r["class"] for r in rows) if n != ALL][:MAX_CLASSES]
    shown = [
        (row, np.array(row["map"], np.float64).reshape(ALIGNED_SIDE, ALIGNED_SIDE))
        for name in (ALL, *names)
        for mode in data.modes
        for row in rows
        if (row["class"], row["mode"]) == (name, mode)
    ]
    finite = [values[np.isfinite(values)].max() for _, values in shown if np.isfinite(values).any()]
    if not finite:
        return None
    top = float(max(finite))
    steps = np.linspace(0, 1, 9, dtype=np.float32).reshape(-1, 1, 1)
    return MeanMaps(
        top=top,
        colours=[(int(r), int(g), int(b)) for r, g, b in heat(steps, 1.0)[:, 0, 0]],
        classes=[
            (
                "all classes" if name == ALL else name,
                [_mean_map(row, values, top) for row, values in shown if row["class"] == name],
            )
            for name in dict.fromkeys(row["class"] for row, _ in shown)
        ],
    )


def _mean_map(row: Mapping[str, Any], values: np.ndarray, top: float) -> MeanMap:
    third = ALIGNED_SIDE // 3
    inside = float(np.nanmean(values[third : 2 * third, third : 2 * third]))
    return MeanMap(row["mode"], square_png(np.nan_to_num(values, nan=0.0), top), row["clips"], inside)


def clip_rows(data: PageData) -> ClipRows:
    """Collect the rows of the single clips."""
    mode = (data.modes or [""])[-1]
    wanted = [row for row in data.clips.to_pylist() if (row["layer"], row["mode"]) == (data.layer, mode)]
    rows = [[_clip_cell(name, row[name]) for name in CLIP_COLUMNS] for row in wanted[:MAX_CLIPS]]
    return ClipRows(mode or "–", len(wanted), rows)


def _clip_cell(name: str, value: Any) -> str:
    if name in ("clip_id", "predicted", "predicted_reversed"):
        return str(value or "")
    return signed(_number(value)) if name.startswith("logit") else short(_number(value))


def failure_rows(data: PageData) -> list[list[str]]:
    """Collect the first failures: clip, kind and message."""
    columns = ("clip_id", "error_kind", "message")
    return [[str(row[name] or "") for name in columns] for row in data.failures[:MAX_FAILURES]]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
