"""What `vtcav faithful` examines: concepts, classes, layers, and the directions to erase at each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.config import Config
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.scores.sides import comparisons
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.arrays import video_means
from vtcav_ray.tcav.directions import directions

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Chosen:
    """The choice of a call, in a fixed order.

    Attributes:
        layers, classes, concepts: their names; concepts are `<name>/<kind>`.
        clips: maximum reference clips per class.
        random_sets: R, directions of chance per layer and kind.
        orders: (class, layer) -> concepts with the largest effects first, for the curves.
    """

    layers: tuple[str, ...]
    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    clips: int
    random_sets: int
    orders: Mapping[tuple[str, str], tuple[str, ...]]


@dataclass(frozen=True)
class LayerDirections:
    """The directions of one layer in P-space.

    Attributes:
        pattern: concept -> difference of means, unit length.
        shift: concept -> the same, not scaled: mean of the concept minus mean of the random clips.
        filters: concept -> mean CAV against random, unit length; concepts without a CAV are absent.
        random: kind -> [R, d], random clips against the other random clips, unit length.
        base: kind -> mean of the random clips.
        kind_of: concept -> kind.
    """

    pattern: Mapping[str, Vector]
    shift: Mapping[str, Vector]
    filters: Mapping[str, Vector]
    random: Mapping[str, Vector]
    base: Mapping[str, Vector]
    kind_of: Mapping[str, str]


def choose_sets(
    cells: Sequence[CellKey], effects: Mapping[CellKey, float], *, clips: int, random_sets: int, in_curves: int
) -> Chosen:
    """Return the layers, classes and concepts of some cells; the curves take the `in_curves` largest effects."""
    layers = tuple(dict.fromkeys(cell.layer for cell in cells))
    classes = tuple(sorted({cell.class_ for cell in cells}))
    concepts = tuple(sorted({cell.concept for cell in cells}))
    orders = {}
    for name in classes:
        for layer in layers:
            of = {cell.concept: abs(size) for cell, size in effects.items() if cell[:2] == (name, layer)}
            known = [concept for concept in concepts if np.isfinite(of.get(concept, np.nan))]
            orders[name, layer] = tuple(sorted(known, key=lambda concept: (-of[concept], concept))[:in_curves])
    return Chosen(layers, classes, concepts, clips, random_sets, orders)


def layer_directions(
    chosen: Chosen, layer: str, activations: AcceptedRows, cavs: StageFolder, config: Config
) -> tuple[LayerDirections, list[str]]:
    """Return the directions of a layer, and why some concepts have none, as sentences."""
    pool = activations.read("activations", columns=("clip_id", "vector"), layer=layer)
    assert pool is not None, "there are scores of this layer"
    vectors = vectors_of(pool)
    row_of = {clip: i for i, clip in enumerate(pool["clip_id"].to_pylist())}
    sides = comparisons(activations, layer, config)
    pattern: dict[str, Vector] = {}
    shift: dict[str, Vector] = {}
    random: dict[str, Vector] = {}
    base: dict[str, Vector] = {}
    warnings = []
    for concept in chosen.concepts:
        one = sides[concept, "random"]
        own, other = (vectors[[row_of[clip] for clip in side.clips]] for side in (one.concept, one.other))
        kind = concept.rpartition("/")[2]
        try:
            found = directions(
                own, one.concept.videos, other, one.other.videos, count=chosen.random_sets, seed=config.seed
            )
        except ValueError as error:
            warnings.append(f"{concept} has no direction at {layer}: {error}.")
            continue
        pattern[concept] = found.concept_d
        moved = video_means(own, one.concept.videos).mean(axis=0) - found.base_d
        shift[concept] = moved.astype(np.float32)
        random[kind], base[kind] = found.random_Rd, found.base_d
    kinds = {concept: concept.rpartition("/")[2] for concept in pattern}
    return LayerDirections(pattern, shift, _filters(pattern, layer, cavs), random, base, kinds), warnings


def _filters(concepts: Mapping[str, Vector], layer: str, cavs: StageFolder) -> dict[str, Vector]:
    table = cavs.read("cavs", columns=("concept", "against", "vector"), layer=layer)
    assert table is not None, "the stage is complete"
    vectors, found = vectors_of(table), {}
    rows: dict[str, list[int]] = {}
    for i, (concept, against) in enumerate(
        zip(table["concept"].to_pylist(), table["against"].to_pylist(), strict=True)
    ):
        if against == "random" and concept in concepts:
            rows.setdefault(concept, []).append(i)
    for concept, members in rows.items():
        trained = vectors[members].astype(np.float64)
        trained = trained[np.isfinite(trained).all(1)]  # a CAV that could not be trained is NaN
        if not len(trained):
            continue
        mean = trained.mean(0)
        if (length := float(np.linalg.norm(mean))) > 0:
            found[concept] = (mean / length).astype(np.float32)
    return found
