"""A detector's files as bytes and names. What needs them for a stage's key alone gets by without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from vtcav_ray.access import open_url, patiently
from vtcav_ray.bounded_read import read_at_most
from vtcav_ray.errors import ConfigError, EnvironmentFault

MOST_WEIGHTS_BYTES = 4 << 30
MOST_NAMES_BYTES = 4 << 20


def read_bytes(weights: str, storage_options: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a weights file: `asset:NAME`, a path, or a URL.

    Raises:
        ConfigError: there is no such file, or it is larger than any detector.
        AccessError: its server refuses.
        OSError: no permission, or the network failed.
    """
    if weights.startswith("asset:"):
        from vtcav_ray.assets import resolve_asset

        weights = str(resolve_asset(weights))
    try:
        return _content(weights, storage_options, MOST_WEIGHTS_BYTES, "tracks.weights")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"`tracks.weights`: {weights} does not exist. Give a .pt or .onnx file, or a URL.") from error


def read_names(names: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """The class names of a label file, one a line; empty lines are left out.

    Raises:
        ConfigError: there is no such file, it is no text, or far too long.
        AccessError: its server refuses.
        OSError: no permission, or the network failed.
    """
    try:
        text = _content(names, storage_options, MOST_NAMES_BYTES, "tracks.names").decode("utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"`tracks.names`: {names} does not exist. Give a text file with one name a line.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"`tracks.names`: {names} is not UTF-8 text. Give one name a line.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _content(url: str, storage_options: Mapping[str, Any] | None, most: int, key: str) -> bytes:
    """A file's bytes, and no more than `most` of them, whatever its server says of its size."""
    fs, path = open_url(url, storage_options)

    def read() -> bytes | None:
        with fs.open(path, "rb") as file:
            return read_at_most(file, most)

    try:
        content = patiently(read, url)
    except FileNotFoundError as error:
        # fsspec says so, too, where no server answers at all, or one that refuses.
        status = getattr(error.__cause__, "status", None)
        if isinstance(error.__cause__, aiohttp.ClientError) and status not in (404, 410):
            raise EnvironmentFault(f"`{key}`: {url} can't be read: {error.__cause__}") from error
        raise
    if content is None:
        raise ConfigError(f"`{key}`: {url} is larger than {most:,} bytes. Check its path or URL.")
    return content
