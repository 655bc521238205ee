"""From clips to classes: means with bootstrap intervals over source videos, and mean maps aligned to the tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.gradcam.measures import ALIGNED_SIDE
from vtcav_ray.heatmaps.intervals import mean_interval, video_means
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.tables import AGGREGATE

ALL = "all"
CORRELATIONS = ("direction", "direction_predicted", "shuffled_weights_similarity", "track_agreement")
MEASURES = tuple(
    field.name for field in tables.GRADCAM if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
)


def summarise(table: pa.Table) -> pa.Table:
    """Return the `GRADCAM_SUMMARY` of a `GRADCAM` table: each class and all together, by layer and mode."""
    rows = []
    groups: dict[tuple[str, str, str], list[int]] = {}
    columns = (table[name].to_pylist() for name in ("class", "layer", "mode"))
    for i, (name, layer, mode) in enumerate(zip(*columns, strict=True)):
        for group in (ALL, name):
            groups.setdefault((group, layer, mode), []).append(i)
    for (name, layer, mode), members in groups.items():
        part = table.take(members)
        for measure in MEASURES:
            values = video_means(part, measure)
            mean, low, high = mean_interval(values, correlation=measure in CORRELATIONS)
            figures = {"mean": mean, "ci_low": low, "ci_high": high}
            rows.append(
                {
                    "class": name,
                    "layer": layer,
                    "mode": mode,
                    "measure": measure,
                    **{k: None if np.isnan(v) else v for k, v in figures.items()},
                    "n": len(values),
                }
            )
    return pa.Table.from_pylist(rows, schema=tables.GRADCAM_SUMMARY)


def aggregate(parts: Sequence[pa.Table]) -> pa.Table:
    """Return the mean maps aligned to the tracks (`AGGREGATE`), from the shards' sums."""
    total: dict[tuple[str, str, str], list[np.ndarray | int]] = {}
    for part in parts:
        for row in part.to_pylist():
            for name in (row["class"], ALL):
                entry = total.setdefault(
                    (name, row["layer"], row["mode"]), [0, np.zeros(ALIGNED_SIDE**2), np.zeros(ALIGNED_SIDE**2)]
                )
                entry[0] += row["clips"]
                entry[1] = entry[1] + np.array(row["sum"])
                entry[2] = entry[2] + np.array(row["count"])
    rows = []
    for (name, layer, mode), (clips, summed, seen) in sorted(total.items()):
        with np.errstate(invalid="ignore", divide="ignore"):
            rows.append({"class": name, "layer": layer, "mode": mode, "clips": clips, "map": summed / seen})
    return pa.Table.from_pylist(rows, schema=AGGREGATE)


def finished(output: StageFolder) -> ShardOutput:
    """Return the stage's last shard: summary and mean maps of the other shards' tables."""
    # A stage that was killed after this shard computes it again, from the other shards only: nothing counts twice.
    measured = output.read("gradcam")
    clips = measured if measured is not None else tables.GRADCAM.empty_table()
    parts = [part for _, part in output.iter_tables("aligned")]
    made = {"gradcam_summary": summarise(clips), "aggregate": aggregate(parts)}
    return ShardOutput({name: table for name, table in made.items() if table.num_rows})
