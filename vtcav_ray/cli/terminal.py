"""Make text from outside (file names, labels, messages) safe to print in a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Replace characters that could move the cursor, change colours, or retitle the window by `�`."""
    return "".join(c if c.isprintable() else "�" for c in text)


def printable_lines(text: str) -> str:
    """Do the same as `printable`, but keep line breaks."""
    return "\n".join(printable(line) for line in text.split("\n"))
