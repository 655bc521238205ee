"""What tracked videos could give: which concepts a span shows, and whether a video has a span at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.motion import matches
from vtcav_ray.clips.span_filters import usable_spans_by_video
from vtcav_ray.clips.spans import Spans, iter_tracks, part_in
from vtcav_ray.config import ClipsConfig, ConceptConfig, MotionConfig

_AUTO_DIRECTIONS = ("up", "down", "left", "right", "towards", "away", "still")


@dataclass(frozen=True)
class Offer:
    """What one source video offers: the names of concepts, and whether any span passes the quality filters."""

    concepts: frozenset[str] = frozenset()
    moving: bool = False

    def __or__(self, other: Offer) -> Offer:
        return Offer(self.concepts | other.concepts, self.moving or other.moving)


def reserved_videos(videos: pa.Table) -> set[str]:
    """Return the source videos that are kept for random clips (`vtcav_ray.clips.enough`); none in most runs."""
    if "reserved" not in videos.column_names:
        return set()
    rows = videos.filter(videos["reserved"]).to_pylist()
    return {row.get("source") or row["video_id"] for row in rows}


def fitting(spans: Spans, concept: ConceptConfig) -> list[int]:
    """Return the places of the spans that show a concept."""
    what, motion = concept.object, concept.motion
    pairs = enumerate(zip(spans.objects, spans.motions, strict=True))
    return [i for i, (shown, moved) in pairs if what in (None, shown) and matches(moved, motion)]


def proposals(seen: set[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return (name, object, direction) of the concepts that `concepts: auto` sees in spans.

    Args:
        seen: (object, direction) of the spans.
    """
    return [
        (f"{what} {direction}", what, direction) for what, direction in sorted(seen) if direction in _AUTO_DIRECTIONS
    ]


def proposed(name: str, what: str, direction: str) -> ConceptConfig:
    """Return the concept of a proposal."""
    return ConceptConfig.model_construct(
        name=name,
        object=what,
        motion=MotionConfig(direction=direction),  # type: ignore[arg-type]
        kinds=("spatial", "spatiotemporal"),
        controls=() if direction == "still" else None,  # nothing moves that a control could stop
    )


def offers_of(corpus: Corpus, tracks: pa.Table, config: ClipsConfig) -> dict[str, Offer]:
    """Return the offer of each source video that has a usable span.

    Args:
        corpus: the videos that the tracks are of.
        tracks: a TRACKS table, which may have the column of `vtcav_ray.clips.spans.with_times`.
        config: its quality filters and concepts.
    """
    of_file = corpus.of_files()
    parts = [
        (part, example)
        for track in iter_tracks(tracks)
        for example in of_file.get(track.video_id, ())
        if (part := part_in(track, example)) is not None
    ]
    return {
        video_id: Offer(_concepts(spans, config), moving=True)
        for video_id, spans in usable_spans_by_video(parts, config, Counter()).items()
    }


def _concepts(spans: Spans, config: ClipsConfig) -> frozenset[str]:
    if config.concepts == "auto":
        return frozenset(name for name, _, _ in proposals(spans.shown))
    return frozenset(concept.name for concept in config.tracked if fitting(spans, concept))
