"""Run only the part of a network that comes after a layer.

A network has no general cut: a ResNet adds an earlier tensor to a later one, and the code between modules belongs to no
module. So the first pass over a batch records the output of every outermost module that ends before the layer's tensor
exists. Later passes return these outputs instead of running the modules, replace the layer's tensor, and run all code
after it as usual. This is right for any network whose modules depend only on their arguments. `RestOfNetwork` checks
it: it repeats the first pass in this way and compares the logits. If they differ, every pass runs the whole network
with the layer's tensor replaced, which is right for every network and costs its whole forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.layers import watched

_CLOSE = 1e-4  # largest relative difference of logits that counts as rounding
Recorded = tuple[nn.Module, Any]


class RestOfNetwork:
    """The network after a layer, for one batch of inputs.

    Args:
        recogniser: the model. It must not run elsewhere while `logits` runs.
        path: of the layer (see `vtcav_ray.models.layers.resolve_layer`), which runs once per forward pass.
        x: the batch, `[B', C, T, H, W]`.

    Attributes:
        raw: the layer's own tensor at these inputs.
        plain: the logits at these inputs, `[B', K]`.
        whole: every pass runs the whole network, because the recorded outputs do not reproduce `plain`.
    """

    def __init__(self, recogniser: Recogniser, path: str, x: torch.Tensor) -> None:
        self.recogniser, self.path, self.x = recogniser, path, x
        self.raw, self.plain, recorded = _record(recogniser, path, x)
        self._answers: dict[nn.Module, list[Any]] = {}
        for module, output in recorded:
            self._answers.setdefault(module, []).append(output)
        again = self.logits(self.raw.clone())
        size = self.plain.abs().nan_to_num(0.0, 0.0, 0.0).amax()
        near = torch.isclose(again, self.plain, rtol=0.0, atol=_CLOSE * float(size), equal_nan=True)
        self.whole = not bool(near.all())
        if self.whole:
            self._answers = {}

    def logits(self, raw: torch.Tensor) -> torch.Tensor:
        """Return the logits `[B', K]` with the layer's tensor replaced by `raw`, which may be changed."""
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for module, outputs in self._answers.items():
                stack.enter_context(_answering(module, outputs))
            stack.enter_context(watched(self.recogniser.module, self.path, lambda _: raw))
            return self.recogniser.logits(self.x)


def _record(recogniser: Recogniser, path: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[Recorded]]:
    """Run the model; return the layer's tensor, the logits, and the outermost modules that ended before, in order."""
    ended: list[list[Recorded]] = [[]]  # for each module that runs now: the modules that ended inside; first the model
    seen: list[torch.Tensor] = []
    recorded: list[Recorded] = []

    def begin(_: nn.Module, __: Any) -> None:
        if not seen:
            ended.append([])

    def end(module: nn.Module, _: Any, output: Any) -> None:
        if not seen:
            ended.pop()  # what ended inside is not needed: the module's own output is
            ended[-1].append((module, _copied(output)))

    def see(raw: torch.Tensor) -> None:
        seen.append(raw.clone())
        recorded.extend(one for inside in ended for one in inside)

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for module in recogniser.module.modules():
            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end).remove)
        stack.enter_context(watched(recogniser.module, path, see))  # after `begin` and `end` of the same module
        logits = recogniser.logits(x)
    assert len(seen) == 1, f"{path} ran {len(seen)} times: `find_forms` admits layers that run once"
    return seen[0], logits, recorded


def _copied(output: Any) -> Any:
    """Copy the tensors of a module's output, since later code may change them in place."""
    return tree_map_only(torch.Tensor, torch.clone, output)


@contextmanager
def _answering(module: nn.Module, outputs: Sequence[Any]) -> Iterator[None]:
    """Let the module's first calls return these outputs. Later calls run it."""
    forward: Callable[..., Any] = module.forward
    own = module.__dict__.get("forward")
    left = iter(outputs)

    def answer(*args: Any, **options: Any) -> Any:
        for output in left:
            return _copied(output)
        return forward(*args, **options)

    module.__dict__["forward"] = answer
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own
