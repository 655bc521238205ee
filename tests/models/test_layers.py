from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vtcav_ray.activations import Extractor
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import Recogniser, TokenGrid, layer_table, resolve_layer
from vtcav_ray.models.compiled import compile_blocks
from vtcav_ray.models.layers import Form, find_forms, watched


class Own(Recogniser):
    """A user's network with the minimum that a recogniser needs."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)


def own(swin: Recogniser, module: nn.Module, tokens: TokenGrid | None = None) -> Own:
    return Own(module, ("a", "b"), swin.description, swin.preprocessor, {}, torch.device("cpu"), tokens)


def test_aliases_of_video_swin(swin: Recogniser) -> None:
    assert dict(swin.layer_aliases) == {
        "early": "backbone.layers.1",
        "middle": "backbone.layers.2",
        "late": "backbone.layers.3",
        "head": "cls_head.avg_pool",
    }
    assert resolve_layer(swin, "late") == "backbone.layers.3"
    assert resolve_layer(swin, "backbone.norm3:in") == "backbone.norm3:in"


@pytest.mark.parametrize(
    ("name", "near"), [("erly", "early"), ("backbone.layer.2", "backbone.layers.2"), ("", "early")]
)
def test_unknown_layers_name_the_nearest(swin: Recogniser, name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=near):
        resolve_layer(swin, name)


@pytest.mark.parametrize(
    ("form", "raw"),
    [
        (Form("channels_first", 1, (4, 2, 3), 5), (2, 5, 4, 2, 3)),
        (Form("channels_last", 1, (4, 2, 3), 5), (2, 4, 2, 3, 5)),
        (Form("channels_first", 4, (4, 2, 3), 5), (8, 5, 2, 3)),
        (Form("tokens", 1, (4, 2, 3), 5, extra=1), (2, 25, 5)),
        (Form("tokens", 1, (4, 2, 3), 5, extra=1, order="hwt"), (2, 25, 5)),
        (Form("tokens", 4, (4, 2, 3), 5, extra=1), (8, 7, 5)),
        (Form("sequence_first", 4, (4, 2, 3), 5, extra=1), (7, 8, 5)),
        (Form("channels_last", 4, (4, 1, 1), 5), (8, 5)),
    ],
)
def test_restore_is_the_inverse_of_present(form: Form, raw: tuple[int, ...]) -> None:
    x = torch.randn(raw)
    shown = form.present(x)
    assert shown.shape == (2, *form.shape)
    assert torch.equal(form.present(form.restore(shown, x)), shown)
    # `restore` is the adjoint of `present`, so gradients are mapped like activations
    y = torch.randn_like(shown)
    assert (shown * y).sum().item() == pytest.approx((x * form.restore(y, x)).sum().item(), rel=1e-4)


def moved_places(recogniser: Recogniser, path: str, t: int, y: int, x: int) -> list[list[int]]:
    """Return the places (T', H', W') where an activation changes if the video changes at frame t, row y, column x."""
    clips = torch.zeros(1, 3, 4, 32, 32)
    form = find_forms(recogniser, [path], clips)[path]
    kept = []
    for value in (0.0, 1.0):
        clips[0, :, t, y, x] = value
        with torch.no_grad(), watched(recogniser.module, path, lambda raw: kept.append(form.present(raw).clone())):
            recogniser.logits(clips)
    return (kept[0] != kept[1]).any(-1)[0].nonzero().tolist()


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (2, 8, 8), stride=(2, 8, 8))
        self.relu = nn.ReLU()
        self.twice = nn.Identity()
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(self.relu(self.stem(x))))
        return self.last(x.mean((2, 3, 4)))


class Tokens(nn.Module):
    """A network with patches as a sequence with a class token, time fastest, as in TimeSformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv3d(3, 8, (1, 16, 16), stride=(1, 16, 16))
        self.mix = nn.Linear(8, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).permute(0, 3, 4, 2, 1).flatten(1, 3)
        x = self.mix(torch.cat([torch.ones_like(x[:, :1]), x], 1))
        return self.last(x.mean(1))


class Frames(nn.Module):
    """A network with frames in the batch axis, as in the 2D recognisers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, stride=8)
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)
        return self.last(self.stem(frames).mean((2, 3))).reshape(len(x), -1, 2).mean(1)


@pytest.mark.parametrize(
    ("network", "tokens", "path", "shape", "place"),
    [
        (Convolutions, None, "relu", (2, 4, 4, 8), [1, 2, 1]),
        (Tokens, TokenGrid("hwt", 16), "mix", (4, 2, 2, 8), [3, 1, 0]),
        (Tokens, None, "mix", (1, 1, 17, 8), None),
        (Frames, None, "stem", (4, 4, 4, 8), [3, 2, 1]),
        (Frames, None, "last", (4, 1, 1, 2), [3, 0, 0]),
    ],
)
def test_places_of_an_activation_are_places_in_the_video(
    swin: Recogniser, network: type[nn.Module], tokens: TokenGrid | None, path: str, shape: tuple[int, ...], place: Any
) -> None:
    torch.manual_seed(0)
    recogniser = own(swin, network(), tokens)
    assert find_forms(recogniser, [path], torch.zeros(1, 3, 4, 32, 32))[path].shape == shape
    if place is not None:
        assert moved_places(recogniser, path, 3, 20, 12) == [place]


def test_layers_that_cannot_be_explained(swin: Recogniser) -> None:
    recogniser = own(swin, Convolutions())
    x = torch.zeros(1, 3, 4, 32, 32)
    with pytest.raises(ConfigError, match="runs 2 times"):
        find_forms(recogniser, ["twice"], x)
    recogniser.module.spare = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="does not run"):
        find_forms(recogniser, ["spare"], x)


@pytest.mark.slow
def test_table_of_layers(swin: Recogniser) -> None:
    rows = {row.name: row for row in layer_table(swin)}
    assert rows["backbone.layers.1"].alias == "early"
    assert rows["backbone.layers.1"].shape == (8, 8, 8, 64)
    assert rows["backbone.patch_embed"].output == (1, 32, 8, 16, 16)
    assert rows["backbone.patch_embed"].shape == (8, 16, 16, 32)
    degenerate = {name for name, row in rows.items() if row.degenerate}
    assert degenerate == {"backbone.norm3", "backbone", "cls_head.avg_pool", "cls_head.fc_cls", "cls_head"}
    order = [rows[f"backbone.layers.{i}"].cost for i in range(4)]
    assert order == sorted(order, reverse=True)
    assert 1.0 <= order[-1] < 1.1 < order[0] < 2.0
    own_count = sum(p.numel() for p in swin.module.get_submodule("backbone.layers.3").parameters())
    assert rows["backbone.layers.3"].parameters == own_count
    assert [row.name for row in layer_table(swin, ["late", "early"])] == ["backbone.layers.1", "backbone.layers.3"]


def test_compiled_blocks_are_the_networks_blocks(swin: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def pretend(forward: Any, *, dynamic: bool, backend: str) -> Any:
        compiled.append(forward.__self__)
        return forward

    monkeypatch.setattr(torch, "compile", pretend)
    copied = copy.deepcopy(swin.module)
    assert compile_blocks(copied) == 7
    assert compiled == [m for m in copied.modules() if type(m).__name__ == "SwinTransformerBlock3D"]
    assert compile_blocks(copied) == 0


@pytest.mark.full
def test_compiled_model_equals_the_plain_one(swin: Recogniser) -> None:
    copied = dataclasses.replace(swin, module=copy.deepcopy(swin.module))
    clips = [np.random.RandomState(i).randint(0, 256, (16, 64, 64, 3), np.uint8) for i in range(2)]
    plain = Extractor(swin, ["early", "late"]).extract(clips, [[0], [1]])
    # Everything except code generation: blocks are traced, forward and backward, including their fused attention.
    assert compile_blocks(copied.module, backend="aot_eager") == 7
    compiled = Extractor(copied, ["early", "late"], compile=True).extract(clips, [[0], [1]])
    for layer in ("early", "late"):
        np.testing.assert_allclose(compiled.activations[layer], plain.activations[layer], atol=1e-4)
        scale = np.abs(plain.gradients[layer]).max()
        np.testing.assert_allclose(compiled.gradients[layer], plain.gradients[layer], atol=1e-4 * scale)
