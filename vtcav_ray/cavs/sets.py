"""The rows that a CAV is trained on: random sets by source video, null pairs, one concept against the rest, and pairs.

Legend: N rows of the pool, R random sets, n videos in a set.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.cavs.indices import PAD, check_groups

Rows = NDArray[np.int64]
Profile = tuple[int, ...]  # clips of each source video of a set, in descending order
RandomSet = list[tuple[str, Rows]]  # source videos, and the rows of each


@dataclass(frozen=True)
class RandomSets:
    """R sets of rows.

    Attributes:
        rows: R arrays of row indices.
        disjoint: no source video is in two sets. Results from overlapping sets are not independent, and the round-robin
            test is then not exact.
        missing_videos: number of additional source videos that would make them disjoint; 0 if they are.
        warning: the same in words, or empty.
    """

    rows: tuple[Rows, ...]
    disjoint: bool
    missing_videos: int
    warning: str


def random_sets(
    groups: ArrayLike,
    count: int,
    size: int,
    *,
    rows: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    profile: Sequence[int] | None = None,
    overlap: bool = False,
    seed: int = 0,
) -> RandomSets:
    """Draw R random sets, each of n clips from n source videos, no video in two sets.

    Args:
        groups: source video of each pool row, [N].
        count: R.
        size: n, source videos in each set.
        rows: the pool's rows that may be drawn (the random clips of the concept's kind); None: all.
        exclude: source videos that may not be drawn (the concept's own, the class's).
        profile: clips from each of the n videos, such as the concept's own counts, so that a set's mean varies as much
            as the concept's; None: one clip per video. Its length must be n. `deal` describes the case of too few
            clips.
        overlap: if there are too few videos, draw sets that share videos with each other (never within one), and say
            so in `warning`. Otherwise too few videos are an error.
        seed: of the draw.

    Raises:
        ValueError: too few source videos (the message has the number missing), or a malformed argument.
    """
    labels = np.asarray(groups)
    video_N = check_groups(labels, len(labels))
    if count < 1 or size < 1:
        raise ValueError(f"count and size must be at least 1, and are {count} and {size}")
    if profile is not None and (len(profile) != size or min(profile) < 1):
        raise ValueError(f"profile must hold {size} counts of at least 1, one per video, and holds {list(profile)}")
    usable = np.arange(len(labels)) if rows is None else np.asarray(rows, dtype=np.int64)
    if usable.size and (usable.min() < 0 or usable.max() >= len(labels)):
        raise ValueError(f"rows holds an index outside 0 to {len(labels) - 1}")
    if exclude is not None:
        usable = usable[~np.isin(labels[usable], np.asarray(exclude))]
    videos, starts = np.unique(np.sort(video_N[usable]), return_index=True)
    by_video = np.split(usable[np.argsort(video_N[usable], kind="stable")], starts[1:]) if usable.size else []
    missing = max(0, count * size - len(videos))
    text = (
        f"{count} disjoint random sets of {size} need {count * size} source videos, and there are {len(videos)}: "
        f"{missing} are missing"
    )
    if len(videos) < size:
        raise ValueError(f"{text}; not even one set can be drawn. Add random clips, or make the sets smaller")
    if missing and not overlap:
        raise ValueError(f"{text}. Add random clips, ask for {len(videos) // size} sets, or allow overlap")

    generator = np.random.default_rng(seed)
    drawn = deal(by_video, [1] * size if profile is None else profile, count, generator)
    out = [np.sort(np.concatenate([clips for _, clips in one])) for one in drawn]
    warning = f"{text}, so the sets overlap and are not independent" if missing else ""
    return RandomSets(tuple(out), missing == 0, missing, warning)


def deal(
    by_video: Sequence[Rows], profile: Sequence[int], count: int, generator: np.random.Generator
) -> list[list[tuple[int, Rows]]]:
    """Deal source videos into sets with the clips per video of `profile`.

    Videos are dealt like cards: no video twice until the deck is empty, then the deck is shuffled again. The largest
    counts choose first, among the videos with enough clips. If those run out, the videos with the most clips give all
    of theirs, and chance decides which sets get them. So all sets are draws from the same distribution.

    Args:
        by_video: the rows of each source video.
        profile: clips requested of each of a set's n videos, in any order; n is at most the number of videos.
        count: R, the number of sets.
        generator: of the draws.

    Returns:
        R sets of n (index into `by_video`, its rows), in descending order of the profile.
    """
    size = len(profile)
    sets: list[list[tuple[int, Rows]]] = []
    have = np.array([len(rows) for rows in by_video])
    wanted, slots = np.unique(np.asarray(profile), return_counts=True)
    while len(sets) < count:
        deck = generator.permutation(len(by_video))
        decked = min(count - len(sets), len(deck) // size)
        columns = []
        for clips, width in zip(wanted[::-1], slots[::-1], strict=True):
            need = decked * int(width)
            # Videos with enough clips first, then those with the most; the shuffle decides among equals.
            deck = deck[np.argsort(-np.minimum(have[deck], clips), kind="stable")]
            taken, deck = deck[:need], deck[need:]
            if have[taken].min() < clips:
                taken = generator.permutation(taken)
            columns.append(taken.reshape(decked, width))
        counts = np.repeat(wanted[::-1], slots[::-1])
        for videos in np.concatenate(columns, axis=1):
            sets.append(
                [(int(v), some_of(by_video[v], int(c), generator)) for v, c in zip(videos, counts, strict=True)]
            )
    return sets


def draw_sets(
    by_video: dict[str, Rows], profile: Profile, count: int, generator: np.random.Generator
) -> list[RandomSet]:
    """Run `deal` by the names of source videos."""
    videos = list(by_video)
    dealt = deal([by_video[v] for v in videos], profile, count, generator)
    return [[(videos[place], rows) for place, rows in one] for one in dealt]


def rows_of(drawn: RandomSet) -> Rows:
    """Return all rows of a set, [n]."""
    return np.concatenate([rows for _, rows in drawn])


def some_of(rows: Rows, count: int, generator: np.random.Generator) -> Rows:
    """Return `count` of the rows at random, in their order; all of them if there are no more."""
    return rows if len(rows) <= count else np.sort(generator.choice(rows, size=count, replace=False))


def against_each(concept: ArrayLike, sets: Sequence[ArrayLike]) -> tuple[Rows, Rows]:
    """Return positives [R, n] and negatives [R, m] of one concept against each of R random sets."""
    own = np.asarray(concept, dtype=np.int64)
    return np.tile(own, (len(sets), 1)), _stack(sets)


def random_against_random(sets: Sequence[ArrayLike]) -> tuple[Rows, Rows]:
    """Return positives, negatives [P, n] of the pairs (i, j), i < j, of R random sets, ordered as `tcav.null_pairs`.

    Each pair occurs once: the other order gives the same plane, not another measurement.
    """
    table = _stack(sets)
    if len(table) < 2:
        raise ValueError("sets holds fewer than two random sets: the null needs at least one pair")
    first, second = np.triu_indices(len(table), 1)
    return table[first], table[second]


def against_rest(concepts: Sequence[ArrayLike]) -> tuple[Rows, Rows]:
    """Return positives, negatives (padded with -1) of J concepts, each against all the others: relative CAVs.

    Rows of other concepts that also belong to a concept are left out of its negatives.
    """
    sets = [np.asarray(one, dtype=np.int64) for one in concepts]
    if len(sets) < 2:
        raise ValueError("concepts must hold at least two: a single concept has no others to compare with")
    rest = []
    for j, own in enumerate(sets):
        others = np.unique(np.concatenate([one for i, one in enumerate(sets) if i != j]))
        rest.append(others[~np.isin(others, own)])
    return _stack(sets), _stack(rest)


def against_pairs(concepts: Sequence[ArrayLike], pairs: Sequence[tuple[int, int]]) -> tuple[Rows, Rows]:
    """Return positives, negatives of pairs (i against j) of concepts, such as dynamic against static: relative CAVs."""
    sets = [np.asarray(one, dtype=np.int64) for one in concepts]
    for i, j in pairs:
        if i == j or not (0 <= i < len(sets) and 0 <= j < len(sets)):
            raise ValueError(f"pairs holds ({i}, {j}); it needs two different concepts of 0 to {len(sets) - 1}")
    return _stack([sets[i] for i, _ in pairs]), _stack([sets[j] for _, j in pairs])


def _stack(sets: Sequence[ArrayLike]) -> Rows:
    parts = [np.asarray(one, dtype=np.int64) for one in sets]
    out = np.full((len(parts), max((len(part) for part in parts), default=0)), PAD, dtype=np.int64)
    for place, part in enumerate(parts):
        out[place, : len(part)] = part
    return out


class NullPairs:
    """The pairs of R random sets of one kind and profile, their rows drawn on request.

    R random sets make R (R - 1) / 2 pairs: 19,900 at R = 200. If the pool is too small for disjoint sets, a video that
    both sets of a pair contain is replaced on the second side, by a draw specific to the pair.

    Args:
        by_video: source video -> its rows: the pool that the sets were drawn from.
        profile: clips of each source video of a set, in descending order.
        sets: the R sets.
        stream: start of the seed of every pair's draws.
    """

    def __init__(
        self, by_video: dict[str, Rows], profile: Profile, sets: Sequence[RandomSet], stream: tuple[int, ...]
    ) -> None:
        self._by_video = by_video
        self._profile = profile
        self._sets = sets
        self._stream = stream
        self._videos = list(by_video)
        place = {video: p for p, video in enumerate(self._videos)}
        self._places = [np.array([place[video] for video, _ in one]) for one in sets]

    def order(self) -> Iterator[tuple[int, int]]:
        """Return (0, 1), (0, 2), ..., the order of the round-robin test in `vtcav_ray.tcav.significance`."""
        return itertools.combinations(range(len(self._sets)), 2)

    def rows(self, i: int, j: int) -> tuple[Rows, Rows]:
        """Return the rows of set i, and of set j without the source videos of i. The same at each call."""
        in_first = np.zeros(len(self._videos), bool)
        in_first[self._places[i]] = True
        shared = in_first[self._places[j]]
        second = self._sets[j]
        if shared.any():
            second = [part for part, also in zip(second, shared, strict=True) if not also]
            free = ~in_first
            free[self._places[j]] = False
            second += self._replace(shared, np.flatnonzero(free), np.random.default_rng((*self._stream, i, j)))
        return rows_of(self._sets[i]), rows_of(second)

    def _replace(self, shared: np.ndarray, spare: np.ndarray, rng: np.random.Generator) -> RandomSet:
        asked = tuple(clips for clips, also in zip(self._profile, shared, strict=True) if also)
        if max(asked) > 1:
            videos = [self._videos[p] for p in spare]
            return draw_sets({v: self._by_video[v] for v in videos}, asked, 1, rng)[0]
        # Most pools have one clip per video. Dealing them one at a time would take longer than training the CAV.
        drawn = [self._videos[p] for p in rng.permutation(spare)[: len(asked)]]
        return [(video, some_of(self._by_video[video], 1, rng)) for video in drawn]
