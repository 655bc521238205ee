"""A detector's files as bytes and names. What needs them for a stage's key alone gets by without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtcav_ray.errors import ConfigError
from vtcav_ray.reading import MAX_TEXT_BYTES, MAX_WEIGHTS_BYTES, read_named


def read_bytes(weights: str, storage_options: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a weights file: `asset:NAME`, a path, or a URL.

    Raises:
        ConfigError: there is no such file.
        OSError: no permission, or the network failed.
    """
    if weights.startswith("asset:"):
        from vtcav_ray.assets import resolve_asset

        weights = str(resolve_asset(weights))
    try:
        return read_named(weights, storage_options, MAX_WEIGHTS_BYTES)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"`tracks.weights`: {weights} does not exist. Give a .pt or .onnx file, or a URL.") from error


def read_names(names: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """The class names of a label file, one a line; empty lines are left out.

    Raises:
        ConfigError: there is no such file, or it is no text.
        OSError: no permission, or the network failed.
    """
    try:
        text = read_named(names, storage_options, MAX_TEXT_BYTES).decode("utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"`tracks.names`: {names} does not exist. Give a text file with one name a line.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"`tracks.names`: {names} is not UTF-8 text. Give one name a line.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
