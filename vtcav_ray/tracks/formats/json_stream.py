"""Read the lists of a large JSON object element by element, in the memory of one element."""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterator
from typing import IO, Any

from vtcav_ray.tracks.formats.base import MOST_FILE_BYTES, BadFile

_CHUNK_BYTES = 1 << 20
_MOST_ELEMENT = 64 << 20  # characters
_CUT = 2  # characters after a number that may belong to it, as long as no more are read
_SPACE = " \t\n\r"


class _Text:
    """The part of the file that is not parsed yet."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._total = 0
        self._text = ""
        self._at = 0
        self._ended = False
        self._json = json.JSONDecoder()

    def peek(self) -> str:
        """Return the next character that is no space, without taking it; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, expected: str) -> None:
        """Take the next character, which must be `expected`."""
        found = self.peek()
        if found != expected:
            raise BadFile(f"it is not JSON: {found or 'its end'!r} where {expected!r} should be")
        self._at += 1

    def value(self) -> Any:
        """Take one value of any kind."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                # A number may go on in the next piece of the file: this one may end with `1`, `1.` or `1e-`.
                if self._ended or end + _CUT < len(self._text):
                    self._at = end
                    return value
            except RecursionError as error:
                raise BadFile("its values are nested too deep") from error
            except ValueError as error:
                if len(self._text) - self._at > _MOST_ELEMENT:
                    raise BadFile(
                        f"a value in it has more than {_MOST_ELEMENT:,} characters, or is not JSON"
                    ) from error
                if self._ended:
                    raise BadFile(f"it is not JSON, or breaks off: {error}") from error
            self._more()

    def _more(self) -> bool:
        """Read on, at least as much as is held already, so that long values are parsed a few times only."""
        if self._ended:
            return False
        rest = self._text[self._at :]
        data = self._stream.read(max(_CHUNK_BYTES, len(rest)))
        self._total += len(data)
        if self._total > MOST_FILE_BYTES:
            raise BadFile(f"it has more than {MOST_FILE_BYTES:,} bytes, which is the limit")
        self._ended = not data
        try:
            self._text, self._at = rest + self._decode.decode(data, final=self._ended), 0
        except UnicodeDecodeError as error:
            raise BadFile("it is not UTF-8 text") from error
        return not self._ended


def elements(stream: IO[bytes], wanted: Collection[str]) -> Iterator[tuple[str, int, Any]]:
    """Yield (key, place in the list from 0, element) of the lists at the top of a JSON object.

    Args:
        stream: read from its start to its end.
        wanted: keys of the lists. Everything else is parsed and dropped.

    Raises:
        BadFile: the file is not a JSON object, is too large, or a wanted key has no list.
    """
    text = _Text(stream)
    text.take("{")
    while text.peek() != "}":
        key = text.value()
        if not isinstance(key, str):
            raise BadFile(f"it is not JSON: {key!r} is no key")
        text.take(":")
        if text.peek() == "[":
            for place, element in enumerate(_list(text)):
                if key in wanted:
                    yield key, place, element
        else:
            value = text.value()
            if key in wanted and value is not None:
                raise BadFile(f"`{key}` in it is not a list")
        if text.peek() == "}":
            break
        text.take(",")
    text.take("}")


def _list(text: _Text) -> Iterator[Any]:
    text.take("[")
    while text.peek() != "]":
        yield text.value()
        if text.peek() == "]":
            break
        text.take(",")
    text.take("]")
