"""Read YAML and JSON from outside as data, within limits.

PyYAML's safe loader creates no objects, but aliases that multiply ("billion laughs"), deep nesting, or numbers with a
million digits can keep it busy, and a tag can make it fail with something other than a YAML error. So the events of the
text are counted first, each alias with the size of what it repeats, and tags are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

# libyaml's, ten times as fast, where PyYAML was built with it. Both create only plain data.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MOST_CHARACTERS = 1 << 20
MOST_VALUES = 100_000
MOST_DEPTH = 64
MOST_DIGITS = 400  # per number


class UnreadableText(ValueError):
    """The text is not YAML or JSON, or exceeds the limits. The message is a clause and may quote the text."""


@dataclass
class _Open:
    """An unfinished list or dict: its anchor, the number of values before it, and the deepest level seen inside."""

    anchor: str | None
    began: int
    deepest: int


def read_yaml(text: str) -> Any:
    """Return data from YAML: None, numbers, text, dates, lists and dicts.

    Raises:
        UnreadableText: the text is not YAML, contains tags, or exceeds the limits.
    """
    _check_length(text)
    try:
        _check_events(text)
        return yaml.load(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        said = " ".join(part for part in (error.context, error.problem, error.note) if part)
        raise UnreadableText(f"{place(error.problem_mark or error.context_mark)}{said}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UnreadableText(" ".join(str(error).split())) from error
    except UnreadableText:
        raise
    except (ValueError, OverflowError) as error:  # an impossible date, such as 2001-99-99
        raise UnreadableText(f"a value in it can't be read: {error}") from error
    except TypeError as error:  # a list or a dict as a key
        raise UnreadableText(f"a key in it is neither text nor a number: {error}") from error


def place(mark: Any) -> str:
    """Return where in the text a mark of PyYAML or libyaml is, as the start of a message; empty for None."""
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""


def read_json(text: str, *, most_characters: int = MOST_CHARACTERS, most_values: int = MOST_VALUES) -> Any:
    """Return data from JSON.

    Args:
        most_characters, most_values: limits.

    Raises:
        UnreadableText: the text is not JSON, or exceeds the limits.
    """
    _check_length(text, most_characters)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableText(str(error)) from error
    left, below = most_values, [data]
    for _ in range(MOST_DEPTH):
        left -= len(below)
        if left < 0:
            raise UnreadableText(f"it has more than {most_values:,} values")
        below = [value for node in below for value in _values(node)]
        if not below:
            return data
    raise UnreadableText(f"it is nested more than {MOST_DEPTH} deep")


def _values(node: Any) -> Any:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _check_length(text: str, most: int = MOST_CHARACTERS) -> None:
    if len(text) > most:
        raise UnreadableText(f"it has more than {most:,} characters")


def _check_events(text: str) -> None:
    """Count the values that the text expands to, and their nesting depth, without creating any."""
    count = _Count()
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            count.end()
        elif isinstance(event, yaml.AliasEvent):
            count.repeat(str(event.anchor))
        elif isinstance(event, yaml.NodeEvent):
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise UnreadableText(f"{place(event.start_mark)}the tag {tag!r} in it is not read; remove it")
            if isinstance(event, yaml.CollectionStartEvent):
                count.begin(event.anchor)
            else:
                _check_scalar(event)
                count.add(event.anchor)


class _Count:
    """The number and depth of the values seen so far, each alias counted as the values that it repeats."""

    def __init__(self) -> None:
        self._total = 0
        self._open: list[_Open] = []
        self._anchored: dict[str, tuple[int, int]] = {}  # anchor -> number of values, depth

    def add(self, anchor: str | None) -> None:
        """Count a value that contains no others."""
        if anchor is not None:
            self._anchored[anchor] = (1, 0)
        self._grow(1, len(self._open))

    def begin(self, anchor: str | None) -> None:
        """Count a list or mapping. What follows is inside it, until `end`."""
        depth = len(self._open)
        self._open.append(_Open(anchor, self._total, depth))
        self._grow(1, depth)

    def end(self) -> None:
        """End the list or mapping that was begun last."""
        depth = len(self._open)
        ended = self._open.pop()
        if ended.anchor is not None:
            self._anchored[ended.anchor] = (self._total - ended.began, ended.deepest - len(self._open))
        self._grow(0, depth)

    def repeat(self, anchor: str) -> None:
        """Count the values that an alias repeats."""
        if any(node.anchor == anchor for node in self._open):
            raise UnreadableText(f"`*{anchor}` in it is inside the value that it repeats")
        values, depth = self._anchored.get(anchor, (1, 0))
        self._grow(values, len(self._open) + depth)

    def _grow(self, values: int, deepest: int) -> None:
        self._total += values
        if self._total > MOST_VALUES:
            raise UnreadableText(f"it expands to more than {MOST_VALUES:,} values")
        if deepest > MOST_DEPTH:
            raise UnreadableText(f"it is nested more than {MOST_DEPTH} deep")
        for node in self._open:
            node.deepest = max(node.deepest, deepest)


def _check_scalar(event: Any) -> None:
    if event.implicit[0] and len(event.value) > MOST_DIGITS and not event.value.strip("+-0123456789abcdefxABCDEFX_:."):
        raise UnreadableText(f"it has a number of more than {MOST_DIGITS} digits")
