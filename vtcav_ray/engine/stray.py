"""Keep a library's stray line off standard error, where it is written by C++ and no logger can stop it."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

# Ray's core reports at its start that RAY_BACKEND_LOG_LEVEL is set.
LOG_LEVEL_LINE = re.compile(rb"^.*Set ray log level from environment variable.*\n?", re.MULTILINE)


@contextlib.contextmanager
def without_line(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Hold back what the process writes to standard error inside the block; then write all but these lines.

    Args:
        pattern: of whole lines.
    """
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            rest = memoryview(pattern.sub(b"", held.read()))
            while rest:
                rest = rest[os.write(2, rest) :]
