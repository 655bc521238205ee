"""Sentences for the user about a plan of clips."""

from __future__ import annotations

from collections.abc import Mapping


def of_copies(copies: Mapping[str, str], labels: Mapping[str, str | None]) -> str:
    """Return a warning about videos that repeat another one.

    Args:
        copies: file -> the file that it repeats; at least one.
        labels: file -> its label, of every file.
    """
    other = sum(labels[v] is not None and labels[v] != labels[first] for v, first in copies.items())
    shown = ", ".join(f"{v} repeats {first}" for v, first in sorted(copies.items())[:3])
    return (
        f"{len(copies)} of {len(labels)} videos are copies of another one (clips.quality.copy_distance) and "
        f"give no clips{f'; {other} of them have another label' if other else ''}: {shown}"
        + (", ..." if len(copies) > 3 else ".")
    )


def of_small_pool(kind: str, clips: int, sources: int, largest: int, wanted: int, clips_a_video: int) -> list[str]:
    """Return warnings about a pool of random clips; none if it is large enough.

    Args:
        kind: of the clips.
        clips: their number.
        sources: number of source videos that they are cut from.
        largest: number of clips of the largest concept.
        wanted: `clips.random_pool`.
        clips_a_video: maximum number of random clips of one source video.
    """
    found = []
    if clips > sources:
        found.append(
            f"Random clips ({kind}): only {sources} videos are left for them, so they give {clips} clips, up to "
            f"{clips_a_video} each. Random sets then share source videos."
        )
    if clips < 10 * largest:
        found.append(
            f"Random clips ({kind}): the pool has {clips}, and at least {10 * largest} are wanted (10 times the "
            f"largest concept), {10 * largest - clips} more. "
            + ("Raise clips.random_pool." if clips == wanted else "Give more videos, or lower clips.per_concept.")
        )
    return found
