"""What `vtcav patch` has to compute: the cells, and the pool clips of their two sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vtcav_ray.scores.choose import CellKey
from vtcav_ray.scores.sides import Comparison
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
