"""The digest of everything that determines a recogniser's output, computed without building the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vtcav_ray.config import ModelConfig
from vtcav_ray.models.base import Description
from vtcav_ray.models.preprocess import Sampling
from vtcav_ray.store.files import sha256_of

UNTRAINED = "untrained"
DIGITS_SHOWN = 12


def describe_model(
    config: ModelConfig,
    identity: Mapping[str, Any],
    class_names: tuple[str, ...] | None,
    sampling: Sampling | None,
    seed: int,
    *,
    weights: str | None = None,
) -> Description:
    """Digest the content of a config and the bytes of a checkpoint, independent of their location.

    Args:
        config: the section of the experiment's config.
        identity: JSON-like values that determine the network and its input.
        class_names: in the order of the logits, if known.
        sampling: how the model's config samples frames.
        seed: of the weights, if they are untrained.
        weights: what identifies the weights; None: the SHA-256 of the checkpoint's file.

    Raises:
        ConfigError: there is no such checkpoint.
        StageError: the checkpoint cannot be read.
    """
    untrained = config.checkpoint == UNTRAINED
    if untrained:
        weights = f"{UNTRAINED} {seed}"
    elif weights is None:
        weights = sha256_of(config.checkpoint, config.storage_options, what="checkpoint")
    content = {"framework": config.framework, "config": identity, "classes": class_names, "weights": weights}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()
    name = "UNTRAINED" if untrained else config.checkpoint.rstrip("/").rsplit("/", 1)[-1].removeprefix("asset:")
    return Description(digest, untrained, f"{name}@{digest[:DIGITS_SHOWN]}", class_names, sampling)
