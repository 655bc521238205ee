"""Random sets with the labels of a concept's own videos: `clips.random_labels: matched`.

A concept's clips rarely come from all classes alike: most clips of a racket are tennis clips. Against random clips of
all classes its CAVs then learn the class as much as the concept. A matched set has as many videos of each label as the
concept has, so the label tells nothing about the side.

Legend: n_l and m_l: the concept's and the random source videos of label l.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vtcav_ray.cavs.sets import NullPairs, Profile, RandomSet, Rows, draw_sets

ByVideo = dict[str, Rows]
NO_LABEL = "no label"  # the label of videos without one
MAX_NAMES = 3


@dataclass(frozen=True)
class Matching:
    """What matched sets need: the label of each source video, and the seed of the draws."""

    label_of: Mapping[str, str]
    seed: int

    def of_label(self, by_video: Mapping[str, Rows], label: str) -> ByVideo:
        return {video: rows for video, rows in by_video.items() if self.label_of[video] == label}

    def counts(self, videos: Mapping[str, Rows]) -> Counter[str]:
        return Counter(self.label_of[video] for video in videos)


@dataclass(frozen=True)
class Mix:
    """What a set is made of.

    Attributes:
        profile: clips of each source video; in descending order, within each label.
        labels: the label of each of them, in order; empty: of any label.
    """

    profile: Profile
    labels: tuple[str, ...] = ()

    def parts(self) -> list[tuple[str, Profile]]:
        """Return the profile of each label; without labels one part, with an empty name."""
        if not self.labels:
            return [("", self.profile)]
        pairs = itertools.groupby(zip(self.labels, self.profile, strict=True), key=lambda pair: pair[0])
        return [(label, tuple(clips for _, clips in of)) for label, of in pairs]


def own_mix(own: Mapping[str, Rows], randoms: Mapping[str, Rows], matching: Matching | None) -> Mix:
    """Return the mix of a concept's random sets. Two of them have to fit beside each other in the random videos.

    Args:
        own, randoms: source video -> rows, of the concept and of the random clips of its kind.
        matching: None: of any label.
    """
    if matching is None:
        return Mix(profile_of(own, min(len(own), len(randoms) // 2)))
    there = matching.counts(randoms)
    parts = [
        (label, profile_of(matching.of_label(own, label), size))
        for label, count in sorted(matching.counts(own).items())
        if (size := min(count, there[label] // 2))
    ]
    return Mix(
        tuple(clips for _, profile in parts for clips in profile),
        tuple(label for label, profile in parts for _ in profile),
    )


def profile_of(by_video: Mapping[str, Rows], n: int) -> Profile:
    """Return the clips of each of n videos, in descending order: all videos, or n that represent all."""
    counts = sorted((len(rows) for rows in by_video.values()), reverse=True)
    return tuple(counts[i] for i in np.linspace(0, len(counts) - 1, n).round().astype(int))


def draw_mixed(
    by_video: ByVideo, mix: Mix, count: int, rng: np.random.Generator, matching: Matching | None
) -> list[RandomSet]:
    """Draw `count` sets with the labels of `mix`; see `draw_sets`."""
    if matching is None:
        return draw_sets(by_video, mix.profile, count, rng)
    of_labels = [draw_sets(matching.of_label(by_video, label), profile, count, rng) for label, profile in mix.parts()]
    return [[part for of_label in one for part in of_label] for one in zip(*of_labels, strict=True)]


class MixedPairs:
    """The pairs of R matched random sets: `NullPairs` label by label."""

    def __init__(
        self, by_video: ByVideo, mix: Mix, sets: Sequence[RandomSet], stream: tuple[int, ...], matching: Matching
    ) -> None:
        self._parts = []
        start = 0
        for number, (label, profile) in enumerate(mix.parts()):
            here = slice(start, start + len(profile))
            of_label = matching.of_label(by_video, label)
            self._parts.append(NullPairs(of_label, profile, [one[here] for one in sets], (*stream, number)))
            start += len(profile)

    def order(self) -> Iterator[tuple[int, int]]:
        """Return the pairs in the order of `NullPairs`."""
        return self._parts[0].order()

    def rows(self, i: int, j: int) -> tuple[Rows, Rows]:
        """Return the rows of set i, and of set j without the source videos of i. The same at each call."""
        both = [part.rows(i, j) for part in self._parts]
        return np.concatenate([left for left, _ in both]), np.concatenate([right for _, right in both])


def matched_rows(own: Mapping[str, Rows], randoms: Mapping[str, Rows], matching: Matching, name: str) -> Rows:
    """Return the random clips that a concept's effect is compared with: as many as its shares of labels allow.

    The largest t with t * n_l <= m_l for every label of both sides gives floor(t * n_l) videos of each, but with fewer
    random videos of a label than the concept has, all of them and n_l of the other labels.

    Args:
        own, randoms: source video -> rows.
        matching: of labels.
        name: of the concept; draws of different concepts differ.
    """
    wanted, there = matching.counts(own), matching.counts(randoms)
    both = [label for label in sorted(wanted) if there[label]]
    if not both:
        return np.zeros(0, np.int64)
    # In whole numbers: t = there / wanted of the scarcest label.
    scarce = min(both, key=lambda label: there[label] / wanted[label])
    rng = np.random.default_rng([matching.seed, *f"matched/{name}".encode()])
    rows: list[Rows] = []
    for label in both:
        most = max(wanted[label], wanted[label] * there[scarce] // wanted[scarce])
        of_label = matching.of_label(randoms, label)
        videos = list(of_label)
        rows += [of_label[videos[place]] for place in rng.permutation(len(videos))[: min(most, there[label])]]
    return np.sort(np.concatenate(rows))


def too_few(name: str, own: Mapping[str, Rows], randoms: Mapping[str, Rows], matching: Matching) -> str:
    """Return a warning about labels with fewer random videos than two matched sets take, or ""."""
    wanted, there = matching.counts(own), matching.counts(randoms)
    short = sorted((label for label in wanted if there[label] < 2 * wanted[label]), key=lambda one: (-wanted[one], one))
    if not short:
        return ""
    shown = "; ".join(f"{label}: {wanted[label]} of the concept, {there[label]} random" for label in short[:MAX_NAMES])
    more = f"; and {len(short) - MAX_NAMES} more" if len(short) > MAX_NAMES else ""
    return (
        f"{name}: too few random videos of {len(short)} of its {len(wanted)} labels ({shown}{more}). Its CAVs use half "
        "as many of the concept's videos of these labels as there are random ones. Twice as many random videos as the "
        "concept has would match all: raise clips.random_pool, or set clips.random_labels to any."
    )


def rows_of_videos(own: ByVideo, mix: Mix, matching: Matching | None, rng: np.random.Generator) -> Rows:
    """Return a concept's rows for one CAV: all of its videos, or as many of each label as `mix` has."""
    if matching is None:
        videos = list(own)
        return np.concatenate([own[videos[i]] for i in rng.permutation(len(own))[: len(mix.profile)]])
    rows: list[Rows] = []
    for label, profile in mix.parts():
        of_label = matching.of_label(own, label)
        videos = list(of_label)
        chosen = videos if len(profile) == len(videos) else [videos[i] for i in rng.permutation(len(videos))]
        rows += [of_label[video] for video in chosen[: len(profile)]]
    return np.concatenate(rows)
