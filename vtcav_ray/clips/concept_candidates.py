"""The concepts of a plan, and the candidates for each, collected from one video after the other."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from vtcav_ray.clips.candidates import FACTOR, Candidates, clearest
from vtcav_ray.clips.offers import fitting, proposals, proposed
from vtcav_ray.clips.spans import Span, Spans
from vtcav_ray.config import ClipsConfig, ConceptConfig


class ConceptCandidates:
    """Concepts by name, and their candidates. With `concepts: auto`, videos add concepts.

    Args:
        dropped: tracks that are unused because their video shows a concept more often than `max_clips_per_video`.
    """

    def __init__(self, config: ClipsConfig, seed: int, dropped: Counter[str]) -> None:
        self.concepts: dict[str, ConceptConfig] = {}
        self.candidates: dict[str, Candidates] = {}
        self._config, self._seed, self._dropped = config, seed, dropped
        # By the object and direction that they need: most concepts need others than a video has.
        self._by_need = defaultdict[tuple[str | None, str | None], list[str]](list)
        for concept in config.tracked:
            self._add(concept.name, concept)

    def offer(self, video_id: str, spans: Spans) -> None:
        """Offer the spans of a source video to all concepts. Offer each video only once."""
        limit, seen = self._config.quality.max_clips_per_video, spans.shown
        if self._config.concepts == "auto":
            for name, *shown in proposals(seen):
                if name not in self.concepts:
                    self._add(name, proposed(name, *shown))
        for name in self._possible(seen):
            fit = fitting(spans, self.concepts[name])
            if fit:
                self._dropped["clips_per_video"] += max(len({spans.track_ids[i] for i in fit}) - limit, 0)
                moving = _direction(self.concepts[name]) is not None
                self.candidates[name].add(video_id, functools.partial(_clearest, spans, fit, moving, limit))

    def _add(self, name: str, concept: ConceptConfig) -> None:
        self.concepts[name] = concept
        self.candidates[name] = Candidates(FACTOR * self._config.per_concept, f"concept/{name}", self._seed)
        self._by_need[concept.object, _direction(concept)].append(name)

    def _possible(self, seen: Iterable[tuple[str, str]]) -> list[str]:
        """Return the concepts whose object and direction are among some pairs."""
        needs = {need for what, way in seen for need in ((what, way), (what, None), (None, way), (None, None))}
        return [name for need in needs if need in self._by_need for name in self._by_need[need]]


def _direction(concept: ConceptConfig) -> str | None:
    return None if concept.motion is None else concept.motion.direction


def _clearest(spans: Spans, places: Sequence[int], moving: bool, limit: int) -> list[Span]:
    return clearest(spans.at(places), moving, limit)
