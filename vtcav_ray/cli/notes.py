"""The notes of a run for people: each once, similar ones together, the worst first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vtcav_ray.stages import ALL_NAMES

MOST_SHOWN = 12
# Phrases of the notes that the stages write, by what they mean for the result. The first that fits decides.
_RANKS: tuple[tuple[int, str], ...] = (
    (0, r"UNTRAINED|\bNo (class|concept|clip|label|video)\b|\bnothing\b|random numbers"),
    (1, r"left out|will be weak|has no class|no class for|match no video|can't|copies of another|will have no clip"),
    (2, r"[Ff]ewer|[Ff]ew examples|only \d|wanted|are needed|share source videos"),
)
_OTHER = 3
# What differs between notes that say the same: quoted names, numbers, and what brackets hold.
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\([^()]*\)|[-+]?\d[\d.,]*%?")


@dataclass(frozen=True)
class NoteGroup:
    """Notes that say the same about different things.

    Attributes:
        rank: 0 (there may be no result) to 3 (for information).
        stages: that wrote them.
        texts: the different notes, in the order in which they came.
    """

    rank: int
    stages: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The first note, and how many more are like it."""
        more = len(self.texts) - 1
        return self.texts[0] + (f" (and {more} more like this)" if more else "")


def grouped(notes: Iterable[tuple[str, str]]) -> list[NoteGroup]:
    """Group notes.

    Args:
        notes: (stage, note), in the order in which they came.

    Returns:
        The groups, the worst first, then in the order of the stages.
    """
    found: dict[str, tuple[list[str], list[str]]] = {}
    for stage, text in notes:
        stages, texts = found.setdefault(_VARIABLE.sub("*", text), ([], []))
        if stage not in stages:
            stages.append(stage)
        if text not in texts:
            texts.append(text)
    groups = [NoteGroup(_rank(texts[0]), tuple(stages), tuple(texts)) for stages, texts in found.values()]
    return sorted(groups, key=lambda group: (group.rank, _place(group.stages)))  # stable


def _rank(text: str) -> int:
    return next((rank for rank, words in _RANKS if re.search(words, text)), _OTHER)


def _place(stages: Sequence[str]) -> int:
    return min((ALL_NAMES.index(name) for name in stages if name in ALL_NAMES), default=-1)
