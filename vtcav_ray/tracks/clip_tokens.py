"""Text as CLIP's tokens: byte pairs, merged in the order of CLIP's published list of merges.

`assets/clip_merges.txt.gz` holds the 48,894 merges that CLIP uses, from OpenAI's `bpe_simple_vocab_16e6.txt` (MIT
licence). YOLO-World and YOLOE tokenise their words alike.
"""

from __future__ import annotations

import functools
import gzip
import html
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from importlib import resources

import numpy as np

CONTEXT = 77  # tokens per text, the two ends included
START, END = 49406, 49407
_CONTRACTION = re.compile(r"'(?:s|t|re|ve|m|ll|d)")
_QUOTES = str.maketrans({"‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"'})
_WORD_END = "</w>"


def tokenize(texts: Sequence[str]) -> np.ndarray:
    """Return the tokens of texts: int32 [n, 77], with a start, an end, and zeros after it. Longer texts are cut."""
    tokens = np.zeros((len(texts), CONTEXT), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        found = [number for word in _words(_cleaned(text)) for number in _merged(word)]
        found = [START, *found[: CONTEXT - 2], END]
        row[: len(found)] = found
    return tokens


def _cleaned(text: str) -> str:
    text = html.unescape(html.unescape(unicodedata.normalize("NFC", text).translate(_QUOTES)))
    return " ".join(text.split()).lower()


def _words(text: str) -> Iterator[str]:
    """Split a text into contractions, runs of letters, single digits, and runs of anything else but spaces."""
    place = 0
    while place < len(text):
        if found := _CONTRACTION.match(text, place):
            end = found.end()
            yield found[0]
        else:
            kind, end = _kind(text[place]), place + 1
            while kind in ("letter", "other") and end < len(text) and _kind(text[end]) == kind:
                end += 1
            if kind != "space":
                yield text[place:end]
        place = end


def _kind(character: str) -> str:
    if character.isspace():
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(character)[0], "other")


@functools.lru_cache(maxsize=1)
def _table() -> tuple[dict[int, str], dict[tuple[str, str], int], dict[str, int]]:
    """Return the character of each byte, the rank of each merge, and the number of each token."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    characters = {byte: chr(byte) for byte in printed} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    packed = resources.files("vtcav_ray.tracks").joinpath("assets/clip_merges.txt.gz").read_bytes()
    merges = [
        (first, second) for first, second in (line.split() for line in gzip.decompress(packed).decode().splitlines())
    ]
    alphabet = list(characters.values())
    vocabulary = [*alphabet, *(c + _WORD_END for c in alphabet), *(first + second for first, second in merges)]
    return characters, {merge: i for i, merge in enumerate(merges)}, {token: i for i, token in enumerate(vocabulary)}


def _merged(word: str) -> list[int]:
    """Return the tokens of one word: its bytes, merged as long as a merge applies, the earliest in the list first."""
    characters, ranks, numbers = _table()
    parts = [characters[byte] for byte in word.encode()]
    parts[-1] += _WORD_END
    while len(parts) > 1:
        pair = min(itertools.pairwise(parts), key=lambda p: ranks.get(p, len(ranks)))
        if pair not in ranks:
            break
        joined: list[str] = []
        place = 0
        while place < len(parts):
            both = tuple(parts[place : place + 2]) == pair
            joined.append(parts[place] + parts[place + 1] if both else parts[place])
            place += 2 if both else 1
        parts = joined
    return [numbers[part] for part in parts]
