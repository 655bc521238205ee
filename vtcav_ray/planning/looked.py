"""Predict how many videos `videos.enough` looks at, from the concepts that a sample of videos shows.

The prediction takes all labels in turn. If a concept belongs to some labels, the search finds it sooner, but its clips
may need candidates of more labels: the upper end allows for the most that are looked for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from vtcav_ray.clips.classes import plan_classes
from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.enough import MOST, RESERVED, with_margin
from vtcav_ray.clips.search import round_size
from vtcav_ray.config import Config


@dataclass(frozen=True)
class Shown:
    """What the videos of a sample show, after the quality filters.

    Attributes:
        videos: number of videos that could be read.
        concepts: concept -> number of videos that show it.
        moving: number of videos with any usable span.
    """

    videos: int = 0
    concepts: Mapping[str, int] | None = None
    moving: int = 0

    @classmethod
    def of(cls, videos: int, offers: Collection[Collection[str]]) -> Shown:
        """Count.

        Args:
            videos: number of videos that could be read.
            offers: the names of the concepts of each video with a usable span.
        """
        return cls(videos, Counter(name for names in offers for name in names), len(offers))


def looked_at(
    config: Config, videos: pa.Table, shown: Shown, known_classes: Sequence[str] | None
) -> tuple[float, float, float] | None:
    """Return (low, estimate, high) of the number of videos that are looked at; None: all of them.

    Args:
        config: of the run.
        videos: VIDEOS table of the corpus.
        shown: by a sample of it.
        known_classes: class names of the model; None: not known.
    """
    most, size = min(config.videos.limit or videos.num_rows, videos.num_rows), round_size(config)
    if not config.stops_at_enough or most <= size:
        return None
    corpus = Corpus.of(videos)
    classes = plan_classes(corpus.listed, config.clips, config.seed, known_classes)
    examples = sum(map(len, classes.examples.values()))
    of_label = Counter(classes.turn_of.get(unit, "") for unit in corpus.examples)
    largest = max(map(len, classes.examples.values()), default=0)
    # In turn, or, for a few classes of many labels, in the half of each round that is theirs.
    for_classes = min(sum(min(n, largest) for n in of_label.values()), 2 * examples)
    ends, several = [], len(of_label) > 1
    for end in (2, 1, 0):  # frequent concepts need the fewest videos
        rates = _rates(config, shown, end)
        candidates = with_margin(config.clips.per_concept) * (MOST if end == 0 and several else 1)
        concept = candidates / ((1 - RESERVED) * min(rates))
        random = with_margin(config.clips.random_pool) / (RESERVED * _share(shown.moving, shown.videos, end))
        room = max(len(rates) * config.clips.per_concept + config.clips.random_pool, 2 * config.clips.random_pool)
        needed = max(for_classes, examples + max(concept, random, room))
        ends.append(float(min(most, math.ceil(needed / size) * size)))
    return ends[0], ends[1], ends[2]


def _rates(config: Config, shown: Shown, end: int) -> list[float]:
    """Return the share of videos that show each concept; of `auto`, the most frequent ones."""
    counts = shown.concepts or {}
    if config.clips.concepts == "auto":
        found = sorted(counts.values(), reverse=True)[: config.clips.max_concepts]
        found += [0] * (config.clips.max_concepts - len(found))
    else:
        found = [counts.get(concept.name, 0) for concept in config.clips.tracked]
    return [_share(count, shown.videos, end) for count in found]


def _share(count: int, of: int, end: int) -> float:
    """Return the lower end, the estimate or the upper end (0, 1, 2) of a share: Jeffreys' interval of 95 %."""
    from scipy.stats import beta

    one, other = count + 0.5, of - count + 0.5
    return one / (one + other) if end == 1 else float(beta.ppf((0.025, 0.0, 0.975)[end], one, other))
