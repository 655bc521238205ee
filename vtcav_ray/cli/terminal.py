"""Text that came from outside (file names, labels, messages), as it may go to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Without what would move the cursor, change colours, or retitle the window: `�` in the place of each."""
    return "".join(c if c.isprintable() else "�" for c in text)


def printable_lines(text: str) -> str:
    """The same, with its line breaks kept."""
    return "\n".join(printable(line) for line in text.split("\n"))
