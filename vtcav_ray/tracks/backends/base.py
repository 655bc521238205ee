"""What a loaded network offers, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from vtcav_ray.errors import StageError
from vtcav_ray.tracks.layouts import Rows
from vtcav_ray.tracks.onnx_files import read_stated_names


class Backend(Protocol):
    """A loaded network.

    `name` is the backend's. `fixed_size` is (height, width) if the network accepts one input size only. With
    `any_batch`, a frame's rows do not depend on the size of the batch; otherwise, the caller pads it. With `stretched`,
    frames are resized to the input without keeping their shape. With `agnostic`, boxes of different classes suppress
    each other. With `masks`, the rows have prototypes.
    """

    name: str
    names: dict[int, str]
    stride: int
    fixed_size: tuple[int, int] | None
    any_batch: bool
    stretched: bool
    agnostic: bool
    masks: bool

    def __call__(self, batch: torch.Tensor, confidence: float) -> list[Rows]: ...


def stated_names(metadata: Mapping[str, str], where: str) -> dict[int, str] | None:
    """Return the class names in an export's metadata; None if there are none.

    Raises:
        StageError: they are not readable.
    """
    if "names" not in metadata:
        return None
    try:
        return read_stated_names(metadata["names"])
    except ValueError as error:
        raise StageError(
            f"{where}: the class names in its metadata are not readable: {error}. Set `tracks.names`."
        ) from error
