"""A detector's files as bytes and names. What needs them for a stage's key alone gets by without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtcav_ray.errors import ConfigError, RefusedURL
from vtcav_ray.store.reading import read_named

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
        from vtcav_ray.store.assets import resolve_asset

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
    try:
        return read_named(url, storage_options, most)
    except RefusedURL as error:
        raise ConfigError(f"`{key}`: {error} Check its path or URL.") from error
