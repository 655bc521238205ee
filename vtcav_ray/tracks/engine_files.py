"""The header of a TensorRT engine: what Ultralytics writes about the network, before the compiled program.

It is 4 bytes, little-endian, with the length of the JSON object that follows. It is read as data; the engine after it
is not touched.
"""

from __future__ import annotations

import json
from typing import Any

from vtcav_ray.errors import ConfigError
from vtcav_ray.tracks.heads import Export, export_of

MOST_HEADER_BYTES = 8 << 20
_INSTEAD = "Give the .pt or .onnx file that it was built from"


def engine_metadata(data: bytes, where: str) -> dict[str, str]:
    """Return the metadata of an engine, as text, as an ONNX file has them.

    Args:
        data: the file's bytes.
        where: its name, for messages.

    Raises:
        ConfigError: it has no header of Ultralytics, so its head, layout and classes are unknown.
    """
    length = int.from_bytes(data[:4], "little")
    stated: Any = None
    if 0 < length <= min(len(data) - 4, MOST_HEADER_BYTES):
        try:
            stated = json.loads(data[4 : 4 + length])
        except (ValueError, RecursionError):
            stated = None
    if not isinstance(stated, dict):
        raise ConfigError(
            f"`tracks.weights`: {where} is an engine without the header that Ultralytics writes, so its classes and "
            f"the layout of its output are unknown. {_INSTEAD}, or export it with Ultralytics."
        )
    return {key: json.dumps(value) if key == "names" else str(value) for key, value in stated.items()}


def engine_export(metadata: dict[str, str], where: str) -> Export:
    """Return what an engine's metadata say about its output.

    Raises:
        ConfigError: the network gives no boxes, is unknown, or is not one of those that are read from engines.
    """
    export = export_of(metadata, where)
    if export is None:
        raise ConfigError(
            f"`tracks.weights`: the header of {where} is not one that Ultralytics writes: it names neither author, "
            f"head nor task. {_INSTEAD}."
        )
    if export.task != "detect" or export.rtdetr:
        raise ConfigError(
            f"`tracks.weights`: {where} is an engine of the head `{metadata.get('head', export.task)[:100]}` (task "
            f"{export.task}); only engines of detection heads are read. {_INSTEAD}."
        )
    return export


def batch_of(metadata: dict[str, str]) -> int | None:
    """Return the only batch size that an engine accepts; None: it accepts several, or does not say."""
    batch = metadata.get("batch", "")
    dynamic = "'dynamic': True" in metadata.get("args", "")
    return int(batch) if batch.isdecimal() and 0 < len(batch) < 6 and int(batch) > 0 and not dynamic else None
