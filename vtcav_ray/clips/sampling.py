"""Candidate spans for a set, in memory that does not grow with the number of tracks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.spans import Span


@dataclass
class Candidates:
    """Spans by video for one concept, or for one class's random clips: a bounded number, those of the lowest hashes."""

    capacity: int
    role: str
    seed: int
    available: int = 0
    kept: dict[str, tuple[float, list[Span]]] = field(default_factory=dict)

    def add(self, video_id: str, spans: list[Span]) -> None:
        """Offer a video. Offer each video only once."""
        self.available += 1
        self.kept[video_id] = (draw(self.seed, self.role, video_id), spans)
        if len(self.kept) > 2 * self.capacity:
            best = sorted(self.kept.items(), key=lambda item: item[1][0])[: self.capacity]
            self.kept = dict(best)


def one_a_track(spans: list[Span]) -> list[Span]:
    """Return the first span of each track, in order."""
    first: dict[int, Span] = {}
    for span in spans:
        first.setdefault(span.track_id, span)
    return list(first.values())


def different(spans: list[Span]) -> list[Span]:
    """Drop spans that overlap another of their track; order the rest: one of each track, then a second, and so on."""
    rounds: list[tuple[int, Span]] = []
    by_track: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        mine = by_track[span.track_id]
        if all(span.frames[0] > o.frames[-1] or span.frames[-1] < o.frames[0] for o in mine):
            rounds.append((len(mine), span))
            mine.append(span)
    return [span for _, span in sorted(rounds, key=lambda r: r[0])]
