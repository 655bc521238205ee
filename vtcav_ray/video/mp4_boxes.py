"""The top-level boxes of an MP4 or QuickTime file: whether it is whole, and what it lacks."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import BinaryIO

_MOST_BOXES = 4096  # of a fragmented file; later ones change no answer
_MOST_MOOV = 64 * 2**20
# First boxes of a file; FFmpeg recognises the container by them.
_FIRST = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof"})


def why_incomplete(data: bytes | str) -> str | None:
    """Return why an MP4 can't be opened, as the rest of a sentence; None if it is no MP4, or is whole.

    Args:
        data: the file's bytes, or its path on this machine.
    """
    boxes = list(_boxes(data))
    if not boxes or boxes[0][0] not in _FIRST:
        return None
    names = {name for name, _ in boxes}
    last, missing = boxes[-1]
    if b"moov" in names and last == b"moov" and missing > 0:
        return f"breaks off in its index (`moov` lacks {missing:,} bytes)."
    if b"moov" not in names:
        if b"meta" in names:  # HEIC, AVIF
            return None
        if b"moof" in names or b"styp" in names:
            return (
                "is a segment of a stream without its head (no `moov` atom). Join it with its initialisation segment."
            )
        return "breaks off before its index (no `moov` atom)."
    return f"breaks off: its `{last.decode('latin-1')}` lacks {missing:,} bytes." if missing > 0 else None


def has_index(data: bytes | str) -> bool:
    """Return whether an MP4 has a `moov` atom. A HEIC or AVIF file without one holds a picture alone."""
    return any(name == b"moov" for name, _ in _boxes(data))


def sample_entry(data: bytes | str, names: tuple[bytes, ...]) -> bytes | None:
    """Return the first of these sample entries that the index of an MP4 names, such as `encv`; None if it has none."""
    with _opened(data) as file:
        for name, start, size in _walk(file, _size(file)):
            if name == b"moov":
                file.seek(start)
                moov = file.read(min(size, _MOST_MOOV))
                # An entry's four letters follow the count of entries and its own size.
                at = moov.find(b"stsd")
                while at >= 0:
                    if moov[at + 16 : at + 20] in names:
                        return moov[at + 16 : at + 20]
                    at = moov.find(b"stsd", at + 4)
    return None


def _boxes(data: bytes | str) -> Iterator[tuple[bytes, int]]:
    """Yield (name, number of missing bytes) of each top-level box."""
    with _opened(data) as file:
        length = _size(file)
        for name, start, size in _walk(file, length):
            yield name, max(0, start + size - length)


def _walk(file: BinaryIO, length: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, where its content starts, size of its content) of each top-level box."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        size, name, start = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1 and len(head) == 16:
            size, start = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:  # to the end of the file
            size = length - at
        if size < start or not all(32 <= c < 127 or c == 0xA9 for c in name):
            return
        yield name, at + start, size - start
        at += size


def _opened(data: bytes | str) -> BinaryIO:
    return io.BytesIO(data) if isinstance(data, bytes) else open(data, "rb")


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)
