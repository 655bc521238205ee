"""CAVs of a concept whose negatives are the partners of its own clips, and their null.

Each of the R CAVs separates all clips from all partners. They differ in the split into a train and a held-out part;
both clips of a source video are in the same part.

The null. If the concept makes no difference, a clip and its partner can be swapped. So each of R null CAVs separates
the same clips after the two sides of every source video were swapped, or not, by a coin: the sides are of the same
size and of the same videos, and a score as extreme as the concept's is as rare among them as the test says. Random
sets of other videos would show how videos differ, which is much more, and something else.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from vtcav_ray.cavs.jobs import CavJob, Sides, gather, stream_of
from vtcav_ray.cavs.mix import profile_of
from vtcav_ray.cavs.sets import Rows
from vtcav_ray.clips.pools import RANDOM


class Paired(NamedTuple):
    """The rows of each source video on both sides."""

    own: dict[str, Rows]
    other: dict[str, Rows]


def common(own: Mapping[str, Rows], other: Mapping[str, Rows]) -> Paired:
    """Return the source videos that are on both sides."""
    videos = [video for video in own if video in other]
    return Paired({video: own[video] for video in videos}, {video: other[video] for video in videos})


def swapped(own: Mapping[str, Rows], other: Mapping[str, Rows], rng: np.random.Generator) -> Paired:
    """Swap the two sides of each source video that is on both, or not, by a coin."""
    left, right = dict(own), dict(other)
    twins = [video for video in left if video in right]
    for video, swap in zip(twins, rng.random(len(twins)) < 0.5, strict=True):
        if swap:
            left[video], right[video] = right[video], left[video]
    return Paired(left, right)


def against_partners(name: str, kind: str, pool: str, pairs: Paired, random_sets: int, seed: int) -> Iterator[CavJob]:
    """Yield R jobs of a concept against its partners, and R of their null.

    Args:
        name: of the concept, `<name>/<kind>`.
        kind: of its clips.
        pool: name of the partners.
        pairs: rows of both sides, of at least two source videos.
        random_sets: R.
        seed: of the run.
    """
    profile = profile_of(pairs.own, len(pairs.own))
    stream = stream_of(seed, "pairs", name)
    for run in range(random_sets):
        draws = (functools.partial(_all, pairs), functools.partial(_swapped, pairs, (*stream, run)))
        for is_null, rows in enumerate(draws):
            yield CavJob(
                concept=f"{pool}#{run}" if is_null else name,
                against=RANDOM,
                negatives=f"{pool}#{run}",
                kind=kind,
                pool=pool,
                profile=profile,
                run=run,
                split=run,
                is_null=bool(is_null),
                rows=rows,
            )


def _all(pairs: Paired) -> Sides:
    return Sides(gather(pairs.own, list(pairs.own)), gather(pairs.other, list(pairs.other)))


def _swapped(pairs: Paired, stream: tuple[int, ...]) -> Sides:
    return _all(swapped(*pairs, np.random.default_rng(stream)))
