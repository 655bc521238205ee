"""Read model files from a local path, a packaged `asset:`, or any fsspec URL."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from typing import IO, Any, TypeVar

from vtcav_ray.errors import ConfigError, EnvironmentFault, StageError
from vtcav_ray.store.access import open_url, patiently, storage_errors
from vtcav_ray.store.assets import resolve_asset
from vtcav_ray.store.reading import bytes_up_to

CHUNK_BYTES = 1 << 22
MOST_TEXT_BYTES = 16 << 20  # of a config or a label file
T = TypeVar("T")


def read_bytes(
    uri: str, storage_options: Mapping[str, Any] | None = None, *, what: str = "file", most: int = MOST_TEXT_BYTES
) -> bytes:
    """Return all bytes of a file.

    Args:
        uri: local path, `asset:NAME` or fsspec URL.
        storage_options: for fsspec; used for URLs only, since the config may mix local and remote files.
        what: kind of file, for the error: `checkpoint`, `config`, `label file`.
        most: maximum number of bytes that are read, whatever size the server reports.

    Raises:
        ConfigError: the file does not exist, is larger than `most`, or its URL names a protocol unknown to fsspec.
        StageError: the file exists but can't be read; EnvironmentFault if its storage does not answer or refuses.
    """
    content = _with_file(uri, storage_options, what, lambda file: bytes_up_to(file, most))
    if content is None:
        raise ConfigError(f"The {what} {uri} is larger than {most:,} bytes, the limit for it. Check its path or URL.")
    return content


def sha256_of(uri: str, storage_options: Mapping[str, Any] | None = None, *, what: str = "file") -> str:
    """Return the hex SHA-256 of a file, read in pieces. Arguments and errors are those of `read_bytes`."""
    return _with_file(uri, storage_options, what, _digest)


def has_file(uri: str, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Return whether there is a file at a path or URL.

    Raises:
        ConfigError: its URL is not allowed, or names a protocol unknown to fsspec.
        StageError: the storage can't be read; EnvironmentFault if it does not answer or refuses.
    """
    fs, path = open_url(resolve_asset(uri), storage_options)
    try:
        return bool(patiently(lambda: fs.isfile(path), uri))
    except ConnectionError as error:
        raise EnvironmentFault(f"{uri} can't be read: {error}") from error
    except storage_errors() as error:
        raise StageError(f"{uri} can't be read: {error}") from error


def copy_to(target: str, uri: str, storage_options: Mapping[str, Any] | None = None, *, what: str = "file") -> None:
    """Copy a file to the local path `target`, in pieces. Arguments and errors are those of `read_bytes`."""

    def copy(file: IO[bytes]) -> None:
        with open(target, "wb") as written:
            shutil.copyfileobj(file, written, CHUNK_BYTES)

    _with_file(uri, storage_options, what, copy)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _with_file(uri: str, storage_options: Mapping[str, Any] | None, what: str, use: Callable[[IO[bytes]], T]) -> T:
    fs, path = open_url(resolve_asset(uri), storage_options)

    def read() -> T:
        with fs.open(path, "rb") as file:
            return use(file)

    try:
        return patiently(read, uri)
    except FileNotFoundError as error:
        raise ConfigError(f"No {what} at {uri}. Check the path, or the URL and its access rights.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"The {what} {uri} is a folder: name the file in it.") from error
    except ConnectionError as error:
        raise EnvironmentFault(f"The {what} {uri} can't be read: {error}") from error
    except storage_errors() as error:
        raise StageError(f"The {what} {uri} can't be read: {error}") from error
