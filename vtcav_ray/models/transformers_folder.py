"""Folders written by Hugging Face's `save_pretrained`, on any fsspec URL, read as data.

Only these files are opened: `config.json`, the processor's JSON, `model.safetensors` or its index and shards. A pickle
(`pytorch_model.bin`) and code (`*.py`, `auto_map`) in the folder are never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vtcav_ray.errors import ConfigError
from vtcav_ray.store.files import copy_to, has_file, read_bytes, sha256_of
from vtcav_ray.store.saved_models import CONFIG, INDEX, WEIGHTS
from vtcav_ray.store.urls import scheme_of, shown
from vtcav_ray.text.bounded_text import UnreadableText, read_json

PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
# In the order in which the library looks for them. The first may hold several processors, below their kinds.
PROCESSORS = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")
MOST_SHARDS = 1000
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
SHARD_NAME = re.compile(r"[\w.-]+\.safetensors")
# Keys of config.json that name code, another implementation of the attention (which may be code from the hub), or other
# ways to store the weights. They are removed, or refused below.
CODE_KEYS = frozenset(
    {"auto_map", "custom_pipelines", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
     "_attn_implementation_autoset", "experts_implementation", "_experts_implementation"}
)  # fmt: skip
# Keys that change neither the network nor its input.
NOISE_KEYS = frozenset({"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "label2id"})


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose files have been found.

    Attributes:
        uri: path or URL of the folder, without a slash at the end.
        config: the content of `config.json`, without `CODE_KEYS`.
        processor: the settings of the video processor; None: the folder has none.
        storage_options: for fsspec.
    """

    uri: str
    config: dict[str, Any]
    processor: dict[str, Any] | None
    storage_options: Mapping[str, Any] | None

    @property
    def identity(self) -> dict[str, Any]:
        """Everything in `config.json` that determines the network and its classes, for the digest."""
        return {key: value for key, value in self.config.items() if key not in NOISE_KEYS}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of `id2label`, in the order of the logits.

        Raises:
            ConfigError: it is no list of places and names.
        """
        found = self.config.get("id2label")
        if found is None:  # the library leaves it out if it is its default
            count = self.config.get("num_labels", 2)
            if not isinstance(count, int):
                raise ConfigError(f"{self.uri}/{CONFIG}: `num_labels` is {count!r}, not a number.")
            return tuple(f"LABEL_{i}" for i in range(count))
        try:
            names = {int(place): str(name) for place, name in found.items()}
        except (AttributeError, ValueError) as error:
            raise ConfigError(f"{self.uri}/{CONFIG}: `id2label` must map places to names.") from error
        if not names or sorted(names) != list(range(len(names))):
            raise ConfigError(f"{self.uri}/{CONFIG}: `id2label` must have the places 0 to n - 1, each once.")
        return tuple(names[i] for i in range(len(names)))

    def weight_files(self) -> list[str]:
        """Return the names of the files with the weights, in the order of their names.

        Raises:
            ConfigError: there are none, or they are pickles; the message says how to convert them.
        """
        if self._has(WEIGHTS):
            return [WEIGHTS]
        if self._has(INDEX):
            places = self._json(INDEX).get("weight_map")
            names = sorted(set(places.values())) if isinstance(places, dict) else []
            if not names or len(names) > MOST_SHARDS or not all(SHARD_NAME.fullmatch(str(name)) for name in names):
                raise ConfigError(
                    f"{self.uri}/{INDEX} must have a `weight_map` of names of .safetensors files beside it."
                )
            return names
        if pickle := next((name for name in PICKLES if self._has(name)), None):
            raise ConfigError(
                f"{self.uri} holds its weights as {pickle}, which can hold code and is not read. Where you trust it, "
                "convert it: AutoModelForVideoClassification.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) "
                f"writes {WEIGHTS}. Copy the processor's .json, too."
            )
        raise ConfigError(
            f"{self.uri} has no {WEIGHTS}. Give a folder that `save_pretrained` wrote (model.checkpoint)."
        )

    def weights_digest(self) -> str:
        """Return the hex SHA-256 of the digests of all files with weights. Errors: see `weight_files`."""
        digests = [
            sha256_of(f"{self.uri}/{name}", self.storage_options, what="checkpoint") for name in self.weight_files()
        ]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def stage(self, target: str, *, weights: bool) -> None:
        """Write `config.json` without code, and the weights, into the local folder `target`; link local files."""
        with open(os.path.join(target, CONFIG), "w", encoding="utf-8") as file:
            json.dump(self.config, file)
        if not weights:
            return
        names = self.weight_files()
        if names != [WEIGHTS]:
            names = [*names, INDEX]
        local = scheme_of(self.uri) in ("file", "local")
        for name in names:
            place = os.path.join(target, name)
            if local:
                os.symlink(os.path.abspath(os.path.join(_path(self.uri), name)), place)
            else:
                copy_to(place, f"{self.uri}/{name}", self.storage_options, what="checkpoint")

    def _has(self, name: str) -> bool:
        return has_file(f"{self.uri}/{name}", self.storage_options)

    def _json(self, name: str) -> dict[str, Any]:
        return _json_at(f"{self.uri}/{name}", self.storage_options)


def read_folder(uri: str, storage_options: Mapping[str, Any] | None, key: str = "model.checkpoint") -> ModelFolder:
    """Find and read the folder's JSON files.

    Args:
        uri: path or fsspec URL of the folder.
        storage_options: for fsspec, if `uri` is a URL.
        key: of the config, for messages.

    Raises:
        ConfigError: no such folder (for a name on the hub, the message says how to fetch it), or a file in it is not
            valid.
    """
    uri = uri.rstrip("/")
    if not has_file(f"{uri}/{CONFIG}", storage_options):
        raise ConfigError(_no_folder(uri, storage_options, key))
    config = _json_at(f"{uri}/{CONFIG}", storage_options)
    if "quantization_config" in config:
        raise ConfigError(f"{uri}/{CONFIG}: the weights are quantised, which has no gradients. Save them as float32.")
    kept = {name: value for name, value in config.items() if name not in CODE_KEYS}
    return ModelFolder(uri, kept, _read_processor(uri, storage_options), storage_options)


def _read_processor(uri: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    for name in PROCESSORS:
        if not has_file(f"{uri}/{name}", storage_options):
            continue
        found = _json_at(f"{uri}/{name}", storage_options)
        if name != PROCESSORS[0]:
            return found
        inner = found.get("video_processor") or found.get("image_processor")
        if isinstance(inner, dict):
            return inner
    return None


def _json_at(uri: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    content = read_bytes(uri, storage_options, what="model config")
    try:
        data = read_json(content.decode("utf-8-sig"))
    except (UnreadableText, UnicodeDecodeError) as error:
        raise ConfigError(f"{shown(uri)} can't be read as JSON: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{shown(uri)} must hold a JSON object.")
    return data


def _no_folder(uri: str, storage_options: Mapping[str, Any] | None, key: str) -> str:
    name = uri.rsplit("/", 1)[-1]
    if "." in name and has_file(uri, storage_options):
        return f"{key}: {shown(uri)} is a file. Name the folder that `save_pretrained` wrote, with {CONFIG} in it."
    if "://" not in uri and not os.path.isdir(uri) and HUB_NAME.fullmatch(uri):
        return (
            f"{key}: there is no folder {uri}. If it is a name on the Hugging Face hub: nothing is downloaded here. "
            f"Fetch it first, where there is a network: `hf download {uri} --local-dir {name}`. Then set {key} to that "
            "folder."
        )
    return f"{key}: there is no {CONFIG} in {shown(uri)}. Give a folder that `save_pretrained` wrote."


def _path(uri: str) -> str:
    return uri.split("://", 1)[1] if "://" in uri else uri
