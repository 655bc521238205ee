"""Files that are checked while they are read: each block against its SHA-256, before any byte of it is used.

A Parquet reader requests the footer and the columns it needs. Hashing the whole file would mean reading all of it, so a
commit record has the digest of each 1 MiB block (of larger files), and only the blocks that are read are hashed.
Records of older versions have only the digest of the whole file: the first read of such a file in a process reads all
of it once, and caches the digests of its blocks under that digest.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import IO

from vtcav_ray.store.records import BrokenFile, FileEntry

BLOCK_BYTES = 1 << 20
_FIX = "`vtcav run` on this folder recomputes the shard; `vtcav verify` lists everything that is broken."


def digests_of(data: bytes) -> dict[str, str | list[str]]:
    """Return `sha256` of the bytes and, if there is more than one block, `blocks`."""
    whole = hashlib.sha256(data).hexdigest()
    if len(data) <= BLOCK_BYTES:
        return {"sha256": whole}
    view = memoryview(data)
    starts = range(0, len(data), BLOCK_BYTES)
    return {"sha256": whole, "blocks": [hashlib.sha256(view[i : i + BLOCK_BYTES]).hexdigest() for i in starts]}


class VerifiedFile(io.RawIOBase):
    """A file opened for reading that returns no byte before its block was checked.

    Args:
        file: the opened file, seekable.
        entry: the file's entry in its commit record.
        url: for messages.

    Raises:
        BrokenFile: (on reads) the bytes differ from those that were written, or some are missing.
    """

    def __init__(self, file: IO[bytes], entry: FileEntry, url: str) -> None:
        super().__init__()
        self._file, self._size, self._url = file, entry["bytes"], url
        self._blocks = _blocks(file, entry, url)
        self._at = 0
        # The last block that was read, and its number: most files are one block, and are read column by column.
        self._held: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes | memoryview:  # type: ignore[override]
        """Return the next `size` bytes, fewer at the end; all remaining bytes for -1."""
        left = max(0, self._size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        if not count:
            return b""
        first, last = self._at // BLOCK_BYTES, (self._at + count - 1) // BLOCK_BYTES
        start = first * BLOCK_BYTES
        data = self._held[1] if first == last == self._held[0] else self._checked(first, last)
        skipped, self._at = self._at - start, self._at + count
        # Not copied: it may be a whole column.
        return data if len(data) == count else memoryview(data)[skipped : skipped + count]

    def _checked(self, first: int, last: int) -> bytes:
        """Read and check some blocks, and hold the last one."""
        start = first * BLOCK_BYTES
        data = _read_all(self._file, start, min((last + 1) * BLOCK_BYTES, self._size) - start)
        view = memoryview(data)
        block = view
        for number in range(first, last + 1):
            block = view[(number - first) * BLOCK_BYTES : (number - first + 1) * BLOCK_BYTES]
            if hashlib.sha256(block).hexdigest() != self._blocks[number]:
                raise broken(self._url)
        self._held = (last, data if first == last else bytes(block))
        return data

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def broken(url: str, what: str = "its bytes differ from those that were written (SHA-256)") -> BrokenFile:
    """Return the error for a table's file."""
    return BrokenFile(url, what, _FIX)


def _blocks(file: IO[bytes], entry: FileEntry, url: str) -> Sequence[str]:
    count = -(-entry["bytes"] // BLOCK_BYTES)
    if count <= 1:
        return [entry["sha256"]]
    if "blocks" in entry:
        if len(entry["blocks"]) != count:
            raise broken(url, "the number of blocks in its commit record does not match its size")
        return entry["blocks"]
    known = _KNOWN.get(entry["sha256"])
    if known is None:
        known = _hash_whole(file, entry, url)
        _KNOWN.put(entry["sha256"], known)
    return known


def _hash_whole(file: IO[bytes], entry: FileEntry, url: str) -> list[str]:
    whole, blocks = hashlib.sha256(), []
    for start in range(0, entry["bytes"], BLOCK_BYTES):
        data = _read_all(file, start, min(BLOCK_BYTES, entry["bytes"] - start))
        whole.update(data)
        blocks.append(hashlib.sha256(data).hexdigest())
    if whole.hexdigest() != entry["sha256"]:
        raise broken(url)
    return blocks


def _read_all(file: IO[bytes], start: int, count: int) -> bytes:
    """Read `count` bytes from `start`, fewer if the file ends first."""
    file.seek(start)
    data = file.read(count)
    if len(data) == count or not data:
        return data
    parts = [data]  # a raw file may return less than requested
    while (missing := count - sum(map(len, parts))) and (data := file.read(missing)):
        parts.append(data)
    return b"".join(parts)


class _Known:
    """Block digests of files of older versions, by the digest of the whole file; keyed by content, so never stale."""

    def __init__(self, most: int) -> None:
        self._held: dict[str, list[str]] = {}
        self._most = most

    def get(self, digest: str) -> list[str] | None:
        return self._held.get(digest)

    def put(self, digest: str, blocks: list[str]) -> None:
        while len(self._held) >= self._most:
            self._held.pop(next(iter(self._held)), None)
        self._held[digest] = blocks


_KNOWN = _Known(4096)
