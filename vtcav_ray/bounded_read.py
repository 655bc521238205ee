"""Reading a file up to a limit, whatever its server says of its size."""

from __future__ import annotations

from typing import IO

CHUNK_BYTES = 1 << 24


def read_at_most(file: IO[bytes], most: int) -> bytes | None:
    """All bytes of a file; None where there are more than `most`. Takes memory for what is there, not for `most`."""
    content = bytearray()
    while chunk := file.read(min(CHUNK_BYTES, most + 1 - len(content))):
        content += chunk
        if len(content) > most:
            return None
    return bytes(content)
