"""Random sets against each other: the rows of every pair, drawn on request.

R random sets make R (R - 1) / 2 pairs: 19,900 at R = 200. If the pool is too small for disjoint sets, a video that both
sets of a pair contain is replaced on the second side, by a draw specific to the pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from vtcav_ray.cavs.sets import Profile, RandomSet, Rows, draw_sets, rows_of, some_of


class NullPairs:
    """The pairs of R random sets of one kind and profile.

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
