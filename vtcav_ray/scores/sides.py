"""The pool clips of both sides of a cell, for the commands that use the run's clips once more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vtcav_ray.cavs.pool import POOL_COLUMNS, pool_of
from vtcav_ray.cavs.stage import read_plan
from vtcav_ray.clips.usable import AcceptedRows, read_left_out
from vtcav_ray.config import Config
from vtcav_ray.scores.cells import find_cells
from vtcav_ray.store.commits import StageFolder


@dataclass(frozen=True)
class Side:
    """Pool clips of one side of a comparison: ids, and the source video of each."""

    clips: tuple[str, ...]
    videos: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The two sides of (concept, against) at one layer. `paired`: each clip's twin is at the same place."""

    concept: Side
    other: Side
    paired: bool


def comparisons(activations: AcceptedRows, layer: str, config: Config) -> dict[tuple[str, str], Comparison]:
    """Return (concept, against) -> the clips of both sides, as the stage `scores` compares them."""
    pool = activations.read("activations", columns=("clip_id", *POOL_COLUMNS), layer=layer)
    assert pool is not None, "there are scores of this layer"
    clips, videos = pool["clip_id"].to_pylist(), pool["video_id"].to_pylist()

    def side(rows: np.ndarray) -> Side:
        return Side(tuple(clips[i] for i in rows), tuple(videos[i] for i in rows))

    jobs = read_plan(activations, layer, config, None).jobs
    return {
        (cell.concept, cell.against): Comparison(side(cell.concept_rows), side(cell.other_rows), cell.paired)
        for cell in find_cells(pool_of(pool, None), clips, jobs)
    }


def accepted(activations: StageFolder, cavs: StageFolder) -> AcceptedRows:
    """Return the activations without the clips that the stage `cavs` left out."""
    return AcceptedRows.of(activations, read_left_out(cavs))
