"""Gradients of many classes at one clip: a loop of backward passes against one batched over classes.

    python benchmarks/many_classes.py                  8 of 400 classes, about two minutes on one core
    python benchmarks/many_classes.py --network swin   one network: swin, plain (Swin with MMAction2's blocks) or conv

At the reference set, every clip is differentiated once per class of the run. `Extractor` does this with a loop of
vector-Jacobian products from one forward pass. PyTorch can also batch them over classes (`is_grads_batched`, a vmap of
the backward pass). Measured: processor seconds of the batch over those of the loop (above 1, the loop is faster), in
turns, for one clip and for four, with the gradients at three layers; and the largest difference relative to the largest
gradient.

The loop over Video Swin uses our fused blocks, as the stage does. They can't be batched: their backward writes into
given memory, and PyTorch's fused attention has no rule for batches. The batch therefore uses MMAction2's own blocks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from environment import RESULTS, moment, ratios, read, write
from torch import nn

from vtcav_ray.config import ModelConfig
from vtcav_ray.models import Recogniser, load_recogniser
from vtcav_ray.models.layers import resolve_layer, watched
from vtcav_ray.models.swin_attention import restore_mmaction

CLASSES = 400
LAYERS = ("early", "middle", "late")
CHUNKS = (4, 8)  # classes of one batch
SWIN = "asset:recogniser.py"
CONV = "slowonly_r50_8xb16-4x16x1-256e_kinetics400-rgb"
# Config, whether the loop has our fused blocks, and the shape of a clip.
NETWORKS: dict[str, tuple[str, bool, tuple[int, ...]]] = {
    "swin": (SWIN, True, (3, 16, 64, 64)),
    "plain": (SWIN, False, (3, 16, 64, 64)),
    "conv": (CONV, False, (3, 4, 64, 64)),
}
Gradients = list[torch.Tensor]  # of each layer: [classes, B, numbers]


@dataclass(frozen=True)
class Graph:
    """A forward pass whose graph starts at the first layer: logits [B, 400], and each layer's tensor."""

    logits: torch.Tensor
    leaves: list[torch.Tensor]


def network(config: str, *, fused: bool = True) -> Recogniser:
    """Build an untrained network with 400 classes."""
    recogniser = load_recogniser(ModelConfig(config=config, checkpoint="untrained"), "cpu")
    if not fused:
        restore_mmaction(recogniser.module)
    path = [name for name, part in recogniser.module.named_modules() if isinstance(part, nn.Linear)][-1]
    parent, _, last = path.rpartition(".")
    torch.manual_seed(0)
    width = recogniser.module.get_submodule(path).in_features
    head = nn.Linear(int(width), CLASSES).requires_grad_(False)  # type: ignore[arg-type]
    setattr(recogniser.module.get_submodule(parent), last, head)
    return recogniser


def forward(recogniser: Recogniser, x: torch.Tensor) -> Graph:
    """Run one forward pass that records the graph, as `Extractor` does."""
    leaves: dict[str, torch.Tensor] = {}

    def take(layer: str, raw: torch.Tensor) -> torch.Tensor:
        leaves[layer] = raw if raw.requires_grad else raw.detach().requires_grad_()
        return leaves[layer].clone()

    with ExitStack() as stack:
        for layer in LAYERS:
            stack.enter_context(watched(recogniser.module, resolve_layer(recogniser, layer), partial(take, layer)))
        logits = recogniser.logits(x)
    return Graph(logits, [leaves[layer] for layer in LAYERS])


def loop(graph: Graph, classes: int) -> Gradients:
    """Differentiate class by class."""
    rows = []
    for k in range(classes):
        found = torch.autograd.grad(graph.logits[:, k].sum(), graph.leaves, retain_graph=True)
        rows.append([one.flatten(1).clone() for one in found])
    return [torch.stack(layer) for layer in zip(*rows, strict=True)]


def batched(graph: Graph, classes: int, chunk: int) -> Gradients:
    """Differentiate `chunk` classes together."""
    rows = []
    for start in range(0, classes, chunk):
        some = range(start, min(start + chunk, classes))
        vectors = torch.zeros((len(some), *graph.logits.shape))
        for place, k in enumerate(some):
            vectors[place, :, k] = 1
        found = torch.autograd.grad(graph.logits, graph.leaves, vectors, retain_graph=True, is_grads_batched=True)
        rows.append([one.flatten(2).clone() for one in found])
    return [torch.cat(layer) for layer in zip(*rows, strict=True)]


def difference(one: Gradients, other: Gradients) -> float:
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True))


def compared(theirs: Recogniser, ours: Recogniser, shape: Sequence[int], classes: int, repeats: int) -> dict[str, Any]:
    """Return processor seconds of the batch (`theirs`) and the loop (`ours`), and their ratio, by clips and chunk."""
    out: dict[str, Any] = {}
    for clips in (1, 4):
        x = torch.randn((clips, *shape), generator=torch.Generator().manual_seed(1))
        for chunk in CHUNKS:
            left, right = forward(ours, x), forward(theirs, x)
            one: Callable[[], Gradients] = partial(loop, left, classes)
            other: Callable[[], Gradients] = partial(batched, right, classes, chunk)
            error = difference(one(), other())
            out[f"{clips} clips, {chunk} classes together"] = ratios(other, one, repeats) | {"difference": error}
    return out


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure the networks and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--classes", type=int, default=8, help="classes per measurement, of 400")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network", choices=list(NETWORKS), action="append", help="may be repeated; default: all")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    file = RESULTS / "many_classes.json"
    result = read(file)
    for name in options.network or NETWORKS:
        config, fused, shape = NETWORKS[name]
        theirs = network(config, fused=False)
        rows = compared(theirs, network(config) if fused else theirs, shape, options.classes, options.repeats)
        result[name] = moment() | {"classes": options.classes, "batch over loop": rows}
        for title, row in rows.items():
            print(f"{name}, {title}: {row['ratio']['median']:.2f}, difference {row['difference']:.1e}")
    write(file, result)
    return result


if __name__ == "__main__":
    main()
