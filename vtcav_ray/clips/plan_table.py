"""The plan's table: one row per clip to cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.corpus import Example
from vtcav_ray.clips.kinds import CONTROLLED
from vtcav_ray.clips.spans import Span
from vtcav_ray.tables import BOX

PLAN = pa.schema(
    [
        ("clip_id", pa.string()),
        ("set", pa.string()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("object", pa.string()),
        ("motion", pa.string()),
        ("track_id", pa.int32()),
        ("frames", pa.list_(pa.int32())),  # of the span; null: chosen once the video's length is known
        ("boxes", pa.list_(BOX)),
        ("control_of", pa.string()),
        ("pick", pa.int32()),  # which of the T frames a still kind shows
        ("view", pa.int32()),  # which of the clips spread over a class video
        ("seed", pa.int64()),  # for random choices when this clip is cut
    ]
)
# Columns of a plan in which a clip is cut from a segment: seconds since the first frame; null: the whole file.
SEGMENT = pa.schema([("start", pa.float64()), ("end", pa.float64())])


class PlanRows:
    """A collector of rows of `PLAN`. A row's id is determined by its set, kind, example and span."""

    def __init__(self, seed: int, class_views: int) -> None:
        self._seed, self._class_views = seed, class_views
        self._rows: list[dict[str, Any]] = []

    def add_with_controls(
        self, set_: str, name: str, kind: str, example: Example, span: Span, controls: Sequence[str]
    ) -> None:
        """Add a row for the clip and, if the clip is spatiotemporal, one for each of its motion controls."""
        clip_id = self.add(set_, name, kind, example, span)
        if kind == CONTROLLED:
            for control in controls:
                under = f"random/{control}" if set_ == "random" else name
                self.add(set_, under, control, example, span, control_of=clip_id)

    def add(
        self,
        set_: str,
        name: str,
        kind: str,
        example: Example,
        span: Span | None,
        *,
        control_of: str | None = None,
        number: int = 0,
    ) -> str:
        """Add one row and return its clip_id.

        Args:
            set_: class, concept or random.
            name: class, concept, or `random/<kind>`.
            example: the file or segment to cut from.
            span: what to cut; None: frames spread over the example once its length is known.
            control_of: the id of the clip that this one is a control of.
            number: which clip of its example, if it has no span.
        """
        if span is not None:
            where = f"#{span.track_id}@{int(span.frames[0])}"
        else:
            where = f"#{number}" if set_ == "random" or self._class_views > 1 else ""
            if example.segment is not None:
                where = f"@{example.segment.name}{where}"
        if example.file != example.video_id:
            where = f"/{example.file}{where}"
        folder = name if set_ == "random" else f"class/{name}" if set_ == "class" else f"concept/{name}/{kind}"
        clip_id = f"{folder}/{example.video_id}{where}"
        # A control's shuffle is seeded by the id of its clip, independent of the rest of the plan.
        seed = int(draw(self._seed, "cut", control_of or clip_id, kind) * 2**62)
        self._rows.append(
            {
                "clip_id": clip_id,
                "set": set_,
                "name": name,
                "kind": kind,
                "video_id": example.video_id,
                "uri": example.uri,
                "label": example.label,
                "object": None if span is None else span.object,
                "motion": None if span is None else span.motion.direction,
                "track_id": None if span is None else span.track_id,
                "frames": None if span is None else span.frames,
                "boxes": None if span is None else list(span.boxes),
                "control_of": control_of,
                "pick": 0 if span is None else span.pick,
                "view": number if set_ == "class" else 0,
                "seed": seed,
                **_segment(example),
            }
        )
        return clip_id

    def table(self) -> pa.Table:
        """Return all rows, sorted by video_id and clip_id."""
        schema = PLAN
        if any("start" in row for row in self._rows):
            schema = pa.schema([*PLAN, *SEGMENT])
        return pa.Table.from_pylist(sorted(self._rows, key=lambda r: (r["video_id"], r["clip_id"])), schema=schema)


def _segment(example: Example) -> dict[str, float | None]:
    """Return the columns `SEGMENT` of a row; none for a whole file."""
    return {} if example.segment is None else {"start": example.segment.start, "end": example.segment.end}
