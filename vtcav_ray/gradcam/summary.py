"""From clips to classes: means with bootstrap intervals over source videos, and mean maps aligned to the tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.gradcam.measures import ALIGNED_SIDE
from vtcav_ray.heatmaps.intervals import mean_interval, median_interval, video_means
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
    for (name, layer, mode), members in _groups(table).items():
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


def summarise_places(table: pa.Table) -> pa.Table:
    """Return the `GRADCAM_PLACES_SUMMARY` of a `GRADCAM_PLACES` table: each class and all together."""
    rows = []
    for (name, layer, mode), members in _groups(table).items():
        part = table.take(members)
        values = video_means(part, "place_share")
        median, low, high = median_interval(values)
        figures = {"median": median, "ci_low": low, "ci_high": high, "area": np.median(video_means(part, "place_area"))}
        known = {k: None if np.isnan(v) else float(v) for k, v in figures.items()}
        rows.append({"class": name, "layer": layer, "mode": mode, **known, "n": len(values)})
    return pa.Table.from_pylist(rows, schema=tables.GRADCAM_PLACES_SUMMARY)


def _groups(table: pa.Table) -> dict[tuple[str, str, str], list[int]]:
    """Return the rows of each (class, layer, mode), and of all classes together."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    columns = (table[name].to_pylist() for name in ("class", "layer", "mode"))
    for i, (name, layer, mode) in enumerate(zip(*columns, strict=True)):
        for group in (ALL, name):
            groups.setdefault((group, layer, mode), []).append(i)
    return groups


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
    places = output.read("gradcam_places")
    if places is not None:
        made["gradcam_places_summary"] = summarise_places(places)
    return ShardOutput({name: table for name, table in made.items() if table.num_rows})
