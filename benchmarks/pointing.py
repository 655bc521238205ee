"""Compare directions for maps: does the map point to the object more often than random directions of the same kind?

    python -m benchmarks.pointing [--out benchmarks/results/pointing.json]

New videos of the quickstart's planted world and its recogniser: `CONCEPT_VIDEOS` for directions, `EXAMPLES` to point
at, with true boxes. Each class has its own movement as its concept: 25 clips against 100 others. A random direction
goes through the same procedure with two halves of the others. Two questions have two answers:

- `margin`: pointing minus the mean of the random directions, with a 95 % interval over the examples. It takes the four
  concept directions as given.
- `p_directions`: the share of draws, one random direction per class, that point at least as often as the four
  concepts' own directions do. Random directions differ much (`spread`), so this is the stricter one.

Legend: n m clips; P places and times; C channels; D directions; T H W of the layer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tools.world_models.augment import CLIP_FRAMES, centre_clips
from tools.world_models.pool import CLIP_SIDE, ClipPool, clip_pool
from vtcav_ray.config import ModelConfig
from vtcav_ray.heatmaps.boxes import mask
from vtcav_ray.heatmaps.intervals import mean_interval
from vtcav_ray.maps.examine import inside, pointing
from vtcav_ray.maps.inner import LayerActivations, deletions, on_frames
from vtcav_ray.models import load_recogniser
from vtcav_ray.world import asset

SEEDS = (8001, 8003)  # of the worlds of the directions' videos and of the examples
CONCEPT_VIDEOS, EXAMPLES, DELETED_EXAMPLES = 160, 160, 64
OWN, OTHERS = 25, 100  # clips on the two sides
SPLITS = 2  # draws of the two sides
RANDOM = 40  # random directions per class and draw
DRAWS = 20_000
RIDGE = 1.0  # of the whitening, times the mean variance of a channel
TOP, ROUNDS = 0.1, 3
Array = NDArray[np.float32]
Fit = Callable[[Array, Array], Array]  # [n, P, C] of one side, [m, P, C] of the other, both minus base -> [C]


def of_means(own_nPC: Array, other_mPC: Array) -> Array:
    """Return the difference of the sides' means: the direction of `vtcav maps`."""
    return np.asarray(own_nPC.mean((0, 1)) - other_mPC.mean((0, 1)))


def whitened(own_nPC: Array, other_mPC: Array) -> Array:
    """Return the difference of means, whitened by the covariance of the other side's single places."""
    places = other_mPC.reshape(-1, other_mPC.shape[-1])
    places = places - places.mean(0)
    spread = places.T @ places / len(places)
    ridge = RIDGE * np.trace(spread) / len(spread) * np.eye(len(spread), dtype=np.float32)
    return np.asarray(np.linalg.solve(spread + ridge, of_means(own_nPC, other_mPC)))


def of_top_places(own_nPC: Array, other_mPC: Array) -> Array:
    """Return the mean of each own clip's highest tenth of places minus the other side's mean, refined three times."""
    direction = of_means(own_nPC, other_mPC)
    count = max(1, round(TOP * own_nPC.shape[1]))
    for _ in range(ROUNDS):
        highest = np.argpartition(-(own_nPC @ direction), count, axis=1)[:, :count]
        direction = np.take_along_axis(own_nPC, highest[..., None], 1).mean((0, 1)) - other_mPC.mean((0, 1))
    return np.asarray(direction)


FITS: dict[str, Fit] = {"means": of_means, "whitened": whitened, "top places": of_top_places}


@dataclass(frozen=True)
class Side:
    """Clips at one layer: activations `[N, T, H, W, C]`, labels `[N]`."""

    activations: Array
    labels: NDArray[np.int64]


def fitted(fit: Fit, side: Side, label: int, split: int) -> tuple[Array, Array]:
    """Return the concept's and the random directions `[1 + RANDOM, C]`, of unit length, and the base `[C]`."""
    rng = np.random.default_rng((split, label))
    own = rng.permutation(np.flatnonzero(side.labels == label))[:OWN]
    others = rng.permutation(np.setdiff1d(np.arange(len(side.labels)), own))[:OTHERS]
    base = side.activations[others].mean((0, 1, 2, 3))
    places = side.activations.reshape(len(side.labels), -1, len(base)) - base
    found = [fit(places[own], places[others])]
    for _ in range(RANDOM):
        order = rng.permutation(others)
        found.append(fit(places[order[: len(order) // 2]], places[order[len(order) // 2 :]]))
    directions = np.stack(found)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True), base


def map_of(activation_THWC: Array, directions_DC: Array, base_C: Array) -> Array:
    """Return maps `[D, T, H, W]`, the random ones turned to be positive in the clip."""
    maps = np.moveaxis((activation_THWC - base_C) @ directions_DC.T, -1, 0)
    turn = np.where(maps.mean((1, 2, 3), keepdims=True) < 0, -1, 1)
    turn[0] = 1
    return np.asarray(maps * turn, dtype=np.float32)


def chance(concept_K: Array, random_KR: Array, seed: int = 0) -> float:
    """Return the share of draws, one random direction per class, whose mean is at least the concepts' mean."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.choice(one, DRAWS) for one in random_KR]).mean(0)
    return float((drawn >= concept_K.mean() - 1e-9).mean())


def measured(fit: Fit, side: Side, examples: Side, covered: list[Array]) -> tuple[dict[str, Any], dict[int, float]]:
    """Return the figures of a kind of direction, and each example's pointing."""
    rows: dict[int, list[list[float]]] = {}
    chances, spreads = [], []
    for split in range(SPLITS):
        points: list[NDArray[np.float64]] = []  # of each class, [D]
        for label in np.unique(examples.labels):
            directions, base = fitted(fit, side, int(label), split)
            of_class = []
            for i in np.flatnonzero(examples.labels == label):
                maps = map_of(examples.activations[i], directions, base)
                if maps[0].mean() <= 0 or not covered[i].any():
                    continue
                points_D, inside_D = np.array([(pointing(one, covered[i]), inside(one, covered[i])) for one in maps]).T
                of_class.append(points_D)
                margin, margin_inside = points_D[0] - points_D[1:].mean(), inside_D[0] - inside_D[1:].mean()
                rows.setdefault(int(i), []).append([points_D[0], points_D[1:].mean(), margin, margin_inside])
            points.append(np.mean(of_class, axis=0))
        every = np.stack(points)
        chances.append(chance(every[:, 0], every[:, 1:]))
        spreads.append(every[:, 1:].std(1).mean())
    means = {i: np.mean(found, axis=0) for i, found in rows.items()}
    columns = np.stack(list(means.values())).T
    figures = {
        "examples": len(means),
        "pointing": float(columns[0].mean()),
        "random": float(columns[1].mean()),
        "spread": float(np.mean(spreads)),
        "margin": mean_interval(columns[2]),
        "p_directions": float(np.median(chances)),
        "inside": mean_interval(columns[3]),
    }
    return figures, {i: float(row[0]) for i, row in means.items()}


def deletion(fit: Fit, side: Side, examples: Side, x: torch.Tensor, again: Callable[[torch.Tensor], Array]) -> Any:
    """Return `deletion` of `vtcav maps` for the first examples: mean and interval."""
    shares = []
    given = {int(label): fitted(fit, side, int(label), 0) for label in np.unique(examples.labels)}
    for i, label in enumerate(examples.labels[:DELETED_EXAMPLES]):
        directions, base = given[int(label)]
        own = map_of(examples.activations[i], directions[:1], base)[0]
        if own.mean() <= 0:
            continue
        on_input = on_frames(torch.from_numpy(own), *x.shape[2:])
        left = ((again(deletions(x[i], on_input, 0)) - base) @ directions[0]).mean((1, 2, 3))
        drop = own.mean() - left
        shares.append(float((drop[1:] < drop[0]).mean() + (drop[1:] == drop[0]).mean() / 2))
    return mean_interval(np.array(shares))


def boxes_of(pool: ClipPool, number: int) -> NDArray[np.float64]:
    """Return the object's true box `[T, 4]` in the clip that the model sees."""
    start = (pool.lengths_N[number] - CLIP_FRAMES) // 2
    centre, radius = pool.paths_NT2[number, start : start + CLIP_FRAMES], pool.radii_N[number]
    return np.concatenate([centre - radius, centre + radius], axis=1).astype(np.float64)


def measure(layers: tuple[str, ...] = ("early", "middle")) -> dict[str, Any]:
    """Return layer -> kind of direction -> figures."""
    model = ModelConfig(config=str(asset("recogniser.py")), checkpoint=str(asset("recogniser.pth")))
    recogniser = load_recogniser(model, "cpu", seed=0)
    reader = LayerActivations(recogniser, layers, batch_size=16)
    pools = [clip_pool(seed, count) for seed, count in zip(SEEDS, (CONCEPT_VIDEOS, EXAMPLES), strict=True)]
    inputs = [recogniser.preprocess(list(centre_clips(pool).transpose(0, 2, 3, 4, 1).copy()))[:, 0] for pool in pools]
    activations = [reader(x) for x in inputs]
    found: dict[str, Any] = {}
    for layer in layers:
        side, examples = (Side(a[layer].numpy(), pool.labels_N) for a, pool in zip(activations, pools, strict=True))
        grid = examples.activations.shape[1:4]
        boxes = (mask([boxes_of(pools[1], i)], CLIP_SIDE, CLIP_SIDE) for i in range(EXAMPLES))
        covered = [F.adaptive_avg_pool3d(torch.from_numpy(one)[None], grid)[0].numpy() for one in boxes]
        found[layer] = {}
        today: dict[int, float] = {}
        for name, fit in FITS.items():
            figures, points = measured(fit, side, examples, covered)
            today = today or points
            both = [points[i] - today[i] for i in points if i in today]
            figures["pointing_minus_means"] = mean_interval(np.array(both))
            figures["deletion"] = deletion(
                fit, side, examples, inputs[1], lambda x, layer=layer: reader(x, [layer])[layer].numpy()
            )
            found[layer][name] = figures
            print(layer, name, json.dumps(figures), flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pointing.json")
    args = parser.parse_args()
    args.out.write_text(json.dumps(measure(), indent=2) + "\n", encoding="utf-8")
