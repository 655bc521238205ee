"""Checkpoints: read without running their content, and loaded completely or not at all.

A `.pth` file is a pickle, and a plain `torch.load` runs any code in it. Here it is read as plain data
(`vtcav_ray.store.torch_files`): nothing in it is imported or called, and a tensor takes no more memory than its bytes
in the file. MMEngine's files also hold a history of the losses, which names classes; the names in `INERT` are accepted
and replaced by inert placeholders. Any other name is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vtcav_ray.errors import StageError
from vtcav_ray.store.files import read_bytes
from vtcav_ray.store.pickle_data import RefusedPickle
from vtcav_ray.store.torch_files import DamagedTorchFile, RefusedFile, TorchFile

# Keys of the weights in a file that holds more, most specific first.
CONTAINERS = (
    "state_dict", "model_state_dict", "state_dict_ema", "model_ema", "ema_state_dict", "model_state", "model", "module",
    "net", "network", "weights", "params",
)  # fmt: skip
MOST_DEPTH = 3  # of containers in each other, as in {"model": {"state_dict": ...}}
# Prefixes that DataParallel, Lightning and several averaging classes add to every key.
PREFIXES = ("module.", "model.", "ema_model.", "ema.", "_orig_mod.", "net.", "network.")
# Buffers that the module computes itself: not weights, and absent from some published files.
REBUILT = ("relative_position_index", "attn_mask", "num_batches_tracked", "n_averaged", "steps")
INERT = (
    "builtins.getattr",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
)
# e.g. swin-tiny-p244-w877_..._kinetics400-rgb_20220930-241016b2.pth
PUBLISHED = re.compile(r"_\d{8}-([0-9a-f]{8})\.pth$")
MOST_LISTED = 12
LONGEST_LISTED = 120
MOST_BYTES = 64 << 30


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and the class names if the file has them."""

    weights: dict[str, torch.Tensor]
    class_names: tuple[str, ...] | None


def read_checkpoint(uri: str, storage_options: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read MMAction2's published format, or a plain state dict, from a path or any fsspec URL.

    Raises:
        ConfigError: no such file.
        StageError: the file cannot be read, its digest differs from the one in its name, it holds no weights, or it
            holds code. None of its code is run.
    """
    content = read_bytes(uri, storage_options, what="checkpoint", most=MOST_BYTES)
    _check_digest(uri, content)
    try:
        file = TorchFile(content, _check_name)
        data = file.content
        if not isinstance(data, Mapping):
            raise StageError(
                f"The checkpoint {uri} holds a {type(data).__name__}, not weights by name: give a state_dict, or what "
                "MMEngine saves."
            )
        weights = _find_weights(data, file, uri)
    except RefusedFile as error:
        raise StageError(
            f"The checkpoint {uri} is refused: {error}. Nothing in it was run. Where it was made, save the weights "
            "alone: torch.save(model.state_dict(), FILE)."
        ) from error
    except DamagedTorchFile as error:
        raise StageError(f"The checkpoint {uri} can't be read as a PyTorch file: {error}. Fetch it again.") from error
    if not weights:
        raise StageError(f"The checkpoint {uri} holds no weights by name; its keys: {listed(map(str, data))}.")
    return Checkpoint(weights, _class_names(data.get("meta")))


def load_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], uri: str) -> None:
    """Copy weights into a module; all keys and shapes must agree.

    Raises:
        StageError: keys are missing, unknown to the model, or of another shape; the message lists them.
    """
    expected = module.state_dict()
    given = dict(_stripped(weights, expected))
    given = {k: v for k, v in given.items() if k in expected or not _ignorable(k)}
    missing = sorted(k for k in expected.keys() - given.keys() if not _ignorable(k))
    unexpected = sorted(given.keys() - expected.keys())
    shared = sorted(expected.keys() & given.keys())
    shapes = [f"{k} {list(given[k].shape)} (model: {list(expected[k].shape)})" for k in shared
              if given[k].shape != expected[k].shape]  # fmt: skip
    problems = [
        f"{title}: {listed(names)}"
        for title, names in (("missing", missing), ("not in the model", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise StageError(
            f"The checkpoint {uri} does not fit the model of the config (model.config); {'; '.join(problems)}."
        )
    module.load_state_dict({k: given[k] for k in shared}, strict=False)


def _check_digest(uri: str, content: bytes) -> None:
    """Check the first 8 digits of the SHA-256, which OpenMMLab's published files have in their names."""
    found = PUBLISHED.search(uri)
    if found and not hashlib.sha256(content).hexdigest().startswith(found.group(1)):
        raise StageError(
            f"The checkpoint {uri} is damaged: its SHA-256 does not start with {found.group(1)}, as its name says. "
            "Fetch it again, or rename it if it was changed on purpose."
        )


def _check_name(name: str, called: bool) -> None:
    if name not in INERT:
        raise RefusedPickle(f"it holds more than weights; it asks for `{name}`")


def _find_weights(data: Mapping[str, Any], file: TorchFile, uri: str, depth: int = 0) -> dict[str, torch.Tensor]:
    """Find the weights in a file: below a known key, at the top, or below the only key that has any."""
    for name in CONTAINERS:
        inner = data.get(name)
        if isinstance(inner, Mapping) and depth < MOST_DEPTH and (found := _find_weights(inner, file, uri, depth + 1)):
            return found
    if (found := _tensors(data, file)) or depth > 0:
        return found
    below = {str(k): _tensors(v, file) for k, v in data.items() if isinstance(v, Mapping)}
    below = {name: found for name, found in below.items() if found}
    if len(below) > 1:
        raise StageError(
            f"The checkpoint {uri} holds weights below several keys: {listed(sorted(below))}. Save those of the model "
            "alone: torch.save(torch.load(FILE)[KEY], NEW_FILE)."
        )
    return next(iter(below.values()), {})


def _tensors(mapping: Mapping[str, Any], file: TorchFile) -> dict[str, torch.Tensor]:
    made = ((str(name), file.tensor(value)) for name, value in mapping.items())
    return {name: tensor for name, tensor in made if tensor is not None}


def _stripped(weights: Mapping[str, torch.Tensor], expected: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
    """Remove prefixes that every weight has, unless the model's own names have them."""
    while True:
        names = [k for k in weights if k not in REBUILT]
        prefix = next((p for p in PREFIXES if names and all(k.startswith(p) for k in names)), None)
        if prefix is None or any(k.startswith(prefix) for k in expected):
            return weights
        weights = {k.removeprefix(prefix): v for k, v in weights.items()}


def _ignorable(key: str) -> bool:
    return key.endswith(REBUILT) or key.startswith("data_preprocessor.")


def _class_names(meta: Any) -> tuple[str, ...] | None:
    if not isinstance(meta, Mapping):
        return None
    places = (meta, meta.get("dataset_meta"))
    for place in places:
        if isinstance(place, Mapping):
            names = place.get("classes") or place.get("CLASSES")
            if isinstance(names, list | tuple) and all(isinstance(n, str) for n in names):
                return tuple(names)
    return None


def listed(names: Any) -> str:
    """Join the first names; of the others, say how many there are."""
    names = [name if len(name) <= LONGEST_LISTED else f"{name[:LONGEST_LISTED]}..." for name in names]
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"{', '.join(names[:MOST_LISTED])}{more}"
