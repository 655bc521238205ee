"""PyTorch runs the network of Ultralytics' .pt weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tracks.detector_files import read_bytes
from vtcav_ray.tracks.detector_names import names_of
from vtcav_ray.tracks.detector_weights import load_pt
from vtcav_ray.tracks.heads import PROMPTED, RTDETR, SEGMENTATION, classes_of_network, head_of_network, set_words
from vtcav_ray.tracks.layouts import Rows, rows_of_network
from vtcav_ray.tracks.ultralytics_import import import_ultralytics
from vtcav_ray.tracks.vocabulary import TextFeatures

MOST_STRIDE = 1024
# Raised by inconsistent networks. Running out of memory is handled separately.
NETWORK_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)


class TorchBackend:
    """An Ultralytics model, loaded without running any code in its file."""

    name = "pytorch"
    fixed_size: tuple[int, int] | None = None
    any_batch = False

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
        except NETWORK_ERRORS as error:
            raise _not_a_network(config.weights, error) from error
        self.network = model.to(device).requires_grad_(False).eval()
        self._device = device
        self.reduced = config.precision == "bfloat16"
        if device.type == "cpu":
            self.network = self.network.to(memory_format=torch.channels_last)
            _activate_in_place(self.network)

    @torch.inference_mode()
    def __call__(self, batch: torch.Tensor, confidence: float) -> list[Rows]:
        x = batch.permute(0, 3, 1, 2)  # a channels-last view, as the CPU's convolutions prefer
        x = x.float().div_(255) if self._device.type == "cpu" else x.contiguous().float().div_(255)
        try:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.reduced):
                output = self.network(x)
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
        except NETWORK_ERRORS as error:
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
