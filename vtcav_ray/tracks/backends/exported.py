"""ONNX Runtime runs the network of .pt weights: exported in memory, when a worker loads the detector.

On a CPU it takes less time than PyTorch (`benchmarks/RESULTS.md`), and the boxes differ by less than a hundredth of a
pixel, as they do between processors. So the choice is in no key.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tracks.backends.base import Backend
from vtcav_ray.tracks.backends.onnx import session_errors, session_of
from vtcav_ray.tracks.backends.pytorch import NETWORK_ERRORS, TorchBackend
from vtcav_ray.tracks.layouts import Rows, rows_of_network

_log = logging.getLogger(__name__)
_ALL = -1.0  # a confidence that every box has
_BOXES, _SCORES = 0.1, 1e-3  # largest differences from the network: pixels, and of a score in [0, 1]


class ExportedBackend:
    """A `Detect` network of .pt weights, run by ONNX Runtime on the CPU.

    Raises:
        StageError: the network can't be exported, or the export finds other boxes.
    """

    name = "onnxruntime"
    fixed_size: tuple[int, int] | None = None
    any_batch = True  # ONNX Runtime computes each frame by itself, in equal bits
    stretched = agnostic = masks = False

    def __init__(self, network: TorchBackend) -> None:
        self.names, self.stride = network.names, network.stride
        side = 2 * self.stride
        shape = (2, side, side + self.stride, 3)  # not the one that is exported, to compare both
        batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        errors: tuple[type[Exception], ...] = (*NETWORK_ERRORS, torch.onnx.OnnxExporterError, *session_errors())
        truth = network(batch, _ALL)  # before the export, which changes the network
        try:
            self._session = session_of(
                export_network(network.network, (side, side)), ["CPUExecutionProvider"], torch.get_num_threads()
            )
            found = self(batch, _ALL)
        except errors as error:
            raise StageError(f"The network can't be exported to ONNX: {type(error).__name__}: {error}") from error
        if not all(_same(one.detections, other.detections) for one, other in zip(truth, found, strict=True)):
            raise StageError("The network's ONNX export finds other boxes than the network.")

    def __call__(self, batch: torch.Tensor, confidence: float) -> list[Rows]:
        x = batch.permute(0, 3, 1, 2).float().div_(255).contiguous().numpy()
        output = torch.from_numpy(self._session.run(None, {"images": x})[0])
        return rows_of_network(output, len(self.names), confidence, x.shape[2:], final=False, rtdetr=False)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether rows [4 + nc, n] are equal, but for the last digits."""
    if one.shape != other.shape:
        return False
    off = (one - other).abs()
    return float(off[:4].max()) < _BOXES and float(off[4:].max()) < _SCORES  # false for NaN


def fastest(network: TorchBackend, config: TracksConfig, device: torch.device) -> Backend:
    """Return the backend that `tracks.backend` asks for: the network itself, or its export.

    Raises:
        ConfigError: `onnxruntime` is asked for, and can't run this network here.
        StageError: it is asked for, and the export fails. With `auto`, PyTorch runs the network, and a warning says so.
    """
    if config.backend == "pytorch":
        return network
    if (reason := _why_not(network, device)) is not None:
        if config.backend == "onnxruntime":
            raise ConfigError(f"`tracks.backend`: onnxruntime can't run {config.weights}: {reason}. Set it to auto.")
        return network
    try:
        return ExportedBackend(network)
    except StageError as error:
        if config.backend == "onnxruntime":
            raise
        _log.warning("%s PyTorch runs %s instead (`tracks.backend`).", error, config.weights)
    return TorchBackend(config, device)  # a new one: the export changed the network


def _why_not(network: TorchBackend, device: torch.device) -> str | None:
    """Return why ONNX Runtime can't run a network as PyTorch does: a clause. None: it can."""
    if device.type != "cpu":
        return "it runs on a CPU here, and the detector has a GPU (`resources.detect.gpus`)"
    if network.reduced:
        return "`tracks.precision` is not float32"
    if not is_plain(network.network):
        head = type(network.network.model[-1]).__name__
        return f"only the head `Detect` without suppression of its own is exported here; this is `{head}`"
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:  # not installed, or for another machine
        return f"it can't be imported ({error}). Install it: pip install 'vtcav-ray[onnx]'"
    return None


def is_plain(network: Any) -> bool:
    """Return whether a network ends in a `Detect` head that does not suppress overlaps itself."""
    return type(network.model[-1]).__name__ == "Detect" and not getattr(network, "end2end", False)


def export_network(network: Any, shape: Sequence[int]) -> bytes:
    """Return an Ultralytics network as ONNX: `images` [B, 3, H, W] in [0, 1] -> `output0` [B, 4 + nc, N].

    Args:
        network: `is_plain`; changed to its form for exports.
        shape: (height, width) of the input that the network is traced with; the file takes others, too.
    """
    network = network.to(memory_format=torch.contiguous_format)
    head = network.model[-1]
    head.export, head.format, head.dynamic = True, "onnx", True
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        path = Path(folder) / "detector.onnx"
        warnings.simplefilter("ignore")  # the exporter is the older of torch's two; the newer needs another package
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, *shape),),
            path,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch", 2: "anchors"}},
            opset_version=17,
            dynamo=False,
        )
        return path.read_bytes()
