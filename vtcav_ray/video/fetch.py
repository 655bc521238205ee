"""What PyAV opens for a URI: a local path, or a remote object's bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.access import names_nothing, open_url, patiently, storage_errors
from vtcav_ray.errors import InputError

Source = str | os.PathLike[str] | bytes

MAX_OBJECT_BYTES = 4 * 2**30  # of a remote object, which is read whole


def fetch(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> str | bytes:
    """What PyAV opens for a URI: the path of a local file, or the whole object's bytes for anything remote.

    Raises:
        InputError: `missing`, `empty`, `not_video` (a folder), or `too_large` (a remote object over 4 GiB).
        OSError: no permission, or the network failed: not the video's fault, and worth another try.
    """
    fs, path = open_url(os.fspath(uri), storage_options)
    try:
        if isinstance(fs, LocalFileSystem):
            if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe or a device may wait for ever
                raise InputError("not_video", f"{uri} is not a regular file.")
            with open(path, "rb") as file:  # ours, so that a missing right is an OSError and not a bad video
                if not file.read(1):
                    raise InputError("empty", f"{uri} has no bytes.")
            return path
        data = patiently(lambda: _read_whole(fs, path, str(uri)), str(uri))
    except IsADirectoryError as error:
        raise InputError("not_video", f"{uri} is a folder.") from error
    except storage_errors() as error:
        if names_nothing(error):
            raise InputError("missing", f"{uri} does not exist.") from error
        raise
    if not data:
        raise InputError("empty", f"{uri} has no bytes.")
    return data


def _read_whole(fs: fsspec.AbstractFileSystem, path: str, uri: str) -> bytes:
    size = fs.size(path)
    if size is not None and size > MAX_OBJECT_BYTES:
        raise InputError("too_large", f"{uri} has {size:,} bytes; remote objects up to {MAX_OBJECT_BYTES:,} are read.")
    data = bytes(fs.cat_file(path))
    if size is not None and len(data) < size:  # a connection that ends early is no error to every file system
        raise ConnectionError(f"{len(data):,} of {size:,} bytes of {uri} arrived")
    return data
