"""TensorRT runs an engine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import StageError
from vtcav_ray.tracks.backends.base import stated_names
from vtcav_ray.tracks.detector_files import read_bytes
from vtcav_ray.tracks.detector_names import names_of
from vtcav_ray.tracks.engine_files import batch_of, engine_export, engine_metadata
from vtcav_ray.tracks.heads import PROMPTED
from vtcav_ray.tracks.layouts import Rows, UnknownLayout, rows_of_export
from vtcav_ray.tracks.programs import check_may_run
from vtcav_ray.tracks.ultralytics_import import import_ultralytics

_BUILT_FROM = "the .pt or .onnx file that it was built from"


class EngineBackend:
    """A TensorRT engine of a detection head, run by Ultralytics' AutoBackend. Needs TensorRT and a GPU.

    The engine's header says what the head is, and is read before anything is run.
    """

    name = "tensorrt"
    stretched = False
    masks = False

    def __init__(self, config: TracksConfig, device: torch.device) -> None:
        check_may_run(config, "tracks.weights", config.weights, "a TensorRT engine", _BUILT_FROM)
        data = read_bytes(config.weights, config.storage_options)
        metadata = engine_metadata(data, config.weights)
        self._export = engine_export(metadata, config.weights)
        stated = stated_names(metadata, config.weights)
        self.names = names_of(stated, config, len(stated) if stated is not None else None)
        self.agnostic = metadata.get("head") in PROMPTED
        self._batch = batch_of(metadata)
        self.any_batch = self._batch is not None
        self._where = config.weights
        self._model = _loaded_engine(data, config.weights, device)
        self.stride = max(int(self._model.stride), 32)
        size = getattr(self._model, "imgsz", None)
        self.fixed_size = None if getattr(self._model, "dynamic", False) or size is None else (size[0], size[1])

    @torch.inference_mode()
    def __call__(self, batch: torch.Tensor, confidence: float) -> list[Rows]:
        x = batch.permute(0, 3, 1, 2).contiguous()
        x = (x.half() if self._model.fp16 else x.float()).div_(255)
        rows: list[Rows] = []
        for part in torch.split(x, self._batch or len(x)):
            empty = (self._batch or len(part)) - len(part)
            output = self._model(torch.cat([part, *[part[-1:]] * empty]))
            outputs = list(output) if isinstance(output, tuple | list) else [output]
            try:
                found = rows_of_export(outputs, self._export, len(self.names), confidence, x.shape[2:])
            except UnknownLayout as error:
                raise StageError(f"{self._where}: {error}. Export it again, and check `tracks.names`.") from error
            rows += found[: len(part)]
        return rows


def _loaded_engine(data: bytes, where: str, device: torch.device) -> Any:
    """Load an engine into the GPU.

    Raises:
        StageError: TensorRT or the GPU is missing.
    """
    try:
        import tensorrt  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        raise StageError(
            f"{where} is a TensorRT engine, and TensorRT is not installed. Install it, or give {_BUILT_FROM}."
        ) from error
    if device.type != "cuda":
        raise StageError(f"{where} is a TensorRT engine, which needs a GPU; the device is {device}. Give the .pt file.")
    import_ultralytics()
    from ultralytics.nn.autobackend import AutoBackend

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.engine"
        path.write_bytes(data)
        return AutoBackend(str(path), device=device, verbose=False)
