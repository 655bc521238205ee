"""Phrases: the parts of a sentence, each with a role. A page colours them, a test reads them as one string."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vtcav_ray.pages.wording import between, layer_and_places, signed
from vtcav_ray.report.score_cells import ScoreCells

MAX_NAMES = 6


@dataclass(frozen=True)
class Phrase:
    """A piece of a sentence.

    Attributes:
        text: the visible text.
        role: `name` (from the data), `number`, `raises`, `lowers`, `detail` (figures behind the sentence), or empty for
            plain words.
    """

    text: str
    role: str = ""


Sentence = tuple[Phrase, ...]


def plain(sentence: Sentence) -> str:
    """Return the sentence as one string."""
    return "".join(phrase.text for phrase in sentence)


def words(text: str) -> Sentence:
    """Make a sentence of plain words."""
    return (Phrase(text),)


def number(text: str) -> Phrase:
    return Phrase(text, "number")


def name(text: str) -> Phrase:
    return Phrase(text, "name")


def names(texts: Iterable[str]) -> list[Phrase]:
    """List the first few names and the number of further ones."""
    texts = list(texts)
    phrases: list[Phrase] = []
    left = len(texts) - MAX_NAMES
    for text, comma in zip(texts[:MAX_NAMES], between(min(len(texts), MAX_NAMES), more=left > 0), strict=True):
        phrases += [name(text), Phrase(comma)] if comma else [name(text)]
    if left > 0:
        phrases.append(Phrase(f"{left:,} more"))
    return phrases


def at_layer(cells: ScoreCells, i: int) -> list[Phrase]:
    """Return ` at early`, followed by the places if the layer's projection is limited to some."""
    layer, places = layer_and_places(cells.layers[cells.layer_N[i]])
    return [Phrase(" at "), name(layer), *([Phrase(f", {places}")] if places else [])]


def amount(value: float) -> str:
    """Write the size of an effect without its sign, for sentences that give the direction in words."""
    return signed(abs(value)).lstrip("+")
