"""Stage `responses`: the responses to every pool clip, for `scores.effect: patch`. Other runs do not have this stage.

A shard is one layer and a few pool clips. The output depends on clips and activations only: clips that a person rejects
later are left out when the responses are read, so a review runs no model.
"""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray import stages
from vtcav_ray.errors import StageError
from vtcav_ray.responses.reference import clip_shards, read_reference
from vtcav_ray.runs.stage import Context, Shard, Stage, Work, make_shards
from vtcav_ray.store.commits import StageFolder

# Pool clips per shard. Each shard runs the reference clips through the whole network once, and a lost shard is redone.
CLIPS_A_SHARD = 32
NO_POOL = "There are no concept clips and no random clips to put into the reference clips: see clips.concepts."


def _prepare(context: Context) -> Work:
    from vtcav_ray.models import describe
    from vtcav_ray.responses.worker import ResponseWorker

    config, clips, activations = context.config, context.input("clips"), context.input("activations")
    references: set[str] = set()
    classes: set[str] = set()
    shards: list[Shard] = []
    for number, layer in enumerate(config.activations.layers):
        table = read_reference(activations, layer, None, config.seed)
        references |= set(table["clip_id"].to_pylist())
        classes |= set(table["class"].to_pylist())
        shards += layer_shards(number, layer, _pool(activations, layer), first=not shards)
    if not shards:
        raise StageError(NO_POOL)
    description = describe(config.model, seed=config.seed)
    return Work(
        shards=shards,
        make_worker=functools.partial(
            ResponseWorker, config, clips, activations, sorted(classes), clip_shards(clips, references), None
        ),
        resources=config.resources.extract,
        notes={"model": description.tag, "references": len(references)},
    )


def _pool(activations: StageFolder, layer: str) -> dict[str, str]:
    """Return clip id -> source video of all concept and random clips, sorted by id."""
    table = activations.read("activations", columns=("clip_id", "set", "video_id"), layer=layer)
    if table is None:
        return {}
    pool = table.filter(pc.not_equal(table["set"], "class"))
    return dict(sorted(zip(pool["clip_id"].to_pylist(), pool["video_id"].to_pylist(), strict=True)))


def layer_shards(number: int, layer: str, video_of: dict[str, str], *, first: bool) -> list[Shard]:
    """Return the shards of one layer.

    Args:
        number: of the layer, for the shards' names.
        layer: its name.
        video_of: clip id -> source video of the pool clips.
        first: the first of these shards reports the reference clips that can't be decoded.
    """
    rows = pa.table(
        {
            "layer": pa.array([layer] * len(video_of), pa.string()),
            "clip_id": pa.array(list(video_of), pa.string()),
            "video_id": pa.array(list(video_of.values()), pa.string()),
        }
    )
    shards: list[Shard] = []
    for part in make_shards(rows, CLIPS_A_SHARD):
        reports = pa.array([first and not shards] * part.rows.num_rows, pa.bool_())
        shards.append(Shard(f"{number:02d}-{part.name}", part.rows.append_column("reports", reports)))
    return shards


def _ingredients(context: Context) -> dict[str, Any]:
    return {"batch_size": context.config.resources.extract.batch_size, "seed": context.config.seed}


STAGE = Stage(stages.RESPONSES, version=1, ingredients=_ingredients, prepare=_prepare)
