"""A video as the listing saw it, and whether the file that is opened now is still the same.

A file is identified by its size and by its ETag or modification time. If the size differs, it was replaced. If only the
ETag or the time differs, its neighbours decide: in a folder that was copied (to another node's disk, or back from an
archive) every file has a new time; next to a replaced file, the neighbours still have the times of the listing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.errors import InputError
from vtcav_ray.store.access import may_pass, open_url, patiently, storage_errors
from vtcav_ray.video.segments import Segment


@dataclass(frozen=True)
class Seen:
    """Properties of a video that an earlier stage decoded: number of frames, size in pixels, frames per second."""

    num_frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class Listed(os.PathLike[str]):
    """A video's URI with what is known about it. Can be used wherever a URI can.

    Attributes:
        size_bytes, fingerprint: from the table `videos`; None if the listing could not find out (http).
        neighbours: other videos of the same bucket, host or disk, used to tell a bad object from bad storage.
        seen: None if no earlier stage has decoded it.
        segments: the parts of the video that are used; none: all of it.
    """

    uri: str
    size_bytes: int | None = None
    fingerprint: str | None = None
    neighbours: tuple[Listed, ...] = ()
    seen: Seen | None = None
    segments: tuple[Segment, ...] = ()

    def __fspath__(self) -> str:
        return self.uri

    def __str__(self) -> str:
        return self.uri

    @property
    def known(self) -> bool:
        """Whether a different file under the same name would be noticed."""
        return self.fingerprint is not None and self.size_bytes is not None


def as_listed(source: str | os.PathLike[str]) -> Listed:
    """Return the source itself if it is `Listed`, else a `Listed` with only the URI."""
    return source if isinstance(source, Listed) else Listed(os.fspath(source))


def segments_of(source: object) -> tuple[Segment, ...]:
    """Return the segments of a source; none: all of it is used."""
    return source.segments if isinstance(source, Listed) else ()


def facts(info: Mapping[str, Any] | None) -> tuple[int | None, str | None]:
    """Return (size in bytes, fingerprint) from a file system's info; None for what it does not report."""
    if info is None:
        return None, None
    size = info.get("size")
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return size, str(info[key]).strip('"')
    changed = next(
        (info[k] for k in ("mtime", "LastModified", "last_modified", "updated", "created") if info.get(k)), ""
    )
    return size, f"{size}-{changed}"


def check_unchanged(
    fs: fsspec.AbstractFileSystem, path: str, listed: Listed, options: Mapping[str, Any] | None
) -> None:
    """Check that a file is the one that was listed.

    Raises:
        InputError: `changed`.
        OSError and others: as raised by the file system.
    """
    if not listed.known:
        return
    size, fingerprint = facts(fs.info(path))
    if fingerprint == listed.fingerprint or (size == listed.size_bytes and _was_copied(listed, options)):
        return
    raise InputError(
        "changed",
        f"{listed.uri} is not the file that was listed: it had {listed.size_bytes} bytes ({listed.fingerprint}) and "
        f"has {size} ({fingerprint}). Run again with `vtcav run`, which lists the videos again.",
    )


def check_still_unchanged(source: object, options: Mapping[str, Any] | None) -> None:
    """Check, after a local file was decoded, that it is still the one that was listed.

    Remote objects are read completely before they are decoded, and are checked then.

    Raises:
        InputError: `changed`.
    """
    if not isinstance(source, Listed) or not source.known:
        return
    fs, path = open_url(source.uri, options)
    if not isinstance(fs, LocalFileSystem):
        return
    try:
        patiently(lambda: check_unchanged(fs, path, source, options), source.uri)
    except FileNotFoundError as error:
        raise InputError("changed", f"{source.uri} was removed while it was read.") from error


def check_as_seen(found: Seen, listed: Listed) -> None:
    """Check that a video decodes to what an earlier stage saw. For files that the listing could not identify.

    Raises:
        InputError: `changed`.
    """
    if listed.seen is not None and found != listed.seen:
        raise InputError(
            "changed",
            f"{listed.uri} is not the video that its tracks were found in: that had {_in_words(listed.seen)}, this has "
            f"{_in_words(found)}. Its URL can't tell the two files apart: give the new one another name, or use "
            "`--fresh`.",
        )


def _in_words(seen: Seen) -> str:
    return f"{seen.num_frames} frames of {seen.width}x{seen.height} at {seen.fps:.4g} fps"


def _was_copied(listed: Listed, options: Mapping[str, Any] | None) -> bool:
    """Return whether neighbours have the listed sizes, and none still has its listed time or ETag."""
    copied = False
    for other in listed.neighbours:
        if other.uri == listed.uri or not other.known:
            continue
        try:
            fs, path = open_url(other.uri, options)
            size, fingerprint = facts(fs.info(path))
        except storage_errors() as error:
            if may_pass(error):
                raise
            continue  # this one gives no information
        if fingerprint == other.fingerprint:
            return False
        copied |= size == other.size_bytes
    return copied
