"""What PyAV opens for a URI: a local path, or a remote object's bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.access import AccessError, open_url, patiently
from vtcav_ray.errors import InputError
from vtcav_ray.storage_errors import CutOff, Trouble, sort, storage_errors
from vtcav_ray.video.listed import as_listed, check_unchanged
from vtcav_ray.video.neighbours import blame

Source = str | os.PathLike[str] | bytes

MAX_OBJECT_BYTES = 4 * 2**30  # of a remote object, which is read whole
CUT_OFFS = 5  # answers in a row that break off, before other objects are looked at


def fetch(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> str | bytes:
    """What PyAV opens for a URI: the path of a local file, or the whole object's bytes for anything remote.

    Args:
        uri: a `vtcav_ray.video.listed.Listed` has what tells that the file was replaced, and neighbours that tell
            whether a refusal is about this file.

    Raises:
        InputError: `missing`, `empty`, `not_video` (a folder), `too_large` (a remote object over 4 GiB), `changed`,
            `permission` or `unreadable` (while other videos can be read).
        AccessError, EnvironmentFault: no other video there can be read either.
        OSError: the network failed: not the video's fault, and worth another try.
    """
    video = as_listed(uri)
    fs, path = open_url(video.uri, storage_options)

    def attempt() -> str | bytes:
        data = _local(path, video.uri) if isinstance(fs, LocalFileSystem) else _read_whole(fs, path, video.uri)
        check_unchanged(fs, path, video, storage_options)  # after it was read: nobody can replace it in between
        return data

    try:
        data = patiently(attempt, video.uri, cut_offs=CUT_OFFS)
    except IsADirectoryError as error:
        raise InputError("not_video", f"{video.uri} is a folder.") from error
    except storage_errors(AccessError) as error:
        to_blame = blame(error, video, storage_options)
        if sort(error) is not Trouble.CUT_OFF:
            raise to_blame from error
        data = _once_more(attempt, to_blame)
    if not data:
        raise InputError("empty", f"{video.uri} has no bytes.")
    return data


def _once_more(attempt: Callable[[], str | bytes], to_blame: InputError) -> str | bytes:
    """Try again now that others could be read: the network may have been away for all the earlier tries."""
    try:
        return attempt()
    except storage_errors() as error:
        if sort(error) is not Trouble.CUT_OFF:
            raise
        raise to_blame from error


def _local(path: str, uri: str) -> str:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe or a device may wait for ever
        raise InputError("not_video", f"{uri} is not a regular file.")
    with open(path, "rb") as file:  # ours, so that a missing right is an OSError and not a bad video
        if not file.read(1):
            raise InputError("empty", f"{uri} has no bytes.")
    return path


def _read_whole(fs: fsspec.AbstractFileSystem, path: str, uri: str) -> bytes:
    size = fs.size(path)
    if size is not None and size > MAX_OBJECT_BYTES:
        raise InputError("too_large", f"{uri} has {size:,} bytes; remote objects up to {MAX_OBJECT_BYTES:,} are read.")
    data = bytes(fs.cat_file(path))
    if size is not None and len(data) < size:  # a connection that ends early is no error to every file system
        raise CutOff(f"{len(data):,} of {size:,} bytes of {uri} arrived")
    return data
