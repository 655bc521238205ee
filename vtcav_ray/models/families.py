"""The layers worth explaining, for each family of networks in MMAction2.

`early` and `middle` are the outputs of stages 2 and 3 of four (the paper's boundaries 2|3 and 3|4, before the
downsampling that leads to the next stage); in a network without stages, a third and two thirds of the blocks.

`late` is the last layer after which the model is still non-linear in every position. If only pooling and one linear map
follow (a ResNet's `layer4`, Swin's `norm3`, UniFormer's last block), the gradient is the same for every clip and a sign
count is meaningless, so `late` is the block before. If the classifier reads only the class token (TimeSformer, MViT),
the last block's other tokens have no influence, so `late` is also the block before.

`head` is the paper's layer: the pooled features before the classifier. It is degenerate and marked so in most families.

A run whose config names no layers (`activations.layers: auto`) takes these four. Where one is convolutional, the run
also takes its means over the places that move and over those that are still (`early@moving`, `early@still`): in such a
layer a small object changes only its own places, and the mean over all of them hardly sees it. Attention carries what
moves to all places, so in a transformer the mean loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from torch import nn

from vtcav_ray.models.base import TokenGrid
from vtcav_ray.registry import FAMILIES

ALIASES = ("early", "middle", "late", "head")
PLACES = ("moving", "still")  # projections that a convolutional layer has beside the mean
Find = TypeVar("Find", bound=Callable[..., "Family"])


@dataclass(frozen=True)
class Family:
    """Facts about the layers of a family of networks.

    Attributes:
        aliases: `early`, `middle`, `late`, `head` -> a layer's name.
        tokens: how its token sequences lie on the video.
        frames: the only number of frames that it takes; None: any.
    """

    aliases: dict[str, str] = field(default_factory=dict)
    tokens: TokenGrid | None = None
    frames: int | None = None


def family_of(module: nn.Module) -> Family:
    """Return the family of an MMAction2 recogniser, from its backbone and head. An unknown backbone has only `head`.

    The entry of `FAMILIES` under the name of the backbone's class is called with (backbone, head). It need not give
    `head` among its aliases, nor the number of frames of a 2D network.
    """
    backbone, head = module.get_submodule("backbone"), module.get_submodule("cls_head")
    name = type(backbone).__name__
    find: Callable[[nn.Module, nn.Module], Family] = FAMILIES.get(name, _by_structure)
    found = find(backbone, head)
    frames = _segments(backbone, head) if found.frames is None else found.frames
    return Family({**found.aliases, "head": found.aliases.get("head") or _head(module)}, found.tokens, frames)


def convolutional(*aliases: str) -> Callable[[Find], Find]:
    """Decorate a family's function with the aliases of its layers that are convolutional."""

    def add(find: Find) -> Find:
        setattr(find, "convolutional", aliases)  # noqa: B010 - mypy knows no attributes of functions
        return find

    return add


def default_layers(backbone: str) -> tuple[str, ...]:
    """Return the layers of a run whose config names none, without building the network.

    Args:
        backbone: name of its class; an unknown one has no convolutional layers.
    """
    found = getattr(FAMILIES.get(backbone.rpartition(".")[2]), "convolutional", ())
    return tuple(
        name for alias in ALIASES for name in (alias, *(f"{alias}@{places}" for places in PLACES if alias in found))
    )


@FAMILIES.register("ResNet")
@FAMILIES.register("ResNetTSM")
@FAMILIES.register("ResNetTIN")
@FAMILIES.register("OmniResNet")
@FAMILIES.register("TANet")
@FAMILIES.register("C2D")
@FAMILIES.register("ResNet2Plus1d")
@FAMILIES.register("ResNet3d")
@FAMILIES.register("ResNet3dCSN")
@FAMILIES.register("ResNet3dSlowOnly")
@FAMILIES.register("ResNet3dSlowFast")
@convolutional("early", "middle", "late")
def _by_structure(backbone: nn.Module, head: nn.Module) -> Family:
    """Return the family of a network with the stages of a ResNet, in one or two paths. Three stages are enough."""
    path = "slow_path." if hasattr(backbone, "slow_path") else ""
    parts = dict(backbone.named_modules())
    last = max((n for n in range(1, 10) if f"{path}layer{n}" in parts), default=0)
    return Family(_residual(backbone, path, last)) if last >= 3 else Family()


@FAMILIES.register("SwinTransformer3D")
def _swin(backbone: nn.Module, head: nn.Module) -> Family:
    n = len(_list(backbone, "layers"))
    return Family({a: f"backbone.layers.{max(n - k, 0)}" for a, k in (("early", 3), ("middle", 2), ("late", 1))})


@FAMILIES.register("TimeSformer")
def _timesformer(backbone: nn.Module, head: nn.Module) -> Family:
    patch = backbone.get_submodule("patch_embed.projection").kernel_size[0]  # type: ignore[index]
    # space_only keeps the frames in the batch: a sequence is one frame, so it has no order in time.
    tokens = TokenGrid("hwt", int(patch))  # type: ignore[arg-type]
    frames = int(backbone.num_frames)  # type: ignore[arg-type]
    return Family(_isotropic(backbone, "transformer_layers.layers", last=2), tokens, frames)


@FAMILIES.register("VisionTransformer")
def _vision_transformer(backbone: nn.Module, head: nn.Module) -> Family:
    projection = backbone.get_submodule("patch_embed.projection")
    tubelet, patch = projection.kernel_size[0], projection.kernel_size[1]  # type: ignore[index]
    positions: int = backbone.pos_embed.shape[1]  # type: ignore[assignment,index,union-attr]
    grid: tuple[int, int] = backbone.grid_size  # type: ignore[assignment]
    return Family(
        _isotropic(backbone, "blocks", last=1 if backbone.fc_norm is not None else 2),
        TokenGrid("thw", int(patch), int(tubelet)),
        int(tubelet) * (positions // math.prod(grid)),
    )


@FAMILIES.register("UniFormerV2")
def _uniformer_v2(backbone: nn.Module, head: nn.Module) -> Family:
    stride = backbone.get_submodule("conv1").stride
    return Family(
        _isotropic(backbone, "transformer.resblocks", last=1),
        TokenGrid("thw", int(stride[1]), int(stride[0])),  # type: ignore[index]
        int(stride[0]) * int(backbone.get_submodule("transformer").T),  # type: ignore[index,arg-type]
    )


@FAMILIES.register("MViT")
def _mvit(backbone: nn.Module, head: nn.Module) -> Family:
    ends = [i - 1 for i in backbone.downscale_indices]  # type: ignore[union-attr,operator]
    last = len(_list(backbone, "blocks")) - (2 if backbone.output_cls_token else 1)
    blocks = (f"backbone.blocks.{i}" for i in [*ends[-2:], last])
    return Family(dict(zip(("early", "middle", "late"), blocks, strict=True)))


@FAMILIES.register("UniFormer")
@convolutional("early")  # the blocks of stages 3 and 4 have attention
def _uniformer(backbone: nn.Module, head: nn.Module) -> Family:
    return Family(
        {
            "early": f"backbone.blocks2.{len(_list(backbone, 'blocks2')) - 1}",
            "middle": f"backbone.blocks3.{len(_list(backbone, 'blocks3')) - 1}",
            "late": f"backbone.blocks4.{max(len(_list(backbone, 'blocks4')) - 2, 0)}",
        }
    )


@FAMILIES.register("C3D")
@convolutional("early", "middle", "late")
def _c3d(backbone: nn.Module, head: nn.Module) -> Family:
    return Family({"early": "backbone.conv3b", "middle": "backbone.conv4b", "late": "backbone.conv5b"})


@FAMILIES.register("X3D")
@convolutional("early", "middle", "late")
def _x3d(backbone: nn.Module, head: nn.Module) -> Family:
    # A non-linear convolution and two linear layers follow layer4.
    return Family({"early": "backbone.layer2", "middle": "backbone.layer3", "late": "backbone.layer4"})


@FAMILIES.register("MobileNetV2")
@FAMILIES.register("MobileNetV2TSM")
@convolutional("early", "middle", "late")
def _mobilenet_v2(backbone: nn.Module, head: nn.Module) -> Family:
    # A non-linear convolution follows layer7.
    return Family({"early": "backbone.layer3", "middle": "backbone.layer5", "late": "backbone.layer7"})


def _residual(backbone: nn.Module, path: str, last: int) -> dict[str, str]:
    """Return the aliases of a ResNet's stages `layer1` to `layer<last>`."""
    blocks = len(_list(backbone, f"{path}layer{last}"))
    return {
        "early": f"backbone.{path}layer{last - 2}",
        "middle": f"backbone.{path}layer{last - 1}",
        "late": f"backbone.{path}layer{last}.{max(blocks - 2, 0)}",
    }


def _isotropic(backbone: nn.Module, path: str, *, last: int) -> dict[str, str]:
    n = len(_list(backbone, path))
    at = {"early": max(n // 3 - 1, 0), "middle": max(2 * n // 3 - 1, 0), "late": max(n - last, 0)}
    return {alias: f"backbone.{path}.{i}" for alias, i in at.items()}


def _list(backbone: nn.Module, path: str) -> nn.ModuleList:
    found = backbone.get_submodule(path)
    assert isinstance(found, nn.ModuleList | nn.Sequential), f"{path} is a {type(found).__name__}"
    return found  # type: ignore[return-value]


def _head(module: nn.Module) -> str:
    """Return the layer of pooled features: the pooling's output if it runs once, else the last linear layer's input."""
    head = module.get_submodule("cls_head")
    if type(head).__name__ in ("I3DHead", "TSMHead", "TSNHead") and isinstance(head.avg_pool, nn.Module):
        return "cls_head.avg_pool"
    if type(head).__name__ == "X3DHead":
        return "cls_head.pool"
    linear = [name for name, part in head.named_modules() if isinstance(part, nn.Linear)]
    return f"cls_head.{linear[-1]}:in" if linear else "cls_head"


def _segments(backbone: nn.Module, head: nn.Module) -> int | None:
    """Return the number of frames for which a 2D network's layers were built."""
    for part in (backbone, head):
        if isinstance(segments := getattr(part, "num_segments", None), int):
            return segments
    return None
