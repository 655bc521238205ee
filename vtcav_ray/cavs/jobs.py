"""The CAVs of a plan and the clips that they are trained on, by name.

See `vtcav_ray.cavs.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from vtcav_ray.cavs.mix import Matching, Mix
from vtcav_ray.cavs.sets import Rows


class Sides(NamedTuple):
    """Rows of the pool that a CAV is trained on."""

    positive: Rows
    negative: Rows


@dataclass(frozen=True)
class CavJob:
    """One CAV to train.

    Attributes:
        concept: name of the positives, `<name>/<kind>`; for the null, a random set, `random/<kind>#<i>`.
        against: the other side of the comparison: `random`, `rest of <kind>`, or another concept's name.
        negatives: name of this run's negatives, `<against>#<run>`; random sets are `random/<kind>#<i>`.
        kind: of the positives.
        pool: name of the random clips that the concept is compared with. The null is made of them.
        profile: clips of each source video of the positives, in descending order. The null has to match it.
        run: number of this run, from 0; for the null, the number of its pair.
        split: added to the seed of the split. Only runs that share all their rows need different values.
        is_null: random against random.
        rows: draws the rows of the pool that the CAV is trained on; the same at each call.
        labels: of each source video of the positives, if the random sets match them; else empty.
    """

    concept: str
    against: str
    negatives: str
    kind: str
    profile: tuple[int, ...]
    run: int
    split: int
    is_null: bool
    rows: Callable[[], Sides] = field(repr=False, compare=False)
    labels: tuple[str, ...] = ()
    pool: str = ""

    @property
    def mix(self) -> Mix:
        """What the positives are made of. The null has to match it."""
        return Mix(self.profile, self.labels)

    @property
    def size(self) -> int:
        """Source videos of the positives."""
        return len(self.profile)


@dataclass(frozen=True)
class Pool:
    """The clips of a layer, one entry per row: set, name, kind, source video.

    `matching`: random sets have a concept's own labels (`clips.random_labels`); None: any.
    """

    set: Sequence[str]
    name: Sequence[str]
    kind: Sequence[str]
    video_id: Sequence[str]
    matching: Matching | None = None

    def rows(self, role: str) -> dict[str, dict[str, Rows]]:
        """Return name -> source video -> its rows, for the clips of one set."""
        found: dict[str, dict[str, list[int]]] = {}
        for i, (s, name, video) in enumerate(zip(self.set, self.name, self.video_id, strict=True)):
            if s == role:
                found.setdefault(name, {}).setdefault(video, []).append(i)
        return {n: {v: np.array(r) for v, r in sorted(by.items())} for n, by in sorted(found.items())}

    def learnable(self) -> Rows:
        """Return the rows that CAVs are trained on: all but the class examples."""
        return np.flatnonzero([role != "class" for role in self.set])


def gather(by_video: Mapping[str, Rows], videos: Sequence[str]) -> Rows:
    """Return the rows of some source videos, in their order."""
    return np.concatenate([by_video[v] for v in videos])


def stream_of(seed: int, *words: object) -> tuple[int, ...]:
    """Return the seed of a separate random stream as numbers.

    Thousands of streams each append one number, and hash no words.
    """
    entropy = np.random.SeedSequence([seed, *"/".join(map(str, words)).encode()])
    return tuple(int(word) for word in entropy.generate_state(4))
