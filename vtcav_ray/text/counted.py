"""Counts in sentences: `1 clip is`, `3 clips are`."""

from __future__ import annotations


def are(count: int, noun: str, plural: str = "") -> str:
    """Return the count, the noun and the verb that fits them.

    Args:
        count: how many, at least 0.
        noun: its singular.
        plural: if it is not the singular and an `s`.

    Examples:
        >>> are(1, "class", "classes"), are(2, "file")
        ('1 class is', '2 files are')
    """
    return f"1 {noun} is" if count == 1 else f"{count:,} {plural or noun + 's'} are"
