"""A tiny MMAction2 recogniser (ResNet3d, 8 frames of 32 x 32), trained on one world's labels.

It trains in well under a minute of one core. A 3D convolution sees the sign of a motion from the first layer on; a
small video Swin needs many times the steps for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vtcav_ray.activations import Extractor
from vtcav_ray.activations.extraction import Extraction
from vtcav_ray.activations.interventions import intervene
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import Recogniser, load_recogniser
from vtcav_ray.models.mmaction import mmaction_layers
from vtcav_ray.responses.passes import PatchSettings, Reference, responses

CONFIG = Path(__file__).with_name("resnet3d_tiny.py")
LAYERS = ("early", "middle", "late")
# The default layers of this network's family, by layer: [early, early@moving, early@still] and so on. `head` is left
# out: every factor that the network uses is a direction there, which would only raise the figures.
_DEFAULT = mmaction_layers(ModelConfig(config=str(CONFIG), checkpoint="untrained"))
COLUMNS = {layer: tuple(name for name in _DEFAULT if name.partition("@")[0] == layer) for layer in LAYERS}
_BATCH = 32


@dataclass(frozen=True)
class Trained:
    """A recogniser and its results on held-out clips; `steps` 0: untrained."""

    recogniser: Recogniser
    accuracy: float
    steps: int


def untrained(seed: int) -> Recogniser:
    """Make a recogniser with random weights from a seed, without window tricks or checkpoints."""
    return load_recogniser(ModelConfig(config=str(CONFIG), checkpoint="untrained"), "cpu", seed=seed)


def train(
    seed: int,
    clips: NDArray[np.uint8],
    labels: NDArray[np.int64],
    held_out: tuple[NDArray[np.uint8], NDArray[np.int64]],
    *,
    steps: int,
    enough: float = 0.98,
) -> Trained:
    """Train with AdamW and a cosine. Stop early once `enough` held-out clips are right in two checks in a row."""
    recogniser = untrained(seed)
    module: Any = recogniser.module.requires_grad_(True)
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 3])
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.02)
    looks: list[float] = []
    step = 0
    while step < steps and (len(looks) < 2 or min(looks[-2:]) < enough):
        module.train()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = rng.integers(len(clips), size=_BATCH)
        logits = recogniser.logits(_input(recogniser, clips[rows]))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]), label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        if step % 20 == 0:
            looks.append(accuracy(recogniser, *held_out))
    module.eval().requires_grad_(False)
    return Trained(recogniser, accuracy(recogniser, *held_out), step)


def accuracy(recogniser: Recogniser, clips: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    return float((logits_of(recogniser, clips).argmax(axis=1) == labels).mean())


@torch.no_grad()
def logits_of(recogniser: Recogniser, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return logits [N, K]."""
    recogniser.module.eval()
    parts = [recogniser.logits(_input(recogniser, clips[i : i + 64])) for i in range(0, len(clips), 64)]
    return np.asarray(torch.cat(parts).numpy())


def flat_vectors(
    recogniser: Recogniser, clips: NDArray[np.uint8], classes: list[list[int] | None] | None = None
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]], dict[str, tuple[int, int, int, int]]]:
    """Return unprojected activations [N, T'H'W'C] and gradients of each layer by the extractor, and T',H',W',C.

    Gradients have one row per requested (clip, class), in the clips' order.
    """
    extractor = Extractor(recogniser, LAYERS, "flat", batch_size=32, threads=1)
    got = _extracted(extractor, clips, classes)
    return got.activations, got.gradients, extractor.shapes()


def default_vectors(
    recogniser: Recogniser, clips: NDArray[np.uint8], classes: list[list[int] | None] | None = None
) -> Extraction:
    """Return what a run with the default layers stores: activations and gradients of every column in `COLUMNS`."""
    names = [name for columns in COLUMNS.values() for name in columns]
    return _extracted(Extractor(recogniser, names, batch_size=32, threads=1), clips, classes)


def _extracted(extractor: Extractor, clips: NDArray[np.uint8], classes: list[list[int] | None] | None) -> Extraction:
    got = extractor.extract(list(clips), classes)
    assert not got.bad_clips, "rendered clips are readable, and the network is finite"
    return got


def effect_values(pool: Extraction, reference: Extraction) -> NDArray[np.float64]:
    """Return the products of the pool's activations with each class's mean gradient at the reference set.

    Args:
        pool: of N clips.
        reference: of the reference clips, with gradients of K classes each, in order.

    Returns:
        [N, L, columns, K].
    """
    num_classes = reference.logits.shape[1]
    layers = []
    for columns in COLUMNS.values():
        products = []
        for name in columns:
            gradients = reference.gradients[name].astype(np.float64)
            mean = np.stack([gradients[k::num_classes].mean(axis=0) for k in range(num_classes)])
            products.append(pool.activations[name].astype(np.float64) @ mean.T)
        layers.append(np.stack(products, axis=1))
    return np.stack(layers, axis=1)


def patch_values(recogniser: Recogniser, pool: Extraction, reference: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the responses to each clip of the pool, put into the V reference clips: [N, L, columns, K]."""
    v, num_classes = len(reference), len(recogniser.class_names)
    layers = []
    for columns in COLUMNS.values():
        found = []
        for name in columns:
            # Gradients give the first-order prediction, which is not asked for.
            none = np.zeros((v, num_classes, pool.activations[name].shape[1]), np.float32)
            clips = Reference(list(reference), np.full(v, 1 / v), none)
            settings = PatchSettings(batch_size=32)
            of = responses(recogniser, name, pool.activations[name], clips, range(num_classes), settings)
            found.append(of.response)
        layers.append(np.stack(found, axis=1))
    return np.stack(layers, axis=1)


def moved_logits(
    recogniser: Recogniser, clips: NDArray[np.uint8], layer: str, shift: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return logits [N, K] with `shift` [T', H', W', C] added to a layer's activation of every clip."""
    parts = [intervene(recogniser, list(clips[i : i + 64]), layer, shift) for i in range(0, len(clips), 64)]
    return np.concatenate(parts)


def _input(recogniser: Recogniser, clips: NDArray[np.uint8]) -> torch.Tensor:
    return recogniser.to_input(torch.from_numpy(clips)[:, None])[:, 0]
