"""What an FFmpeg error means: whether the video or the machine is to blame, and why a file is no video."""

from __future__ import annotations

import errno
import os

import av.error

from vtcav_ray.errors import InputError
from vtcav_ray.store.storage_errors import Trouble, reason, sort
from vtcav_ray.video.declared_sizes import declared_size
from vtcav_ray.video.file_kinds import HEAD_BYTES, describe_file
from vtcav_ray.video.mp4_boxes import why_incomplete

# First bytes of containers, at offset.
_CONTAINERS = (
    (b"\x1a\x45\xdf\xa3", 0, "a Matroska or WebM file"),
    (b"AVI ", 8, "an AVI file"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "an ASF or WMV file"),
    (b"FLV\x01", 0, "an FLV file"),
    (b"OggS", 0, "an Ogg file"),
    (b"\x00\x00\x01\xba", 0, "an MPEG file"),
    (b"\x06\x0e\x2b\x34", 0, "an MXF file"),
    (b"GIF8", 0, "a GIF"),
    (b".RMF", 0, "a RealMedia file"),
    (b"DKIF", 0, "an IVF file"),
    (b"\xb7\xd8\x00\x20\x37\x49\xda\x11", 0, "a WTV file"),
    (b"nut/multimedia", 0, "a NUT file"),
)


def raise_unless_bad_video(data: str | bytes, error: Exception) -> None:
    """Re-raise errors of the machine: a failing disk or a missing permission does not make a video bad.

    Args:
        data: the video's bytes, or its path.
        error: what FFmpeg raised while reading them.

    Raises:
        InputError: `unreadable`: the disk can read only part of this file.
        OSError: the machine is to blame.
    """
    if isinstance(error, PermissionError):  # some of FFmpeg's demuxers report it for data that they do not accept
        if isinstance(data, str):
            open(data, "rb").close()  # raises again if the permission is missing
        return
    if isinstance(error, ConnectionError | TimeoutError | InterruptedError):
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
    """Return why FFmpeg does not open a file: it breaks off, or is something else than a video."""
    if why := why_broken_off(data):
        return InputError("truncated", f"{name} {why}")
    head = head_of(data)
    if found := describe_file(head):
        kind, what = found
        return InputError(kind, f"{name} {what}.")
    container = next((what for first, at, what in _CONTAINERS if head[at : at + len(first)] == first), None)
    if isinstance(error, av.error.EOFError):
        return InputError("truncated", f"{name} breaks off in its head{f' (of {container})' if container else ''}.")
    if container:
        said = f"{name} has the head of {container}, and FFmpeg can't read on: it is broken or breaks off ({error})."
        return InputError("not_video", said)
    return InputError("not_video", f"{name} is not a video that FFmpeg can open: {error}")


def why_broken_off(data: str | bytes) -> str | None:
    """Return how a file breaks off by the sizes that it states, as the rest of a sentence; None if it does not."""
    if why := why_incomplete(data):
        return why
    size, has = declared_size(head_of(data)), len(data) if isinstance(data, bytes) else os.path.getsize(data)
    return (
        f"breaks off: it has {has:,} of the {size:,} bytes that it states." if size is not None and has < size else None
    )


def head_of(data: str | bytes) -> bytes:
    """Return the first 64 KB of a file, given as its bytes or its path."""
    if isinstance(data, bytes):
        return data[:HEAD_BYTES]
    with open(data, "rb") as file:
        return file.read(HEAD_BYTES)
