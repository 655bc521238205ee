"""The class examples that a stage draws maps on: which they are, their frames, and the boxes of their tracks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.spans import Track
from vtcav_ray.heatmaps.boxes import TRACK_COLUMNS, boxes_at, placement, tracks_by_video
from vtcav_ray.models.preprocess import Preprocessor
from vtcav_ray.store.commits import StageFolder

CLIP_COLUMNS = ("clip_id", "video_id", "label", "frames", "height", "width", "encoding", "encoded")
Row = dict[str, Any]
PLAN = pa.schema(
    [
        ("shard", pa.string()),  # shard of the clips table
        ("tracks_shard", pa.string()),  # shard of the tracks table; null: the video has no tracks
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("class", pa.string()),
        ("draw", pa.bool_()),  # whether to draw overlays
    ]
)


def plan(
    clips: StageFolder,
    tracks: StageFolder | None,
    stream: str,
    *,
    most: int | None,
    overlays: int,
    seed: int,
    classes: Collection[str] | None = None,
) -> pa.Table:
    """Return the class examples to examine, in the order of the clips table (`PLAN`).

    If there are more than `most`, choose by a hash of seed and clip, taking turns over the classes.

    Args:
        clips, tracks: the stages' output; no tracks: the run has no detector.
        stream: name of the draw, such as the stage's name.
        most: maximum number of clips; None: all.
        overlays: number of clips to draw per class.
        seed: of the draw.
        classes: only examples of these; None: of all.
    """
    rows: list[dict[str, Any]] = []
    for shard, part in clips.iter_tables("clips", columns=["clip_id", "set", "name", "video_id"]):
        for row in part.to_pylist():
            if row["set"] == "class" and (classes is None or row["name"] in classes):
                rows.append({**row, "shard": shard, "class": row["name"]})
    by_class: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    ranked = []
    for name, members in by_class.items():
        members.sort(key=lambda row: (draw(seed, stream, row["clip_id"]), row["clip_id"]))
        for rank, row in enumerate(members):
            row["draw"] = rank < overlays
            ranked.append((rank, name, row))
    ranked.sort(key=lambda item: item[:2])
    chosen = {row["clip_id"] for _, _, row in ranked[:most]}
    place: dict[str, str] = {}
    parts = tracks.iter_tables("tracks", columns=["video_id"]) if tracks is not None else ()
    for shard, part in parts:
        place.update(dict.fromkeys(part["video_id"].unique().to_pylist(), shard))
    kept = [
        {**{n: row[n] for n in PLAN.names if n in row}, "tracks_shard": place.get(row["video_id"])}
        for row in rows
        if row["clip_id"] in chosen
    ]
    return pa.Table.from_pylist(kept, schema=PLAN)


class Examples:
    """Reads a shard's class examples, and the boxes of their tracks on the model's input.

    Args:
        clips, tracks: folders of the clips and of the tracks of their videos.
        preprocessor: of the model.
    """

    def __init__(self, clips: StageFolder, tracks: StageFolder | None, preprocessor: Preprocessor) -> None:
        self._clips, self._tracks, self._preprocessor = clips, tracks, preprocessor

    def clips(self, rows: pa.Table) -> list[Row]:
        """Return the clips of these rows of a `PLAN` (`CLIP_COLUMNS`)."""
        wanted = set(rows["clip_id"].to_pylist())
        found: list[Row] = []
        for shard in rows["shard"].unique().to_pylist():
            part = self._clips.read_file(f"clips/{shard}.parquet", CLIP_COLUMNS)
            found += [clip for clip in part.to_pylist() if clip["clip_id"] in wanted]
        return found

    def tracks(self, rows: pa.Table) -> dict[str, list[Track]]:
        """Return video -> tracks of these rows of a `PLAN`. A video without tracks is absent."""
        found: dict[str, list[Track]] = {}
        for shard in rows["tracks_shard"].drop_null().unique().to_pylist():
            assert self._tracks is not None, "a row names one of its shards"
            part = self._tracks.read_file(f"tracks/{shard}.parquet", TRACK_COLUMNS)
            found |= {v: t for v, t in tracks_by_video(part, set(rows["video_id"].to_pylist())).items() if t}
        return found

    def boxes(self, clip: Row, tracks: Sequence[Track]) -> list[np.ndarray]:
        """Return the boxes `[T, 4]` of the tracks that appear in the clip, on the model's input; NaN: no box."""
        found = []
        for track in tracks:
            place = placement(self._preprocessor, (track.height, track.width), (clip["height"], clip["width"]))
            boxes = place.boxes(boxes_at(track, np.array(clip["frames"])))
            if np.isfinite(boxes[:, 0]).any():
                found.append(boxes)
        return found


def nulls(figures: Row) -> Row:
    """Replace NaN by None: a figure that is not known is null in a table."""
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in figures.items()}
