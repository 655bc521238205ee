"""The candidates for a set: a bounded number of videos, with their spans.

So memory does not grow with the number of tracks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.spans import Span


@dataclass
class Candidates:
    """Spans by video for one concept, or for one class's random clips: a bounded number, those of the lowest hashes.

    Attributes:
        capacity: number of videos that are kept for sure. Up to twice as many are held.
        available: number of videos that were offered.
        bound: a video with a higher hash is not among the candidates.
    """

    capacity: int
    role: str
    seed: int
    available: int = 0
    kept: dict[str, tuple[float, list[Span]]] = field(default_factory=dict)
    bound: float = 1.0

    def add(self, video_id: str, spans: Callable[[], list[Span]]) -> None:
        """Offer a video. Offer each video only once.

        Args:
            spans: returns its spans; called only if the video becomes a candidate.
        """
        self.available += 1
        hash_ = draw(self.seed, self.role, video_id)
        if hash_ > self.bound:
            return
        self.kept[video_id] = (hash_, spans())
        if len(self.kept) > 2 * self.capacity:
            best = sorted(self.kept.items(), key=lambda item: item[1][0])[: self.capacity]
            self.kept = dict(best)
            self.bound = best[-1][1][0] if best else 0.0


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
