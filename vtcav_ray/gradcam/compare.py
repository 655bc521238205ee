"""Compare Grad-CAM's maps and Video-TCAV on the same clips of two classes that differ by motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vtcav_ray.clips.usable import read_left_out
from vtcav_ray.heatmaps.intervals import mean_interval, separation, video_means
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import ANSWER
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tables import CELL_KEY, EFFECT
from vtcav_ray.tcav import concept_effect
from vtcav_ray.tcav.arrays import video_means as mean_vectors
from vtcav_ray.tcav.gains import at_gain, with_gains

CLIP = "clip"  # the mode that is compared: the model sees the whole clip
SCORE_COLUMNS = (*CELL_KEY, *EFFECT, "q")
AXES = {"x": "width", "y": "height"}


class Interval(NamedTuple):
    """A figure with its 95 % interval; NaN: not known."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MapFigures:
    """Figures of the maps of one layer in the mode `clip`.

    Attributes:
        videos: number of source videos of each class.
        turned: per class, the number of clips whose prediction changes to the other class when they are reversed, and
            the number of all clips.
        direction: correlation with the reversed clip's map in the original frame order, each map for its clip's
            predicted class; both classes together.
        direction_same: the same, with both maps for the clip's own class.
        axis: `x` or `y`: the axis along which the objects of the two classes move apart.
        drift, track_drift: per class, displacement of the maps' centre of mass and of the object's box along the axis,
            as a fraction of the frame.
        drift_area, track_area: AUC with which the drift separates the classes; the sign is chosen so that the tracks'
            AUC is >= 0.5.
    """

    videos: tuple[int, int]
    turned: tuple[tuple[int, int], tuple[int, int]]
    direction: Interval
    direction_same: Interval
    axis: str
    drift: tuple[Interval, Interval]
    track_drift: tuple[Interval, Interval]
    drift_area: Interval
    track_area: Interval


@dataclass(frozen=True)
class TcavFigures:
    """Figures of Video-TCAV at one layer: the first concept against the second.

    Attributes:
        effect: per class, in logits: mean gradient of its clips · (mean z of the first concept - of the second).
        p: per class, by permutation.
        area: AUC with which the single clips' effects separate the two classes.
    """

    effect: tuple[Interval, Interval]
    p: tuple[float, float]
    area: Interval


@dataclass(frozen=True)
class Comparison:
    """One pair of classes with its pair of concepts, layer by layer.

    Attributes:
        reason: why Video-TCAV has no figures; empty: it has.
        scores: rows of the run's scores table (`SCORE_COLUMNS`) for these classes and concepts, against random clips.
    """

    classes: tuple[str, str]
    concepts: tuple[str, str]
    maps: dict[str, MapFigures] = field(default_factory=dict)
    tcav: dict[str, TcavFigures] = field(default_factory=dict)
    reason: str = ""
    scores: Sequence[dict[str, Any]] = ()


def compare_methods(run: Run, table: pa.Table, classes: tuple[str, str], concepts: tuple[str, str]) -> Comparison:
    """Compare the two methods on the clips of a `GRADCAM` table.

    The figures of Video-TCAV come from the run's own activations, gradients and scores. If the run has none, or if they
    belong to another model, the comparison gives the reason.
    """
    reason = _why_not(run, table)
    if not reason:  # both methods leave out clips that a person rejected or that repeat another clip
        left_out = pa.array(read_left_out(run.stage("cavs")), pa.string())
        table = table.filter(pa.compute.invert(pa.compute.is_in(table["clip_id"], left_out)))
    of_pair = [table.filter(pa.compute.equal(table["class"], name)) for name in classes]
    layers = list(dict.fromkeys(table["layer"].to_pylist()))
    maps = {}
    for layer in layers:
        parts = [
            part.filter(pa.compute.and_(pa.compute.equal(part["layer"], layer), pa.compute.equal(part["mode"], CLIP)))
            for part in of_pair
        ]
        if all(part.num_rows for part in parts):
            maps[layer] = map_figures(parts, classes)
    tcav, scores = {}, []
    if not reason:
        clips = {clip for part in of_pair for clip in part["clip_id"].to_pylist()}
        for layer in layers:
            if layer in run.config.activations.layers:
                found = _tcav_figures(run, layer, classes, concepts, clips)
                if isinstance(found, str):
                    reason = found
                else:
                    tcav[layer] = found
        rows = run.table("scores", columns=list(SCORE_COLUMNS)).to_pylist()
        rows = [r for r in rows if r["against"] == "random" and r["layer"] != ANSWER]
        scores = [r for r in rows if r["class"] in classes and r["concept"] in concepts]
    return Comparison(classes, concepts, maps, tcav, reason, scores)


def _why_not(run: Run, table: pa.Table) -> str:
    for stage in ("activations", "cavs", "scores"):
        if stage not in run.keys or not run.stage(stage).complete:
            return "This run has no scores: `vtcav run` with the same config and run folder adds them."
    models = {str(m) for m in table["model"].unique().to_pylist()}
    scored = str(run.manifest("activations")["notes"]["model"])
    if models and models != {scored}:
        return f"The run's scores are of another model ({scored}) than these maps ({', '.join(sorted(models))})."
    return ""


def map_figures(parts: Sequence[pa.Table], classes: tuple[str, str]) -> MapFigures:
    """Return the figures of two classes from their rows of one layer and mode."""
    together = pa.concat_tables(parts)
    one, two = parts
    areas = {
        axis: separation(video_means(one, f"track_drift_{axis}"), video_means(two, f"track_drift_{axis}"))
        for axis in AXES
    }
    known = {axis: abs(area[0] - 0.5) for axis, area in areas.items() if np.isfinite(area[0])}
    axis = max(known, key=lambda a: known[a]) if known else "y"
    turn = np.isfinite(areas[axis][0]) and areas[axis][0] < 0.5
    own = separation(video_means(one, f"drift_{axis}"), video_means(two, f"drift_{axis}"))
    turned = []
    for part, other in zip(parts, reversed(classes), strict=True):
        answers = part["predicted_reversed"].to_pylist()
        turned.append((sum(answer == other for answer in answers), len(answers)))
    return MapFigures(
        videos=(len(set(parts[0]["video_id"].to_pylist())), len(set(parts[1]["video_id"].to_pylist()))),
        turned=(turned[0], turned[1]),
        direction=Interval(*mean_interval(video_means(together, "direction_predicted"), correlation=True)),
        direction_same=Interval(*mean_interval(video_means(together, "direction"), correlation=True)),
        axis=axis,
        drift=_two(parts, f"drift_{axis}"),
        track_drift=_two(parts, f"track_drift_{axis}"),
        drift_area=_turned(own, bool(turn)),
        track_area=_turned(areas[axis], bool(turn)),
    )


def _two(parts: Sequence[pa.Table], measure: str) -> tuple[Interval, Interval]:
    first, second = (Interval(*mean_interval(video_means(part, measure))) for part in parts)
    return first, second


def _turned(area: tuple[float, float, float], turn: bool) -> Interval:
    return Interval(1 - area[0], 1 - area[2], 1 - area[1]) if turn else Interval(*area)


def _tcav_figures(
    run: Run, layer: str, classes: tuple[str, str], concepts: tuple[str, str], clips: set[str]
) -> TcavFigures | str:
    """Return the figures, or the reason why there are none."""
    sides = []
    pool = run.table("activations", layer=layer)
    left_out = pa.array(read_left_out(run.stage("cavs")), pa.string())
    pool = pool.filter(pa.compute.invert(pa.compute.is_in(pool["clip_id"], left_out)))
    names = [f"{n}/{k}" if s == "concept" else "" for s, n, k in zip(
        pool["set"].to_pylist(), pool["name"].to_pylist(), pool["kind"].to_pylist(), strict=True)]  # fmt: skip
    for concept in concepts:
        sides.append(pool.filter(pa.array([name == concept for name in names])))
    shared = set(sides[0]["video_id"].to_pylist()) & set(sides[1]["video_id"].to_pylist())
    # A video that shows both concepts can't be on both sides of a permutation.
    sides = [
        side.filter(pa.array([v not in shared for v in side["video_id"].to_pylist()], pa.bool_())) for side in sides
    ]
    for concept, side in zip(concepts, sides, strict=True):
        if len(set(side["video_id"].to_pylist())) < 2:
            return f"The run has fewer than two source videos of the concept {concept} that don't show the other too."
    z = [vectors_of(side) for side in sides]
    videos = [side["video_id"].to_pylist() for side in sides]
    shift = mean_vectors(z[0], _codes(videos[0])).mean(0) - mean_vectors(z[1], _codes(videos[1])).mean(0)
    gradients = run.table("gradients", layer=layer)
    effects, values = [], []
    for name in classes:
        keep = [c == name and clip in clips for c, clip in zip(
            gradients["class"].to_pylist(), gradients["clip_id"].to_pylist(), strict=True)]  # fmt: skip
        rows = gradients.filter(pa.array(keep, pa.bool_()))
        if not rows.num_rows:
            return f"The run has no gradients of the class {name} for these clips."
        g, gain = with_gains(vectors_of(rows), np.asarray(rows["gain"]))
        of = _codes(rows["video_id"].to_pylist())
        found = concept_effect(
            g, z[0], z[1], groups=_codes([*videos[0], *videos[1]]), class_groups=of, seed=run.config.seed
        )
        effects.append(at_gain(found, gain))
        values.append(mean_vectors(g, of) @ shift)
    return TcavFigures(
        effect=(
            Interval(effects[0].effect, effects[0].ci_low, effects[0].ci_high),
            Interval(effects[1].effect, effects[1].ci_low, effects[1].ci_high),
        ),
        p=(effects[0].p, effects[1].p),
        area=Interval(*separation(values[0], values[1])),
    )


def _codes(names: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1]
