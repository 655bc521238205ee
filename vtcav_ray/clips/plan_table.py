"""The plan's table: one row per clip to cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.corpus import Example
from vtcav_ray.clips.kinds import CONTROLLED, control_of_given
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
# Of the segment that a clip is cut from: seconds since the first frame. Both null: the whole file.
SEGMENT = pa.schema([("start", pa.float64()), ("end", pa.float64())])

# With own clips, whose files are not in the table `videos`.
GIVEN_PLAN = pa.schema(
    [
        *PLAN,
        ("given", pa.bool_()),
        *SEGMENT,
        ("size_bytes", pa.int64()),
        ("fingerprint", pa.string()),
    ]
)


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

    def add_given(
        self, set_: str, named: Callable[[str], str], kind: str, clip: Mapping[str, Any], controls: Sequence[str]
    ) -> None:
        """Add a row for an own clip, and one for each of its motion controls, which are cut from the same frames.

        Args:
            set_: concept or random.
            named: returns the name of a concept, or of a pool of random clips, of a kind.
            kind: given or still.
            clip: row of the table `given`.
            controls: motion controls, as a config names them.
        """
        about = {name: clip[name] for name in ("video_id", "uri", "label", "start", "end", "size_bytes", "fingerprint")}
        clip_id = None
        for of in (kind, *(control_of_given(control) for control in controls)):
            folder = named(of) if set_ == "random" else f"concept/{named(of)}/{of}"
            own = f"{folder}/{clip['clip']}"
            row = dict.fromkeys(PLAN.names) | about | {"set": set_, "name": named(of), "kind": of, "clip_id": own}
            seed = int(draw(self._seed, "cut", clip_id or own, kind) * 2**62)
            self._rows.append(row | {"control_of": clip_id, "pick": 0, "view": 0, "seed": seed, "given": True})
            clip_id = clip_id or own

    def add_from_corpus(
        self, named: Callable[[str], str], kind: str, example: Example, number: int, controls: Sequence[str]
    ) -> None:
        """Add a random clip of the corpus in full frame, and its motion controls, cut from the same frames.

        Args:
            named, kind, controls: as for `add_given`.
            example: the file or segment to cut from.
            number: which clip of its video.
        """
        clip_id = self.add("random", named(kind), kind, example, None, number=number)
        seed = self._rows[-1]["seed"]
        for control in controls:
            of = control_of_given(control)
            self.add("random", named(of), of, example, None, number=number, control_of=clip_id)
            self._rows[-1]["seed"] = seed

    def table(self) -> pa.Table:
        """Return all rows, sorted by video_id and clip_id.

        The schema is `PLAN`; with `SEGMENT` if some rows are cut from a segment; `GIVEN_PLAN` if some are own clips.
        """
        schema = PLAN
        if any("given" in row for row in self._rows):
            schema = GIVEN_PLAN
        elif any("start" in row for row in self._rows):
            schema = pa.schema([*PLAN, *SEGMENT])
        return pa.Table.from_pylist(sorted(self._rows, key=lambda r: (r["video_id"], r["clip_id"])), schema=schema)


def _segment(example: Example) -> dict[str, float | None]:
    """Return the columns `SEGMENT` of a row; none for a whole file."""
    return {} if example.segment is None else {"start": example.segment.start, "end": example.segment.end}
