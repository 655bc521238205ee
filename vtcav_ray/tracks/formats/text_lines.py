"""Read text files of tracks line by line, within limits."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from vtcav_ray.tracks.formats.base import MOST_FILE_BYTES, BadFile, TrackFile

_MOST_LINE_BYTES = 1 << 16


def lines_of(file: TrackFile) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of each line of a UTF-8 file, without its line end.

    Raises:
        BadFile: a line is too long or not UTF-8, or the file is too large.
    """
    total = 0
    with file.open() as stream:
        number = 0
        while line := stream.readline(_MOST_LINE_BYTES + 1):
            number += 1
            total += len(line)
            if len(line) > _MOST_LINE_BYTES:
                raise BadFile(f"line {number}: it has more than {_MOST_LINE_BYTES:,} bytes")
            if total > MOST_FILE_BYTES:
                raise BadFile(f"it has more than {MOST_FILE_BYTES:,} bytes, which is the limit")
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                yield number, line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise BadFile(f"line {number}: it is not UTF-8 text") from error
