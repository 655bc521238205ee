"""Which of a person's own clips are cut, for which concept, and what they are compared with.

Each concept's clips are drawn by a hash of the seed and their names: at most `clips.per_concept`, and at most
`clips.quality.max_clips_per_video` of one source video. A concept is compared with its own random clips (`negatives`);
with those of the random folders, if it comes from folders; or else with random clips of the corpus. Unless its clips
are parts of corpus videos, these show another footage, which a CAV may learn instead of the concept: such a concept is
marked everywhere. If clips and `negatives` are pairs, a concept is compared with the partners of its own clips.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.pairs import source_of_pairs
from vtcav_ray.clips.plan_table import PlanRows
from vtcav_ray.clips.pools import own_pool, pair_pool, shared_pool
from vtcav_ray.config import ClipsConfig
from vtcav_ray.config.clips import GIVEN

Clip = dict[str, Any]  # a row of the table `given`
FEW = 2  # minimum number of source videos for a concept to be possible


@dataclass
class GivenPlan:
    """The own clips to cut.

    Attributes:
        concepts: (concept, kind) -> its clips.
        negatives: (concept, kind) -> its own random clips; concept "": those of every concept.
        controls: concept -> its motion controls.
        warnings: sentences for the user.
        counts: concept/kind -> numbers of source videos and clips.
        of_corpus: concepts (and kinds) whose clips are all parts of corpus videos.
        in_pairs: concepts whose random clips are the partners of their clips.
        source_of: video -> the source video that it has in all clips, for videos of pairs.
    """

    concepts: dict[tuple[str, str], list[Clip]] = field(default_factory=dict)
    negatives: dict[tuple[str, str], list[Clip]] = field(default_factory=dict)
    controls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    of_corpus: set[tuple[str, str]] = field(default_factory=set)
    in_pairs: frozenset[str] = frozenset()
    source_of: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> set[str]:
        """Source videos of all these clips. Those in the corpus serve no other use."""
        every = (*self.concepts.values(), *self.negatives.values())
        found = {clip["video_id"] for clips in every for clip in clips}
        return found | {video for video, source in self.source_of.items() if source in found}

    def pool_of(self, concept: str, kind: str) -> str | None:
        """Return the concept whose random clips these are compared with, "" for shared ones; None: the corpus."""
        return next((of for of in (concept, "") if (of, kind) in self.negatives), None)

    def is_unmatched(self, concept: str, kind: str) -> bool:
        """Return whether a concept's clips are compared with other footage."""
        return self.pool_of(concept, kind) is None and (concept, kind) not in self.of_corpus

    @property
    def from_corpus(self) -> list[tuple[str | None, str, tuple[str, ...]]]:
        """(concept, kind, motion controls) of each pool of corpus clips; None: the one of all other own clips."""
        pools: dict[tuple[str | None, str], tuple[str, ...]] = {}
        for concept, kind in self.concepts:
            if self.pool_of(concept, kind) is None:
                key = (concept if (concept, kind) in self.of_corpus else None, kind)
                pools[key] = tuple(dict.fromkeys((*pools.get(key, ()), *self._controls(concept, kind))))
        return [(concept, kind, controls) for (concept, kind), controls in pools.items()]

    def _controls(self, concept: str, kind: str) -> tuple[str, ...]:
        return self.controls[concept] if kind == GIVEN else ()

    def add_to(self, rows: PlanRows) -> None:
        """Add a row for each clip, and for each of its motion controls."""
        for (concept, kind), clips in self.concepts.items():
            for clip in clips:
                rows.add_given(
                    "concept", functools.partial(_own_name, concept), kind, clip, self._controls(concept, kind)
                )
        for (concept, kind), clips in self.negatives.items():
            of = sorted(c for c, k in self.concepts if k == kind and self.pool_of(c, k) == concept)
            controls = tuple(dict.fromkeys(control for c in of for control in self._controls(c, kind)))
            own = pair_pool if concept in self.in_pairs else own_pool
            named = functools.partial(own, concept) if concept else shared_pool
            for clip in clips:
                rows.add_given("random", named, kind, clip, controls)


def plan_given(given: pa.Table, corpus: Container[str], config: ClipsConfig, seed: int) -> GivenPlan:
    """Choose the own clips to cut.

    Args:
        given: table `given`.
        corpus: ids of the corpus's source videos.
        config: section `clips`.
        seed: of the draws.
    """
    rows = given.to_pylist()
    plan = GivenPlan(in_pairs=config.in_pairs)
    plan.source_of = source_of_pairs(_pairs(rows, config), corpus)
    by_set: dict[tuple[bool, str, str], list[Clip]] = defaultdict(list)
    for row in rows:
        source = plan.source_of.get(row["video_id"], row["video_id"])
        by_set[row["negative"], row["concept"] or "", row["kind"]].append(row | {"video_id": source})
    listed = {concept.name: concept for concept in config.listed}
    chosen = {
        key: _drawn(clips, f"given/{key[1]}", config.random_pool if key[0] else config.per_concept, config, seed)
        for key, clips in sorted(by_set.items())
    }
    concepts = {(name, kind): clips for (negative, name, kind), clips in chosen.items() if not negative}
    enough = _enough(concepts, config, plan.warnings)
    for name, kind in enough:
        clips = concepts[name, kind]
        plan.concepts[name, kind] = clips
        plan.controls[name] = config.controls_of(listed.get(name))
        listed_clips = by_set[False, name, kind]
        if all(clip["video_id"] in corpus for clip in clips):
            plan.of_corpus.add((name, kind))
        plan.counts[f"{name}/{kind}"] = {
            "videos_available": _videos(listed_clips), "videos": _videos(clips), "clips": len(clips),
        }  # fmt: skip
        if (dropped := len(listed_clips) - len(clips)) and len(clips) < config.per_concept:
            plan.warnings.append(
                f"Own clips {name!r}: {dropped} of {len(listed_clips)} are not used, since only "
                f"{config.quality.max_clips_per_video} of one source video count "
                "(clips.quality.max_clips_per_video)."
            )
    for (negative, name, kind), clips in chosen.items():
        if negative and name in plan.in_pairs:
            own = {clip["clip"] for clip in plan.concepts.get((name, kind), ())}
            if own:
                plan.negatives[name, kind] = [c for c in by_set[True, name, kind] if c["clip"] in own]
        elif negative:
            _choose_negatives(plan, name, kind, clips)
    plan.warnings += [_unmatched(name, kind) for name, kind in plan.concepts if plan.is_unmatched(name, kind)]
    return plan


def _pairs(rows: Iterable[Clip], config: ClipsConfig) -> Iterable[tuple[str, str]]:
    """Yield the source videos of both clips of every pair, the concept's first."""
    own: dict[tuple[str, str], str] = {}
    partners: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["concept"] in config.in_pairs:
            side = partners if row["negative"] else own
            side[row["concept"], row["clip"]] = row["video_id"]
    return ((video, partners[clip]) for clip, video in own.items())


def _unmatched(name: str, kind: str) -> str:
    """Return the warning about a concept that is compared with other footage."""
    return (
        f"UNMATCHED: the random clips of {name!r} ({kind}) come from the corpus, and its own clips from elsewhere. Its "
        "effect may be that of the footage (camera, compression, size), not of the concept. Give it `negatives`: clips "
        "like its own, without the concept."
    )


def _choose_negatives(plan: GivenPlan, name: str, kind: str, clips: list[Clip]) -> None:
    """Take the random clips of a concept (or, with an empty name, of all) that are not of its own source videos."""
    users = [(c, k) for c, k in plan.concepts if k == kind and name in ("", c)]
    if not users:
        if name:
            others = [k for c, k in plan.concepts if c == name]
            if others:
                plan.warnings.append(
                    f"Random clips of {name!r}: {len(clips)} of kind {kind} are left out, since the concept's own are "
                    f"of kind {', '.join(others)} (videos are `given`, images `still`)."
                )
        return
    own = {clip["video_id"] for user in users for clip in plan.concepts[user]}
    kept = [clip for clip in clips if clip["video_id"] not in own]
    if len(kept) < len(clips):
        plan.warnings.append(
            f"Random clips of {_whose(name)}: {len(clips) - len(kept)} of {len(clips)} are left out, since "
            "their source videos are also those of a concept."
        )
    if _videos(kept) < 2 * FEW:
        plan.warnings.append(
            f"Random clips of {_whose(name)} ({kind}): {_videos(kept)} source videos are left, and at "
            f"least {2 * FEW} are needed, so they are not used."
        )
        return
    plan.negatives[name, kind] = kept
    largest = max(len(plan.concepts[user]) for user in users)
    if len(kept) < 10 * largest:
        plan.warnings.append(
            f"Random clips of {_whose(name)} ({kind}): there are {len(kept)}, and at least {10 * largest} "
            "are wanted (10 times the largest concept). With fewer, random sets share source videos."
        )


def _drawn(clips: Iterable[Clip], role: str, most: int, config: ClipsConfig, seed: int) -> list[Clip]:
    """Return at most `most` clips, one of each source video before a second of any."""
    by_video: dict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda c: (draw(seed, role, c["clip"]), c["clip"])):
        by_video[clip["video_id"]].append(clip)
    turns = range(config.quality.max_clips_per_video)
    order = [of[turn] for turn in turns for of in by_video.values() if turn < len(of)]
    return order[:most]


def _enough(
    concepts: dict[tuple[str, str], list[Clip]], config: ClipsConfig, warnings: list[str]
) -> list[tuple[str, str]]:
    """Return the concepts with enough source videos; if none has, those with at least a few."""
    enough = [key for key, clips in concepts.items() if _videos(clips) >= config.min_per_concept]
    least = config.min_per_concept
    if not enough:
        least = FEW
        enough = [key for key, clips in concepts.items() if _videos(clips) >= FEW]
        if enough:
            warnings.append(
                f"No concept of own clips has {config.min_per_concept} source videos (clips.min_per_concept). The "
                f"{len(enough)} with at least {FEW} are kept so that there is something to see; their figures will be "
                "weak."
            )
    warnings += [
        f"Concept {name!r} ({kind}) is left out: its clips are of {_videos(clips)} source videos, {least} are needed."
        for (name, kind), clips in concepts.items()
        if (name, kind) not in enough
    ]
    return enough


def _own_name(concept: str, kind: str) -> str:
    return concept


def _whose(name: str) -> str:
    return repr(name) if name else "all concepts"


def _videos(clips: Iterable[Clip]) -> int:
    return len({clip["video_id"] for clip in clips})
