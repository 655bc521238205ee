"""Class names of a detector: from the config's words or label file, else from its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.text.name_lists import repeated
from vtcav_ray.tracks.detector_files import read_names

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def names_of(stated: Any, config: TracksConfig, classes: int | None) -> dict[int, str]:
    """Return class names from the label file if one is given, else from the weights.

    Args:
        classes: how many classes the network has; None if it does not say.
    """
    if config.vocabulary is not None:
        return dict(enumerate(config.vocabulary))
    if config.names is not None:
        listed = read_names(config.names, config.storage_options)
        if classes is not None and len(listed) != classes:
            raise ConfigError(
                f"`tracks.names`: {config.names} has {len(listed)} names, and the detector {config.weights} has "
                f"{classes} classes. Give one name per class, in the order used to train it."
            )
        return dict(enumerate(listed))
    pairs: Any = stated.items() if isinstance(stated, Mapping) else enumerate(stated or ())
    names = {key: name for key, name in pairs if isinstance(name, str) and name.strip() and not _CONTROL.search(name)}
    hint = "Set `tracks.names` to a file with one name per line, in the order used to train the detector."
    if not stated or set(names) != set(range(len(stated))):
        raise ConfigError(f"{config.weights} has no class names, or they are not plain text numbered from 0. {hint}")
    if classes is not None and len(names) != classes:
        raise ConfigError(f"{config.weights} has {classes} classes, and names for {len(names)}. {hint}")
    if twice := repeated(names.values()):
        raise ConfigError(f"{config.weights} has two classes of the name {twice[0]!r}. {hint}")
    return names
