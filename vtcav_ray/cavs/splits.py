"""Train and held-out parts by source video: no video is in both parts, and both classes are in each part.

Legend: M CAVs, n rows of one side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.cavs.indices import PAD

_BLOCK = 2048


def split(
    positives_MP: NDArray[np.int64],
    negatives_MQ: NDArray[np.int64],
    groups_N: NDArray[np.int64],
    *,
    held_out: float,
    seed: int,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Choose the held-out rows of each CAV.

    Every (CAV, video) pair gets a random key. Within a side, videos are held out in the order of their keys until the
    share of rows is as close to `held_out` as whole videos allow, with at least one video in each part of the split.
    Videos with rows in both classes of a CAV go to the same part in both, and are chosen first.

    The keys depend on the seed, the source videos of the CAV's rows and the video, not on the order of rows or on the
    rest of the pool. So neither the shards of a run nor further videos in it change a split. Swapping positives and
    negatives gives the same parts if no video is on both sides.

    Args:
        positives_MP, negatives_MQ: row indices, padded with -1.
        groups_N: source video of each pool row, as integers of at least 0 (`vtcav_ray.cavs.indices.hash_groups`).
        held_out: share of the rows of each side, in [0, 1). 0: nothing is held out.
        seed: of the random keys.

    Returns:
        `held_MP`, `held_MQ`: True where a row is held out. `possible_M`: False if a side has all its rows in one video,
        so that nothing can be held out; both masks are then all False.
    """
    held_positive = np.zeros(positives_MP.shape, dtype=bool)
    held_negative = np.zeros(negatives_MQ.shape, dtype=bool)
    possible = np.ones(len(positives_MP), dtype=bool)
    if held_out == 0:
        return held_positive, held_negative, possible
    for start in range(0, len(positives_MP), _BLOCK):
        block = slice(start, start + _BLOCK)
        held_positive[block], held_negative[block], possible[block] = _split_block(
            positives_MP[block], negatives_MQ[block], groups_N, held_out, seed
        )
    return held_positive, held_negative, possible


def _split_block(
    positives: NDArray[np.int64], negatives: NDArray[np.int64], groups_N: NDArray[np.int64], held_out: float, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    on_left, on_right = positives != PAD, negatives != PAD
    videos_left = np.where(on_left, groups_N[positives], PAD)
    videos_right = np.where(on_right, groups_N[negatives], PAD)
    with np.errstate(over="ignore"):
        both = _set_hash(videos_left, on_left) + _set_hash(videos_right, on_right)
    salt = both ^ _mix(np.uint64(seed & 0xFFFFFFFFFFFFFFFF))
    key_left = _keys(videos_left, salt)
    key_right = _keys(videos_right, salt)

    # Videos on both sides are chosen first: with two or more, at least one is held out and one is not, so both parts
    # have rows of both sides. The other videos fill the rest of their side's share.
    same = (videos_right[:, :, None] == videos_left[:, None, :]) & on_right[:, :, None]
    shared_left, shared_right = same.any(axis=1), same.any(axis=2)
    held_shared = _hold_shared(key_left, shared_left, on_left & ~shared_left, on_right & ~shared_right, held_out)
    held_left = _fill(key_left, on_left, shared_left, held_shared, held_out)
    held_right = _fill(key_right, on_right, shared_right, (same & held_shared[:, None, :]).any(axis=2), held_out)

    possible = (
        held_left.any(axis=1)
        & (on_left & ~held_left).any(axis=1)
        & held_right.any(axis=1)
        & (on_right & ~held_right).any(axis=1)
    )
    return held_left & possible[:, None], held_right & possible[:, None], possible


def _hold_shared(
    key: NDArray[np.uint64],
    shared: NDArray[np.bool_],
    own_left: NDArray[np.bool_],
    own_right: NDArray[np.bool_],
    held_out: float,
) -> NDArray[np.bool_]:
    """Return the rows of the left side to hold out, among videos on both sides."""
    lowest = np.where(shared, key, np.uint64(0xFFFFFFFFFFFFFFFF)).min(axis=1, initial=0xFFFFFFFFFFFFFFFF)
    single = shared.any(axis=1) & ~(shared & (key != lowest[:, None])).any(axis=1)
    held = _hold(key, shared, held_out * shared.sum(axis=1))
    # A single shared video goes to either part, by its key, if both sides have other videos for the other part.
    drawn = single & own_left.any(axis=1) & own_right.any(axis=1) & (lowest.astype(np.float64) / 2**63 < held_out)
    return np.where(single[:, None], shared & drawn[:, None], held)


def _fill(
    key: NDArray[np.uint64],
    on: NDArray[np.bool_],
    shared: NDArray[np.bool_],
    held_shared: NDArray[np.bool_],
    held_out: float,
) -> NDArray[np.bool_]:
    """Return the held-out rows of a side: the shared ones, and rows of its own videos for the rest of its share."""
    target = held_out * on.sum(axis=1) - held_shared.sum(axis=1)
    trained: NDArray[np.bool_] = np.any(shared & ~held_shared, axis=1)
    return held_shared | _hold(key, on & ~shared, target, keep_one=~trained)


def _hold(
    key: NDArray[np.uint64],
    usable: NDArray[np.bool_],
    target: NDArray[np.float64],
    keep_one: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Hold out whole videos (rows of equal key) in the order of the keys, up to about `target` rows per CAV."""
    blocked = np.where(usable, key, np.uint64(0xFFFFFFFFFFFFFFFF))  # unusable rows sort last
    order = np.argsort(blocked, axis=1, kind="stable")
    sorted_key = np.take_along_axis(blocked, order, axis=1)
    sorted_usable = np.take_along_axis(usable, order, axis=1)
    width = key.shape[1]
    if width == 0:
        return np.zeros(key.shape, dtype=bool)
    position = np.arange(width)
    is_start = np.ones(key.shape, dtype=bool)
    is_start[:, 1:] = sorted_key[:, 1:] != sorted_key[:, :-1]
    first = np.maximum.accumulate(np.where(is_start, position, 0), axis=1)  # rows before this row's video
    is_end = np.ones(key.shape, dtype=bool)
    is_end[:, :-1] = is_start[:, 1:]
    after = np.minimum.accumulate(np.where(is_end, position + 1, width)[:, ::-1], axis=1)[:, ::-1]
    # Take a video if more than half of it lies before the target: the closest share that whole videos allow.
    taken = sorted_usable & ((first + after) / 2 <= target[:, None])
    if width:
        # The first video is always held out (if there is another one), the last one never.
        taken |= sorted_usable & (first == 0) & (target > 0)[:, None]
        last = after == sorted_usable.sum(axis=1, keepdims=True)
        must_keep = np.ones(len(key), dtype=bool) if keep_one is None else keep_one
        taken &= ~(last & must_keep[:, None])
    held = np.zeros(key.shape, dtype=bool)
    np.put_along_axis(held, order, taken, axis=1)
    return held


def _mix(x: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """Apply SplitMix64's finaliser (Steele et al. 2014): a fixed bijection that scatters neighbouring integers."""
    with np.errstate(over="ignore"):
        z = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _set_hash(videos: NDArray[np.int64], used: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return a number for the videos of each CAV's rows that depends neither on their order nor on padding."""
    with np.errstate(over="ignore"):
        return _mix(np.where(used, _mix(videos.astype(np.uint64)), np.uint64(0)).sum(axis=1, dtype=np.uint64))


def _keys(videos: NDArray[np.int64], salt: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Shift by one bit, so that no key can equal the mark of unusable rows.
    return _mix(_mix(videos.astype(np.uint64)) ^ salt[:, None]) >> np.uint64(1)
