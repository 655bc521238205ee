"""The statistics of `vtcav_ray.tcav` in plain Python: slow, and as they are written on paper."""

from __future__ import annotations

import itertools
import math
import statistics as st
from collections.abc import Iterator, Sequence


def welch(left: Sequence[float], right: Sequence[float]) -> float:
    error = st.variance(left) / len(left) + st.variance(right) / len(right)
    return (st.mean(left) - st.mean(right)) / math.sqrt(error)


def arrangements(n: int, m: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the concept's videos and the others, the observed arrangement first."""
    for chosen in itertools.combinations(range(n + m), n):
        yield list(chosen), [u for u in range(n + m) if u not in chosen]


def every_welch(values: Sequence[float], n: int) -> list[float]:
    return [
        welch([values[u] for u in left], [values[u] for u in right]) for left, right in arrangements(n, len(values) - n)
    ]


def within(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Return T of labels, each (concept, random), with at least three videos."""
    size = sum(len(left) for left, _ in pairs)
    above, below = 0.0, 0.0
    for left, right in pairs:
        weight, n, m = len(left) / size, len(left), len(right)
        squares = sum((x - st.mean(side)) ** 2 for side in (left, right) for x in side)
        above += weight * (st.mean(left) - st.mean(right))
        below += weight**2 * squares / (n + m - 2) * (1 / n + 1 / m)
    return above / math.sqrt(below)


def every_within(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[float]:
    choices = []
    for left, right in pairs:
        both = [*left, *right]
        choices.append([([both[u] for u in a], [both[u] for u in b]) for a, b in arrangements(len(left), len(right))])
    return [within(chosen) for chosen in itertools.product(*choices)]


def tail_p(every: Sequence[float], index: int, tails: str) -> float:
    """Return p of the arrangement at `index` among all."""
    value = every[index]
    if tails == "symmetric":
        return sum(abs(t) >= abs(value) - 1e-6 for t in every) / len(every)
    upper = sum(t >= value - 1e-6 for t in every)
    lower = sum(t <= value + 1e-6 for t in every)
    return min(1.0, 2 * min(upper, lower) / len(every))


def step_down(cells: Sequence[Sequence[float]], tails: str) -> list[float]:
    """Return the adjusted p of each cell from all its statistics, the observed one first."""
    p = [[tail_p(every, b, tails) for b in range(len(every))] for every in cells]
    order = sorted(range(len(cells)), key=lambda c: p[c][0])
    adjusted, before = [0.0] * len(cells), 0.0
    for place, cell in enumerate(order):
        behind = order[place:]
        smallest = [min(p[c][b] for c in behind) for b in range(len(p[0]))]
        before = max(before, p[cell][0], sum(x <= p[cell][0] + 1e-12 for x in smallest) / len(smallest))
        adjusted[cell] = before
    return adjusted


def families_rejected(adjusted: Sequence[Sequence[float]], alpha: float, claim: str) -> list[set[int]]:
    """Return the cells of each family that are rejected at alpha, one family after the other."""
    rejected: list[set[int]] = [set() for _ in adjusted]
    settled: set[int] = set()
    while len(settled) < len(adjusted):
        level = alpha / (len(adjusted) - len(settled)) + 1e-12
        unsettled = [number for number in range(len(adjusted)) if number not in settled]
        if claim == "families":  # test only the family that stands out most
            unsettled = [min(unsettled, key=lambda number: min(adjusted[number]))]
        for number in unsettled:
            rejected[number] |= {c for c, p in enumerate(adjusted[number]) if p <= level}
        needed = {number: len(adjusted[number]) if claim == "cells" else 1 for number in unsettled}
        now = {number for number in unsettled if len(rejected[number]) >= needed[number]}
        if not now:
            return rejected
        settled |= now
    return rejected
