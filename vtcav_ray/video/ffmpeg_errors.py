"""Whether an FFmpeg error is about the video or about the machine that reads it."""

from __future__ import annotations

import errno

from vtcav_ray.errors import InputError
from vtcav_ray.store.storage_errors import Trouble, reason, sort


def raise_unless_bad_video(data: str | bytes, error: Exception) -> None:
    """Re-raise errors of the machine: a failing disk or a missing permission does not make a video bad.

    Args:
        data: the video's bytes, or its path.
        error: what FFmpeg raised while reading them.

    Raises:
        InputError: `unreadable`: the disk can read only part of this file.
        OSError: the machine is to blame.
    """
    if isinstance(error, PermissionError | ConnectionError | TimeoutError | InterruptedError):
        raise error
    if getattr(error, "errno", None) == errno.EIO and isinstance(data, str):
        try:
            with open(data, "rb") as file:  # FFmpeg reports EIO for broken data too; a failing disk reports it again
                while file.read(2**22):
                    pass
        except OSError as again:
            if sort(again) is not Trouble.BROKEN:
                raise
            raise InputError("unreadable", f"{data} can't be read to its end: {reason(again)}.") from again


def why_not_open(name: str, data: str | bytes, error: Exception) -> InputError:
    """Return the error `truncated` for an mp4 without its index, else `not_video`."""
    head = _head(data)
    if head[4:8] == b"ftyp" and not _contains(data, b"moov"):
        return InputError("truncated", f"{name} breaks off before its index (no `moov` atom).")
    return InputError("not_video", f"{name} is not a video that FFmpeg can open: {error}")


def _head(data: str | bytes) -> bytes:
    if isinstance(data, bytes):
        return data[:16]
    with open(data, "rb") as file:
        return file.read(16)


def _contains(data: str | bytes, needle: bytes) -> bool:
    if isinstance(data, bytes):
        return needle in data
    with open(data, "rb") as file:
        tail = b""
        while block := file.read(2**20):
            if needle in tail + block:
                return True
            tail = block[-len(needle) :]
    return False
