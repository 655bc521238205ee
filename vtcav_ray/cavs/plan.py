"""The plan of the CAVs to train: every concept against R random sets, the null, and concepts against each other.

- A concept is compared with R random sets of its own kind (a still one with still ones: see `random/<kind>`), or of the
  random clips that it has for itself (`vtcav_ray.clips.pools`), with the same number of source videos, and of clips per
  video. A mean over more clips per video varies less, so sets with more of them would not be exchangeable with the
  concept, and the test would reject too often.
- A concept whose negatives are the partners of its own clips is compared with all of them, R times
  (`vtcav_ray.cavs.paired`).
- The null is these random sets against each other, every pair once, as the round-robin test of
  `vtcav_ray.tcav.significance` requires. All concepts of a kind and profile (clips of each video) share it.
- Relative CAVs: a concept against the rest of its kind (`groups`), and against the same name in another kind or its own
  motion control (`pairs`). Their R runs differ in the split and, for the rest, in the draw.

Source videos are drawn, not clips, so no video is on both sides.

A plan lists the CAVs. The rows of each are drawn on request, from a separate random stream. So the driver and the score
stage, which need no rows, and workers that train one block of many, do not draw them all: with R = 200 this took each
worker longer than training a block.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from vtcav_ray.cavs.jobs import CavJob as CavJob
from vtcav_ray.cavs.jobs import Pool as Pool
from vtcav_ray.cavs.jobs import Sides as Sides
from vtcav_ray.cavs.jobs import gather
from vtcav_ray.cavs.jobs import stream_of as stream_of
from vtcav_ray.cavs.mix import Matching, Mix, MixedPairs, draw_mixed, own_mix, profile_of, rows_of_videos, too_few
from vtcav_ray.cavs.paired import against_partners, common
from vtcav_ray.cavs.sets import NullPairs, RandomSet, Rows, rows_of
from vtcav_ray.clips.pools import RANDOM as RANDOM
from vtcav_ray.clips.pools import is_paired, pool_of
from vtcav_ray.registry import CONCEPT_KINDS

MOVING = ("dynamic", "context")  # groups of concept kinds
_FEW = 2  # minimum source videos of a CAV's side


@dataclass(frozen=True)
class CavPlan:
    """All CAVs of a layer, sorted by split (the same for each layer), and warnings about impossible ones."""

    jobs: list[CavJob]
    warnings: list[str] = field(default_factory=list)


def plan_cavs(pool: Pool, random_sets: int, relative: Sequence[str], seed: int) -> CavPlan:
    """Decide on every CAV of a layer.

    Args:
        pool: the clips, without their vectors: the plan is the same for every layer.
        random_sets: R.
        relative: `groups`, `pairs`, both or none.
        seed: of all draws. A concept's draws do not depend on the other concepts, except for `groups`.

    Returns:
        The plan. Concepts with fewer than two source videos, or with fewer than four random videos of their kind, are
        left out with a warning.
    """
    concepts = pool.rows("concept")
    kind_of = {n: k for s, n, k in zip(pool.set, pool.name, pool.kind, strict=True) if s == "concept"}
    randoms = pool.rows(RANDOM)
    jobs: list[CavJob] = []
    warnings: list[str] = []
    matching = pool.matching
    sets: dict[tuple[str, Mix], list[RandomSet]] = {}
    users: dict[tuple[str, Mix], list[str]] = {}
    usable: dict[str, dict[str, Rows]] = {}
    kinds: dict[str, str] = {}
    for name, by_video in concepts.items():
        kind = kind_of[name]
        pool_name = pool_of(name, kind, randoms)
        negatives = randoms.get(pool_name, {})
        if is_paired(pool_name):
            pairs_of = common(by_video, negatives)
            if len(pairs_of.own) < _FEW:
                warnings.append(
                    f"{name}: pairs of {len(pairs_of.own)} source videos; a CAV needs at least {_FEW}. It is left out."
                )
                continue
            usable[name] = by_video
            jobs += against_partners(name, kind, pool_name, pairs_of, random_sets, seed)
            continue
        mix = own_mix(by_video, negatives, matching)
        warnings += _short_of_videos(name, by_video, negatives, mix, matching)
        if len(mix.profile) < _FEW:
            continue
        usable[name] = by_video
        of = pool_name.removeprefix(f"{RANDOM}/")
        users.setdefault((of, mix), []).append(name)
        if (of, mix) not in sets:
            rng = _rng(seed, "sets", of, *mix.profile, *mix.labels)
            sets[of, mix] = draw_mixed(negatives, mix, random_sets, rng, matching)
            kinds[of] = kind
        own = _Own(by_video, mix, matching, _rng(seed, "own", name))
        jobs += _against_random(name, kind, of, own, sets[of, mix])
    for (of, mix), drawn in sorted(sets.items(), key=lambda one: (one[0][0], one[0][1].profile, one[0][1].labels)):
        jobs += _null(kinds[of], of, mix, randoms[f"{RANDOM}/{of}"], drawn, seed, matching)
    warnings += _overlapping(sets, randoms, random_sets, matching)
    warnings += _too_few_clips(sets, users)
    if "groups" in relative:
        for name in usable:
            rest = {o: v for o, v in usable.items() if o != name and kind_of[o] == kind_of[name]}
            jobs += _against_rest(name, kind_of[name], usable[name], rest, random_sets, seed)
    if "pairs" in relative:
        for name, other in pairs(sorted(usable)):
            jobs += _against_other(name, other, kind_of[name], usable, random_sets)
    return CavPlan(sorted(jobs, key=lambda job: job.split), warnings)


def _short_of_videos(
    name: str, own: dict[str, Rows], negatives: dict[str, Rows], mix: Mix, matching: Matching | None
) -> Iterator[str]:
    """Yield a warning if a concept's CAVs can't use all of its videos, or if it has none."""
    n = len(mix.profile)
    if n < _FEW:
        of = "of its kind" if matching is None else "of its kind and labels"
        yield (
            f"{name}: {len(own)} source videos and {len(negatives)} random ones {of}; a CAV needs at least 2 of the "
            "one and 4 of the other. It is left out."
        )
    elif matching is not None:
        yield from filter(None, [too_few(name, own, negatives, matching)])
    elif n < len(own):
        yield (
            f"{name}: only {len(negatives)} random videos of its kind, so each of its CAVs uses {n} of its "
            f"{len(own)} videos. {2 * len(own)} random videos or more would use all."
        )


def _overlapping(
    sets: dict[tuple[str, Mix], list[RandomSet]],
    randoms: dict[str, dict[str, Rows]],
    count: int,
    matching: Matching | None,
) -> Iterator[str]:
    """Yield warnings about random sets that overlap, by size and number of random videos."""
    overlapping: dict[tuple[int, int], list[str]] = {}
    for kind, mix in sorted(sets, key=lambda one: (one[0], one[1].profile, one[1].labels)):
        negatives = randoms[f"{RANDOM}/{kind}"]
        there = {"": len(negatives)} if matching is None else matching.counts(negatives)
        # The label that lasts for the fewest sets.
        label, size = min(((label, len(part)) for label, part in mix.parts()), key=lambda one: there[one[0]] / one[1])
        if there[label] < count * size:
            names = overlapping.setdefault((size, there[label]), [])
            name = f"{kind} of {label}" if label else kind
            names += [name] * (name not in names)
    for (size, videos), names in overlapping.items():
        yield (
            f"Random sets ({', '.join(names)}): {count} sets of {size} take {count * size} source videos to be "
            f"disjoint, and there are {videos}. They overlap, so p of the sign count is approximate."
        )


def _too_few_clips(
    sets: dict[tuple[str, Mix], list[RandomSet]], users: dict[tuple[str, Mix], list[str]]
) -> Iterator[str]:
    """Yield one warning per kind whose random sets have fewer clips per video than their concepts."""
    short: dict[str, list[str]] = {}
    for (kind, mix), drawn in sets.items():
        lacking = sum(len(rows) < clips for one in drawn for (_, rows), clips in zip(one, mix.profile, strict=True))
        if lacking:
            share = lacking / (len(drawn) * len(mix.profile))
            short.setdefault(kind, []).extend(f"{name} ({share:.0%} of the videos)" for name in users[kind, mix])
    for kind, names in short.items():
        yield (
            f"Random sets ({kind}): their videos have fewer clips than the concept's: {', '.join(names[:5])}"
            + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            + ". They vary more than the concept, so p of the sign count is too large there, not too small. Raise "
            "clips.random_pool, or set clips.quality.max_clips_per_video to 1."
        )


@dataclass(frozen=True)
class _Own:
    """A concept's source videos, and what each of its CAVs takes of them."""

    by_video: dict[str, Rows]
    mix: Mix
    matching: Matching | None
    rng: np.random.Generator

    def rows(self) -> Rows:
        """Return the rows of the next CAV: of all videos, or of as many as a random set has."""
        if len(self.mix.profile) == len(self.by_video):
            return gather(self.by_video, list(self.by_video))
        return rows_of_videos(self.by_video, self.mix, self.matching, self.rng)


def _against_random(name: str, kind: str, of: str, own: _Own, sets: list[RandomSet]) -> Iterator[CavJob]:
    """Yield a job for every random set. `of`: the pool's name after `random/`."""
    for run, drawn in enumerate(sets):
        yield CavJob(
            concept=name,
            against=RANDOM,
            negatives=f"{RANDOM}/{of}#{run}",
            kind=kind,
            pool=f"{RANDOM}/{of}",
            profile=own.mix.profile,
            run=run,
            split=0,
            is_null=False,
            rows=functools.partial(_against_set, own.rows(), drawn),
            labels=own.mix.labels,
        )


def _against_set(own: Rows, drawn: RandomSet) -> Sides:
    return Sides(own, rows_of(drawn))


def _null(
    kind: str,
    of: str,
    mix: Mix,
    negatives: dict[str, Rows],
    sets: list[RandomSet],
    seed: int,
    matching: Matching | None,
) -> Iterator[CavJob]:
    """Yield a job for every pair of sets once, in the order (0, 1), (0, 2), ..."""
    stream = stream_of(seed, "null", of, *mix.profile, *mix.labels)
    pairs: NullPairs | MixedPairs
    if matching is None:
        pairs = NullPairs(negatives, mix.profile, sets, stream)
    else:
        pairs = MixedPairs(negatives, mix, sets, stream, matching)
    for run, (i, j) in enumerate(pairs.order()):
        yield CavJob(
            concept=f"{RANDOM}/{of}#{i}",
            against=RANDOM,
            negatives=f"{RANDOM}/{of}#{j}",
            kind=kind,
            pool=f"{RANDOM}/{of}",
            profile=mix.profile,
            run=run,
            split=0,
            is_null=True,
            rows=functools.partial(_pair, pairs, i, j),
            labels=mix.labels,
        )


def _pair(pairs: NullPairs | MixedPairs, i: int, j: int) -> Sides:
    return Sides(*pairs.rows(i, j))


def _against_rest(
    name: str, kind: str, own: dict[str, Rows], rest: dict[str, dict[str, Rows]], random_sets: int, seed: int
) -> Iterator[CavJob]:
    """Yield R draws from the other concepts of the kind, evenly, without the concept's own videos."""
    others = {other: [v for v in rest[other] if v not in own] for other in sorted(rest)}
    if min(len(own), len({v for videos in others.values() for v in videos})) < 2:
        return
    stream = stream_of(seed, "rest", name)
    for run in range(random_sets):
        yield CavJob(
            concept=name,
            against=f"rest of {kind}",
            negatives=f"rest of {kind}#{run}",
            kind=kind,
            profile=profile_of(own, len(own)),
            run=run,
            split=0,
            is_null=False,
            rows=functools.partial(_own_against_rest, own, others, rest, (*stream, run)),
        )


def _own_against_rest(
    own: dict[str, Rows], videos: dict[str, list[str]], rest: dict[str, dict[str, Rows]], stream: tuple[int, ...]
) -> Sides:
    """Deal as many videos as the concept has, from each other concept in turn, none twice."""
    rng = np.random.default_rng(stream)
    queues = [[(other, v) for v in rng.permutation(of)] for other, of in videos.items()]
    drawn: list[tuple[str, str]] = []
    taken: set[str] = set()
    while len(drawn) < len(own) and any(queues):
        for queue in queues:
            while queue and queue[-1][1] in taken:
                queue.pop()
            if queue and len(drawn) < len(own):
                drawn.append(queue.pop())
                taken.add(drawn[-1][1])
    return Sides(gather(own, list(own)), np.concatenate([rest[o][v] for o, v in drawn]))


def _against_other(
    name: str, other: str, kind: str, concepts: dict[str, dict[str, Rows]], random_sets: int
) -> Iterator[CavJob]:
    for run in range(random_sets):
        yield CavJob(
            concept=name,
            against=other,
            negatives=f"{other}#{run}",
            kind=kind,
            profile=profile_of(concepts[name], len(concepts[name])),
            run=run,
            split=run,
            is_null=False,
            rows=functools.partial(_all_of_both, concepts[name], concepts[other]),
        )


def _all_of_both(own: dict[str, Rows], other: dict[str, Rows]) -> Sides:
    return Sides(gather(own, list(own)), gather(other, list(other)))


def pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (moving, other) concepts of one name: moving against still, and against its own motion controls."""
    moving = {kind for kind in CONCEPT_KINDS if CONCEPT_KINDS[kind].group in MOVING}
    for name in names:
        base, kind = name.rsplit("/", 1)
        for other in names:
            other_base, other_kind = other.rsplit("/", 1)
            if base == other_base and kind in moving and other_kind not in moving:
                yield name, other


def _rng(seed: int, *words: object) -> np.random.Generator:
    """Return a separate generator for each purpose, so that an additional concept does not change the others' draws."""
    return np.random.default_rng([seed, *"/".join(map(str, words)).encode()])
