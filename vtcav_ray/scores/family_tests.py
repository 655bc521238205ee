"""The tests of all families of some clips, from the layers' projections. See `families` for one family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vtcav_ray.cavs.plan import RANDOM, CavJob, Pool
from vtcav_ray.rows import CompositionRow, EffectTestRow, table_of
from vtcav_ray.scores.cells import Cell, find_cells
from vtcav_ray.scores.families import Labels, Projections, composition, family_tests
from vtcav_ray.scores.layer_data import LayerClips, ScoreOptions


@dataclass(frozen=True)
class FamilyTests:
    """What the tests of all families need; `cells` are by (concept, against)."""

    pool: Pool
    labels: Labels
    projections: Projections
    cells: Mapping[tuple[str, str], Cell]

    @classmethod
    def of(
        cls,
        layers: Iterable[LayerClips],
        *,
        pool: Pool,
        clip_ids: Sequence[str],
        jobs: Sequence[CavJob],
        label_of_video: Mapping[str, str | None],
        there_N: NDArray[np.bool_] | None = None,
    ) -> FamilyTests:
        """Project the clips at each layer.

        Args:
            layers: all layers with cells, one in memory at a time.
            pool, clip_ids: the clips, which are the same for all layers.
            jobs: the plan of a layer's CAVs.
            label_of_video: label of each source video; None: unknown.
            there_N: rows of the pool that effects may use; None: all.
        """
        projections = Projections.of(layers)
        cells = {(c.concept, c.against): c.among(there_N) for c in find_cells(pool, clip_ids, jobs)}
        return cls(pool, Labels.of(pool, label_of_video), projections, cells)

    def of_families(self, families: Iterable[tuple[str, str]], options: ScoreOptions) -> tuple[pa.Table, pa.Table]:
        """Test some families, (concept, against): rows of the tables `effect_tests` and `composition`."""
        cells = [self.cells[family] for family in families]
        tests = [row for cell in cells for row in family_tests(cell, self.projections, self.pool, self.labels, options)]
        counts = [row for cell in cells if cell.against == RANDOM for row in composition(cell, self.pool, self.labels)]
        return table_of(tests, EffectTestRow), table_of(counts, CompositionRow)
