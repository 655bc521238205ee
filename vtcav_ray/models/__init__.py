"""Recognisers: building, loading, and access by layer. Start with `load_recogniser`.

A framework is an MMAction2 config (`mmaction2`), a folder of Hugging Face transformers (`transformers`), a function of
your own module (`python`), torchvision's own video Swin (`torchvision`), or an entry of the registry `FRAMEWORKS`, such
as an entry point of the group `vtcav_ray.recognisers`: a function `(config: ModelConfig, device: torch.device, seed:
int) -> Recogniser`. With `described_by` it describes itself; otherwise its version identifies its code.
"""

from __future__ import annotations

from typing import Any

from vtcav_ray.config import Config, ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models.base import Description, MakeRecogniser, Recogniser, TokenGrid, described_by
from vtcav_ray.models.digest import describe_model
from vtcav_ray.models.families import ALIASES
from vtcav_ray.models.layer_table import LayerRow, layer_table
from vtcav_ray.models.layers import resolve_layer
from vtcav_ray.models.preprocess import Preprocessor, Sampling
from vtcav_ray.models.python_module import NetworkSpec
from vtcav_ray.registry import FRAMEWORKS, UnknownName
from vtcav_ray.runs.devices import pick_device
from vtcav_ray.store.files import read_bytes, sha256_of

__all__ = [
    "Description",
    "LayerRow",
    "NetworkSpec",
    "Preprocessor",
    "Recogniser",
    "Sampling",
    "TokenGrid",
    "checkpoint_digest",
    "describe",
    "described_by",
    "layer_table",
    "load_recogniser",
    "model_digest",
    "resolve_layer",
    "with_layers",
]


def load_recogniser(config: ModelConfig, device: str = "auto", *, seed: int = 0) -> Recogniser:
    """Build a recogniser and load its weights.

    Args:
        config: the `model` section. `checkpoint: untrained` initialises the weights from `seed`.
        device: `auto` (the GPU if there is one), `cpu`, `cuda`, `cuda:1`.
        seed: of untrained weights.

    Raises:
        ConfigError: no such config, checkpoint or framework, or class names that don't fit the model.
        StageError: the checkpoint can't be read, is refused, or does not fit the model.
    """
    chosen = pick_device(device)
    make: MakeRecogniser = _framework(config.framework)
    return make(config, chosen, seed)


def describe(config: ModelConfig, *, seed: int = 0) -> Description:
    """Read and hash a recogniser's files; return digest, class names and sampling without building it.

    Raises:
        ConfigError: no such config, checkpoint or framework.
        StageError: a file exists but can't be read.
    """
    own = getattr(_framework(config.framework), "describe", None)
    if own is not None:
        description: Description = own(config, seed)
        return description
    identity: dict[str, Any] = {**_code_of(config.framework), "config": config.config}
    if config.labels:
        identity["labels"] = read_bytes(config.labels, config.storage_options, what="label file").decode()
    return describe_model(config, identity, None, None, seed)


def model_digest(config: ModelConfig, *, seed: int = 0) -> str:
    """Return the hex SHA-256 of all that determines a recogniser's output, for the stage's key. See `describe`."""
    return describe(config, seed=seed).digest


def checkpoint_digest(config: ModelConfig) -> str:
    """Return the hex SHA-256 of the weights alone, which `model.checkpoint` names: of a file, or of a folder's files.

    Raises:
        ConfigError: no such checkpoint or framework.
        StageError: a file exists but can't be read.
    """
    own = getattr(_framework(config.framework), "weights", None)
    if own is not None:
        digest: str = own(config)
        return digest
    return sha256_of(config.checkpoint, config.storage_options, what="checkpoint")


def with_layers(config: Config) -> Config:
    """Return the config with the layers of its model's family, if it has `activations.layers: auto`.

    With an `activations.projection` other than `mean`, these are the four aliases, each with that projection.

    Raises:
        ConfigError: no such model config or framework.
    """
    settings = config.activations
    if not settings.layers_are_auto:
        return config
    family = getattr(_framework(config.model.framework), "layers", None) if settings.projection == "mean" else None
    layers = ALIASES if family is None else family(config.model)
    return config.model_copy(update={"activations": settings.model_copy(update={"layers": layers})})


def _framework(name: str) -> Any:
    try:
        return FRAMEWORKS[name]
    except UnknownName as error:
        raise ConfigError(f"model.framework: {error}") from error


def _code_of(framework: str) -> dict[str, str | None]:
    """Return what identifies a framework's code in the digest: its place and its version."""
    if (point := FRAMEWORKS.entry_point(framework)) is not None:
        return {"entry": point.value, "version": point.dist.version if point.dist else None}
    return FRAMEWORKS.versions([framework])[framework]
