"""`torch.compile`, block by block."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

FEWEST = 3


def compile_blocks(module: nn.Module, *, backend: str = "inductor") -> int:
    """Compile the blocks that a network is made of: the members of its lists whose class occurs at least three times.

    Equal blocks share one compilation, so this starts much faster than compiling the whole network; and a block's hooks
    stay outside of it, so layers can be watched as before. In place.

    Returns:
        How many blocks were compiled; 0 when there are none, or they were compiled before.
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
    # The most frequent class first: a network's 12 blocks, and not its 4 stages. Of equals, the largest: a block, and
    # not the attention inside it.
    kinds = sorted((kind for kind in count if count[kind] >= FEWEST), key=lambda kind: (-count[kind], -size[kind]))
    taken: set[int] = set()
    blocks: list[nn.Module] = []
    for kind in kinds:
        for part in members:
            family = {id(child) for child in part.modules()}
            if type(part) is kind and not family & taken:
                taken |= family
                blocks.append(part)
        # what holds a block is not one itself
        taken |= {id(owner) for owner in module.modules() if any(id(child) in taken for child in owner.modules())}
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False, backend=backend)  # type: ignore[method-assign]
    module.blocks_are_compiled = True  # type: ignore[assignment]
    return len(blocks)
