"""Passes of the rest of a network give the same logits as passes of the whole network with the layer replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.toy_networks import ToyRecogniser
from vtcav_ray.models import Recogniser, resolve_layer
from vtcav_ray.models.layers import watched
from vtcav_ray.models.rest import RestOfNetwork


class Skips(nn.Module):
    """A network whose later part also reads earlier tensors, changes them in place, and calls one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv3d(3, 3, 1) for _ in range(3))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x)
        b = self.relu(a.clone()) + 1
        c = self.second(b)
        c += a
        return self.head(self.relu(self.third(c) + b).mean((2, 3, 4)))


class InPlace(Skips):
    """A network with a module that changes its argument, which later code reads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x)
        b = self.relu(a)
        return self.head((self.second(b + 1) + a).mean((2, 3, 4)))


class Leaves(nn.Conv3d):
    """A layer that leaves a number where later code finds it, and returns another one."""

    def __init__(self, left: list[torch.Tensor]) -> None:
        super().__init__(3, 3, 1)
        self.left = left

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left.append(x.mean())
        return super().forward(x)


class Remembers(Skips):
    """A network whose later code depends on something that is in no module's output."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[torch.Tensor] = []
        self.first = Leaves(self.left)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits * self.left.pop() if self.left else logits


class Counts:
    """The number of times that each module's own code ran."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.of = module, dict.fromkeys((name for name, _ in module.named_modules()), 0)

    def __enter__(self) -> Counts:
        self._old = {name: part.forward for name, part in self.module.named_modules()}
        for name, part in self.module.named_modules():
            part.forward = self._counting(name, part.forward)  # type: ignore[method-assign]
        return self

    def _counting(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.of[name] += 1
            return forward(*args, **options)

        return counted

    def __exit__(self, *_: object) -> None:
        for _, part in self.module.named_modules():
            del part.forward


def inputs(seed: int = 0) -> torch.Tensor:
    return torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(seed))


def by_hook(recogniser: Recogniser, path: str, x: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), watched(recogniser.module, path, lambda _: raw.clone()):
        return recogniser.logits(x)


def changed(raw: torch.Tensor) -> torch.Tensor:
    return raw + raw.std() * torch.randn(raw.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("path", ["first", "second", "second:in", "third", "third:in", "head", "head:in"])
def test_the_rest_is_the_whole_with_the_layer_replaced(path: str) -> None:
    torch.manual_seed(0)
    recogniser = ToyRecogniser.of(Skips())
    x = inputs()
    rest = RestOfNetwork(recogniser, path, x)
    assert not rest.whole
    for _ in range(2):  # recorded outputs are not used up, nor changed in place
        raw = changed(rest.raw)
        assert torch.equal(rest.logits(raw.clone()), by_hook(recogniser, path, x, raw))
    assert not torch.allclose(rest.logits(changed(rest.raw)), rest.plain)
    with torch.no_grad():
        assert torch.equal(recogniser.logits(x), rest.plain)  # the network itself is as before
    assert not any("forward" in part.__dict__ for part in recogniser.module.modules())


def test_modules_before_the_layer_do_not_run_again() -> None:
    recogniser = ToyRecogniser.of(Skips())
    with Counts(recogniser.module) as counts:
        rest = RestOfNetwork(recogniser, "second", inputs())
        before = dict(counts.of)
        assert before["first"] == 1
        rest.logits(changed(rest.raw))
        ran = {name: counts.of[name] - before[name] for name in counts.of}
    assert ran == {"": 1, "first": 0, "second": 0, "relu": 1, "third": 1, "head": 1}  # the first relu is before it


@pytest.mark.parametrize("network", [Remembers, InPlace])
def test_a_network_whose_modules_leave_more_than_their_output_runs_whole(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    recogniser = ToyRecogniser.of(network())
    x = inputs()
    rest = RestOfNetwork(recogniser, "second", x)
    assert rest.whole
    raw = changed(rest.raw)
    assert torch.equal(rest.logits(raw.clone()), by_hook(recogniser, "second", x, raw))


@pytest.mark.parametrize("layer", ["early", "middle", "late", "head"])
def test_a_video_swin_gives_the_same_logits(swin: Recogniser, layer: str) -> None:
    clips = list(np.random.RandomState(0).randint(0, 256, (2, 16, 64, 64, 3), np.uint8))
    x = swin.preprocess(clips).flatten(0, 1)
    path = resolve_layer(swin, layer)
    rest = RestOfNetwork(swin, path, x)
    assert not rest.whole
    raw = changed(rest.raw)
    assert rest.logits(raw.clone()).numpy() == pytest.approx(by_hook(swin, path, x, raw).numpy(), abs=1e-6)
