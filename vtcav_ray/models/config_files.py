"""MMAction2 config files: found by path, URL or packaged name; what they say of the model, its input and its classes.

A `.py` config is a program, and reading it runs it, as it does in MMAction2. Name only configs that you trust; a config
in YAML or JSON runs nothing.
"""

from __future__ import annotations

import difflib
import json
import os
import posixpath
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vtcav_ray.assets import resolve_asset
from vtcav_ray.errors import ConfigError
from vtcav_ray.models.files import read_bytes
from vtcav_ray.models.mmaction_import import packaged_configs

# What would make a module fetch ImageNet or CLIP weights while it is built. All weights come from the checkpoint.
DOWNLOADS: Mapping[str, Any] = {
    "pretrained": None,
    "pretrained2d": False,
    "clip_pretrained": False,
    "pretrained_type": None,
}


@dataclass(frozen=True)
class MMActionConfig:
    """What is needed of a config file.

    Attributes:
        model: the `model` dictionary, without anything that would download.
        pipeline: transforms from the decoded frames to the model's input (`test_pipeline`).
        class_names: from `classes`, `dataset_meta` or a label file that the config names; None: it names none.
    """

    model: dict[str, Any]
    pipeline: tuple[dict[str, Any], ...]
    class_names: tuple[str, ...] | None

    @property
    def num_classes(self) -> int | None:
        return self.model.get("cls_head", {}).get("num_classes")

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the model and its input, as JSON-like values: for the digest."""
        return {"model": _jsonable(self.model), "pipeline": _jsonable(self.pipeline), "classes": self.class_names}


def read_config(uri: str, storage_options: Mapping[str, Any] | None = None) -> MMActionConfig:
    """Read a config from a local path, a URL, `asset:NAME`, or by its name among MMAction2's packaged configs.

    Raises:
        ConfigError: nothing of that name (with the nearest packaged names), or it is not a recogniser's config.
    """
    path = resolve_asset(uri)
    if "://" in path:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / posixpath.basename(path)
            local.write_bytes(read_bytes(path, storage_options, what="model config"))
            names = lambda name: _labels(posixpath.join(posixpath.dirname(path), name), storage_options)  # noqa: E731
            return _parse(str(local), uri, names)
    local_path = path if os.path.isfile(path) else str(_packaged(path))
    return _parse(local_path, uri, lambda name: _labels(os.path.join(os.path.dirname(local_path), name), None))


def read_labels(uri: str, storage_options: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Class names from a text file, one a line in the order of the logits; `<index> <name>` lines are read too.

    Raises:
        ConfigError: no such file, not text, or a name that occurs twice.
    """
    return _labels(uri, storage_options)


def _parse(path: str, uri: str, labels_at: Any) -> MMActionConfig:
    from mmengine.config import Config
    from mmengine.config.utils import ConfigParsingError

    try:
        loaded = Config.fromfile(path, import_custom_modules=False)
    except (ConfigParsingError, OSError, SyntaxError, NameError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The model config {uri} (model.config) can't be read: {' '.join(str(error).split())}"
        ) from error
    data = loaded.to_dict()
    model = data.get("model")
    if not isinstance(model, dict) or "backbone" not in model or "cls_head" not in model:
        raise ConfigError(f"{uri} is not a recogniser's config: it needs a `model` with a `backbone` and a `cls_head`.")
    pipeline = data.get("test_pipeline") or data.get("val_pipeline") or _dataset_pipeline(data)
    if not pipeline:
        raise ConfigError(f"{uri} has no `test_pipeline`: it is needed to know how frames become the model's input.")
    names = data.get("classes") or (data.get("dataset_meta") or {}).get("classes")
    if names is None and isinstance(label_file := data.get("label_file"), str):
        names = labels_at(label_file)
    return MMActionConfig(
        _without_downloads(model), tuple(pipeline), tuple(str(name) for name in names) if names is not None else None
    )


def _dataset_pipeline(data: Mapping[str, Any]) -> Sequence[dict[str, Any]] | None:
    dataset = (data.get("test_dataloader") or {}).get("dataset") or {}
    return dataset.get("pipeline")


def _without_downloads(node: Any) -> Any:
    """A copy in which nothing names weights to fetch."""
    if isinstance(node, dict):
        kept = {k: _without_downloads(v) for k, v in node.items() if not (k == "init_cfg" and _names_weights(v))}
        return {k: DOWNLOADS.get(k, v) for k, v in kept.items()}
    if isinstance(node, list | tuple):
        return type(node)(_without_downloads(v) for v in node)
    return node


def _names_weights(init_cfg: Any) -> bool:
    entries = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    return any(isinstance(e, dict) and e.get("type") == "Pretrained" for e in entries)


@lru_cache(maxsize=1)
def packaged_names() -> tuple[str, ...]:
    """Names of MMAction2's packaged recogniser configs, e.g. `recognition/swin/swin-tiny-...`, without `.py`."""
    root = packaged_configs()
    return tuple(sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.glob("recognition/*/*.py")))


def _packaged(name: str) -> Path:
    wanted = name.removesuffix(".py")
    for known in packaged_names():
        if wanted in (known, posixpath.basename(known)):
            return packaged_configs() / f"{known}.py"
    bare = {posixpath.basename(known): known for known in packaged_names()}
    near = difflib.get_close_matches(posixpath.basename(wanted), list(bare), n=3, cutoff=0.4)
    hint = f" Nearest packaged names: {', '.join(bare[n] for n in near)}." if near else ""
    raise ConfigError(f"No model config at {name}: neither a file nor one of MMAction2's packaged configs.{hint}")


def _labels(uri: str, storage_options: Mapping[str, Any] | None) -> tuple[str, ...]:
    try:
        lines = read_bytes(uri, storage_options, what="label file").decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"The label file {uri} is not UTF-8 text. Save it as UTF-8.") from error
    names = [line.strip() for line in lines if line.strip()]
    numbered = [name.split(maxsplit=1) for name in names]
    if names and all(len(part) == 2 and part[0] == str(i) for i, part in enumerate(numbered)):
        names = [part[1] for part in numbered]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"The label file {uri} has names twice: {', '.join(twice[:5])}. Make them differ.")
    return tuple(names)


def _jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True, default=repr))
