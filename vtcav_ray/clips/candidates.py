"""The candidates for a set: a bounded number of videos, with their spans.

So memory does not grow with the number of tracks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.spans import Span

FACTOR = 4  # times the clips that are wanted: candidates that a plan keeps


@dataclass
class Candidates:
    """Spans by video for one concept, or for one class's random clips: a bounded number, those of the lowest hashes.

    Attributes:
        capacity: number of videos that are kept for sure. Up to twice as many are held.
        available: number of videos that were offered.
    """

    capacity: int
    role: str
    seed: int
    available: int = 0
    _held: dict[str, tuple[float, Callable[[], list[Span]] | list[Span]]] = field(default_factory=dict)

    def add(self, video_id: str, spans: Callable[[], list[Span]], hash_: float | None = None) -> None:
        """Offer a video. Offer each video only once.

        Args:
            video_id: of the video.
            spans: returns its spans; called only for the videos that are kept.
            hash_: `draw(seed, role, video_id)`, if it is known.
        """
        self.available += 1
        self._held[video_id] = (draw(self.seed, self.role, video_id) if hash_ is None else hash_, spans)
        if len(self._held) > 2 * self.capacity:
            best = sorted(self._held.items(), key=lambda item: item[1][0])[: self.capacity]
            # A list instead of the function, which may hold many more spans.
            self._held = {video: (hash_, _listed(spans)) for video, (hash_, spans) in best}

    @property
    def kept(self) -> dict[str, tuple[float, list[Span]]]:
        """The candidates: video -> its hash and spans."""
        return {video: (hash_, _listed(spans)) for video, (hash_, spans) in self._held.items()}


def _listed(spans: Callable[[], list[Span]] | list[Span]) -> list[Span]:
    return spans if isinstance(spans, list) else spans()


def clearest(spans: Sequence[Span], moving: bool, limit: int) -> list[Span]:
    """Return the span of each track that shows a concept best, for at most `limit` tracks, the best first."""
    order = sorted(spans, key=lambda s: (-(s.motion.clarity if moving else 1) * s.confidence, s.track_id, s.frames[0]))
    return one_a_track(order)[:limit]


def few_by_chance(spans: Sequence[Span], limit: int, seed: int, video_id: str) -> list[Span]:
    """Return at most `limit` spans of a video for random clips, drawn by hash, of as many tracks as possible."""
    return different(sorted(spans, key=lambda s: draw(seed, "span", video_id, s.track_id, s.frames[0])))[:limit]


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
