"""From clips to cells: whether a cell's maps are localised, and how far they beat random directions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.errors import StageError
from vtcav_ray.heatmaps.intervals import mean_interval, video_means
from vtcav_ray.rows import MapSummaryRow, table_of
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.tables import CELL_KEY

CHANCE = 0.5  # of `deletion`, if what the map points to matters no more than other places
NOT_LOCALISED = (
    "Not localised at this layer: deleting what the map points to is not shown to remove more of the concept than "
    "deleting other places."
)
ABSENT = "Too few of these clips have more of the concept than the clips that it is compared with: nothing to locate."
ONE_PLACE = "This layer has a single place and time: nothing to locate."
NO_MAPS = "No class example has a map: every clip failed. See `vtcav table RUN failures`."


def finished(cells: Sequence[CellKey], output: StageFolder) -> ShardOutput:
    """Return the stage's last shard: the table `maps_summary` of the other shards' maps."""
    table = output.read("maps")
    if table is None:
        raise StageError(NO_MAPS)
    rows = summarise(cells, table)
    localised = sum(1 for row in rows if row.localised)
    return ShardOutput({"maps_summary": table_of(rows, MapSummaryRow)}, metrics={"localised": localised})


def summarise(cells: Sequence[CellKey], table: pa.Table) -> list[MapSummaryRow]:
    """Return one row per cell that has maps, in the cells' order.

    Args:
        cells: the cells.
        table: rows of `maps`.
    """
    found = []
    for cell in cells:
        part = table
        for name, value in zip(CELL_KEY, cell, strict=True):
            part = part.filter(pc.equal(part[name], value))
        if part.num_rows:
            found.append(_summary(cell, part))
    return found


def _summary(cell: CellKey, part: pa.Table) -> MapSummaryRow:
    for name in ("pointing", "inside", "timing"):
        part = part.append_column(f"{name}_advantage", pc.subtract(part[name], part[f"{name}_random"]))
    deletion = _interval(part, "deletion")
    localised = None if deletion[1] is None else deletion[1] > CHANCE
    advantages = {name: _interval(part, f"{name}_advantage") for name in ("pointing", "inside", "timing")}
    return MapSummaryRow(
        class_=cell.class_,
        layer=cell.layer,
        concept=cell.concept,
        against=cell.against,
        localised=localised,
        deletion=deletion[0],
        deletion_low=deletion[1],
        deletion_high=deletion[2],
        pointing=advantages["pointing"][0],
        pointing_low=advantages["pointing"][1],
        pointing_high=advantages["pointing"][2],
        inside=advantages["inside"][0],
        inside_low=advantages["inside"][1],
        inside_high=advantages["inside"][2],
        timing=advantages["timing"][0],
        timing_low=advantages["timing"][1],
        timing_high=advantages["timing"][2],
        clips=part.num_rows,
        n_present=len(video_means(part, "deletion")),
        model=part["model"][0].as_py(),
        note=_note(part, localised),
    )


def _note(part: pa.Table, localised: bool | None) -> str:
    if localised is not None:
        return "" if localised else NOT_LOCALISED
    present = part.filter(pc.greater(part["presence"], 0))
    return ONE_PLACE if present.num_rows and present["deletion"].null_count == present.num_rows else ABSENT


def _interval(part: pa.Table, name: str) -> tuple[float | None, float | None, float | None]:
    """Return the mean over source videos and its interval; None: not known."""
    mean, low, high = (None if math.isnan(v) else v for v in mean_interval(video_means(part, name)))
    return mean, low, high
