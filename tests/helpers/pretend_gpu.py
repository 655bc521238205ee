"""A simulated GPU: the code's GPU branches run on a CPU, and calls that CUDA would refuse raise an error.

Tensors that are sent to `cuda` stay on the CPU, in a class that reports `cuda`. A `pretended_gpu()` block checks every
call of torch: tensors of both places in one call, or a GPU tensor passed to NumPy, raise the error that CUDA would
raise. Streams, kernels, half types and speed are not simulated. Threads other than the block's are not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from vtcav_ray.activations.prefetch import Batch

GPU = torch.device("cuda")
_INDEXING = ("__getitem__", "__setitem__")  # a GPU tensor accepts an index on the CPU
_ANY_PLACES = ("copy_", "set_data", "_has_compatible_shallow_copy_type")
_ASKS = ("numpy", "__array__")


class OnGpu(torch.Tensor):
    """A tensor that reports a GPU as its device."""


class _Pretence(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return _attribute(func, args)
        tensors = list(_tensors((args, kwargs)))
        there = [one for one in tensors if isinstance(one, OnGpu)]
        if there and name in _ASKS:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        args, kwargs, asked = _without_device(name, args, kwargs)
        if asked is None:
            _refuse_both_places(name, args, there, tensors)
        kwargs.pop("pin_memory", None)
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **kwargs)
        goes = asked == "cuda" or (asked is None and bool(there))
        return _placed(found, goes, tensors)


def _attribute(func: Any, args: tuple[Any, ...]) -> Any:
    owner = getattr(func, "__self__", None)
    name = getattr(owner, "__name__", "")
    if isinstance(args[0], OnGpu) and name in ("device", "is_cuda"):
        return GPU if name == "device" else True
    with torch._C.DisableTorchFunctionSubclass():
        found = func(*args)
    return _placed(found, isinstance(args[0], OnGpu), [args[0]])


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _without_device(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], str | None]:
    """Return the call in a form for the CPU, and the place of its result; None: the place of its arguments."""
    if name == "cpu":
        return args, kwargs, "cpu"
    if name == "cuda":
        return args[:1], {}, "cuda"
    if name == "type_as":
        return args, kwargs, "cuda" if isinstance(args[1], OnGpu) else "cpu"
    asked: Any = kwargs.pop("device", None)
    if name == "to":
        given = list(args)
        for place, each in enumerate(given[1:], 1):
            if isinstance(each, torch.device) or (isinstance(each, str) and each.split(":")[0] in ("cpu", "cuda")):
                asked = each
                del given[place]
                break
            if isinstance(each, torch.Tensor):
                asked = GPU if isinstance(each, OnGpu) else "cpu"
                given[place] = each.dtype
                break
        # No type was requested, and whether the copy is asynchronous makes no difference here.
        given = [given[0], *(each for each in given[1:] if each is not None and not isinstance(each, bool))]
        args = (given[0], *given[1:]) if len(given) > 1 or kwargs else (given[0], given[0].dtype)
    if asked is None:
        return args, kwargs, None
    return args, kwargs, torch.device(asked).type


def _refuse_both_places(
    name: str, args: tuple[Any, ...], there: list[torch.Tensor], tensors: list[torch.Tensor]
) -> None:
    here = [one for one in tensors if not isinstance(one, OnGpu) and torch.Tensor.dim(one) > 0]
    if not there or not here or name in _ANY_PLACES:
        return
    if name in _INDEXING and isinstance(args[0], OnGpu):
        by_tensors = any(True for _ in _tensors(args[1]))
        if name == "__getitem__" or not by_tensors or all(isinstance(one, OnGpu) for one in _tensors(args[2])):
            return
    raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu, in {name}")


def _placed(found: Any, on_gpu: bool, given: list[torch.Tensor]) -> Any:
    if isinstance(found, torch.Tensor):
        if any(found is one for one in given) and isinstance(found, OnGpu) == on_gpu:
            return found
        with torch._C.DisableTorchFunctionSubclass():
            return found.as_subclass(OnGpu if on_gpu else torch.Tensor)  # type: ignore[arg-type]
    if isinstance(found, tuple) and hasattr(found, "_fields"):  # the result of `torch.max` and similar functions
        return type(found)(_placed(each, on_gpu, given) for each in found)
    if type(found).__module__ == "torch.return_types":
        return type(found)([_placed(each, on_gpu, given) for each in found])
    if isinstance(found, list | tuple):
        return type(found)(_placed(each, on_gpu, given) for each in found)
    return found


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Let torch report a GPU, and let tensors sent there count as being there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # otherwise parameters keep their class
        try:
            with _Pretence():
                yield GPU
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)


def ahead(load: Any, groups: Sequence[Sequence[int]], device: torch.device, threads: int) -> Iterator[Batch]:
    """Act as `batches_ahead`, without its streams and its threads, which the simulation can't check."""
    for group in groups:
        pixels = torch.from_numpy(np.stack([load(i) for i in group])).to(device)
        yield Batch(list(group), pixels, {})
