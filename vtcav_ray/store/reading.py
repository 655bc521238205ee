"""Read whole files, remote or local, with a limit on the bytes that arrive, whatever their stated size."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import IO, Any

import fsspec
from fsspec.asyn import AsyncFileSystem, sync

from vtcav_ray.errors import RefusedURL
from vtcav_ray.store.access import open_url, patiently
from vtcav_ray.store.storage_errors import CutOff
from vtcav_ray.store.urls import READ_LIMITS, ReadLimits, origin_of
from vtcav_ray.text.url_text import shown

MAX_TABLE_BYTES = 2**30  # of a manifest or a file of labels
MAX_TEXT_BYTES = 64 * 2**20  # of a label file or a config
MAX_WEIGHTS_BYTES = 16 * 2**30
MAX_FILE_SECONDS = 3600.0  # to read a file that the config names
_PIECE_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20


def bytes_up_to(file: IO[bytes], most: int) -> bytes | None:
    """Return all bytes of an open file; None if there are more than `most`. Memory grows with the bytes read only."""
    fs = getattr(file, "fs", None)
    if fs is not None and getattr(fs, "keeps_read_limits", False):  # http: not all servers support range requests
        with fs.stream(file.url) as stream:  # type: ignore[attr-defined]
            return _bytes_up_to(stream, most)
    return _bytes_up_to(file, most)


def _bytes_up_to(file: IO[bytes], most: int) -> bytes | None:
    data = io.BytesIO()
    while chunk := file.read(_CHUNK_BYTES):
        if data.tell() + len(chunk) > most:
            return None
        data.write(chunk)
    return data.getvalue()


def read_at_most(file: IO[bytes], most: int, name: str) -> bytes:
    """Return all bytes of an open file.

    Raises:
        RefusedURL: the file has more than `most` bytes; the rest is not read.
    """
    data = bytes_up_to(file, most)
    if data is None:
        raise RefusedURL("too_large", f"{shown(name)} has more than {most:,} bytes, which is the limit.")
    return data


def read_named(url: str, storage_options: Mapping[str, Any] | None, most: int) -> bytes:
    """Return all bytes of a file that the config names: a path or URL. The URL's own host may have any address.

    Raises:
        ConfigError: the URL is not allowed, or the file has more than `most` bytes (`RefusedURL`).
        OSError and other errors of the file system: no such file, no permission, the network failed.
    """
    origin = origin_of(url)
    limits = ReadLimits((origin,) if origin else (), most, MAX_FILE_SECONDS)
    fs, path = open_url(url, {**(storage_options or {}), READ_LIMITS: limits})
    return patiently(lambda: read_object(fs, path, url, limits), url)


def read_object(fs: fsspec.AbstractFileSystem, path: str, name: str, limits: ReadLimits) -> bytes:
    """Return all bytes of a remote file.

    Raises:
        RefusedURL: `too_large`, `timeout` or `refused`; see `vtcav_ray.store.urls.ReadLimits`.
        CutOff: fewer bytes arrived than the storage reported.
        ConnectionError: the object changed while it was read.
        OSError and other errors of the file system: no such file, no permission, the network failed.
    """
    if getattr(fs, "keeps_read_limits", False):  # `vtcav_ray.store.guarded_http`, with the limits it was created with
        return bytes(fs.cat_file(path))
    until = time.monotonic() + limits.seconds
    info = _asked(fs, "info", name, limits, until, path)
    size = info["size"]
    if size is not None and size > limits.max_bytes:
        raise _too_large(name, limits)
    if size is None:
        data = bytes(_asked(fs, "cat_file", name, limits, until, path, 0, limits.max_bytes + 1))
    elif size <= _PIECE_BYTES:
        data = bytes(_asked(fs, "cat_file", name, limits, until, path))
    else:
        sink = io.BytesIO()
        for start in range(0, size, _PIECE_BYTES):
            end = min(size, start + _PIECE_BYTES)
            sink.write(_asked(fs, "cat_file", name, limits, until, path, start, end))
        data = sink.getvalue()
        if _version(info) != _version(_asked(fs, "info", name, limits, until, path)):
            raise ConnectionError(f"{name} was replaced while it was read")
    if len(data) > limits.max_bytes:
        raise _too_large(name, limits)
    if size is not None and len(data) != size:  # not every file system raises if a connection ends early
        raise CutOff(f"{len(data):,} of {size:,} bytes of {name} arrived")
    return data


def _asked(
    fs: fsspec.AbstractFileSystem, call: str, name: str, limits: ReadLimits, until: float, *arguments: Any
) -> Any:
    """Call a method of the file system and return its answer, within the time limit."""
    left = until - time.monotonic()
    if left > 0 and isinstance(fs, AsyncFileSystem):
        try:
            return sync(fs.loop, getattr(fs, f"_{call}"), *arguments, timeout=left)
        except TimeoutError:
            if time.monotonic() < until:
                raise
    elif left > 0:
        return getattr(fs, call)(*arguments)
    raise RefusedURL("timeout", f"{shown(name)} was not read to its end within {limits.seconds:.0f} seconds.")


def _too_large(name: str, limits: ReadLimits) -> RefusedURL:
    return RefusedURL("too_large", f"{shown(name)} has more than {limits.max_bytes:,} bytes, which is the limit.")


def _version(info: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(info.get(key) for key in ("size", "ETag", "etag", "md5Hash", "mtime", "LastModified", "generation"))
