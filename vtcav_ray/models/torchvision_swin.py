"""torchvision's video Swin (`swin3d_t`, `swin3d_s`, `swin3d_b`). Needs a torchvision that matches the installed torch.

`config` is the name of the network; `checkpoint` is a state dict in torchvision's format, or `untrained`. Nothing is
downloaded. torchvision's Swin keeps its activations channels-last, `[B, T', H', W', C]`, in all stages.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType

import torch

from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models.base import Description, Recogniser, described_by
from vtcav_ray.models.checkpoints import load_weights, read_checkpoint
from vtcav_ray.models.config_files import read_labels
from vtcav_ray.models.digest import UNTRAINED, describe_model
from vtcav_ray.models.preprocess import Preprocessor, make_preprocessor
from vtcav_ray.registry import FRAMEWORKS

NETWORKS = ("swin3d_t", "swin3d_s", "swin3d_b")
# features: stage 1, merging, stage 2, merging, stage 3, merging, stage 4
ALIASES = {"early": "features.2", "middle": "features.4", "late": "features.6", "head": "avgpool"}
# As torchvision's VideoClassification preset for Swin3D_*_Weights: short side 256 (232 for larger crops), crop 224.
PIPELINE = (
    {"type": "SampleFrames", "clip_len": 32, "frame_interval": 2, "num_clips": 1},
    {"type": "Resize", "scale": (-1, 256)},
    {"type": "CenterCrop", "crop_size": 224},
)
NORMALISATION = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


class TorchvisionRecogniser(Recogniser):
    """A recogniser with one of `NETWORKS`."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)


def describe_torchvision(config: ModelConfig, seed: int) -> Description:
    """Describe the recogniser; see `vtcav_ray.models.digest`."""
    names = read_labels(config.labels, config.storage_options) if config.labels else None
    identity = {"network": _network(config.config), "pipeline": [dict(step) for step in PIPELINE]}
    return describe_model(config, identity, names, _preprocessor().sampling, seed)


@FRAMEWORKS.register("torchvision")
@described_by(describe_torchvision)
def load_torchvision(config: ModelConfig, device: torch.device, seed: int) -> TorchvisionRecogniser:
    """Load the recogniser; see `vtcav_ray.models.load_recogniser`."""
    build = getattr(_torchvision().models.video, _network(config.config))
    names = read_labels(config.labels, config.storage_options) if config.labels else None
    checkpoint = None
    if config.checkpoint != UNTRAINED:
        checkpoint = read_checkpoint(config.checkpoint, config.storage_options)
        names = names or checkpoint.class_names
    count = len(names) if names is not None else 400
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(weights=None, num_classes=count)
    if checkpoint is not None:
        _check_count(checkpoint.weights, count, config)
        load_weights(module, checkpoint.weights, config.checkpoint)
    return TorchvisionRecogniser(
        module=module,
        class_names=names or tuple(str(i) for i in range(count)),
        description=describe_torchvision(config, seed),
        preprocessor=_preprocessor(),
        layer_aliases=ALIASES,
        device=device,
    )


def _check_count(weights: Mapping[str, torch.Tensor], count: int, config: ModelConfig) -> None:
    """Check the number of class names against the last layer's bias."""
    found = [w for name, w in weights.items() if name.endswith("head.bias") and w.ndim == 1]
    if len(found) == 1 and len(found[0]) != count:
        where = config.labels or "the checkpoint's own list"
        raise ConfigError(
            f"model.labels: {where} names {count} classes, and the checkpoint {config.checkpoint} has {len(found[0])}. "
            "Give a file with one name per class."
        )


def _preprocessor() -> Preprocessor:
    return make_preprocessor(PIPELINE, NORMALISATION)


def _network(name: str) -> str:
    if name not in NETWORKS:
        raise ConfigError(f"model.config: `{name}` is not supported; choose one of {', '.join(NETWORKS)}.")
    return name


def _torchvision() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:  # RuntimeError: its operators were built for another torch
        raise ConfigError(
            f"model.framework: torchvision can't be used here ({error}); install a build that matches torch, "
            "or use framework: mmaction2."
        ) from error
