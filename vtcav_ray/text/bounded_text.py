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
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UnreadableText(" ".join(str(error).split())) from error
    except UnreadableText:
        raise
    except (ValueError, OverflowError) as error:  # an impossible date, such as 2001-99-99
        raise UnreadableText(f"a value in it can't be read: {error}") from error
    except TypeError as error:  # a list or a dict as a key
        raise UnreadableText(f"a key in it is neither text nor a number: {error}") from error


def read_json(text: str) -> Any:
    """Return data from JSON.

    Raises:
        UnreadableText: the text is not JSON, or exceeds the limits.
    """
    _check_length(text)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableText(str(error)) from error
    left, below = MOST_VALUES, [data]
    for _ in range(MOST_DEPTH):
        left -= len(below)
        if left < 0:
            raise UnreadableText(f"it has more than {MOST_VALUES:,} values")
        below = [value for node in below for value in _values(node)]
        if not below:
            return data
    raise UnreadableText(f"it is nested more than {MOST_DEPTH} deep")


def _values(node: Any) -> Any:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _check_length(text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise UnreadableText(f"it has more than {MOST_CHARACTERS:,} characters")


def _check_events(text: str) -> None:
    """Count the values that the text expands to, and their nesting depth, without creating any."""
    total = 0
    open_nodes: list[_Open] = []
    repeated: dict[str, tuple[int, int]] = {}  # anchor -> number of values, depth
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        deepest = len(open_nodes)
        if isinstance(event, yaml.CollectionEndEvent):
            ended = open_nodes.pop()
            if ended.anchor is not None:
                repeated[ended.anchor] = (total - ended.began, ended.deepest - len(open_nodes))
        elif isinstance(event, yaml.AliasEvent):
            if any(node.anchor == event.anchor for node in open_nodes):
                raise UnreadableText(f"`*{event.anchor}` in it is inside the value that it repeats")
            values, depth = repeated.get(str(event.anchor), (1, 0))
            total += values
            deepest += depth
        elif isinstance(event, yaml.NodeEvent):
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise UnreadableText(f"the tag {tag!r} in it is not read; remove it")
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append(_Open(event.anchor, total, deepest))
            else:
                _check_scalar(event)
                if event.anchor is not None:
                    repeated[event.anchor] = (1, 0)
            total += 1
        if total > MOST_VALUES:
            raise UnreadableText(f"it expands to more than {MOST_VALUES:,} values")
        if deepest > MOST_DEPTH:
            raise UnreadableText(f"it is nested more than {MOST_DEPTH} deep")
        for node in open_nodes:
            node.deepest = max(node.deepest, deepest)


def _check_scalar(event: Any) -> None:
    if event.implicit[0] and len(event.value) > MOST_DIGITS and not event.value.strip("+-0123456789abcdefxABCDEFX_:."):
        raise UnreadableText(f"it has a number of more than {MOST_DIGITS} digits")
