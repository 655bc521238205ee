"""Detector weights, read without running what is in them.

Ultralytics' .pt files are pickles of a whole model: loading one the usual way runs whatever it holds. Here it is loaded
with `weights_only=True`, and the only classes let in are torch's and Ultralytics' own layers and models, a few classes
of plain data, and a `getattr` that gives nothing but a layer's own `forward`. Anything else is refused by name.
"""

from __future__ import annotations

import enum
import importlib
import io
import pickle
import threading
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from vtcav_ray.concepts.ultralytics_import import import_ultralytics
from vtcav_ray.errors import StageError

_LAYER_MODULES = ("torch.nn.modules.", "ultralytics.nn.modules.")
_MODEL_MODULES = ("ultralytics.nn.tasks",)
_DATA_MODULES = ("ultralytics.utils.loss", "ultralytics.utils.tal")
_lock = threading.Lock()  # torch keeps ONE allow-list a process


def load_pt(data: bytes, where: str) -> torch.nn.Module:
    """The model of an Ultralytics .pt file: float32, in eval mode, on the CPU.

    Args:
        data: the file's bytes.
        where: the file's name, for messages.

    Raises:
        StageError: a class that is not allowed (named), not an Ultralytics checkpoint, or a damaged file.
    """
    import_ultralytics()
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise StageError(f"torch {torch.__version__} can't check what is in {where}; install torch 2.6 or newer.")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
        allowed = [(_allowed(name, where), name) for name in names]
        with _lock, torch.serialization.safe_globals([*allowed, type(np.dtype(np.float64))]):
            checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise StageError(f"{where} is refused: {error}") from error
    except (RuntimeError, ValueError, EOFError, KeyError) as error:
        raise StageError(f"{where} is not a readable .pt file: {error} Fetch it again (`tracks.weights`).") from error
    model = checkpoint.get("ema") or checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(model, torch.nn.Module):
        raise StageError(
            f"{where} holds no Ultralytics model; give a detector saved by Ultralytics, or its ONNX export."
        )
    model = model.float().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None  # saved by torch before 1.11
    return model


def _allowed(name: str, where: str) -> Any:
    """What a pickle's global stands for, if it may be let in."""
    import_ultralytics()
    from ultralytics.utils import IterableSimpleNamespace

    known = {
        "builtins.getattr": _method_of_layer,
        "numpy.dtype": np.dtype,
        "numpy.core.multiarray.scalar": np.float64(0).__reduce__()[0],
        "numpy._core.multiarray.scalar": np.float64(0).__reduce__()[0],
        "ultralytics.utils.IterableSimpleNamespace": IterableSimpleNamespace,
        "ultralytics.yolo.utils.IterableSimpleNamespace": IterableSimpleNamespace,
        "pathlib.PosixPath": PurePosixPath,
        "pathlib.WindowsPath": PurePosixPath,
    }
    if name in known:
        return known[name]
    module, _, attribute = name.rpartition(".")
    if module.startswith(_LAYER_MODULES) or module in (*_MODEL_MODULES, *_DATA_MODULES):
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            found = None
        is_layer = isinstance(found, type) and issubclass(found, torch.nn.Module)
        if is_layer or (isinstance(found, type) and module in _DATA_MODULES and found.__module__ == module):
            return found
    raise StageError(
        f"{where} is refused: it holds `{name}`, which is no class of a detector. A .pt file can run code when it is "
        "loaded, so only torch's and Ultralytics' own layers are let in. Export it to ONNX if you trust it."
    )


def _method_of_layer(owner: Any, name: str) -> Any:
    """`getattr` as checkpoints use it: the forward methods of a layer, the members of an enum."""
    if isinstance(owner, type) and issubclass(owner, enum.Enum) and name in owner.__members__:
        return owner[name]
    if isinstance(owner, type) and issubclass(owner, torch.nn.Module) and not name.startswith("_"):
        return getattr(owner, name)
    if isinstance(owner, torch.nn.Module) and name in ("forward", "forward_fuse"):
        return getattr(type(owner), name).__get__(owner)
    raise pickle.UnpicklingError(f"getattr({type(owner).__name__}, {name!r}) is not allowed")
