"""What `vtcav patch` has to compute: the cells, and the pool clips of their two sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray.cavs.stage import POOL_COLUMNS, pool_of, read_plan
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.config import Config
from vtcav_ray.scores.cells import find_cells
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.tables import CELL_KEY


@dataclass(frozen=True)
class Chosen:
    """The cells in a fixed order, how they were chosen, and the maximum number of reference videos (None: all)."""

    cells: tuple[CellKey, ...]
    significant: bool
    limit_reference: int | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.layer for cell in self.cells))

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({cell.class_ for cell in self.cells}))


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


def pool_clips(chosen: Chosen, layer: str, sides: Mapping[tuple[str, str], Comparison]) -> dict[str, str]:
    """Return clip id -> source video of all clips whose responses at this layer are needed, sorted by id."""
    video_of: dict[str, str] = {}
    for cell in chosen.cells:
        if cell.layer == layer:
            one = sides[cell.concept, cell.against]
            for side in (one.concept, one.other):
                video_of.update(zip(side.clips, side.videos, strict=True))
    return dict(sorted(video_of.items()))


def cell_rows(scores: pa.Table) -> dict[CellKey, dict[str, Any]]:
    """Return the rows of `scores` by cell."""
    return {CellKey(*(row[name] for name in CELL_KEY)): row for row in scores.to_pylist()}
