"""What the report shows of `videos.enough`: how many videos of how many were looked at, by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Searched:
    """A corpus of which only a part was looked at: a sentence, and (set, found, wanted, looked at, of) for each set."""

    sentence: str
    rows: Sequence[tuple[str, str, str, str, str]]


def searched(enough: Mapping[str, Any]) -> Searched:
    """Return what the page shows of `videos.enough`. Classes that needed equal numbers of videos share a row.

    Args:
        enough: as in run.json.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in enough["sets"]:
        kind, _, name = one["set"].partition("/")
        numbers = tuple(f"{one[key]:,}" for key in ("found", "wanted", "looked_at", "of"))
        groups.setdefault((kind if kind == "class" else one["set"], *numbers), []).append(name)
    rows = []
    for (title, found, wanted, looked, of), names in groups.items():
        shown = title
        if title == "class":
            shown = f"class {names[0]}" if len(names) == 1 else f"{len(names):,} classes, each"
        rows.append((shown.replace("/", " "), found, wanted, looked, of))
    ended = {"full": "every set was full", "exhausted": "there were no more", "limit": "videos.limit was reached"}
    sentence = (
        f"The sampling was adaptive: {enough['looked_at']:,} of {enough['of']:,} videos were looked at, in random "
        f"order inside each label, in {enough['rounds']:,} rounds, until {ended.get(enough['ended'], 'it ended')}. "
        "Counts of clips end it, never a result."
    )
    return Searched(sentence, rows)
