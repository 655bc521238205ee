"""`torch.compile` for a model's blocks."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from vtcav_ray.models import swin_attention

FEWEST = 3


def compile_blocks(module: nn.Module, *, backend: str = "inductor") -> int:
    """Compile a network's blocks in place: the members of its lists whose class occurs at least three times.

    Equal blocks share one compilation, so this starts much faster than compiling the whole network. A block's hooks
    stay outside the compiled code, so layers can still be watched.

    Returns:
        Number of compiled blocks; 0 if there are none, or they were compiled before.
    """
    members = [
        part
        for owner in module.modules()
        if isinstance(owner, nn.ModuleList | nn.Sequential)
        for part in owner
        if any(True for _ in part.children())
    ]
    if getattr(module, "blocks_are_compiled", False):
        return 0
    count = Counter(type(part) for part in members)
    size = Counter[type]()
    for part in members:
        size[type(part)] += sum(p.numel() for p in part.parameters())
    # The most frequent class first: a network's 12 blocks, not its 4 stages. Among equals, the largest: a block, not
    # the attention inside it.
    kinds = sorted((kind for kind in count if count[kind] >= FEWEST), key=lambda kind: (-count[kind], -size[kind]))
    taken: set[int] = set()
    blocks: list[nn.Module] = []
    for kind in kinds:
        for part in members:
            family = {id(child) for child in part.modules()}
            if type(part) is kind and not family & taken:
                taken |= family
                blocks.append(part)
        # a module that contains a block is not a block
        taken |= {id(owner) for owner in module.modules() if any(id(child) in taken for child in owner.modules())}
    swin_attention.exclude_from_compilation()
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False, backend=backend)  # type: ignore[method-assign]
    module.blocks_are_compiled = True  # type: ignore[assignment]
    return len(blocks)
