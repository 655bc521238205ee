"""Decide whether a storage error is the fault of one video or of the storage, by reading neighbouring videos.

A refusal (403), an answer that breaks off or an unreadable block may concern one object, or every object of the
bucket, host or disk. So other videos of the run in the same place are read until one succeeds: a few bytes of each, or
all of it if an answer broke off. The list of videos alone determines which ones are read: the result does not depend on
which video came first, on the shard, or on what this process has read before.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.errors import EnvironmentFault, InputError
from vtcav_ray.store.access import AccessError, open_url, patiently
from vtcav_ray.store.storage_errors import Trouble, reason, refusal, sort, storage_errors
from vtcav_ray.store.urls import LOCAL, scheme_of
from vtcav_ray.tables import rows_of
from vtcav_ray.video.listed import Listed, Seen
from vtcav_ray.video.segments import Segment

ASKED = 16  # maximum number of neighbours to read
_A_LITTLE, _ALL = 1 << 16, 1 << 26  # bytes to read of a neighbour: 64 MiB of a large object count as all of it
_PIECE = 1 << 16
_HTTP = ("http", "https")

Neighbours = Mapping[str, tuple[Listed, ...]]


def neighbours_of(videos: pa.Table) -> Neighbours:
    """Return up to `ASKED` videos for each bucket, host or disk: those whose URIs have the lowest hashes.

    Args:
        videos: with the columns `uri`, `size_bytes` and `fingerprint` of the table `videos`.
    """
    found: dict[str, list[tuple[bytes, Listed]]] = {}
    for row in rows_of(videos.select(["uri", "size_bytes", "fingerprint"])):
        video = Listed(**row)
        near = found.setdefault(_place(video.uri), [])
        near.append((hashlib.sha256(video.uri.encode()).digest(), video))
        if len(near) > 2 * ASKED:
            near.sort(key=lambda pair: pair[0])
            del near[ASKED + 1 :]
    # Keep one more than are read: the video itself may be among them.
    return {
        place: tuple(video for _, video in sorted(near, key=lambda pair: pair[0])[: ASKED + 1])
        for place, near in found.items()
    }


def listed_with_neighbours(uri: str, neighbours: Neighbours) -> Listed:
    """Return a `Listed` with the URI and its neighbours, and nothing else."""
    return Listed(uri, neighbours=neighbours.get(_place(uri), ()))


def with_neighbours(
    rows: pa.Table,
    neighbours: Neighbours,
    seen: Mapping[str, Seen | None] | None = None,
    *,
    by: Literal["video_id", "uri"] = "video_id",
) -> dict[str, Listed]:
    """Map each video_id, or each URI, to a `Listed` with its neighbours.

    Args:
        rows: with the columns `video_id`, `uri`, `size_bytes` and `fingerprint`, and `segments` if some have any.
        seen: video_id or URI -> what an earlier stage decoded.
        by: which of them.
    """
    known = [name for name in ("video_id", "uri", "size_bytes", "fingerprint", "segments") if name in rows.column_names]
    return {
        row[by]: Listed(
            row["uri"],
            row["size_bytes"],
            row["fingerprint"],
            neighbours.get(_place(row["uri"]), ()),
            (seen or {}).get(row[by]),
            tuple(Segment(part["start"], part["end"]) for part in row.get("segments") or ()),
        )
        for row in rows.select(known).to_pylist()
    }


def blame(error: BaseException, video: Listed, options: Mapping[str, Any] | None) -> InputError:
    """Find the cause of a storage error for a video: the video, or the storage.

    Args:
        error: from storage; if it was a passing error, it has already been retried.
        video: with its neighbours. Without any, the video is to blame unless the error says otherwise.
        options: for fsspec.

    Returns:
        An error of kind `missing`, `permission` or `unreadable`: the video is to blame.

    Raises:
        AccessError: no video of that bucket, host or disk may be read.
        EnvironmentFault: none can be read for another reason.
        Everything else: `error` itself, if it is not about one video.
    """
    trouble = sort(error)
    fs, path = open_url(video.uri, options)
    if trouble is Trouble.ABSENT:
        if _folder_is_gone(fs, path) and not _others_can_be_read(video, fs, path, options):
            raise EnvironmentFault(
                f"{video.uri} does not exist, nor does its folder or any other video that was tried. Mount their disk "
                "on each machine, under the same path."
            ) from error
        return InputError("missing", f"{video.uri} does not exist.")
    if trouble not in (Trouble.REFUSED, Trouble.BROKEN, Trouble.CUT_OFF):
        raise error
    what = refusal(error) or f"{reason(error)}."
    if _others_can_be_read(video, fs, path, options, _ALL if trouble is Trouble.CUT_OFF else _A_LITTLE):
        kind = "permission" if trouble is Trouble.REFUSED else "unreadable"
        asked = any(near.uri != video.uri for near in video.neighbours)
        others = f" Other videos of {_place(video.uri)} can." if asked else ""
        return InputError(kind, f"{video.uri} can't be read: {what}{others}")
    if trouble is Trouble.REFUSED:
        raise AccessError(
            f"{video.uri}: {what} No other video of {_place(video.uri)} that was tried may be read either."
        ) from error
    raise EnvironmentFault(
        f"{video.uri} can't be read: {what} No other video of {_place(video.uri)} that was tried can be read either. "
        "Run again when they can."
    ) from error


def _place(uri: str) -> str:
    """Return the bucket, host or disk of a video, for messages."""
    if "://" not in uri or scheme_of(uri) in LOCAL:
        return "this disk"
    parts = urlsplit(uri)
    return f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2]}"


def _others_can_be_read(
    video: Listed, fs: fsspec.AbstractFileSystem, path: str, options: Mapping[str, Any] | None, most: int = _A_LITTLE
) -> bool:
    """Return whether a neighbour can be read; if none gives an answer, whether the folder can be listed."""
    asked = 0
    others = [near for near in video.neighbours if near.uri != video.uri][:ASKED]
    for other in others:
        try:
            _read(other, options, most)
            return True
        except AccessError:
            asked += 1
        except storage_errors() as error:
            if (trouble := sort(error)) is Trouble.PASSING:
                raise
            asked += trouble is not Trouble.ABSENT
    if asked:
        return False
    if isinstance(fs, LocalFileSystem):
        return not _folder_is_gone(fs, path) or not others
    return scheme_of(video.uri) in _HTTP or _can_be_listed(fs, posixpath.dirname(path))


def _read(video: Listed, options: Mapping[str, Any] | None, most: int) -> None:
    """Read and discard the first `most` bytes of a video, or one byte of a local one, which can't break off."""
    fs, path = open_url(video.uri, options)
    # Over http, read one answer, as for a video: not every server supports ranges.
    how = {"block_size": 0} if scheme_of(video.uri) in _HTTP else {"block_size": _PIECE, "cache_type": "none"}

    def read() -> None:
        if isinstance(fs, LocalFileSystem):
            if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe may block forever
                raise FileNotFoundError(path)
            with open(path, "rb") as file:
                file.read(1)
            return
        left = most
        with fs.open(path, "rb", **how) as file:
            while left > 0 and (piece := file.read(min(_PIECE, left))):
                left -= len(piece)

    patiently(read, video.uri, cut_offs=1)


def _folder_is_gone(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    return isinstance(fs, LocalFileSystem) and not os.path.isdir(os.path.dirname(path))


def _can_be_listed(fs: fsspec.AbstractFileSystem, folder: str) -> bool:
    try:
        patiently(lambda: fs.ls(folder, detail=False), folder)
    except AccessError:
        return False
    except FileNotFoundError:
        return True  # the bucket answers
    return True
