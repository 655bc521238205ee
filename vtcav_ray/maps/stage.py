"""Stage `maps`: maps of concepts' directions on class examples. Only `vtcav maps` runs it.

A shard is a few class examples. Each is examined for the chosen cells of its class. The key contains the cells, so each
choice of cells has its own output.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from vtcav_ray import stages
from vtcav_ray.activations.projections import layer_and_projection
from vtcav_ray.clips.usable import AcceptedRows, read_left_out
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.heatmaps.examples import plan
from vtcav_ray.maps.summary import finished
from vtcav_ray.maps.worker import MapsWorker
from vtcav_ray.models import describe
from vtcav_ray.runs.stage import Context, Stage, Work, make_shards, require
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.scores.sides import accepted, comparisons
from vtcav_ray.store.commits import stage_folder
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.directions import DEFINED, Directions, directions

CLIPS_A_SHARD = 4  # maximum: a clip takes a dozen passes per cell, and a lost shard is recomputed
RANDOM_DIRECTIONS = 16
DRAWN = 3  # clips drawn per class
Compared = tuple[str, str, str]  # layer, concept, against


@dataclass(frozen=True)
class Chosen:
    """The cells in a fixed order, and the number of class examples per class."""

    cells: tuple[CellKey, ...]
    clips: int


def maps_stage(chosen: Chosen) -> Stage:
    """Return the stage for these cells."""
    return Stage(
        stages.MAPS,
        version=1,
        ingredients=functools.partial(_ingredients, chosen),
        prepare=functools.partial(_prepare, chosen),
    )


def check_projections(cells: tuple[CellKey, ...], config: Config) -> None:
    """Raise a ConfigError if a cell's layer has a projection for which maps are not defined."""
    for cell in cells:
        name, spec = layer_and_projection(cell.layer, config.activations.projection)
        if spec not in DEFINED:
            raise ConfigError(
                f"Layer {cell.layer!r} has the projection {spec!r}, and a map needs one direction for all places: "
                f"{', '.join(DEFINED)}. Choose other layers with --layer, or run with a layer like `{name}@mean`."
            )


def _ingredients(chosen: Chosen, context: Context) -> dict[str, Any]:
    return {
        "cells": [list(cell) for cell in chosen.cells],
        "clips": chosen.clips,
        "batch_size": context.config.resources.extract.batch_size,
        "seed": context.config.seed,
    }


def _prepare(chosen: Chosen, context: Context) -> Work:
    config, tracks, cavs = context.config, context.inputs.get("tracks"), context.input("cavs")
    clips = AcceptedRows.of(context.input("clips"), read_left_out(cavs))
    found, warnings = directions_of(chosen.cells, accepted(context.input("activations"), cavs), config)
    require(bool(found), "No comparison has a direction. " + " ".join(warnings))
    cells = tuple(cell for cell in chosen.cells if cell[1:] in found)
    classes = {cell.class_ for cell in cells}
    rows = plan(
        clips, tracks, "maps", most=chosen.clips * len(classes), overlays=DRAWN, seed=config.seed, classes=classes
    )
    require(rows.num_rows > 0, f"No class example of {', '.join(sorted(classes))} is left to draw a map on.")
    description = describe(config.model, seed=config.seed)
    if description.untrained:
        warnings.append("The model is UNTRAINED: its maps are those of random weights.")
    output = stage_folder(context.run, stages.MAPS.name, maps_stage(chosen).key(context))
    return Work(
        shards=make_shards(rows, max(1, min(CLIPS_A_SHARD, -(-rows.num_rows // 32)))),
        make_worker=functools.partial(MapsWorker, config, context.input("clips"), tracks, cells, found, output.folder),
        resources=config.resources.extract,
        warnings=warnings,
        notes={"model": description.tag, "untrained": description.untrained},
        finish=functools.partial(finished, cells),
    )


def directions_of(
    cells: tuple[CellKey, ...], activations: AcceptedRows, config: Config
) -> tuple[dict[Compared, Directions], list[str]]:
    """Return the directions of each comparison of the cells, and why some have none, as sentences."""
    found: dict[Compared, Directions] = {}
    warnings: list[str] = []
    wanted: dict[str, list[Compared]] = {layer: [] for layer in dict.fromkeys(cell.layer for cell in cells)}
    for one in dict.fromkeys((cell.layer, cell.concept, cell.against) for cell in cells):
        wanted[one[0]].append(one)
    for layer, compared in wanted.items():
        pool = activations.read("activations", columns=("clip_id", "vector"), layer=layer)
        assert pool is not None, "there are scores of this layer"
        vectors = vectors_of(pool)
        row_of = {clip: i for i, clip in enumerate(pool["clip_id"].to_pylist())}
        sides = comparisons(activations, layer, config)
        for one in compared:
            own, other = sides[one[1:]].concept, sides[one[1:]].other
            own_nd, other_md = (vectors[[row_of[clip] for clip in side.clips]] for side in (own, other))
            try:
                found[one] = directions(
                    own_nd, own.videos, other_md, other.videos, count=RANDOM_DIRECTIONS, seed=config.seed
                )
            except ValueError as error:
                warnings.append(f"{one[1]} against {one[2]} at {layer} has no map: {error}.")
    return found, warnings
