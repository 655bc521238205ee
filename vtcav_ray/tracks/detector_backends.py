"""Backends that run a detector's network: PyTorch, ONNX Runtime or TensorRT. All give the same two kinds of rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tracks.detector_files import read_bytes
from vtcav_ray.tracks.detector_names import names_of
from vtcav_ray.tracks.detector_weights import load_pt
from vtcav_ray.tracks.engine_files import batch_of, engine_export, engine_metadata
from vtcav_ray.tracks.heads import (
    PROMPTED,
    RTDETR,
    SEGMENTATION,
    Export,
    classes_of_network,
    export_of,
    head_of_network,
    set_words,
)
from vtcav_ray.tracks.layouts import Rows, UnknownLayout, rows_of_export, rows_of_network, rows_of_unknown
from vtcav_ray.tracks.onnx_files import checked_onnx, read_stated_names
from vtcav_ray.tracks.programs import check_may_run
from vtcav_ray.tracks.ultralytics_import import import_ultralytics
from vtcav_ray.tracks.vocabulary import TextFeatures

MOST_SIDE = 8192  # of a network's input, pixels
MOST_STRIDE = 1024
_BUILT_FROM = "the .pt or .onnx file that it was built from"
# Raised by inconsistent networks. Running out of memory is handled separately.
_NETWORK_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)


class Backend(Protocol):
    """A loaded network.

    `fixed_size` is (height, width) if the network accepts one input size only. With `fixed_batch`, it accepts one batch
    size only, and fills its batches itself. With `stretched`, frames are resized to the input without keeping their
    shape. With `agnostic`, boxes of different classes suppress each other. With `masks`, the rows have prototypes.
    """

    names: dict[int, str]
    stride: int
    fixed_size: tuple[int, int] | None
    fixed_batch: bool
    stretched: bool
    agnostic: bool
    masks: bool

    def __call__(self, batch: torch.Tensor, confidence: float) -> list[Rows]: ...


def load_backend(config: TracksConfig, device: torch.device, features: TextFeatures | None = None) -> Backend:
    """Load `config.weights` with the backend for its file extension.

    Args:
        features: of the words in `config.vocabulary`.
    """
    suffix = Path(config.weights).suffix.lower()
    if suffix == ".pt":
        return TorchBackend(config, device, features)
    check_words(config)
    if config.precision != "float32" and suffix in (".onnx", ".engine"):
        raise ConfigError(
            f"`tracks.precision`: {config.weights} has the precision that it was exported with. Give the .pt file "
            "(`tracks.weights`), or leave `tracks.precision` out."
        )
    if suffix == ".onnx":
        return OnnxBackend(config, device)
    if suffix == ".engine":
        return EngineBackend(config, device)
    raise ConfigError(f"`tracks.weights`: {config.weights} is neither .pt, .onnx nor .engine: give one of these.")


def check_words(config: TracksConfig) -> None:
    """Check that weights may take the words of `tracks.vocabulary`: exports have the classes that they were made with.

    Raises:
        ConfigError: they may not.
    """
    if config.vocabulary is not None and Path(config.weights).suffix.lower() in (".onnx", ".engine"):
        raise ConfigError(
            f"`tracks.vocabulary`: the classes of {config.weights} were fixed when it was exported. Give the .pt file "
            "(`tracks.weights`), or leave `tracks.vocabulary` out."
        )


class TorchBackend:
    """An Ultralytics model, loaded without running any code in its file."""

    fixed_size: tuple[int, int] | None = None
    fixed_batch = False

    def __init__(self, config: TracksConfig, device: torch.device, features: TextFeatures | None = None) -> None:
        if (features is None) != (config.vocabulary is None):
            raise ConfigError("`tracks.vocabulary` and the text features of its words are needed together.")
        model: Any = load_pt(read_bytes(config.weights, config.storage_options), config.weights)
        head = head_of_network(model, config.weights, words=features is not None)
        if features is not None:
            set_words(model, head, features, config.weights)
        self.stretched, self.agnostic, self.masks = head == RTDETR, head in PROMPTED, head in SEGMENTATION
        self.names = names_of(getattr(model, "names", None), config, classes_of_network(model))
        self._where = config.weights
        self.stride = _stride_of(model, config.weights)
        self._end_to_end = bool(getattr(model, "end2end", False))
        try:
            model = model.fuse(verbose=False) if hasattr(model, "fuse") else model  # merges convolution and batch norm
        except _NETWORK_ERRORS as error:
            raise _not_a_network(config.weights, error) from error
        self._model = model.to(device).requires_grad_(False).eval()
        self._device = device
        self._reduced = config.precision == "bfloat16"
        if device.type == "cpu":
            self._model = self._model.to(memory_format=torch.channels_last)
            _activate_in_place(self._model)

    @torch.inference_mode()
    def __call__(self, batch: torch.Tensor, confidence: float) -> list[Rows]:
        x = batch.permute(0, 3, 1, 2)  # a channels-last view, as the CPU's convolutions prefer
        x = x.float().div_(255) if self._device.type == "cpu" else x.contiguous().float().div_(255)
        try:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduced):
                output = self._model(x)
            return rows_of_network(
                output,
                len(self.names),
                confidence,
                x.shape[2:],
                final=self._end_to_end,
                rtdetr=self.stretched,
            )
        except torch.OutOfMemoryError:
            raise
        except _NETWORK_ERRORS as error:
            raise _not_a_network(self._where, error) from error


def _activate_in_place(model: Any) -> None:
    """Let SiLU overwrite the output of its own convolution: equal numbers, and a fifth less time on a CPU's memory.

    Each layer gets an activation of its own: one that several layers share may also get a tensor that is still needed.
    """
    import_ultralytics()
    from ultralytics.nn.modules.conv import Conv, DWConv

    for layer in model.modules():
        # A file's layer may lack its parts. The first pass reports that.
        conv, act = getattr(layer, "conv", None), getattr(layer, "act", None)
        if type(layer) in (Conv, DWConv) and type(conv) is nn.Conv2d and type(act) is nn.SiLU:
            layer.act = nn.SiLU(inplace=True)


class OnnxBackend:
    """An ONNX export: Ultralytics' own, known by its metadata, or another one, known by the shape of its output.

    YOLOv8 gives [B, 4+nc, N], YOLOv7 [B, N, 5+nc] or [n, 7], and an end-to-end detector [B, n, 6].
    """

    def __init__(self, config: TracksConfig, device: torch.device) -> None:
        try:
            import onnx  # noqa: F401 - used to check the file
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
        except ImportError as error:
            raise StageError(
                f"{config.weights} needs ONNX Runtime. Install it: pip install 'vtcav-ray[onnx]'."
            ) from error
        providers = ["CPUExecutionProvider"]
        if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.load_model_format", "ONNX")
        data = checked_onnx(read_bytes(config.weights, config.storage_options), config.weights, config.storage_options)
        if device.type == "cpu":
            options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        except (
            ort_errors.Fail,
            ort_errors.InvalidArgument,
            ort_errors.InvalidGraph,
            ort_errors.InvalidProtobuf,
            ort_errors.NotImplemented,
            RuntimeError,
            ValueError,
        ) as error:
            raise StageError(
                f"{config.weights} does not load as ONNX: {error} Export it again (`tracks.weights`)."
            ) from error
        self._run_errors = (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.RuntimeException)
        self._read_input(config.weights)
        metadata = self._session.get_modelmeta().custom_metadata_map
        stated = _stated_names(metadata, config.weights)
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
        self.fixed_batch = isinstance(batch, int)
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


class EngineBackend:
    """A TensorRT engine of a detection head, run by Ultralytics' AutoBackend. Needs TensorRT and a GPU.

    The engine's header says what the head is, and is read before anything is run.
    """

    stretched = False
    masks = False

    def __init__(self, config: TracksConfig, device: torch.device) -> None:
        check_may_run(config, "tracks.weights", config.weights, "a TensorRT engine", _BUILT_FROM)
        data = read_bytes(config.weights, config.storage_options)
        metadata = engine_metadata(data, config.weights)
        self._export = engine_export(metadata, config.weights)
        stated = _stated_names(metadata, config.weights)
        self.names = names_of(stated, config, len(stated) if stated is not None else None)
        self.agnostic = metadata.get("head") in PROMPTED
        self._batch = batch_of(metadata)
        self.fixed_batch = self._batch is not None
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


def _stated_names(metadata: Mapping[str, str], where: str) -> dict[int, str] | None:
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


def _stride_of(model: Any, where: str) -> int:
    """Return the largest stride of a network, in pixels; at least 32."""
    stride = getattr(model, "stride", 32)
    if isinstance(stride, torch.Tensor | int | float):
        largest = torch.as_tensor(stride, dtype=torch.float64).flatten()
        if len(largest) and bool((largest > 0).all()) and bool((largest <= MOST_STRIDE).all()):
            return max(int(largest.max()), 32)
    raise StageError(
        f"{where} is refused: its stride is not a number of pixels up to {MOST_STRIDE} (`tracks.weights`)."
    )


def _not_a_network(where: str, error: Exception) -> StageError:
    first = (str(error).strip().splitlines() or [""])[0]
    return StageError(
        f"The network in {where} does not work: {type(error).__name__}: {first} Give weights that Ultralytics itself "
        "can run (`tracks.weights`)."
    )
