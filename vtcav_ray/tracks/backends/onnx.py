"""ONNX Runtime runs an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import StageError
from vtcav_ray.tracks.backends.base import stated_names
from vtcav_ray.tracks.detector_files import read_bytes
from vtcav_ray.tracks.detector_names import names_of
from vtcav_ray.tracks.heads import PROMPTED, Export, export_of
from vtcav_ray.tracks.layouts import Rows, UnknownLayout, rows_of_export, rows_of_unknown
from vtcav_ray.tracks.onnx_files import checked_onnx

MOST_SIDE = 8192  # of a network's input, pixels


class OnnxBackend:
    """An ONNX export: Ultralytics' own, known by its metadata, or another one, known by the shape of its output.

    YOLOv8 gives [B, 4+nc, N], YOLOv7 [B, N, 5+nc] or [n, 7], and an end-to-end detector [B, n, 6].
    """

    name = "onnxruntime"

    def __init__(self, config: TracksConfig, device: torch.device) -> None:
        try:
            import onnx  # noqa: F401 - used to check the file
            import onnxruntime
        except ImportError as error:
            raise StageError(
                f"{config.weights} needs ONNX Runtime. Install it: pip install 'vtcav-ray[onnx]'."
            ) from error
        providers = ["CPUExecutionProvider"]
        if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        data = checked_onnx(read_bytes(config.weights, config.storage_options), config.weights, config.storage_options)
        try:
            self._session = session_of(data, providers, torch.get_num_threads() if device.type == "cpu" else 0)
        except session_errors() as error:
            raise StageError(
                f"{config.weights} does not load as ONNX: {error} Export it again (`tracks.weights`)."
            ) from error
        self._run_errors = session_errors()
        self._read_input(config.weights)
        metadata = self._session.get_modelmeta().custom_metadata_map
        stated = stated_names(metadata, config.weights)
        self._export = export_of(metadata, config.weights)
        self.names = names_of(stated, config, len(stated) if stated is not None and self._export is not None else None)
        self.stride = max(self._export.stride or 32, 32) if self._export is not None else 32
        self.stretched = self._export is not None and self._is_rtdetr(self._export)
        self.agnostic = metadata.get("head") in PROMPTED
        self.masks = self._export is not None and self._export.task == "segment"
        # With one class, rows of six may be YOLOv7's: only the metadata can tell. Ultralytics never writes those.
        self._sixes_are_boxes = len(self.names) != 1 or "end2end" in metadata or metadata.get("author") == "Ultralytics"
        self._where = config.weights

    def _is_rtdetr(self, export: Export) -> bool:
        """Return whether rows are RT-DETR's; older exports show it by their output [B, n, 4+nc] alone."""
        if export.rtdetr or export.named or export.task != "detect" or export.final:
            return export.rtdetr
        shape = self._session.get_outputs()[0].shape
        return len(shape) == 3 and shape[2] == 4 + len(self.names) != shape[1]

    def _read_input(self, where: str) -> None:
        """Read name, type and size of the network's input.

        Raises:
            StageError: the input is not a picture.
        """
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or "float" not in inputs[0].type:
            raise StageError(
                f"{where} takes {', '.join(f'{i.type} {i.shape}' for i in inputs[:4])}, but a detector takes one float "
                "tensor [B, 3, H, W] (`tracks.weights`)."
            )
        given = inputs[0]
        self._input, self._dtype = given.name, np.float16 if "float16" in given.type else np.float32
        batch, channels, height, width = given.shape
        if isinstance(channels, int) and channels != 3:
            raise StageError(f"{where} takes pictures of {channels} channels, and a frame has 3 (`tracks.weights`).")
        self.any_batch = isinstance(batch, int)
        self._batch: int | None = max(batch, 1) if isinstance(batch, int) else None
        fixed = isinstance(height, int) and isinstance(width, int)
        self.fixed_size = (height, width) if fixed else None
        if fixed and not (0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE):
            raise StageError(f"{where} takes pictures of {height}x{width}; the limit is {MOST_SIDE} pixels per side.")

    def __call__(self, batch: torch.Tensor, confidence: float) -> list[Rows]:
        x = (batch.permute(0, 3, 1, 2).float() / 255).cpu().numpy().astype(self._dtype)
        x = np.ascontiguousarray(x)
        rows: list[Rows] = []
        size = self._batch or len(x)
        for start in range(0, len(x), size):
            part = x[start : start + size]
            filled = np.concatenate([part, *[part[-1:]] * (size - len(part))])
            rows += self._rows(self._run(filled), len(part), confidence, x.shape[2:])
        return rows

    def _run(self, x: np.ndarray) -> list[torch.Tensor]:
        try:
            return [torch.from_numpy(np.array(y, np.float32)) for y in self._session.run(None, {self._input: x})]
        except (TypeError, ValueError) as error:
            raise StageError(f"{self._where} returns something that is not a tensor of numbers: {error}") from error
        except self._run_errors as error:
            raise StageError(
                f"{self._where} can't run on a batch of shape {list(x.shape)}: {error} An export may contain the size "
                "that it was made with although it declares a free one. Export it with `dynamic=True`, or for one "
                "fixed size."
            ) from error

    def _rows(self, outputs: list[torch.Tensor], count: int, confidence: float, size: tuple[int, ...]) -> list[Rows]:
        try:
            if self._export is not None:
                rows = rows_of_export(outputs, self._export, len(self.names), confidence, size)
            else:
                sixes = self._sixes_are_boxes
                rows = rows_of_unknown(outputs[0], len(self.names), count, confidence, sixes=sixes)
        except UnknownLayout as error:
            raise StageError(f"{self._where}: {error}. Export YOLOv7 with --grid, and check `tracks.names`.") from error
        return rows[:count]


def session_of(data: bytes, providers: Sequence[str], threads: int) -> Any:
    """Return ONNX Runtime's session for the bytes of a file.

    Args:
        providers: of ONNX Runtime, in the order of preference.
        threads: of one operator on the CPU; 0: as many as there are cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(data, options, providers=list(providers))


def session_errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises for a network that it can't load or run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
        RuntimeError,
        ValueError,
    )
