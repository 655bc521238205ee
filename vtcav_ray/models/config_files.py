"""MMAction2 config files: find them by path, URL or packaged name; read the model, its input and its classes.

A config in YAML or JSON is data, and is read as data: nothing in it is run, followed or substituted, and each `type`
must be registered in MMAction2 (`vtcav_ray.models.config_types`). A `.py` config is a program, and reading it runs it,
as in MMAction2. So it is read only if it comes with MMAction2 or this package, if it is on this machine and the caller
named it, or if it is explicitly trusted (`--trust-code`).
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vtcav_ray.config import Code
from vtcav_ray.errors import ConfigError
from vtcav_ray.models.config_programs import check_version, data_of_own_program, data_of_program
from vtcav_ray.models.config_types import check_types
from vtcav_ray.models.mmaction_import import packaged_configs, require_mmaction
from vtcav_ray.store.assets import SCHEME, resolve_asset
from vtcav_ray.store.files import read_bytes
from vtcav_ray.store.urls import scheme_of, shown
from vtcav_ray.text.bounded_text import UnreadableText, read_json, read_yaml
from vtcav_ray.text.name_lists import BadNames, read_name_list, repeated

logger = logging.getLogger(__name__)

# Options with which a module would fetch ImageNet or CLIP weights when built. All weights come from the checkpoint.
DOWNLOADS: Mapping[str, Any] = {
    "pretrained": None,
    "pretrained2d": False,
    "clip_pretrained": False,
    "pretrained_type": None,
}


@dataclass(frozen=True)
class MMActionConfig:
    """The parts of a config file that a recogniser needs.

    Attributes:
        model: the `model` dictionary, without options that would download.
        pipeline: transforms from the decoded frames to the model's input (`test_pipeline`).
        class_names: from `classes`, `dataset_meta` or a label file named by the config; None: there are none.
        program: the config was a program, which may have registered its own classes.
        imports: the value of a program's `custom_imports`: modules that register classes of the model.
        folder: of a program, in which these modules may lie.
    """

    model: dict[str, Any]
    pipeline: tuple[dict[str, Any], ...]
    class_names: tuple[str, ...] | None
    program: bool = False
    imports: Any = None
    folder: str = ""

    @property
    def num_classes(self) -> int | None:
        head = self.model.get("cls_head")
        count = head.get("num_classes") if isinstance(head, dict) else None
        return count if isinstance(count, int) else None

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the model and its input, as JSON-like values, for the digest."""
        found = {"model": _jsonable(self.model), "pipeline": _jsonable(self.pipeline), "classes": self.class_names}
        return {**found, "imports": _jsonable(self.imports)} if self.imports else found


def read_config(uri: str, storage_options: Mapping[str, Any] | None = None, *, code: Code = "here") -> MMActionConfig:
    """Read a config from a local path, a URL, `asset:NAME`, or by its name among MMAction2's packaged configs.

    Args:
        uri: ends with `.py`, `.yaml`, `.yml` or `.json`, unless it is a packaged name.
        storage_options: for fsspec, if `uri` is a URL.
        code: sources from which a `.py` config may be run: `nowhere` (only packaged configs), `here` (also this
            machine) or `anywhere`.

    Raises:
        ConfigError: no config of that name (the message has the nearest packaged names), not a recogniser's config, a
            program that may not be run, or one that needs MMAction2 where that is not installed.
    """
    path = resolve_asset(uri)
    remote = "://" in path
    packaged = uri.startswith(SCHEME)
    if not remote and not os.path.isfile(path):
        path, packaged = str(_packaged(path)), True
    options = storage_options if remote else None
    folder = posixpath.dirname(path) if remote else os.path.dirname(path)
    suffix = os.path.splitext(path)[1].lower()
    if uri.startswith(SCHEME) and suffix == ".py":
        data = data_of_own_program(path)
    elif suffix == ".py":
        if not packaged:
            _check_trust(uri, code)
        require_mmaction(f"The model config {shown(uri)} (model.config)")
        data = data_of_program(path, uri, options)
    elif suffix in (".yaml", ".yml", ".json"):
        data = _data_of_text(path, uri, options)
    else:
        raise ConfigError(f"The model config {shown(uri)} (model.config) is neither .py, .yaml, .yml nor .json.")
    return _parse(
        data, uri, lambda name: _labels(os.path.join(folder, name), options), folder if suffix == ".py" else None
    )


def read_labels(uri: str, storage_options: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Read class names in the order of the logits (`vtcav_ray.text.name_lists`).

    Raises:
        ConfigError: no such file, or it is not a list of unique names.
    """
    return _labels(uri, storage_options)


def _check_trust(uri: str, code: Code) -> None:
    """Raise ConfigError if a `.py` config may not be run; log it if it may."""
    on_url = "://" in uri and scheme_of(uri) not in ("file", "local")
    if code == "nowhere":
        raise ConfigError(
            f"The model config {shown(uri)} (model.config) is a program, and reading it would run it. It is named by "
            "the record of a run (run.json), which another user may have written. Check it, then give --trust-code, "
            "or name it yourself with --set model.config=PATH."
        )
    if on_url and code != "anywhere":
        raise ConfigError(
            f"The model config {shown(uri)} (model.config) is a program on a URL, and reading it would run it. Check "
            "it, then give --trust-code, or copy it to this machine. A config in YAML or JSON needs no trust."
        )
    logger.info("the model config %s is a program, and is run", shown(uri))


def _data_of_text(path: str, uri: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read a YAML or JSON config."""
    content = read_bytes(path, storage_options, what="model config")
    try:
        text = content.decode("utf-8-sig")
        data = read_json(text) if path.lower().endswith(".json") else read_yaml(text)
    except (UnreadableText, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The model config {shown(uri)} (model.config) can't be read: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"The model config {shown(uri)} (model.config) must hold `key: value` pairs at the top.")
    if "_base_" in data:
        raise ConfigError(
            f"The model config {shown(uri)} (model.config) has a `_base_`, which is not followed from YAML or JSON. "
            "Write all of it into one file, for example with MMEngine's `Config.fromfile(ORIGINAL).dump(FILE)`."
        )
    return data


def _parse(data: Mapping[str, Any], uri: str, labels_at: Any, program_in: str | None) -> MMActionConfig:
    check_version(data, uri)
    program = program_in is not None
    model = data.get("model")
    if not isinstance(model, dict) or "backbone" not in model or "cls_head" not in model:
        raise ConfigError(f"{uri} is not a recogniser's config: it needs a `model` with a `backbone` and a `cls_head`.")
    pipeline = data.get("test_pipeline") or data.get("val_pipeline") or _dataset_pipeline(data)
    if not pipeline or not isinstance(pipeline, list | tuple):
        raise ConfigError(f"{uri} has no `test_pipeline`: it is needed to know how frames become the model's input.")
    model, pipeline = _without_downloads(model), tuple(pipeline)
    for name, part in (("model", model), ("test_pipeline", list(pipeline))):
        check_types(part, name, shown(uri), program=program)
    if not all(isinstance(step, dict) for step in pipeline):
        raise ConfigError(f"{uri}: every step of the `test_pipeline` must be a mapping with a `type`.")
    imports = data.get("custom_imports") if program else None
    names = _class_names(data, uri, labels_at, program)
    return MMActionConfig(model, pipeline, names, program, imports, program_in or "")


def _class_names(data: Mapping[str, Any], uri: str, labels_at: Any, program: bool) -> tuple[str, ...] | None:
    meta = data.get("dataset_meta")
    names = data.get("classes") or (meta.get("classes") if isinstance(meta, dict) else None)
    if names is None and isinstance(label_file := data.get("label_file"), str):
        if not program and ("://" in label_file or posixpath.isabs(label_file) or ".." in Path(label_file).parts):
            raise ConfigError(f"{uri}: its `label_file` {shown(label_file)} must lie beside it or below.")
        names = labels_at(label_file)
    if names is None:
        return None
    if not isinstance(names, list | tuple):
        raise ConfigError(f"{uri}: its `classes` must be a list of names.")
    if not all(isinstance(name, str | int | float) and str(name).strip() for name in names):
        raise ConfigError(f"{uri}: its `classes` must be a list of names.")
    if twice := repeated(str(name) for name in names):
        raise ConfigError(f"{uri}: its `classes` have names twice: {', '.join(twice[:5])}. Make them differ.")
    return tuple(str(name) for name in names)


def _dataset_pipeline(data: Mapping[str, Any]) -> Sequence[dict[str, Any]] | None:
    loader = data.get("test_dataloader")
    dataset = loader.get("dataset") if isinstance(loader, dict) else None
    return dataset.get("pipeline") if isinstance(dataset, dict) else None


def _without_downloads(node: Any) -> Any:
    """Return a copy without names of weights to fetch."""
    if isinstance(node, dict):
        kept = {k: _without_downloads(v) for k, v in node.items() if not (k == "init_cfg" and _names_weights(v))}
        return {k: DOWNLOADS.get(k, v) for k, v in kept.items()}
    if isinstance(node, list | tuple):
        return type(node)(_without_downloads(v) for v in node)
    return node


def _names_weights(init_cfg: Any) -> bool:
    """Return whether an `init_cfg`, or anything inside it (`override`), takes weights from another file."""
    if isinstance(init_cfg, dict):
        kind = init_cfg.get("type")
        return (isinstance(kind, str) and kind.rpartition(".")[2].startswith("Pretrained")) or any(
            _names_weights(value) for value in init_cfg.values()
        )
    return isinstance(init_cfg, list | tuple) and any(_names_weights(value) for value in init_cfg)


@lru_cache(maxsize=1)
def packaged_names() -> tuple[str, ...]:
    """Return the names of MMAction2's packaged recogniser configs, e.g. `recognition/swin/swin-tiny-...`, no `.py`."""
    root = packaged_configs()
    return tuple(sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.glob("recognition/*/*.py")))


def _packaged(name: str) -> Path:
    require_mmaction(f"There is no file {name} (model.config), and a name of a packaged config")
    wanted = name.removesuffix(".py")
    for known in packaged_names():
        if wanted in (known, posixpath.basename(known)):
            return packaged_configs() / f"{known}.py"
    by_file_name = {posixpath.basename(known): known for known in packaged_names()}
    near = difflib.get_close_matches(posixpath.basename(wanted), list(by_file_name), n=3, cutoff=0.4)
    hint = f" Nearest packaged names: {', '.join(by_file_name[n] for n in near)}." if near else ""
    raise ConfigError(f"No model config at {name}: neither a file nor one of MMAction2's packaged configs.{hint}")


def _labels(uri: str, storage_options: Mapping[str, Any] | None) -> tuple[str, ...]:
    try:
        return tuple(read_name_list(read_bytes(uri, storage_options, what="label file"), uri))
    except BadNames as error:
        raise ConfigError(f"The label file {shown(uri)} {error} (model.labels).") from error


def _jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True, default=repr))
