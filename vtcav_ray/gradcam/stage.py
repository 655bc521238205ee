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
from vtcav_ray.clips.decisions import read_decisions
from vtcav_ray.clips.usable import AcceptedRows, left_out_of
from vtcav_ray.gradcam.maps import MODES
from vtcav_ray.gradcam.summary import finished
from vtcav_ray.gradcam.worker import GradcamWorker
from vtcav_ray.heatmaps.examples import plan
from vtcav_ray.models import describe, model_digest
from vtcav_ray.runs.stage import Context, Shard, Stage, Work, make_shards, require
from vtcav_ray.store.commits import stage_folder

CLIPS_A_SHARD = 8  # maximum: a clip takes dozens of passes, and a lost shard is recomputed


def _prepare(context: Context) -> Work:
    config = context.config
    clips = AcceptedRows.of(context.input("clips"), _left_out(context))
    rows = plan(
        clips,
        context.inputs.get("tracks"),
        STAGE.name,
        most=config.gradcam.max_clips,
        overlays=config.gradcam.overlays,
        seed=config.seed,
    )
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
            GradcamWorker, config, context.input("clips"), context.inputs.get("tracks"), output.folder
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


def _shards(rows: pa.Table) -> list[Shard]:
    return make_shards(rows, max(1, min(CLIPS_A_SHARD, -(-rows.num_rows // 32))))


def _ingredients(context: Context) -> dict[str, Any]:
    config = context.config
    unused = set() if config.gradcam.place is not None else {"place"}
    settings = config.gradcam.model_dump(mode="json", exclude={"compare", "modes", *unused})
    return {
        "model": {"framework": config.model.framework, "digest": model_digest(config.model, seed=config.seed)},
        "gradcam": {**settings, "modes": [mode for mode in MODES if mode in config.gradcam.modes]},
        "left_out": _left_out(context),
        "batch_size": config.resources.extract.batch_size,
        "seed": config.seed,
    }


STAGE = Stage(stages.GRADCAM, version=3, ingredients=_ingredients, prepare=_prepare)
