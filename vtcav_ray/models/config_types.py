"""The names that a `type` in a model config may have.

MMEngine's registries accept any dotted name as a `type`, import the module and call the object of that name; `_scope_`
imports the package of that name. A recogniser needs neither. So a `type` must be a bare, registered name. In a config
that is data, it must also be a class that recognisers are built from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vtcav_ray.errors import ConfigError

SCOPES = ("mmaction", "mmengine")
_NAME = re.compile(rf"(?:(?:{'|'.join(SCOPES)})\.)?[A-Za-z_][A-Za-z0-9_]{{0,99}}")
# Modules that define the parts of recognisers. Other registered classes read files or fetch weights.
_PARTS = (
    "mmaction.models.backbones.", "mmaction.models.common.", "mmaction.models.data_preprocessors.",
    "mmaction.models.heads.", "mmaction.models.losses.", "mmaction.models.necks.", "mmaction.models.recognizers.",
    "mmaction.models.utils.", "mmcv.cnn.bricks.", "mmengine.model.base_model.", "mmengine.utils.dl_utils.",
    "torch.nn.modules.",
)  # fmt: skip
# Types that MMAction2 compares with strings, and does not look up in a registry.
_OWN_TABLES = frozenset({"resnet3d", "AvgConsensus"})
MOST_DEPTH = 64


def check_types(node: Any, where: str, uri: str, *, program: bool) -> None:
    """Check that every `type` in a part of a config is a bare name, before anything is built from it.

    Args:
        node: dicts, lists and values.
        where: its key, for messages.
        uri: the config, for messages.
        program: the config was a program, in which a `type` may be a class.

    Raises:
        ConfigError: a `type` or `_scope_` is not allowed; the message names the key.
    """
    for key, kind in _types(node, where, uri):
        if key.endswith("._scope_"):
            if kind not in SCOPES:
                raise ConfigError(
                    f"{uri}: `{key}` is {kind!r}, which would import that package. Known: {', '.join(SCOPES)}."
                )
        elif not (isinstance(kind, str) and _NAME.fullmatch(kind)) and not (program and isinstance(kind, type)):
            raise ConfigError(
                f"{uri}: `{key}` is {str(kind)[:120]!r}. A type must be the bare name of a class in MMAction2's "
                "registries, such as SwinTransformer3D; a dotted name would import and call the object of that name."
            )


def check_registered(model: dict[str, Any], uri: str, *, program: bool) -> None:
    """Check that every `type` of a model is registered. Call `import_mmaction` first.

    Args:
        model: a model that passed `check_types`.
        uri: the config, for messages.
        program: the config was a program, which may have registered its own classes.

    Raises:
        ConfigError: a `type` is not registered, or not part of a recogniser; the message names the key.
    """
    from mmaction.registry import MODELS
    from mmengine.registry import WEIGHT_INITIALIZERS

    for key, kind in _types(model, "model", uri):
        if key.endswith("._scope_") or not isinstance(kind, str):
            continue
        name = kind.rpartition(".")[2]
        if "init_cfg" in key:
            found = None if name.startswith("Pretrained") else WEIGHT_INITIALIZERS.module_dict.get(name)
        else:
            found = _registered(MODELS, name)
        if name in _OWN_TABLES or (found is not None and (program or "init_cfg" in key or _is_part(found))):
            continue
        raise ConfigError(
            f"{uri}: `{key}` is {kind!r}, and MMAction2 has registered no part of a recogniser under that name. To use "
            "your own class, write a config in Python that imports and registers it."
        )


def _registered(registry: Any, name: str) -> Any:
    """Find a class by its bare name in a registry or its parents. Unlike `Registry.get`, imports no named module."""
    registry.import_from_location()
    while registry is not None:
        if name in registry.module_dict:
            return registry.module_dict[name]
        registry = registry.parent
    return None


def _is_part(found: Any) -> bool:
    return f"{found.__module__}.".startswith(_PARTS)


def _types(node: Any, where: str, uri: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the key and value of every `type` and `_scope_` in a node."""
    if depth > MOST_DEPTH:
        raise ConfigError(f"{uri}: `{where[:120]}` is nested more than {MOST_DEPTH} deep.")
    if isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str):
                raise ConfigError(f"{uri}: `{where}` has the key {key!r}, which is not a string.")
            if key in ("type", "_scope_"):
                yield f"{where}.{key}", value
            yield from _types(value, f"{where}.{key}", uri, depth + 1)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _types(value, f"{where}[{number}]", uri, depth + 1)
