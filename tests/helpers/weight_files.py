"""Weight files from somebody who means harm, and the check that they are refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.ultralytics_import import import_ultralytics

import_ultralytics()
from ultralytics.nn.tasks import DetectionModel  # noqa: E402

LAYERS = [[-1, 1, "Conv", [8, 3, 4]], [-1, 1, "Conv", [16, 3, 2]], [[1], 1, "Detect", ["nc"]]]


def network() -> Any:
    torch.manual_seed(0)
    model = DetectionModel({"nc": 2, "backbone": LAYERS[:2], "head": LAYERS[2:], "scales": {}}, verbose=False)
    model.names = {0: "cup", 1: "ball"}
    return model


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def packed(pickled: bytes, storages: dict[str, bytes] | None = None, *, compress: int = zipfile.ZIP_STORED) -> bytes:
    """Make a torch file from a hand-made pickle and storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3")
        archive.writestr("a/byteorder", "little")
        for key, content in (storages or {}).items():
            archive.writestr(f"a/data/{key}", content)
    return buffer.getvalue()


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def refused(data: bytes, tmp_path: Path, *words: str) -> str:
    """Check that `load_pt` and a run's detector refuse a file with a clear error."""
    path = tmp_path / "hostile.pt"
    path.write_bytes(data)
    config = TracksConfig(weights=str(path), image_size=64, batch_size=1)
    with pytest.raises((StageError, ConfigError)) as caught:
        Detector(config, "cpu")(np.zeros((1, 64, 64, 3), np.uint8))
    assert caught.value.exit_status in (2, 3)
    assert "hostile.pt" in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)
