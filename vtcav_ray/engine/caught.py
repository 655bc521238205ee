"""Exceptions of workers that nobody expected, kept with what a user needs: type, message, place and shard."""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

from vtcav_ray.errors import VtcavError
from vtcav_ray.store.access import storage_errors

logger = logging.getLogger(__name__)


class Caught:
    """Keep an exception that is neither ours nor of storage: a fault in a worker, or in a library that it calls.

    Ray would report it as its own error, or as an actor that died, without the shard. The traceback goes to the log.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        if not isinstance(error, Exception) or isinstance(error, (VtcavError, *storage_errors())):
            return False
        logger.error("a worker failed", exc_info=error)
        self.error = error
        return True


def described(error: Exception) -> str:
    """Return type, message and place of an exception, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (in {frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    message = " ".join(str(error).split())
    return (
        f"{type(error).__name__}{f': {message}' if message else ''}{where}. Finished shards are kept. The log has the "
        "traceback; if vtcav-ray is to blame, please report it."
    )


def of_shard(error: VtcavError, stage: str, shard: str) -> str:
    """Return the message of our own error with its type and shard, unless it names the shard already."""
    message = str(error)
    if f"shard {shard}" in message:
        return message
    return f"{message} ({type(error).__name__} in shard {shard} of stage {stage}; finished shards are kept)"


class NoteShard:
    """Add the shard to an exception that passes, where the work is done in the driver."""

    def __init__(self, stage: str, shard: str) -> None:
        self.stage, self.shard = stage, shard
        self.note = f"Shard {shard} of stage {stage} failed. Finished shards are kept."

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, VtcavError):  # the terminal shows only its message
            error.args = (of_shard(error, self.stage, self.shard),)
        elif isinstance(error, Exception):
            error.add_note(self.note)
