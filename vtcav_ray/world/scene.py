"""The content of one video of the planted world, sampled from seeded random numbers. Draws no pixels.

Lengths are in pixels of the video unless a name says otherwise. They are sampled in units of 1/64 of the video's
shorter side, so that a video scaled to 64 pixels always shows the same range of sizes and speeds.

Positions must not reveal the class. The middle of the main object's path is uniform over the same square for every
class; the course in time is symmetric (a reversed `lift` has the same distribution as a `put_down`); and the object is
shifted across its direction of motion as much as it travels along it. So a frame from an unknown time does not reveal
the class. A frame KNOWN to be the first does reveal something, which is unavoidable while objects stay in view: a path
that only rises must begin lower, on average, than it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.world.rules import DIRECTIONS, KINDS, Role

FPS_CHOICES = (10, 12, 15, 20, 24, 25, 30)
PATTERNS = ("plain", "stripes", "dots", "speckle")
BACKDROPS = ("noise", "gradient", "stripes", "checks", "plain")

_SCENE_STREAM = 0
_MAX_ASPECT = 1.3  # longer side / shorter side: the recogniser sees only the central square
_SPEED_64 = (1.5, 3.0)  # peak speed of the main object, px per frame at 64 px
_TRAVEL_64 = (18.0, 26.0)  # maximum distance from the first to the last frame
_MIDDLE_64 = (12.0, 52.0)  # range of a path's middle, on both axes
_SIZE_64 = (14.0, 24.0)
_ANGLE_DEG = 10.0  # maximum deviation of a path from its direction


@dataclass(frozen=True)
class Geometry:
    """Ranges for the shape of the videos; both ends are included.

    Attributes:
        frames: number of frames, at least 16 (a clip of the recogniser).
        size: height and width in pixels, even numbers, at least 64.
        distractors: number of still objects in addition to the main one.
    """

    frames: tuple[int, int] = (16, 32)
    size: tuple[int, int] = (64, 112)
    distractors: tuple[int, int] = (0, 2)

    def __post_init__(self) -> None:
        limits = {"frames": (16, 512), "size": (64, 1024), "distractors": (0, 8)}
        for name, (least, most) in limits.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(f"{name}={low, high}: give (low, high) with {least} <= low <= high <= {most}")
        if self.size[0] % 2 or self.size[1] % 2:
            raise ValueError(f"size={self.size}: H.264 with 4:2:0 colour needs even heights and widths")


@dataclass(frozen=True)
class Look:
    """The appearance of one object; independent of its motion."""

    kind: str
    size: float  # px, the longer side of the upright sprite
    aspect: float  # width is stretched by this factor
    colour: tuple[float, float, float]  # RGB, 0..255
    second_colour: tuple[float, float, float]
    pattern: str
    pattern_scale: float  # periods across the sprite
    angle_deg: float
    mirrored: bool
    speckle_seed: int


@dataclass(frozen=True, eq=False)
class Actor:
    """One object in a scene. `centres_T2` is the centre of its box, (x, y) in px, possibly outside the frame."""

    look: Look
    centres_T2: NDArray[np.float32]
    motion: str  # up, down, left, right or none

    @property
    def moving(self) -> bool:
        return self.motion != "none"


@dataclass(frozen=True)
class Backdrop:
    kind: str
    colour: tuple[float, float, float]
    second_colour: tuple[float, float, float]
    cells: float  # periods or noise cells across the shorter side
    angle_deg: float
    seed: int


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that the renderer needs for one video. The LAST actor is the main object and is in front."""

    seed: int
    index: int
    role: Role
    frames: int
    height: int
    width: int
    fps: int
    backdrop: Backdrop
    light_deg: float  # direction that the light comes from
    light_strength: float  # 0 none .. 1 (dark side at half brightness)
    noise_sd: float  # sensor noise, grey levels
    actors: tuple[Actor, ...]

    @property
    def video_id(self) -> str:
        return f"{self.index:06d}"


def sample_scene(seed: int, index: int, role: Role, geometry: Geometry | None = None) -> Scene:
    """Sample the scene of video `index` of world `seed`. It depends only on the arguments, never on other videos.

    Raises:
        ValueError: seed or index is negative, or the role names an unknown kind or motion.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed={seed}, index={index}: both must be 0 or more")
    if role.kind not in KINDS or role.motion not in DIRECTIONS:
        raise ValueError(f"{role}: kind must be one of {KINDS}, motion one of {tuple(DIRECTIONS)}")
    geometry = geometry or Geometry()
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, _SCENE_STREAM]))
    frames = int(rng.integers(geometry.frames[0], geometry.frames[1] + 1))
    height, width = _sample_size(rng, geometry)
    backdrop = _sample_backdrop(rng)
    actors = []
    for _ in range(int(rng.integers(geometry.distractors[0], geometry.distractors[1] + 1))):
        look = _sample_look(rng, KINDS[rng.integers(len(KINDS))], min(height, width), backdrop)
        # Placed independently of the main object's path: avoiding the path would reveal the axis of motion.
        centre = rng.uniform([0.0, 0.0], [width, height]).astype(np.float32)
        actors.append(Actor(look, np.tile(centre, (frames, 1)), "none"))
    look = _sample_look(rng, role.kind, min(height, width), backdrop)
    actors.append(Actor(look, _sample_path(rng, role.motion, frames, height, width), role.motion))
    return Scene(
        seed=seed,
        index=index,
        role=role,
        frames=frames,
        height=height,
        width=width,
        fps=int(rng.choice(FPS_CHOICES)),
        backdrop=backdrop,
        light_deg=float(rng.uniform(0, 360)),
        light_strength=float(rng.uniform(0.1, 0.8)),
        noise_sd=float(rng.uniform(0.5, 5.0)),
        actors=tuple(actors),
    )


def _sample_size(rng: np.random.Generator, geometry: Geometry) -> tuple[int, int]:
    low, high = geometry.size
    short = 2 * int(rng.integers(low // 2, high // 2 + 1))
    long = 2 * int(rng.integers(short // 2, min(high, int(short * _MAX_ASPECT)) // 2 + 1))
    return (short, long) if rng.random() < 0.5 else (long, short)


def _sample_path(rng: np.random.Generator, motion: str, frames: int, height: int, width: int) -> NDArray[np.float32]:
    """Return centres (x, y) for each frame: [T, 2]."""
    unit = min(height, width) / 64
    along_T = _sample_course(rng, frames)
    # As far from the path's middle as in a frame of a motion along the other axis: see the module docstring.
    across = rng.choice(_sample_course(rng, frames))
    direction = np.array(DIRECTIONS[motion])
    lean = math.radians(rng.uniform(-_ANGLE_DEG, _ANGLE_DEG))
    turn = np.array([[math.cos(lean), -math.sin(lean)], [math.sin(lean), math.cos(lean)]])
    corner = np.array([(width - 64 * unit) / 2, (height - 64 * unit) / 2])
    middle = corner + unit * rng.uniform(*_MIDDLE_64, size=2)
    path_T2 = unit * along_T[:, None] * (turn @ direction)[None]
    return (middle + unit * across * np.abs(direction[::-1]) + path_T2).astype(np.float32)


def _sample_course(rng: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """Return positions along the path in 1/64 of the shorter side, negative to positive, antisymmetric in time: [T].

    The peak speed is at the middle frame. If that speed would move the object too far, the ends are slower, but never
    still.
    """
    peak = rng.uniform(*_SPEED_64)
    travel = min(rng.uniform(*_TRAVEL_64), peak * (frames - 1))
    steps = np.arange(frames - 1) - (frames - 2) / 2
    low, high = 0.1, 1e4  # half-width of the fast part, frames
    for _ in range(60):
        half = math.sqrt(low * high)
        total = float((peak / (1 + (steps / half) ** 4)).sum())
        low, high = (half, high) if total < travel else (low, half)
    speed = peak / (1 + (steps / high) ** 4)
    way = np.concatenate([[0.0], np.cumsum(speed)])
    return way - way[-1] / 2


def _sample_backdrop(rng: np.random.Generator) -> Backdrop:
    first = rng.uniform(20, 235, 3)
    second = np.clip(first + rng.uniform(-60, 60, 3), 0, 255)
    return Backdrop(
        kind=BACKDROPS[rng.integers(len(BACKDROPS))],
        colour=_rgb(first),
        second_colour=_rgb(second),
        cells=float(rng.uniform(2, 12)),
        angle_deg=float(rng.uniform(0, 180)),
        seed=int(rng.integers(2**31)),
    )


def _sample_look(rng: np.random.Generator, kind: str, short: int, backdrop: Backdrop) -> Look:
    ground = (np.array(backdrop.colour) + np.array(backdrop.second_colour)) / 2
    colour = rng.uniform(10, 245, 3)
    while np.abs(colour - ground).sum() < 150:  # an object that can't be seen must not be in the ground truth
        colour = rng.uniform(10, 245, 3)
    return Look(
        kind=kind,
        size=float(rng.uniform(*_SIZE_64) * short / 64),
        aspect=float(rng.uniform(0.85, 1.15)),
        colour=_rgb(colour),
        second_colour=_rgb(np.clip(colour + rng.uniform(-70, 70, 3), 0, 255)),
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        pattern_scale=float(rng.uniform(2, 5)),
        angle_deg=float(rng.uniform(-15, 15)),
        mirrored=bool(rng.random() < 0.5),
        speckle_seed=int(rng.integers(2**31)),
    )


def _rgb(colour: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(colour[0]), float(colour[1]), float(colour[2])
