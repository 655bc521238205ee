"""Bytes of model files: a local path, a packaged `asset:`, or any fsspec URL."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import fsspec
from botocore.exceptions import BotoCoreError

from vtcav_ray.assets import resolve_asset
from vtcav_ray.errors import ConfigError, StageError

CHUNK_BYTES = 1 << 22


@contextmanager
def open_binary(
    uri: str, storage_options: Mapping[str, Any] | None = None, *, what: str = "file"
) -> Iterator[IO[bytes]]:
    """Open a file for reading.

    Args:
        uri: local path, `asset:NAME` or fsspec URL.
        storage_options: for fsspec; used for URLs only, since the config may mix local and remote files.
        what: what the file is, for the error: `checkpoint`, `config`, `label file`.

    Raises:
        ConfigError: there is no such file, or its URL names a protocol that fsspec does not know.
        StageError: it is there, and can't be read (no permission, no network).
    """
    path = resolve_asset(uri)
    options = dict(storage_options or {}) if "://" in path else {}
    try:
        with fsspec.open(path, "rb", **options) as file:
            yield file
    except FileNotFoundError as error:
        if path.startswith(("http://", "https://")) and not _is_absent(error):
            raise StageError(f"The {what} {uri} can't be read: {error.__cause__}") from error
        raise ConfigError(f"No {what} at {uri}.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"The {what} {uri} is a folder.") from error
    except (ValueError, ImportError) as error:  # fsspec: unknown protocol, or the package for it is not installed
        raise ConfigError(f"The {what} {uri} can't be opened: {error}") from error
    except (OSError, BotoCoreError) as error:  # BotoCoreError: no credentials, no endpoint
        raise StageError(f"The {what} {uri} can't be read: {error}") from error


def _is_absent(error: FileNotFoundError) -> bool:
    """Whether an HTTP server said so: fsspec says it, too, where no server answers at all, or one that refuses."""
    cause = error.__cause__
    return cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in (404, 410)


def read_bytes(uri: str, storage_options: Mapping[str, Any] | None = None, *, what: str = "file") -> bytes:
    """All bytes of a file. Raises as `open_binary` does."""
    with open_binary(uri, storage_options, what=what) as file:
        return file.read()


def sha256_of(uri: str, storage_options: Mapping[str, Any] | None = None, *, what: str = "file") -> str:
    """Hex SHA-256 of a file, read in pieces. Raises as `open_binary` does."""
    digest = hashlib.sha256()
    with open_binary(uri, storage_options, what=what) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
