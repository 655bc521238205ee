"""Find the points of a set that have another point nearby, for hundreds of thousands of points.

A k-d tree that looks for the neighbours of one point after the other visits a large part of the tree for each: in 24
dimensions its boxes are wide in most of them, and so all near each other. Here the points are sorted into leaves by few
directions only, those in which they are spread most, so that leaves are narrow in these. Two leaves are compared by one
matrix product, if their boxes are near enough. Two points that are known to have a neighbour are not compared, so many
equal points cost little.
"""

from __future__ import annotations

import numpy as np

LEAF = 128  # points; smaller leaves compare fewer pairs, in more and smaller products
SIDES = 4  # number of directions by which points are sorted into leaves: 650,000 need that many, 65,000 only 3
COLUMNS = 1 << 14  # points that a leaf is compared with at once; bounds the memory
# Of a squared distance in float32, by rounding: for points at most 3 from their mean, with a large margin.
_ROUNDING = 1e-4


def with_neighbour(points: np.ndarray, distance: float) -> np.ndarray:
    """Return which points have another point within a distance: bool [N].

    All points that have one are marked. Points whose nearest one is a little farther (0.01 for a distance of 0, 0.0003
    for 0.2) may be marked, too.

    Args:
        points: float [N, D], at most 3 from their mean.
        distance: at least 0.
    """
    marked = np.zeros(len(points), bool)
    if len(points) < 2:
        return marked
    centred = (points - points.mean(0)).astype(np.float32)
    order, edges = _leaves(centred[:, np.argsort(centred.var(0))[-SIDES:]])
    placed = centred[order]
    low, high = (function.reduceat(placed, edges[:-1]) for function in (np.minimum, np.maximum))
    norms = np.einsum("nd,nd->n", placed, placed)[:, None]
    ones = np.ones_like(norms)
    # Their product is the squared distance.
    left, right = np.hstack((-2 * placed, norms, ones)), np.hstack((placed, ones, norms))
    limit = np.float32(distance**2 + _ROUNDING)
    found = np.zeros(len(points), bool)
    for leaf, (begin, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        apart = np.maximum(np.maximum(low[leaf:] - high[leaf], low[leaf] - high[leaf:]), 0)
        near = leaf + np.flatnonzero(np.einsum("ld,ld->l", apart, apart) <= limit)
        _compare_inside(left[begin:end], right[begin:end], limit, found[begin:end])
        others = _ranges(edges[near[1:]], edges[near[1:] + 1])  # the first is the leaf itself
        rows = np.arange(begin, end)
        for start in range(0, len(others), COLUMNS):
            some, known = others[start : start + COLUMNS], found[begin:end].copy()
            _compare(left, right, limit, rows[~known], some, found)
            _compare(left, right, limit, rows[known], some[~found[some]], found)
    marked[order] = found
    return marked


def _leaves(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halve the points along the widest side of their box, until at most `LEAF` are left.

    Returns:
        (places of the points, leaf after leaf; where each leaf begins, and the end of the last).
    """
    done: list[np.ndarray] = []
    waiting = [np.arange(len(points))]
    while waiting:
        places = waiting.pop()
        if len(places) <= LEAF:
            done.append(places)
            continue
        some = points[places]
        side = int((some.max(0) - some.min(0)).argmax())
        middle = len(places) // 2
        halves = np.argpartition(some[:, side], middle)
        waiting += [places[halves[middle:]], places[halves[:middle]]]
    return np.concatenate(done), np.concatenate(([0], np.cumsum([len(places) for places in done])))


def _ranges(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the numbers of all ranges, one range after the other."""
    sizes = ends - begins
    before = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) + np.repeat(begins - before, sizes)


def _compare_inside(left: np.ndarray, right: np.ndarray, limit: np.float32, found: np.ndarray) -> None:
    """Mark the points of one leaf that are near another of it."""
    near = left @ right.T <= limit
    np.fill_diagonal(near, False)
    found |= near.any(1)


def _compare(
    left: np.ndarray, right: np.ndarray, limit: np.float32, rows: np.ndarray, columns: np.ndarray, found: np.ndarray
) -> None:
    """Mark the points of both kinds that are near one of the other."""
    if not len(rows) or not len(columns):
        return
    near = left[rows] @ right[columns].T <= limit
    if near.any():
        found[rows[near.any(1)]] = True
        found[columns[near.any(0)]] = True
