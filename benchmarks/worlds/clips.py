"""Tiny clips of the planted world's renderer with three independent factors: kind, motion and backdrop.

Each factor has two levels. All else (place, size, colour, light, noise) is drawn alike for all levels, from the
clip's own seed, so a clip and its twin with ONE factor swapped differ in nothing else.

`render_together` gives each clip also the label of its video, as data have labels: it goes with the motion, and with
the backdrop, in `TOGETHER` of the videos.

Legend: N clips of T frames, H x W pixels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.world.render import render_scene
from vtcav_ray.world.rules import DIRECTIONS, Role
from vtcav_ray.world.scene import Actor, Backdrop, Look, Scene

FRAMES, SIDE = 8, 32
FACTORS: dict[str, tuple[str, str]] = {
    "kind": ("ball", "box"),
    "motion": ("left", "right"),
    "backdrop": ("stripes", "checks"),
}
FACTOR_OF = {level: factor for factor, levels in FACTORS.items() for level in levels}
# At 32 pixels, outlines alone are learnt slowly, so each kind also has its own surface.
_PATTERN_OF = {"ball": "plain", "box": "dots"}
_STEP_PX = (1.0, 2.2)  # per frame
TOGETHER = 0.8  # share of the videos whose motion, and whose backdrop, go with the label


@dataclass(frozen=True)
class Pool:
    """Rendered clips.

    Attributes:
        clips: uint8 [N, T, H, W, 3].
        levels: factor -> 0 or 1 for each clip, [N]: index of its level in `FACTORS[factor]`.
        scenes: the rendered scenes.
        labels: of the clips' videos, 0 or 1, [N]; None: they have none.
    """

    clips: NDArray[np.uint8]
    levels: dict[str, NDArray[np.int64]]
    scenes: tuple[Scene, ...]
    labels: NDArray[np.int64] | None = None

    def where(self, **levels: int) -> NDArray[np.int64]:
        """Return the indices of the clips with these levels."""
        keep = np.ones(len(self.clips), bool)
        for factor, level in levels.items():
            keep &= self.levels[factor] == level
        return np.flatnonzero(keep)


def render(seed: int, count: int) -> Pool:
    """Render `count` clips, each of a new scene, with factors crossed and balanced."""
    order = np.random.default_rng([seed, 1]).permutation(count) % 8
    return _rendered(seed, {factor: order >> bit & 1 for bit, factor in enumerate(FACTORS)})


def render_together(seed: int, count: int) -> Pool:
    """Render `count` clips with labels: motion and backdrop have the label's level in `TOGETHER` of them each.

    Given the label, motion and backdrop are independent of each other. The kind is independent of everything. `count`
    is best a multiple of 100, for which all shares are exact.
    """
    order = np.random.default_rng([seed, 1]).permutation(count)
    every = round(1 / (1 - TOGETHER))  # one clip in this many goes against the label
    label = order // every**2 % 2
    against = {"motion": order % every == 0, "backdrop": order // every % every == 0}
    levels = {"kind": order // (2 * every**2) % 2} | {factor: label ^ other for factor, other in against.items()}
    return dataclasses.replace(_rendered(seed, {factor: levels[factor] for factor in FACTORS}), labels=label)


def _rendered(seed: int, levels: dict[str, NDArray[np.int64]]) -> Pool:
    count = len(levels["kind"])
    scenes = tuple(
        _scene(seed, i, {factor: FACTORS[factor][int(values[i])] for factor, values in levels.items()})
        for i in range(count)
    )
    return Pool(np.stack([render_scene(scene).frames_THW3 for scene in scenes]), levels, scenes)


def swapped(pool: Pool, rows: NDArray[np.int64], factor: str, level: int) -> NDArray[np.uint8]:
    """Render the same clips with one factor set to a level and nothing else changed, [n, T, H, W, 3]."""
    out = []
    for i in rows:
        given = {name: FACTORS[name][int(values[i])] for name, values in pool.levels.items()}
        scene = pool.scenes[i]
        out.append(_scene(scene.seed, scene.index, given | {factor: FACTORS[factor][level]}))
    return np.stack([render_scene(scene).frames_THW3 for scene in out])


def _scene(seed: int, index: int, given: dict[str, str]) -> Scene:
    rng = np.random.default_rng([seed, index, 2])
    ground = rng.uniform(40, 215, 3)
    contrast = rng.choice([-1.0, 1.0], 3) * rng.uniform(40, 70, 3)
    second = np.clip(ground + contrast, 0, 255)
    colour = rng.uniform(10, 245, 3)
    while np.abs(colour - (ground + second) / 2).sum() < 180:  # the object must be visible
        colour = rng.uniform(10, 245, 3)
    look = Look(
        kind=given["kind"],
        size=float(rng.uniform(14, 18)),
        aspect=float(rng.uniform(0.9, 1.1)),
        colour=_rgb(colour),
        second_colour=_rgb(255 - colour),
        pattern=_PATTERN_OF[given["kind"]],
        pattern_scale=float(rng.uniform(2, 3)),
        angle_deg=float(rng.uniform(-10, 10)),
        mirrored=bool(rng.random() < 0.5),
        speckle_seed=int(rng.integers(2**31)),
    )
    middle = rng.uniform(11, SIDE - 11, 2)
    way = (np.arange(FRAMES) - (FRAMES - 1) / 2) * rng.uniform(*_STEP_PX)
    centres = middle + way[:, None] * np.array(DIRECTIONS[given["motion"]])
    backdrop = Backdrop(
        kind=given["backdrop"],
        colour=_rgb(ground),
        second_colour=_rgb(second),
        cells=float(rng.uniform(4, 7)),
        angle_deg=float(rng.uniform(0, 180)),
        seed=int(rng.integers(2**31)),
    )
    return Scene(
        seed=seed,
        index=index,
        role=Role("", given["kind"], given["motion"], "train"),
        frames=FRAMES,
        height=SIDE,
        width=SIDE,
        fps=10,
        backdrop=backdrop,
        light_deg=float(rng.uniform(0, 360)),
        light_strength=float(rng.uniform(0.1, 0.5)),
        noise_sd=float(rng.uniform(0.5, 4.0)),
        actors=(Actor(look, centres.astype(np.float32), given["motion"]),),
    )


def _rgb(colour: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(colour[0]), float(colour[1]), float(colour[2])
