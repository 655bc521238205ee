"""Effects and their tests from changed gradients or from some of the source videos.

The arithmetic is that of the stage `scores`: the same sides, families and tests, from other inputs.

Legend: N rows of the pool, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vtcav_ray.cavs.plan import RANDOM
from vtcav_ray.cavs.stage import POOL_COLUMNS, pool_of, read_plan
from vtcav_ray.clips.classes import same_class
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.config import Config
from vtcav_ray.scores.cells import Cell, find_cells
from vtcav_ray.scores.families import Labels, Projections, family_tests
from vtcav_ray.scores.layer_data import ClassGradients, LayerClips, ScoreOptions
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.arrays import video_means
from vtcav_ray.tcav.gains import with_gains


class Tested(NamedTuple):
    """The effect of one concept against random clips on one class at one layer.

    Attributes:
        effect: in logits, at the layer's gain.
        z: effect over its standard error (Welch's t).
        p: by permutation, equal-tailed.
        p_adjusted: corrected for the cells of the concept's family.
    """

    class_: str
    layer: str
    concept: str
    effect: float
    z: float
    p: float
    p_adjusted: float


@dataclass(frozen=True)
class RunClips:
    """A run's clips without their vectors: the pool, the clips' ids, and every concept against random clips."""

    clip_ids: tuple[str, ...]
    videos: tuple[str, ...]
    cells: Mapping[str, Cell]
    labels: Labels


def read_clips(activations: AcceptedRows, label_of_video: Mapping[str, str], config: Config) -> RunClips:
    """Read the names of a run's clips, and the two sides of each concept against random clips."""
    layer = config.activations.layers[0]
    table = activations.read("activations", columns=("clip_id", *POOL_COLUMNS), layer=layer)
    assert table is not None, "there are scores of this layer"
    pool, clip_ids = pool_of(table, None), table["clip_id"].to_pylist()
    jobs = read_plan(activations, layer, config, None).jobs
    cells = {cell.concept: cell for cell in find_cells(pool, clip_ids, jobs) if cell.against == RANDOM}
    return RunClips(tuple(clip_ids), tuple(pool.video_id), cells, Labels.of(pool, label_of_video))


def read_layer(activations: AcceptedRows, layer: str, gradients: Sequence[ClassGradients]) -> LayerClips:
    """Read a layer's stored activations, and join them with gradients."""
    table = activations.read("activations", columns=("clip_id", *POOL_COLUMNS, "model", "vector"), layer=layer)
    assert table is not None, "there are scores of this layer"
    return LayerClips(
        layer=layer,
        model=table["model"][0].as_py(),
        pool=pool_of(table, None),
        clip_ids=table["clip_id"].to_pylist(),
        vectors_ND=vectors_of(table),
        classes=gradients,
    )


def stored_gradients(
    activations: AcceptedRows, layer: str, classes: Sequence[str], taken_at: str, name_of: Mapping[str, str]
) -> list[ClassGradients]:
    """Read the gradients that the run's effects use, of some classes.

    Args:
        taken_at: `scores.gradients_at`.
        name_of: clip id -> the class that the clip is an example of.
    """
    table = activations.read("gradients", layer=layer)
    assert table is not None, "there are scores of this layer"
    vectors, gains = vectors_of(table), np.asarray(table["gain"], np.float64)
    videos = table["video_id"].to_pylist()
    rows: dict[str, list[int]] = {name: [] for name in classes}
    columns = (table[name].to_pylist() for name in ("class", "clip_id", "reference"))
    for i, (name, clip, reference) in enumerate(zip(*columns, strict=True)):
        wanted = {"all": True, "reference": reference, "own": same_class(name_of.get(clip, ""), name)}[taken_at]
        if wanted and name in rows:
            rows[name].append(i)
    return [
        weighed(name, vectors[members], gains[members], [videos[i] for i in members])
        for name, members in rows.items()
        if members
    ]


def weighed(
    name: str, vectors: NDArray[np.float32], gains: NDArray[np.float64], videos: Sequence[str]
) -> ClassGradients:
    """Return a class's gradients for the concept effect (`vtcav_ray.tcav.gains`)."""
    rows, gain = with_gains(vectors, gains)
    return ClassGradients(name, rows, videos, gain=gain)


def effects(layers: Sequence[LayerClips], clips: RunClips, options: ScoreOptions) -> list[Tested]:
    """Test every concept against random clips, on every class and layer.

    Args:
        layers: with their gradients; all of the same clips.
        clips: the names of the pool's rows. A cell without clips on a side is left out.
        options: of the tests.
    """
    projections, found = Projections.of(layers), []
    for concept, cell in clips.cells.items():
        if not (len(cell.concept_rows) and len(cell.other_rows)):
            continue
        size_C = _effect(cell, projections, clips.videos)
        rows = family_tests(cell, projections, layers[0].pool, Labels(clips.labels.of_rows, False), options)
        for c, row in enumerate(rows):
            effect = float(size_C[c])
            z = effect / row.effect_unit if row.effect_unit > 0 else float("nan")
            found.append(Tested(row.class_, row.layer, concept, effect, z, row.p, row.p_adjusted))
    return found


def among(clips: RunClips, kept_N: NDArray[np.bool_]) -> RunClips:
    """Return the comparisons of only some rows of the pool."""
    return dataclasses.replace(clips, cells={name: cell.among(kept_N) for name, cell in clips.cells.items()})


def _effect(cell: Cell, projections: Projections, videos: Sequence[str]) -> NDArray[np.float64]:
    means = [
        video_means(projections.of_rows(rows), [videos[i] for i in rows]).mean(axis=0)
        for rows in (cell.concept_rows, cell.other_rows)
    ]
    return np.asarray((means[0] - means[1]) * projections.gain_C)


def names_of(activations: AcceptedRows, layer: str) -> dict[str, str]:
    """Return clip id -> name of its set, which of a class example is its class."""
    table: pa.Table | None = activations.read("activations", columns=("clip_id", "name"), layer=layer)
    assert table is not None, "there are scores of this layer"
    return dict(zip(table["clip_id"].to_pylist(), table["name"].to_pylist(), strict=True))
