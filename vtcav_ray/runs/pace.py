"""The rate of shards, or of the items in them: over the last minute if it had several, else since the stage began."""

from __future__ import annotations

from collections.abc import Sequence

WINDOW_S = 60.0
LEAST = 3  # shards in the window; from fewer, the rate would jump


def shards_per_second(
    times: Sequence[float], started: float, now: float, items: Sequence[float] | None = None
) -> float | None:
    """Return the current rate; None if no shard is done yet.

    Shards that were there before the stage began or resumed do not count. Time in which nothing was done counts: a
    stage that has slowed down is not taken for a fast one.

    Args:
        times: when each shard was done since `started`, in seconds of the same clock.
        started: when the stage began or resumed.
        now: the present.
        items: number of items (videos, clips) in each shard: then the rate is that of the items.
    """
    counts = [1.0] * len(times) if items is None else items
    recent = [count for t, count in zip(times, counts, strict=True) if now - WINDOW_S < t <= now]
    if now - started > WINDOW_S and len(recent) >= LEAST:
        return sum(recent) / WINDOW_S
    return sum(counts) / (now - started) if times and now > started else None
