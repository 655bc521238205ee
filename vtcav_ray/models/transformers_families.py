"""The layers worth explaining in Hugging Face's video classifiers; see `vtcav_ray.models.families` for the rules.

A function gets the whole network and its classifier. `head` is the classifier's input, which is degenerate: only a
linear map follows.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from vtcav_ray.models.base import TokenGrid
from vtcav_ray.models.families import Family
from vtcav_ray.registry import FAMILIES

HEAD = {"head": "classifier:in"}


def transformers_family(module: nn.Module) -> Family:
    """Return the family of a network by its class; for an unknown one, by its longest list of blocks."""
    find = FAMILIES.get(type(module).__name__, _by_structure)
    found: Family = find(module, getattr(module, "classifier", None))
    return found


@FAMILIES.register("VideoMAEForVideoClassification")
def _videomae(module: Any, head: nn.Module) -> Family:
    config = module.config
    # Without mean pooling the classifier reads only the first token, so the last block's others have no influence.
    aliases = _blocks(module, "videomae.encoder.layer", last=1 if config.use_mean_pooling else 2)
    return Family(aliases, _grid("thw", config.patch_size, config.tubelet_size), int(config.num_frames))


@FAMILIES.register("VivitForVideoClassification")
def _vivit(module: Any, head: nn.Module) -> Family:
    tubelet, *patch = module.config.tubelet_size
    grid = _grid("thw", patch, tubelet)
    return Family(_blocks(module, "vivit.layers", last=2), grid, int(module.config.num_frames))


@FAMILIES.register("TimesformerForVideoClassification")
def _timesformer(module: Any, head: nn.Module) -> Family:
    grid = _grid("hwt", module.config.patch_size, 1)
    return Family(_blocks(module, "timesformer.encoder.layer", last=2), grid, int(module.config.num_frames))


@FAMILIES.register("VJEPA2ForVideoClassification")
def _vjepa2(module: Any, head: nn.Module) -> Family:
    # Attention pools the last block's tokens, so it is non-linear in every position.
    grid = _grid("thw", module.config.patch_size, module.config.tubelet_size)
    return Family(_blocks(module, "vjepa2.encoder.layer", last=1), grid)


@FAMILIES.register("VideoPrismForVideoClassification")
def _videoprism(module: Any, head: nn.Module) -> Family:
    # The temporal blocks have the positions in the batch axis. `late` is their output, in time and place.
    spatial = _blocks(module, "vision_model.spatial_layers", last=1)
    aliases = {"early": spatial["middle"], "middle": spatial["late"], "late": "head:in", **HEAD}
    tubelet, *patch = module.config.tubelet_size
    return Family(aliases, _grid("thw", patch, tubelet), int(module.config.num_frames))


def _by_structure(module: nn.Module, head: nn.Module | None) -> Family:
    lists = {name: part for name, part in module.named_modules() if isinstance(part, nn.ModuleList) and len(part) > 2}
    ends = HEAD if head is not None else {}
    if not lists:
        return Family(dict(ends))
    longest = max(lists, key=lambda name: (len(lists[name]), -name.count(".")))
    return Family({**_blocks(module, longest, last=2), **ends})


def _blocks(module: nn.Module, path: str, *, last: int) -> dict[str, str]:
    n = len(module.get_submodule(path))  # type: ignore[arg-type]
    at = {"early": max(n // 3 - 1, 0), "middle": max(2 * n // 3 - 1, 0), "late": max(n - last, 0)}
    return {**{alias: f"{path}.{i}" for alias, i in at.items()}, **HEAD}


def _grid(order: Any, patch: Any, tubelet: Any) -> TokenGrid | None:
    """Return the layout of the tokens; None, if the patches are not square: then the tokens lie on a line."""
    sides = {int(patch)} if isinstance(patch, int) else {int(side) for side in patch}
    return TokenGrid(order, sides.pop(), int(tubelet)) if len(sides) == 1 else None
