"""The directions of a concept and of chance in a layer's channels.

    direction = mean of the concept's source videos - mean of the other side's

in P-space. A map needs ONE direction per place: the same channels at every place. The projections `mean`, `moving` and
`still` give one for the whole clip, `time` gives one for each step. `space`, `flat` and `grid:n` give another direction
at each place, so values of two places would not be comparable. `sketch:k` mixes places and channels. For these, a map
is not defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.tcav.arrays import video_means

WHOLE_CLIP = ("mean", "moving", "still")
EACH_STEP = ("time",)
DEFINED = (*WHOLE_CLIP, *EACH_STEP)


@dataclass(frozen=True)
class Directions:
    """The directions of one comparison at one layer, in P-space.

    Attributes:
        concept_d: concept minus other side; unit length.
        random_Rd: halves of the other side's source videos minus the other halves; unit length.
        base_d: mean of the other side's source videos. Maps are 0 where the activation is equal to it.
    """

    concept_d: NDArray[np.float32]
    random_Rd: NDArray[np.float32]
    base_d: NDArray[np.float32]


def directions(
    own_nd: NDArray[np.float32],
    own_videos: Sequence[str],
    other_md: NDArray[np.float32],
    other_videos: Sequence[str],
    *,
    count: int,
    seed: int,
) -> Directions:
    """Return the direction of a concept, and `count` directions of chance.

    Args:
        own_nd, own_videos: the concept's vectors, and the source video of each.
        other_md, other_videos: the same of the other side.
        count: R.
        seed: of the halves.

    Raises:
        ValueError: the sides are equal, or the other side has fewer than two source videos.
    """
    own, other = video_means(own_nd, own_videos), video_means(other_md, other_videos)
    if len(other) < 2:
        raise ValueError("the other side has a single source video, so it has no halves to compare")
    stream = np.random.RandomState(seed % 2**32)
    half = len(other) // 2
    random_Rd = np.stack([_between(other, stream.permutation(len(other)), half) for _ in range(count)])
    base = other.mean(axis=0)
    return Directions(_unit(own.mean(axis=0) - base), _unit(random_Rd), base.astype(np.float32))


def _between(rows_nd: NDArray[np.float64], order: NDArray[np.int64], half: int) -> NDArray[np.float64]:
    return np.asarray(rows_nd[order[:half]].mean(axis=0) - rows_nd[order[half:]].mean(axis=0))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (length > 0).all():
        raise ValueError("the two sides have equal means, so there is no direction between them")
    return np.asarray(vectors / length, dtype=np.float32)


def on_channels(vectors_Nd: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Return vectors of a projection in `DEFINED` as `[N, 1 or T', C]`: one direction per step, or one for all.

    Args:
        vectors_Nd: `[N, C]`, or `[N, T'·C]` of the projection `time`.
        channels: C.
    """
    return vectors_Nd.reshape(len(vectors_Nd), -1, channels)
