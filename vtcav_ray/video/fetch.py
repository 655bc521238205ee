"""Turn a URI into what PyAV opens: a local path, or a remote object's bytes."""

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

CUT_OFFS = 5  # consecutive answers that break off before other objects are checked


def fetch(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> str | bytes:
    """Return what PyAV opens for a URI: the path of a local file, or all bytes of a remote object.

    Args:
        uri: a `vtcav_ray.video.listed.Listed` also carries the fingerprint that reveals a replaced file, and the
            neighbours that show whether a refusal concerns only this file.
        storage_options: for fsspec, with a `vtcav_ray.store.urls.ReadLimits` (see `VideosConfig.read_options`).
            Without one, the default limits apply, and no http(s) URL may lead to an address that is not public.

    Raises:
        InputError: `missing`, `empty`, `not_video` (a folder), `refused` (the URL leads to an address that may not be
            read), `too_large` or `timeout` (a remote object has too many bytes, or does not end), `changed`,
            `permission` or `unreadable` (while other videos can be read).
        AccessError, EnvironmentFault: no other video there can be read either.
        OSError: the network failed; the video is not to blame, and a retry may help.
    """
    video = as_listed(uri)
    options = {READ_LIMITS: ReadLimits(), **(storage_options or {})}
    fs, path = open_url(video.uri, options)

    def attempt() -> str | bytes:
        if isinstance(fs, LocalFileSystem):
            data: str | bytes = _local(path, video.uri)
        else:
            data = read_object(fs, path, video.uri, options[READ_LIMITS])
        check_unchanged(fs, path, video, options)  # after reading: the file can't be replaced in between
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
    """Try again now that other videos could be read: the network may have been down for all earlier tries."""
    try:
        return attempt()
    except storage_errors() as error:
        if sort(error) is not Trouble.CUT_OFF:
            raise
        raise to_blame from error


def _local(path: str, uri: str) -> str:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe or a device may block forever
        raise InputError("not_video", f"{uri} is not a regular file.")
    with open(path, "rb") as file:  # opened here, so that a missing permission raises OSError instead of a bad video
        if not file.read(1):
            raise InputError("empty", f"{uri} has no bytes.")
    return path
