"""Detector weights, read without running any code in them.

Ultralytics' .pt files are pickles of a whole model: loading one the usual way runs whatever it holds. torch's
`weights_only` is not enough: it calls every class on its list, and the constructors of Ultralytics' networks evaluate
parts of their arguments. So the file is read as plain data (`vtcav_ray.store.torch_files`), and the network is
assembled from that data layer by layer (`vtcav_ray.tracks.rebuilt`): no constructor runs, and the file can't create a
layer by a call.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from vtcav_ray.errors import StageError
from vtcav_ray.store.pickle_data import RefusedPickle
from vtcav_ray.store.torch_files import DamagedTorchFile, RefusedFile, TorchFile
from vtcav_ray.tracks.rebuilt import GETATTR, rebuilt
from vtcav_ray.tracks.ultralytics_import import import_ultralytics

_LAYER_MODULES = ("torch.nn.modules.", "ultralytics.nn.modules.")
_MODEL_MODULE = "ultralytics.nn.tasks"
_DATA_MODULES = ("ultralytics.utils.loss", "ultralytics.utils.tal")
# Allowed in addition to `torch_files.DATA_NAMES`. None of them is ever called.
_DATA_NAMES = frozenset(
    {
        GETATTR, "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
        "ultralytics.utils.IterableSimpleNamespace", "ultralytics.yolo.utils.IterableSimpleNamespace",
        "pathlib.PosixPath", "pathlib.WindowsPath",
        "pathlib._local.PosixPath", "pathlib._local.WindowsPath",  # as Python 3.13 writes them
    }
)  # fmt: skip


def load_pt(data: bytes, where: str) -> torch.nn.Module:
    """Load the model of an Ultralytics .pt file: float32, in eval mode, on the CPU.

    Args:
        data: the file's bytes.
        where: the file's name, for messages.

    Raises:
        StageError: the file contains something that is not allowed (the message names it), refers to more data than it
            holds, is not an Ultralytics checkpoint, or is damaged.
    """
    import_ultralytics()
    import ultralytics.nn.tasks  # noqa: F401 - registers its layers, which are looked up by name

    try:
        file = TorchFile(data, _check_name)
        content = file.content
        model = content.get("ema") or content.get("model") if isinstance(content, dict) else None
        if model is None:
            raise StageError(
                f"{where} holds no Ultralytics model; give a detector saved by Ultralytics, or its ONNX export."
            )
        return rebuilt(model, file, _class_of)
    except RefusedFile as error:
        raise StageError(
            f"{where} is refused: {error}. A .pt file can run code when it is loaded the usual way. So only what "
            "Ultralytics itself saves is allowed, and nothing in this file was run. Export it to ONNX if you trust it "
            "(`tracks.weights`)."
        ) from error
    except DamagedTorchFile as error:
        raise StageError(f"{where} is not a readable .pt file: {error}. Fetch it again (`tracks.weights`).") from error


def _check_name(name: str, called: bool) -> None:
    """Allow classes of layers, which may not be called, and a few names of data."""
    if name in _DATA_NAMES:
        return
    found = _class_of(name)
    if found is None and name.rpartition(".")[0] not in _DATA_MODULES:
        raise RefusedPickle(f"it holds `{name}`, which is not a class of a detector")
    if called:
        raise RefusedPickle(f"it calls `{name}`: Ultralytics saves layers without calling them")


def _class_of(name: str) -> type[torch.nn.Module] | None:
    """Return torch's or Ultralytics' layer or model class of this name, or None."""
    module, _, attribute = name.rpartition(".")
    if not (module.startswith(_LAYER_MODULES) or module == _MODEL_MODULE):
        return None
    found: Any = vars(sys.modules[module]).get(attribute) if module in sys.modules else None
    is_layer = isinstance(found, type) and issubclass(found, torch.nn.Module)
    return found if is_layer else None
