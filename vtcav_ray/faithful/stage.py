"""Stage `faithful`: checks that can show an explanation to be wrong. Only `vtcav faithful` runs it.

A shard is one layer and a few reference clips (erasing), one level of shuffled weights, or the splits of the corpus.
The key contains the choice, so each has its own output.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vtcav_ray import stages
from vtcav_ray.activations.projections import layer_and_projection
from vtcav_ray.cavs.stage import labels_of
from vtcav_ray.clips.classes import draw, same_class
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.faithful.effects import names_of
from vtcav_ray.faithful.plan import Chosen, LayerDirections, layer_directions
from vtcav_ray.faithful.randomised import AFTER, WHOLE
from vtcav_ray.faithful.summary import finished
from vtcav_ray.faithful.worker import FaithfulWorker
from vtcav_ray.models import describe
from vtcav_ray.runs.stage import Context, Shard, Stage, Work, make_shards, require
from vtcav_ray.scores.sides import accepted, comparisons
from vtcav_ray.tcav.directions import DEFINED

CLIPS_A_SHARD = 8
RANDOM_CLIPS = 100  # maximum number of random clips per kind that run through a shuffled model
ERASURE = pa.schema([("check", pa.string()), *((n, pa.string()) for n in ("layer", "clip_id", "video_id", "class"))])


def faithful_stage(chosen: Chosen) -> Stage:
    """Return the stage for this choice."""
    return Stage(
        stages.FAITHFUL,
        version=2,
        ingredients=functools.partial(_ingredients, chosen),
        prepare=functools.partial(_prepare, chosen),
    )


def check_projections(layers: Sequence[str], config: Config) -> None:
    """Raise a ConfigError if a layer has a projection whose directions can't be erased."""
    for layer in layers:
        name, spec = layer_and_projection(layer, config.activations.projection)
        if spec not in DEFINED:
            raise ConfigError(
                f"Layer {layer!r} has the projection {spec!r}, and only one direction for all places can be erased: "
                f"{', '.join(DEFINED)}. Choose other layers with --layer, or run with a layer like `{name}@mean`."
            )


def _ingredients(chosen: Chosen, context: Context) -> dict[str, Any]:
    orders = [[*key, *names] for key, names in chosen.orders.items()]
    return {
        "layers": list(chosen.layers),
        "classes": list(chosen.classes),
        "concepts": list(chosen.concepts),
        "orders": orders,
        "clips": chosen.clips,
        "random_sets": chosen.random_sets,
        "seed": context.config.seed,
        "alpha": context.config.scores.alpha,
        "permutations": context.config.scores.permutations,
    }


def _prepare(chosen: Chosen, context: Context) -> Work:
    config, clips, cavs = context.config, context.input("clips"), context.input("cavs")
    activations = accepted(context.input("activations"), cavs)
    found: dict[str, LayerDirections] = {}
    warnings: list[str] = []
    for layer in chosen.layers:
        one, why = layer_directions(chosen, layer, activations, cavs, config)
        warnings += why
        if one.pattern:
            found[layer] = one
    require(bool(found), "No concept has a direction. " + " ".join(warnings))
    examples = reference_examples(chosen, activations, config)
    require(bool(examples), "No class example of the chosen classes has gradients. See `vtcav table RUN failures`.")
    description = describe(config.model, seed=config.seed)
    if description.untrained:
        warnings.append("The model is UNTRAINED: these checks are of random weights.")
    return Work(
        shards=[*_erasures(found, examples), *_randomised(chosen, activations, config), _halves()],
        make_worker=functools.partial(FaithfulWorker, config, clips, activations, chosen, found, labels_of(clips)),
        resources=config.resources.extract,
        warnings=warnings,
        notes={"model": description.tag, "untrained": description.untrained, "random_sets": chosen.random_sets},
        finish=functools.partial(finished, chosen, config, context.input("scores")),
    )


def reference_examples(chosen: Chosen, activations: AcceptedRows, config: Config) -> list[dict[str, str]]:
    """Return class examples with gradients of all classes, if there is a reference set, else with their own class's.

    At most `chosen.clips` per class, chosen by a hash of seed and clip.
    """
    names = names_of(activations, chosen.layers[0])
    table = activations.read("gradients", columns=("clip_id", "video_id", "reference"), layer=chosen.layers[0])
    assert table is not None, "there are scores of this layer"
    there = table.to_pylist()
    rows = [row for row in there if row["reference"]] or there
    video_of = {row["clip_id"]: row["video_id"] for row in rows}
    found = []
    for name in chosen.classes:
        own = [clip for clip in video_of if same_class(names.get(clip, ""), name)]
        own.sort(key=lambda clip: (draw(config.seed, "faithful", clip), clip))
        found += [{"clip_id": clip, "video_id": video_of[clip], "class": name} for clip in own[: chosen.clips]]
    return found


def _erasures(found: dict[str, LayerDirections], examples: Sequence[dict[str, str]]) -> list[Shard]:
    shards = []
    for number, layer in enumerate(found):
        rows = pa.Table.from_pylist([{"check": "erasures", "layer": layer, **row} for row in examples], schema=ERASURE)
        shards += [Shard(f"{number:02d}-{part.name}", part.rows) for part in make_shards(rows, CLIPS_A_SHARD)]
    return shards


def _randomised(chosen: Chosen, activations: AcceptedRows, config: Config) -> list[Shard]:
    """Return one shard per level. Layers of one module share a level."""
    reference = reference_examples(chosen, activations, config)
    spec = config.activations.projection
    modules = dict.fromkeys(layer_and_projection(layer, spec)[0] for layer in chosen.layers)
    pool = _pool(chosen, activations, config)
    shards = []
    for number, level in enumerate([*(f"{AFTER}{name}" for name in reversed(list(modules))), WHOLE]):
        clips = pool if level == WHOLE else {}
        row = {
            "check": "randomised",
            "layer": level,
            "clip_id": list(clips),
            "videos": list(clips.values()),
            "reference": [one["clip_id"] for one in reference],
            "reference_videos": [one["video_id"] for one in reference],
        }
        names = pa.list_(pa.string())
        schema = pa.schema(
            [("check", pa.string()), ("layer", pa.string()), ("clip_id", names), ("videos", names),
             ("reference", names), ("reference_videos", names)]
        )  # fmt: skip
        shards.append(Shard(f"randomised-{number:02d}", pa.Table.from_pylist([row], schema=schema)))
    return shards


def _pool(chosen: Chosen, activations: AcceptedRows, config: Config) -> dict[str, str]:
    """Return clip -> source video of the clips that run through a shuffled model: concepts', and some random ones."""
    sides = comparisons(activations, chosen.layers[0], config)
    found: dict[str, str] = {}
    for concept in chosen.concepts:
        one = sides[concept, "random"]
        random = sorted(
            zip(one.other.clips, one.other.videos, strict=True),
            key=lambda item: (draw(config.seed, "faithful", item[0]), item[0]),
        )
        found.update(zip(one.concept.clips, one.concept.videos, strict=True))
        found.update(random[:RANDOM_CLIPS])
    return found


def _halves() -> Shard:
    return Shard("halves", pa.table({"check": ["halves"]}))
