"""What PyAV opens for a URI: a local path, or a remote object's bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.errors import InputError, RefusedURL
from vtcav_ray.store.access import AccessError, open_url, patiently
from vtcav_ray.store.reading import read_object
from vtcav_ray.store.storage_errors import Trouble, sort, storage_errors
from vtcav_ray.store.urls import READ_LIMITS, ReadLimits
from vtcav_ray.video.listed import as_listed, check_unchanged
from vtcav_ray.video.neighbours import blame

Source = str | os.PathLike[str] | bytes

CUT_OFFS = 5  # answers in a row that break off, before other objects are looked at


def fetch(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> str | bytes:
    """What PyAV opens for a URI: the path of a local file, or the whole object's bytes for anything remote.

    Args:
        uri: a `vtcav_ray.video.listed.Listed` has what tells that the file was replaced, and neighbours that tell
            whether a refusal is about this file.
        storage_options: for fsspec, with a `vtcav_ray.store.urls.ReadLimits` (see `VideosConfig.read_options`).
        Without one,
            the usual limits hold, and no http(s) URL may lead to an address that is not public.

    Raises:
        InputError: `missing`, `empty`, `not_video` (a folder), `refused` (where the URL leads may not be read),
            `too_large` or `timeout` (a remote object of too many bytes, or one that does not come to its end),
            `changed`, `permission` or `unreadable` (while other videos can be read).
        AccessError, EnvironmentFault: no other video there can be read either.
        OSError: the network failed: not the video's fault, and worth another try.
    """
    video = as_listed(uri)
    options = {READ_LIMITS: ReadLimits(), **(storage_options or {})}
    fs, path = open_url(video.uri, options)

    def attempt() -> str | bytes:
        if isinstance(fs, LocalFileSystem):
            data: str | bytes = _local(path, video.uri)
        else:
            data = read_object(fs, path, video.uri, options[READ_LIMITS])
        check_unchanged(fs, path, video, options)  # after it was read: nobody can replace it in between
        return data

    try:
        data = patiently(attempt, video.uri, cut_offs=CUT_OFFS)
    except RefusedURL as error:
        raise InputError(error.kind, str(error)) from error
    except IsADirectoryError as error:
        raise InputError("not_video", f"{video.uri} is a folder.") from error
    except storage_errors(AccessError) as error:
        to_blame = blame(error, video, options)
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
