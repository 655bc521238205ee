"""Recognisers: built, loaded, and looked at by layer. `load_recogniser` is the door.

A framework is an MMAction2 config (`mmaction2`), torchvision's own video Swin (`torchvision`), or an entry point of the
group `vtcav_ray.recognisers`: a callable `(config: ModelConfig, device: torch.device, seed: int) -> Recogniser`.
"""

from __future__ import annotations

import difflib
import importlib.metadata

from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models.base import Description, Recogniser, TokenGrid
from vtcav_ray.models.digest import describe_model
from vtcav_ray.models.layer_table import LayerRow, layer_table
from vtcav_ray.models.layers import resolve_layer
from vtcav_ray.models.preprocess import Preprocessor, Sampling
from vtcav_ray.runs.devices import pick_device
from vtcav_ray.store.files import read_bytes

__all__ = [
    "Description",
    "LayerRow",
    "Preprocessor",
    "Recogniser",
    "Sampling",
    "TokenGrid",
    "describe",
    "layer_table",
    "load_recogniser",
    "model_digest",
    "resolve_layer",
]
ENTRY_POINTS = "vtcav_ray.recognisers"


def load_recogniser(config: ModelConfig, device: str = "auto", *, seed: int = 0) -> Recogniser:
    """Build a recogniser and load its weights.

    Args:
        config: the `model` section. `checkpoint: untrained` initialises the weights from `seed`.
        device: `auto` (the GPU where there is one), `cpu`, `cuda`, `cuda:1`.
        seed: of untrained weights.

    Raises:
        ConfigError: no such config, checkpoint or framework, or class names that don't fit the model.
        StageError: the checkpoint can't be read, is refused, or does not fit the model.
    """
    chosen = pick_device(device)
    if config.framework == "mmaction2":
        from vtcav_ray.models.mmaction import load_mmaction

        return load_mmaction(config, chosen, seed)
    if config.framework == "torchvision":
        from vtcav_ray.models.torchvision_swin import load_torchvision

        return load_torchvision(config, chosen, seed)
    return _entry_point(config.framework).load()(config, chosen, seed)


def describe(config: ModelConfig, *, seed: int = 0) -> Description:
    """Digest, class names and sampling of a recogniser, without building it: reads the files and hashes them.

    Raises:
        ConfigError: no such config, checkpoint or framework.
        StageError: a file is there and can't be read.
    """
    if config.framework == "mmaction2":
        from vtcav_ray.models.mmaction import describe_mmaction

        return describe_mmaction(config, seed)
    if config.framework == "torchvision":
        from vtcav_ray.models.torchvision_swin import describe_torchvision

        return describe_torchvision(config, seed)
    entry = _entry_point(config.framework)
    distribution = entry.dist
    identity = {
        "entry": entry.value,
        "version": distribution.version if distribution else None,
        "config": config.config,
    }
    if config.labels:
        identity["labels"] = read_bytes(config.labels, config.storage_options, what="label file").decode()
    return describe_model(config, identity, None, None, seed)


def model_digest(config: ModelConfig, *, seed: int = 0) -> str:
    """Hex SHA-256 of all that determines a recogniser's answers: what the stage's key uses. See `describe`."""
    return describe(config, seed=seed).digest


def _entry_point(framework: str) -> importlib.metadata.EntryPoint:
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    if framework in found.names:
        return found[framework]
    known = ["mmaction2", "torchvision", *sorted(found.names)]
    near = difflib.get_close_matches(framework, known, n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    raise ConfigError(
        f"model.framework: no framework `{framework}`; there are {', '.join(known)}, and any entry point of the group "
        f"`{ENTRY_POINTS}`.{hint}"
    )
