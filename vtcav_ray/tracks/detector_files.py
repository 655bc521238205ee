"""Read a detector's files as bytes and names. Computing a stage's key needs only these, and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtcav_ray.errors import ConfigError, RefusedURL
from vtcav_ray.store.reading import read_named
from vtcav_ray.text.name_lists import BadNames, read_name_list

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
    """Read the class names of a label file (`vtcav_ray.text.name_lists`), in the order of the classes.

    Raises:
        ConfigError: the file does not exist, is far too long, or is not a list of unique names.
        AccessError: the server refuses.
        OSError: permission is missing, or the network failed.
    """
    try:
        return read_name_list(_content(names, storage_options, MOST_NAMES_BYTES, "tracks.names"), names)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"`tracks.names`: {names} does not exist. Give a text file, one name per line.") from error
    except BadNames as error:
        raise ConfigError(f"`tracks.names`: {names} {error}.") from error


def _content(url: str, storage_options: Mapping[str, Any] | None, most: int, key: str) -> bytes:
    """Read a file, and at most `most` bytes of it, whatever size the server reports."""
    try:
        return read_named(url, storage_options, most)
    except RefusedURL as error:
        raise ConfigError(f"`{key}`: {error} Check its path or URL.") from error
