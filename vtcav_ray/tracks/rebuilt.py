"""Assemble a detector's network from plain data: no constructor runs, and nothing except data enters it.

Each layer is created by its class's `__new__` and gets the attributes stored in the file, as `pickle` would set them,
but only these types: numbers, short text, tensors, other layers, and lists and dicts of these. Hooks, methods and
anything else that could be called are refused. Shapes must match what the layer declares, since a layer is later fused
into another one of that size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vtcav_ray.store.pickle_data import Name, Record
from vtcav_ray.store.torch_files import DTYPES, RefusedFile, TorchFile

GETATTR = "builtins.getattr"
FORWARDS = ("forward", "forward_fuse")
MOST_DEPTH = 64
MOST_VISITS = 100_000  # layers; a layer that occurs in several places counts each time
MOST_VALUES = 100_000  # in one layer's attribute
MOST_TEXT = 1000
MOST_COUNT = 1 << 20  # channels, classes, ...
MOST_SIDE = 256  # of a kernel, stride or padding
# Attributes that a model keeps. The rest is for training, and Ultralytics evaluates part of it.
MODEL_ATTRIBUTES = frozenset({"names", "stride", "save", "inplace", "task", "nc", "txt_feats", "pe", "training"})
# The torch layers that detectors use.
TORCH_LAYERS = frozenset(
    {
        "Sequential", "ModuleList", "ModuleDict", "Identity", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "Linear",
        "Embedding", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "GroupNorm", "LayerNorm", "SiLU",
        "ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "GELU", "Mish", "Sigmoid", "Tanh", "Hardswish", "Hardsigmoid",
        "Hardtanh", "LogSigmoid", "Softmax", "Softplus", "MaxPool1d", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool1d",
        "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d",
        "PixelShuffle", "ZeroPad2d", "Dropout", "Dropout1d", "Dropout2d", "Flatten", "Unflatten",
        "MultiheadAttention", "NonDynamicallyQuantizableLinear",
    }
)  # fmt: skip
_SIDES = ("kernel_size", "stride", "padding", "dilation", "output_padding", "scale_factor", "upscale_factor", "size",
          "output_size")  # fmt: skip
_MOST = {"scale_factor": 16, "upscale_factor": 16, "size": 1024, "output_size": 1024}  # for layers that enlarge
# Numbers of parameters, which Ultralytics writes on each layer and nothing reads. Large models exceed MOST_COUNT.
_COUNTS = frozenset({"np"})
_DICTS = ("_parameters", "_buffers", "_modules")
_PRIVATE = frozenset(
    {"_reversed_padding_repeated_twice", "_qkv_same_embed_dim", "_end2end", "_is_full_backward_hook", "_version"}
)


def rebuilt(record: Any, file: TorchFile, class_of: Callable[[str], type[nn.Module] | None]) -> nn.Module:
    """Build the network that a record describes: float32, in eval mode, on the CPU.

    Args:
        record: of a model class, from the file.
        file: creates the tensors.
        class_of: finds the class of a name; None if it is not a detector's class.

    Raises:
        RefusedFile: the file contains something that is not allowed; the message names it.
    """
    builder = _Builder(file, class_of)
    model = builder.model(record)
    layers = model._modules.get("model")
    if not isinstance(layers, nn.Sequential) or not len(layers):
        raise RefusedFile("its model is not a sequence of layers")
    try:
        return model.float().eval()
    except (RuntimeError, AttributeError, TypeError) as error:
        raise RefusedFile(f"its model is inconsistent ({error})") from error


class _Builder:
    def __init__(self, file: TorchFile, class_of: Callable[[str], type[nn.Module] | None]) -> None:
        self._file = file
        self._class_of = class_of
        self._made: dict[int, nn.Module | None] = {}  # None: under construction
        self._visits: dict[int, int] = {}

    def model(self, record: Any) -> nn.Module:
        found = self._class(record)
        if found is None or not found.__module__.startswith("ultralytics.nn.tasks"):
            raise RefusedFile("its model is not of a class of Ultralytics")
        if not isinstance(record.state, dict):
            raise RefusedFile(f"`{record.name}` has no attributes")
        kept = {k: v for k, v in record.state.items() if k in MODEL_ATTRIBUTES or str(k).startswith("_")}
        if isinstance(parts := kept.get("_modules"), dict):  # its loss may be another module
            kept["_modules"] = {k: v for k, v in parts.items() if k == "model"}
        return self._fill(found, Record(record.name, record.arguments, False, kept), 0)

    def _class(self, record: Any) -> type[nn.Module] | None:
        return self._class_of(record.name) if isinstance(record, Record) and not record.called else None

    def _layer(self, record: Record, depth: int) -> nn.Module:
        key = id(record)
        if key not in self._made:
            found = self._class(record)
            torch_own = found is not None and found.__module__.startswith("torch.")
            nested = found is not None and found.__module__.startswith("ultralytics.nn.tasks")
            if found is None or nested or (torch_own and found.__name__ not in TORCH_LAYERS):
                raise RefusedFile(f"it has `{record.name}` among its layers, which is not a layer of a detector")
            self._made[key] = None
            self._made[key] = self._fill(found, record, depth)
        layer = self._made[key]
        if layer is None:
            raise RefusedFile(f"`{record.name}` in it contains itself")
        return layer

    def _fill(self, found: type[nn.Module], record: Record, depth: int) -> nn.Module:
        if depth > MOST_DEPTH:
            raise RefusedFile(f"its layers are nested more than {MOST_DEPTH} deep")
        if record.arguments or record.items or record.entries or not isinstance(record.state, dict):
            raise RefusedFile(f"`{record.name}` in it is not written as torch.save writes a layer")
        layer = found.__new__(found)
        state: dict[str, Any] = dict(vars(nn.Module()))  # empty hooks and slots
        for name, value in record.state.items():
            if name in _COUNTS:
                continue
            _check_attribute(found, name)
            if name in _DICTS:
                state[name] = self._slots(name, value, depth)
            elif name == "forward":
                state[name] = _forward(layer, value, record)
            elif (name in state or "hook" in name) and name != "training":
                _check_empty(name, value)
            else:
                state[name] = self._value(value, f"{found.__name__}.{name}", [MOST_VALUES], depth)
        _check_numbers(found, state)
        children = [c for c in state["_modules"].values() if c is not None]
        self._visits[id(layer)] = 1 + sum(self._visits[id(c)] for c in children)
        if self._visits[id(layer)] > MOST_VISITS:
            raise RefusedFile(f"its layers repeat one another more than {MOST_VISITS:,} times")
        layer.__setstate__(state)
        _check_shapes(layer)
        return layer

    def _slots(self, name: str, value: Any, depth: int) -> dict[str, Any]:
        """Build `_parameters`, `_buffers` or `_modules`."""
        if not isinstance(value, dict) or not all(isinstance(k, str) and "." not in k for k in value):
            raise RefusedFile(f"a layer's {name} is not a dict with names as keys")
        found: dict[str, Any] = {}
        for key, held in value.items():
            if held is None:
                found[key] = None
            elif name == "_modules":
                if not isinstance(held, Record):
                    raise RefusedFile(f"the layer {key!r} in it is not a layer")
                found[key] = self._layer(held, depth + 1)
            else:
                tensor = self._file.tensor(held)
                if tensor is None:
                    raise RefusedFile(f"the weight {key!r} in it is not a tensor")
                # Copied into new memory, with torch's own layout.
                copied = tensor.clone()
                found[key] = nn.Parameter(copied, requires_grad=False) if name == "_parameters" else copied
        return found

    def _value(self, value: Any, where: str, left: list[int], depth: int) -> Any:
        """Check and convert an attribute. `left` counts down, since one list may occur in several places."""
        left[0] -= 1
        if left[0] < 0 or depth > MOST_DEPTH:
            raise RefusedFile(f"the attribute {where} in it is too large or too deeply nested")
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int) and abs(value) <= MOST_COUNT:
            return value
        if isinstance(value, str) and len(value) <= MOST_TEXT:
            return value
        if isinstance(value, list | tuple):
            return type(value)(self._value(v, where, left, depth + 1) for v in value)
        if isinstance(value, dict) and all(isinstance(k, str | int) for k in value):
            return {k: self._value(v, where, left, depth + 1) for k, v in value.items()}
        if isinstance(value, set):
            return set(value)
        if isinstance(value, Name) and value.name in DTYPES:
            return DTYPES[value.name]
        if isinstance(value, Record):
            return self._object(value, where, left, depth)
        raise _no_attribute(where, value)

    def _object(self, record: Record, where: str, left: list[int], depth: int) -> Any:
        """Build an attribute that is an object: a tensor, a size or a layer."""
        if (tensor := self._file.tensor(record)) is not None:
            return tensor.clone()
        if record.name == "torch.Size" and len(record.arguments) == 1:
            size = self._value(record.arguments[0], where, left, depth + 1)
            if isinstance(size, tuple) and all(type(n) is int and n >= 0 for n in size):
                return torch.Size(size)
        if self._class(record) is not None:
            return self._layer(record, depth + 1)
        raise _no_attribute(where, record)


def _no_attribute(where: str, value: Any) -> RefusedFile:
    return RefusedFile(f"the attribute {where} in it is {_described(value)}, which no detector has")


def _described(value: Any) -> str:
    if isinstance(value, Record | Name):
        return f"`{value.name}`"
    return (
        f"a {type(value).__name__} that is too large" if isinstance(value, int | str) else f"a {type(value).__name__}"
    )


def _check_attribute(found: type, name: Any) -> None:
    """Refuse names that would hide a method, or that have a special meaning in Python or torch."""
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("__"):
        raise RefusedFile(f"`{found.__name__}` in it has the attribute {str(name)[:80]!r}, which is not a valid name")
    known = name in _PRIVATE or "hook" in name or name in _DICTS or name == "_non_persistent_buffers_set"
    if name.startswith("_") and not known and name not in vars(nn.Module()):
        raise RefusedFile(f"`{found.__name__}` in it has the attribute {name!r}, which no detector has")
    hidden = inspect.getattr_static(found, name, None)
    method = inspect.isroutine(hidden) or isinstance(hidden, classmethod | staticmethod)
    if method and name not in ("forward", "type"):  # Ultralytics stores a layer's class name in `type`
        raise RefusedFile(f"`{found.__name__}` in it replaces its method {name!r}")


def _check_empty(name: str, value: Any) -> None:
    """Refuse hooks, since they are called. The names of buffers that are not saved are harmless."""
    if name != "_non_persistent_buffers_set" and value not in ({}, None, False):
        raise RefusedFile(f"a layer in it has a value in {name!r}, which must be empty")


def _forward(layer: nn.Module, value: Any, record: Record) -> Any:
    """Return a layer's own `forward_fuse` as its `forward`, as fused models have it."""
    asked = value.arguments if isinstance(value, Record) and value.name == GETATTR else ()
    if len(asked) == 2 and asked[0] is record and asked[1] in FORWARDS:
        method = inspect.getattr_static(type(layer), asked[1], None)
        if inspect.isfunction(method):
            return method.__get__(layer)
    if len(asked) == 2 and isinstance(asked[0], Name) and asked[0].name == record.name and asked[1] in FORWARDS:
        method = inspect.getattr_static(type(layer), asked[1], None)
        if isinstance(method, staticmethod):  # of a fused `BNContrastiveHead`
            return method.__func__
    raise RefusedFile(f"`{record.name}` in it has a `forward` that is not its own")


def _check_numbers(found: type, state: dict[str, Any]) -> None:
    """Check that sizes, strides and repeat counts are reasonable."""
    if found.__module__.startswith("torch."):
        for name in _SIDES:
            most = _MOST.get(name, MOST_SIDE)
            if any(isinstance(n, int | float) and not 0 <= n <= most for n in _flat(state.get(name))):
                raise RefusedFile(f"`{found.__name__}` in it has the {name} {state[name]}, over {most}")
    repeats = state.get("n", 0)  # of SPPF: number of poolings
    if isinstance(repeats, int) and not 0 <= repeats <= MOST_SIDE:
        raise RefusedFile(f"`{found.__name__}` in it repeats itself {repeats} times, over {MOST_SIDE}")


def _flat(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _check_shapes(layer: nn.Module) -> None:
    """Check the size that a layer declares against its weights."""
    from ultralytics.nn.modules.conv import RepConv

    wanted: dict[str, Any] = {}
    held = {**vars(layer), **layer._parameters, **layer._buffers}
    try:
        if isinstance(layer, nn.modules.conv._ConvNd):
            ends = (layer.out_channels, layer.in_channels)
            first, second = reversed(ends) if layer.transposed else ends
            wanted = {"weight": (first, second // layer.groups, *layer.kernel_size), "bias": (layer.out_channels,)}
        elif isinstance(layer, nn.modules.batchnorm._NormBase):
            wanted = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (layer.num_features,))
        elif isinstance(layer, nn.Linear):
            wanted = {"weight": (layer.out_features, layer.in_features), "bias": (layer.out_features,)}
        elif isinstance(layer, RepConv) and layer.bn is not None and layer.c1 != layer.bn.num_features:
            raise RefusedFile("`RepConv` in it does not have the size that it declares")
        for name, shape in wanted.items():
            tensor = held.get(name)
            if tensor is not None and tuple(tensor.shape) != tuple(shape):
                raise RefusedFile(
                    f"`{type(layer).__name__}` in it has a {name} of size {list(tensor.shape)}, not {list(shape)}"
                )
    except (AttributeError, TypeError, ZeroDivisionError) as error:
        raise RefusedFile(f"`{type(layer).__name__}` in it is incomplete ({error})") from error
