"""What tracked videos could give: which concepts a span shows, and whether a video has a span at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.motion import matches
from vtcav_ray.clips.spans import Span, iter_tracks, part_in, usable_spans
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


def fits(span: Span, concept: ConceptConfig) -> bool:
    """Return whether a span shows a concept."""
    return concept.object in (None, span.object) and matches(span.motion, concept.motion)


def proposals(spans: Iterable[Span]) -> list[tuple[str, str, str]]:
    """Return (name, object, direction) of the concepts that `concepts: auto` sees in some spans."""
    seen = sorted({(span.object, span.motion.direction) for span in spans})
    return [(f"{what} {direction}", what, direction) for what, direction in seen if direction in _AUTO_DIRECTIONS]


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
    offers: dict[str, Offer] = {}
    for video_id, spans in _spans(corpus, tracks, config):
        if config.concepts == "auto":
            names = frozenset(name for name, _, _ in proposals(spans))
        else:
            names = frozenset(c.name for c in config.tracked if any(fits(span, c) for span in spans))
        offers[video_id] = offers.get(video_id, Offer()) | Offer(names, True)
    return offers


def _spans(corpus: Corpus, tracks: pa.Table, config: ClipsConfig) -> Iterator[tuple[str, list[Span]]]:
    """Yield (source video, usable spans of one track)."""
    of_file, dropped = corpus.of_files(), Counter[str]()
    for track in iter_tracks(tracks):
        for example in of_file.get(track.video_id, ()):
            part = part_in(track, example)
            if part is not None and (spans := usable_spans(part, config, dropped)):
                yield example.video_id, spans
