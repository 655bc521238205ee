"""Runs of hand-made tables, as `vtcav compare` and `vtcav explain` read them. No CAV is trained; effects are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.config.loading import parse_config
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array

LAYER = "late"
CUP = np.array([[3.0, 0.0], [4.0, 1.0], [3.0, -1.0], [6.0, 0.0]])  # the mean is (4, 0)
RANDOM = np.array([[0.0, 1.0], [1.0, -1.0], [1.5, 0.5], [0.5, -0.5], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
MISTAKEN = np.array([5.0, 0.0])  # of `drop-2`, which the model takes for `lift`. The other class examples are at 0.
SHIFT = 3.0  # of the cup along axis 0: 4, minus 1 of the random clips
CLASSES = ("lift", "drop")
LIFTED = ("cup-3", "random-0")  # source videos with the label `lift`; the others have the label `drop`


def write_run(
    path: Path,
    weight: float,
    *,
    videos: str = "v",
    gain: float = 1.0,
    left_out: Sequence[str] = (),
    references: int = 3,
    effects: Mapping[tuple[str, str], tuple[float, float, float]] | None = None,
    positive: Mapping[str, float] | None = None,
    **settings: Mapping[str, Any],
) -> Run:
    """Write a run in which the gradient of `lift` is (weight, 0), and that of `drop` (-1, 0).

    Args:
        path: the run folder.
        weight: the effect of the cup on `lift` is SHIFT times this.
        videos: prefix of the source videos' names.
        gain: of the layer. The stored gradients are smaller by it.
        left_out: source videos (without the prefix) whose clips the stage `cavs` left out.
        references: number of clips of each class in the reference set, of 3.
        effects: (class, layer) -> effect and its interval, for the table `scores`; None: those of the gradients.
        positive: class video -> share of CAVs with a positive sensitivity, for `lift`.
        settings: sections of the config.
    """
    config = parse_config(
        {
            "videos": {"uri": "videos"},
            **settings,
            "activations": {"layers": [LAYER], **settings.get("activations", {})},
            "scores": {"permutations": 400, "bootstrap": 100, **settings.get("scores", {})},
        }
    )
    clips = _clips(videos)
    model = f"model@{weight:g}"
    found = {"lift": SHIFT * weight, "drop": -SHIFT}
    known = effects or {(name, LAYER): (found[name], found[name] - 0.5, found[name] + 0.5) for name in CLASSES}
    stages: dict[str, dict[str, pa.Table]] = {
        "videos": {"videos": _videos(clips)},
        "clips": {"clips": pa.Table.from_pylist([_head(clip) for clip in clips], schema=tables.CLIPS)},
        "activations": {
            f"activations/layer={LAYER}": _activations(clips, model),
            f"gradients/layer={LAYER}": _gradients(clips, weight, gain, references, model),
            "answers": _answers(clips, gain, model),
        },
        "cavs": {"left_out": _left_out(clips, [f"{videos}/{name}" for name in left_out])},
        "scores": {"scores": _scores(known, model), "sensitivities": _sensitivities(positive or {})},
    }
    if config.scores.effect == "patch":
        stages["responses"] = {f"responses/layer={LAYER}": _responses(clips, weight, len(CLASSES) * references, model)}
    folder = Folder(str(path))
    for name, parts in stages.items():
        output = stage_folder(folder, name, "k")
        output.commit("0", ShardOutput(parts))
        output.finish({}, {"notes": {}, "warnings": []})
    record = config.model_dump(mode="json", exclude_none=True)
    folder.write_json("run.json", {"config": record, "keys": dict.fromkeys(stages, "k")})
    return Run(str(path))


def _clips(videos: str) -> list[dict[str, Any]]:
    rows = [("concept", "cup", "spatial", f"cup-{i}", z) for i, z in enumerate(CUP)]
    rows += [("random", "random/spatial", "spatial", f"random-{i}", z) for i, z in enumerate(RANDOM)]
    for name in CLASSES:
        rows += [("class", name, "full", f"{name}-{i}", np.zeros(2)) for i in range(3)]
    rows[-1] = (*rows[-1][:-1], MISTAKEN)
    return [
        {"clip_id": f"{s}/{videos}/{video}", "set": s, "name": name, "kind": kind, "video_id": f"{videos}/{video}",
         "z": z}
        for s, name, kind, video, z in rows
    ]  # fmt: skip


def _videos(clips: Sequence[Mapping[str, Any]]) -> pa.Table:
    ids = sorted({clip["video_id"] for clip in clips})
    return pa.Table.from_pylist([{"video_id": v, "uri": f"/nowhere/{v}.mp4"} for v in ids], schema=tables.VIDEOS)


def _answers(clips: Sequence[Mapping[str, Any]], gain: float, model: str) -> pa.Table:
    """Return the answers to the class examples. The model answers `lift` to those of `lift`, and to `drop-2`."""
    rows = []
    for clip in (clip for clip in clips if clip["set"] == "class"):
        lifted = clip["name"] == "lift" or clip["video_id"].endswith("drop-2")
        logits = [2.0, 1.0] if lifted else [0.5, 1.5]
        about = {name: clip[name] for name in ("clip_id", "set", "name", "kind", "video_id")}
        rows.append({**about, "label": clip["name"], "logits": logits, "gains": [gain], "views": 1, "model": model})
    classes = {tables.CLASSES: json.dumps(CLASSES)}
    return pa.Table.from_pylist(rows, schema=tables.ANSWERS.with_metadata(classes))


def _head(clip: Mapping[str, Any]) -> dict[str, Any]:
    label = "lift" if clip["video_id"].endswith(LIFTED) else "drop"
    return {**{name: clip[name] for name in clip if name != "z"}, "label": label}


def _activations(clips: Sequence[Mapping[str, Any]], model: str) -> pa.Table:
    columns: dict[str, Any] = {n: [c[n] for c in clips] for n in ("clip_id", "set", "name", "kind", "video_id")}
    columns |= {"layer": [LAYER] * len(clips), "views": [1] * len(clips), "model": [model] * len(clips)}
    columns["vector"] = vector_array(np.array([clip["z"] for clip in clips], np.float32))
    return pa.table(columns, schema=tables.activations(2))


def _gradients(clips: Sequence[Mapping[str, Any]], weight: float, gain: float, references: int, model: str) -> pa.Table:
    """Return the gradients of both classes at every class example. Outside of the reference set they are doubled."""
    rows = []
    for clip in (clip for clip in clips if clip["set"] == "class"):
        inside = int(clip["video_id"].rpartition("-")[2]) < references
        for name, slope in (("lift", weight), ("drop", -1.0)):
            rows.append((clip["clip_id"], clip["video_id"], name, inside, slope / gain * (1 if inside else 2)))
    clip_ids, video_ids, names, insides, slopes = (list(column) for column in zip(*rows, strict=True))
    n = len(rows)
    columns = {
        "clip_id": clip_ids, "video_id": video_ids, "class": names, "layer": [LAYER] * n, "target": ["logit"] * n,
        "value": [1.0] * n, "predicted": names, "reference": insides, "gain": [gain] * n, "margin": [2.0] * n,
        "views": [1] * n, "model": [model] * n,
        "vector": vector_array(np.array([[slope, 0.0] for slope in slopes], np.float32)),
    }  # fmt: skip
    return pa.table(columns, schema=tables.gradients(2))


def _left_out(clips: Sequence[Mapping[str, Any]], videos: Sequence[str]) -> pa.Table:
    ids = [clip["clip_id"] for clip in clips if clip["video_id"] in videos]
    return pa.table({"clip_id": ids, "reason": ["rejected"] * len(ids)}, schema=tables.LEFT_OUT)


def _scores(effects: Mapping[tuple[str, str], tuple[float, float, float]], model: str) -> pa.Table:
    rows = [
        {
            "class": name, "layer": layer, "concept": "cup/spatial", "against": "random", "kind": "spatial",
            "effect": effect, "ci_low": low, "ci_high": high, "tcav_score": 0.75, "learnable": False, "model": model,
        }
        for (name, layer), (effect, low, high) in effects.items()
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=tables.SCORES)


def _sensitivities(positive: Mapping[str, float]) -> pa.Table:
    rows = [
        {"class": "lift", "layer": LAYER, "concept": "cup/spatial", "video_id": v, "sensitivity": 1.0, "positive": p}
        for v, p in positive.items()
    ]
    return pa.Table.from_pylist(rows, schema=tables.SENSITIVITIES)


def _responses(clips: Sequence[Mapping[str, Any]], weight: float, references: int, model: str) -> pa.Table:
    """Return responses that rise with axis 0: by `weight` for `lift`, by -1 for `drop`; each place adds its own."""
    rows = [
        {
            "clip_id": clip["clip_id"], "video_id": clip["video_id"], "class": name, "layer": LAYER, "model": model,
            "responses": [slope * clip["z"][0] + place for place in range(references)],
        }
        for clip in clips
        if clip["set"] != "class"
        for name, slope in (("lift", weight), ("drop", -1.0))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=tables.RESPONSES)
