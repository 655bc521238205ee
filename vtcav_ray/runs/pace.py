"""The rate at which shards are done: over the last minute if that had several, else since the stage began."""

from __future__ import annotations

from collections.abc import Sequence

WINDOW_S = 60.0
LEAST = 3  # shards in the window; from fewer, the rate would jump


def shards_per_second(times: Sequence[float], started: float, now: float) -> float | None:
    """Return the current rate; None if no shard is done yet.

    Shards that were there before the stage began or resumed do not count. Time in which nothing was done counts: a
    stage that has slowed down is not taken for a fast one.

    Args:
        times: when each shard was done since `started`, in seconds of the same clock.
        started: when the stage began or resumed.
        now: the present.
    """
    recent = sum(now - WINDOW_S < t <= now for t in times)
    if now - started > WINDOW_S and recent >= LEAST:
        return recent / WINDOW_S
    return len(times) / (now - started) if times and now > started else None
