"""Read a detector's files as bytes and names. Computing a stage's key needs only these, and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtcav_ray.errors import ConfigError, RefusedURL
from vtcav_ray.store.reading import read_named

MOST_WEIGHTS_BYTES = 4 << 30
MOST_NAMES_BYTES = 4 << 20


def read_bytes(weights: str, storage_options: Mapping[str, Any] | None = None) -> bytes:
    """Read the bytes of a weights file: `asset:NAME`, a path, or a URL.

    Raises:
        ConfigError: the file does not exist, or is larger than any detector.
        AccessError: the server refuses.
        OSError: permission is missing, or the network failed.
    """
    if weights.startswith("asset:"):
        from vtcav_ray.store.assets import resolve_asset

        weights = str(resolve_asset(weights))
    try:
        return _content(weights, storage_options, MOST_WEIGHTS_BYTES, "tracks.weights")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"`tracks.weights`: {weights} does not exist. Give a .pt or .onnx file, or a URL.") from error


def read_names(names: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """Read the class names of a label file, one per line; empty lines are skipped.

    Raises:
        ConfigError: the file does not exist, is not text, or is far too long.
        AccessError: the server refuses.
        OSError: permission is missing, or the network failed.
    """
    try:
        text = _content(names, storage_options, MOST_NAMES_BYTES, "tracks.names").decode("utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"`tracks.names`: {names} does not exist. Give a text file, one name per line.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"`tracks.names`: {names} is not UTF-8 text. Give one name per line.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _content(url: str, storage_options: Mapping[str, Any] | None, most: int, key: str) -> bytes:
    """Read a file, and at most `most` bytes of it, whatever size the server reports."""
    try:
        return read_named(url, storage_options, most)
    except RefusedURL as error:
        raise ConfigError(f"`{key}`: {error} Check its path or URL.") from error
