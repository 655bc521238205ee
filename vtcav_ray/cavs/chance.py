"""The held-out accuracy that chance alone gives: what a concept's CAVs have to exceed to be learnable.

A permutation test. If the concept's clips are nothing but random clips, its source videos are exchangeable with the
other side's. So the videos of both sides are pooled and divided at random, DRAWS times: as many videos as the concept
has stand in for it, and they are trained against random sets of the REST of the videos. No stand-in shares a video with
its random sets, and the concept's own figure is computed in exactly the same way. Under the null its rank among the
stand-ins' is therefore uniform, up to ties, whatever the sets of different draws share:

    p = (1 + #{stand-ins at least as accurate}) / (DRAWS + 1)

A threshold from the random sets of the CAVs' own null would not hold its level. A pool of m videos has only m / n
disjoint sets of n, and R sets that overlap are as good as m / n independent ones, so their 95th percentile is about
their largest value. m / n disjoint sets alone would hold the level, but give no p below 1 / (m / n + 1): 19 n random
videos for 5 %. Stand-ins need no more than the videos that are there.

Where random sets match the concept's labels, videos are divided within each label.

Against its own twins (motion controls, or the negatives of `pairs: by_name`), the clip and the twin of a video are
swapped instead, or not, by a coin.

A few videos allow few divisions, and 2^U swaps of U videos. The observed one is then among the draws, with an accuracy
like the concept's own. So p can't become small, and the concept is not learnable.

Legend: D draws, the observed one first; R runs (CAVs) of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.cavs.jobs import CavJob, Pool, Sides, stream_of
from vtcav_ray.cavs.mix import Matching
from vtcav_ray.cavs.paired import common, swapped
from vtcav_ray.cavs.sets import Profile, Rows, draw_sets, rows_of
from vtcav_ray.clips.pools import RANDOM, is_paired

DRAWS = 39  # with the observed one 40: the largest two are 5 %
RUNS = 10  # CAVs of each draw, averaged
CAVS = (DRAWS + 1) * RUNS  # of a comparison; their vectors are not stored

ByVideo = Mapping[str, Rows]


class Part(NamedTuple):
    """Source videos that may stand in for each other: the concept's, the other side's, and a set's clips per video."""

    own: ByVideo
    other: ByVideo
    profile: Profile


@dataclass(frozen=True)
class Comparison:
    """A concept and its other side.

    Attributes:
        concept, against: as in the table `cavs`.
        parts: of its videos; divided separately.
        paired: the other side has a twin of each clip, of the same source video.
    """

    concept: str
    against: str
    parts: tuple[Part, ...]
    paired: bool

    def draws(self, seed: int, draws: int = DRAWS, runs: int = RUNS) -> Draws:
        """Draw the rows of (draws + 1) * runs CAVs; the first draw is the observed one."""
        rng = np.random.default_rng(stream_of(seed, "chance", self.concept, self.against))
        drawn: list[list[Sides]] = []
        for draw in range(draws + 1):
            now = list(self.parts)
            if draw:
                now = [
                    part._replace(**swapped(part.own, part.other, rng)._asdict())
                    if self.paired
                    else _divided(part, rng)
                    for part in now
                ]
            drawn.append([_both(now)] * runs if self.paired else list(_runs(now, runs, rng)))
        # Runs that share all their rows differ in the split. CAVs of one split are trained together.
        sides = [of_draw[run] for run in range(runs) for of_draw in drawn]
        return Draws(sides, [run * self.paired for run in range(runs) for _ in drawn], draws + 1)


class Draws(NamedTuple):
    """The CAVs of all draws, run by run: their rows, and the number to add to the seed of each split."""

    sides: list[Sides]
    splits: list[int]
    draws: int

    def means(self, accuracies: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the mean accuracy of each draw over its runs, [D], from those of the CAVs; NaN: none was trained."""
        table = np.asarray(accuracies, dtype=np.float64).reshape(-1, self.draws)
        known = np.isfinite(table)
        with np.errstate(invalid="ignore"):
            return np.where(known, table, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def comparisons(pool: Pool, jobs: Sequence[CavJob]) -> list[Comparison]:
    """Return every (concept, against) of a plan, in the order of their first job."""
    concepts, randoms = pool.rows("concept"), pool.rows(RANDOM)
    found: dict[tuple[str, str], Comparison] = {}
    members = {(job.concept, job.kind): None for job in jobs if not job.is_null}
    for job in jobs:
        if job.is_null or (job.concept, job.against) in found:
            continue
        own: ByVideo = concepts[job.concept]
        paired = job.against in concepts or is_paired(job.pool)
        other: ByVideo
        if job.against in concepts:
            other = concepts[job.against]
        elif paired:
            own, other = common(own, randoms[job.pool])
        elif job.against == RANDOM:
            other = randoms[job.pool]
        else:
            other = _rest(concepts, [name for name, kind in members if kind == job.kind and name != job.concept], own)
        parts = tuple(
            Part(_of_label(own, label, pool.matching), _of_label(other, label, pool.matching), profile)
            for label, profile in job.mix.parts()
        )
        found[job.concept, job.against] = Comparison(job.concept, job.against, parts, paired)
    return list(found.values())


def _of_label(by_video: ByVideo, label: str, matching: Matching | None) -> ByVideo:
    """Return the videos of a label; an empty one: all videos."""
    return matching.of_label(by_video, label) if matching is not None and label else by_video


def _rest(concepts: Mapping[str, ByVideo], names: Sequence[str], own: ByVideo) -> ByVideo:
    """Return the videos of the other concepts, without the concept's own."""
    rows: dict[str, list[Rows]] = {}
    for name in sorted(names):
        for video, of_video in concepts[name].items():
            if video not in own:
                rows.setdefault(video, []).append(of_video)
    return {video: np.concatenate(parts) for video, parts in rows.items()}


def _divided(part: Part, rng: np.random.Generator) -> Part:
    """Divide the videos of both sides at random, as many to each as before."""
    both = {**part.own, **part.other}
    videos = [list(both)[place] for place in rng.permutation(len(both))]
    own, other = videos[: len(part.own)], videos[len(part.own) :]
    return Part({v: both[v] for v in own}, {v: both[v] for v in other}, part.profile)


def _runs(parts: Sequence[Part], runs: int, rng: np.random.Generator) -> Iterator[Sides]:
    """Yield for each run the concept's rows, and those of a random set of equally many videos, as far as there are."""
    own = [draw_sets(dict(part.own), _at_most(part.profile, len(part.own)), runs, rng) for part in parts]
    other = [draw_sets(dict(part.other), _at_most(part.profile, len(part.other)), runs, rng) for part in parts]
    for run in range(runs):
        yield Sides(*(np.concatenate([rows_of(sets[run]) for sets in side]) for side in (own, other)))


def _at_most(profile: Profile, videos: int) -> Profile:
    """Return the clips per video of at most `videos` videos, evenly chosen."""
    if len(profile) <= videos:
        return profile
    return tuple(profile[i] for i in np.linspace(0, len(profile) - 1, videos).round().astype(int))


def _both(parts: Sequence[Part]) -> Sides:
    own = [rows for part in parts for rows in part.own.values()]
    other = [rows for part in parts for rows in part.other.values()]
    return Sides(np.concatenate(own), np.concatenate(other))
