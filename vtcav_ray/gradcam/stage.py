"""Stage `gradcam`: Grad-CAM maps of the class examples and their measures per clip. Only `vtcav gradcam` runs it.

A shard is a few class examples. The stage keeps a map's measures and its part of the class's mean map. The maps of a
few clips per class are drawn, and stored as .mp4 and .webp in the stage's folder.
"""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray import stages
from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.decisions import read_decisions
from vtcav_ray.clips.usable import AcceptedRows, left_out_of
from vtcav_ray.gradcam.maps import MODES
from vtcav_ray.gradcam.summary import finished
from vtcav_ray.gradcam.worker import GradcamWorker
from vtcav_ray.models import describe, model_digest
from vtcav_ray.runs.stage import Context, Shard, Stage, Work, make_shards, require
from vtcav_ray.store.commits import StageFolder, stage_folder

CLIPS_A_SHARD = 8  # maximum: a clip takes dozens of passes, and a lost shard is recomputed
PLAN = pa.schema(
    [
        ("shard", pa.string()),  # shard of the clips table
        ("tracks_shard", pa.string()),  # shard of the tracks table; null: the video has no tracks
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("class", pa.string()),
        ("draw", pa.bool_()),  # whether to draw overlays
    ]
)


def _prepare(context: Context) -> Work:
    config = context.config
    clips = AcceptedRows.of(context.input("clips"), _left_out(context))
    rows = plan(clips, context.input("tracks"), config.gradcam.max_clips, config.gradcam.overlays, config.seed)
    require(
        rows.num_rows > 0,
        "There are no class examples to make Grad-CAM maps of: no label that the model knows has enough videos "
        "(clips.min_per_class), or review.csv rejects them all. See the notes of the stage `clips`.",
    )
    output = stage_folder(context.run, STAGE.name, STAGE.key(context))
    description = describe(config.model, seed=config.seed)
    warnings = []
    if description.untrained:
        warnings.append("The model is UNTRAINED: its Grad-CAM maps are those of random weights.")
    return Work(
        shards=_shards(rows),
        make_worker=functools.partial(
            GradcamWorker, config, context.input("clips"), context.input("tracks"), output.folder
        ),
        resources=config.resources.extract,
        warnings=warnings,
        notes={"model": description.tag, "untrained": description.untrained},
        finish=finished,
    )


def _left_out(context: Context) -> list[str]:
    """Return class examples that a person rejected or that repeat another. Read once, for the key and for the work."""
    if "left_out" not in context.memo:
        clips = context.input("clips")
        heads = clips.read("clips", columns=["clip_id", "set"])
        examples = [] if heads is None else heads.filter(pc.equal(heads["set"], "class"))["clip_id"].to_pylist()
        # If there are no class examples, `_prepare` raises.
        reasons = left_out_of(clips, read_decisions(clips.run), context.config).reasons if examples else {}
        context.memo["left_out"] = sorted(reasons.keys() & set(examples))
    found = context.memo["left_out"]
    assert isinstance(found, list)
    return found


def plan(clips: StageFolder, tracks: StageFolder, most: int | None, overlays: int, seed: int) -> pa.Table:
    """Return the class examples to examine, in the order of the clips table (`PLAN`).

    If there are more than `most`, choose by a hash of seed and clip, taking turns over the classes.
    """
    rows: list[dict[str, Any]] = []
    for shard, part in clips.iter_tables("clips", columns=["clip_id", "set", "name", "video_id"]):
        for row in part.to_pylist():
            if row["set"] == "class":
                rows.append({**row, "shard": shard, "class": row["name"]})
    by_class: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    ranked = []
    for name, members in by_class.items():
        members.sort(key=lambda row: (draw(seed, "gradcam", row["clip_id"]), row["clip_id"]))
        for rank, row in enumerate(members):
            row["draw"] = rank < overlays
            ranked.append((rank, name, row))
    ranked.sort(key=lambda item: item[:2])
    chosen = {row["clip_id"] for _, _, row in ranked[:most]}
    place: dict[str, str] = {}
    for shard, part in tracks.iter_tables("tracks", columns=["video_id"]):
        place.update(dict.fromkeys(part["video_id"].unique().to_pylist(), shard))
    kept = [
        {**{n: row[n] for n in PLAN.names if n in row}, "tracks_shard": place.get(row["video_id"])}
        for row in rows
        if row["clip_id"] in chosen
    ]
    return pa.Table.from_pylist(kept, schema=PLAN)


def _shards(rows: pa.Table) -> list[Shard]:
    return make_shards(rows, max(1, min(CLIPS_A_SHARD, -(-rows.num_rows // 32))))


def _ingredients(context: Context) -> dict[str, Any]:
    config = context.config
    settings = config.gradcam.model_dump(mode="json", exclude={"compare", "modes"})
    return {
        "model": {"framework": config.model.framework, "digest": model_digest(config.model, seed=config.seed)},
        "gradcam": {**settings, "modes": [mode for mode in MODES if mode in config.gradcam.modes]},
        "left_out": _left_out(context),
        "batch_size": config.resources.extract.batch_size,
        "seed": config.seed,
    }


STAGE = Stage(stages.GRADCAM, version=3, ingredients=_ingredients, prepare=_prepare)
