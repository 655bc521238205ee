"""Backends that run a detector's network: one file each. All give the same two kinds of rows."""

from __future__ import annotations

from pathlib import Path

import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.tracks.backends.base import Backend
from vtcav_ray.tracks.backends.exported import ExportedBackend, fastest
from vtcav_ray.tracks.backends.onnx import OnnxBackend
from vtcav_ray.tracks.backends.pytorch import TorchBackend
from vtcav_ray.tracks.backends.tensorrt import EngineBackend
from vtcav_ray.tracks.vocabulary import TextFeatures

__all__ = ["Backend", "EngineBackend", "ExportedBackend", "OnnxBackend", "TorchBackend", "check_words", "load_backend"]

_RUNS = {".onnx": "onnxruntime", ".engine": "tensorrt"}


def load_backend(config: TracksConfig, device: torch.device, features: TextFeatures | None = None) -> Backend:
    """Load `config.weights` with the backend for its file extension.

    Args:
        features: of the words in `config.vocabulary`.
    """
    suffix = Path(config.weights).suffix.lower()
    if suffix == ".pt":
        return fastest(TorchBackend(config, device, features), config, device)
    check_words(config)
    if config.precision != "float32" and suffix in (".onnx", ".engine"):
        raise ConfigError(
            f"`tracks.precision`: {config.weights} has the precision that it was exported with. Give the .pt file "
            "(`tracks.weights`), or leave `tracks.precision` out."
        )
    if config.backend not in ("auto", _RUNS.get(suffix, "auto")):
        raise ConfigError(
            f"`tracks.backend`: {config.backend} can't run {config.weights}. Give the .pt file (`tracks.weights`), or "
            "set `tracks.backend` to auto."
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
