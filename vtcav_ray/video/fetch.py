"""What PyAV opens for a URI: a local path, or a remote object's bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.access import STORAGE_ERRORS, names_nothing, open_url, patiently
from vtcav_ray.errors import InputError, RefusedURL
from vtcav_ray.reading import read_object
from vtcav_ray.urls import READ_LIMITS, ReadLimits

Source = str | os.PathLike[str] | bytes


def fetch(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> str | bytes:
    """What PyAV opens for a URI: the path of a local file, or the whole object's bytes for anything remote.

    Args:
        storage_options: for fsspec, with a `vtcav_ray.urls.ReadLimits` (see `VideosConfig.read_options`). Without one,
            the usual limits hold, and no http(s) URL may lead to an address that is not public.

    Raises:
        InputError: `missing`, `empty`, `not_video` (a folder), `refused` (where the URL leads may not be read),
            `too_large`, or `timeout`: a remote object of too many bytes, or one that does not come to its end.
        OSError: no permission, or the network failed: not the video's fault, and worth another try.
    """
    options = {READ_LIMITS: ReadLimits(), **(storage_options or {})}
    fs, path = open_url(os.fspath(uri), options)
    try:
        if isinstance(fs, LocalFileSystem):
            if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe or a device may wait for ever
                raise InputError("not_video", f"{uri} is not a regular file.")
            with open(path, "rb") as file:  # ours, so that a missing right is an OSError and not a bad video
                if not file.read(1):
                    raise InputError("empty", f"{uri} has no bytes.")
            return path
        data = patiently(lambda: read_object(fs, path, str(uri), options[READ_LIMITS]), str(uri))
    except RefusedURL as error:
        raise InputError(error.kind, str(error)) from error
    except IsADirectoryError as error:
        raise InputError("not_video", f"{uri} is a folder.") from error
    except STORAGE_ERRORS as error:
        if names_nothing(error):
            raise InputError("missing", f"{uri} does not exist.") from error
        raise
    if not data:
        raise InputError("empty", f"{uri} has no bytes.")
    return data
