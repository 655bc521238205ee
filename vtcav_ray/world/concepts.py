"""Concept folders of the planted world: small clips and images as a person would collect them, one folder a concept.

    moving up/000.mp4 ...     what `lift` is made of
    moving down/000.mp4 ...   what `put_down` is made of
    cup/000.png ...           images; a still cup says nothing about a class that motion alone defines
    random/000.mp4, .png ...  any motion and any object: the matched random clips

The layout is that of Captum, of tensorflow/tcav and of Xplique. The clips come from scenes of their own, none of which
is a video of the world.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from vtcav_ray.store.access import open_url, patiently
from vtcav_ray.video.mp4 import encode_mp4
from vtcav_ray.world.render import render_scene
from vtcav_ray.world.rules import DIRECTIONS, KINDS, MOTION_OF_LABEL, Role
from vtcav_ray.world.scene import Geometry, sample_scene

RECORD = ".concepts.json"  # written last: its presence marks the folders as complete; hidden, so no listing shows it
CLIPS, RANDOM = 24, 72  # files of each concept, and of each sort of random file
_FORMAT = 1
_FIRST = 1_000_000  # number of the first scene: a world has fewer videos
_LABEL_OF = {motion: label for label, motion in MOTION_OF_LABEL.items()}


def write_concepts(
    out: str,
    *,
    seed: int = 0,
    clips: int = CLIPS,
    random: int = RANDOM,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Render concept folders into `out`, any fsspec URL. The same folders are kept.

    Args:
        seed: of the world. Its videos and these clips differ.
        clips: number of files in each concept's folder.
        random: number of clips, and of images, in the folder `random`.
        storage_options: passed to the fsspec filesystem.

    Returns:
        Folder -> number of files.
    """
    filesystem, root = open_url(out, storage_options)
    root = root.rstrip("/")
    recipe = {"format": _FORMAT, "seed": seed, "clips": clips, "random": random}
    try:
        record = json.loads(patiently(lambda: filesystem.cat_file(f"{root}/{RECORD}"), root))
    except FileNotFoundError:
        record = {}
    if record.get("recipe") == recipe:
        found: dict[str, int] = record["files"]
        return found
    files: dict[str, int] = {}
    for name, data in _files(seed, clips, random):
        folder = name.partition("/")[0]
        filesystem.makedirs(f"{root}/{folder}", exist_ok=True)
        patiently(functools.partial(filesystem.pipe_file, f"{root}/{name}", data), name)
        files[folder] = files.get(folder, 0) + 1
    done = json.dumps({"recipe": recipe, "files": files}, indent=2).encode() + b"\n"
    patiently(lambda: filesystem.pipe_file(f"{root}/{RECORD}", done), RECORD)
    return files


def _files(seed: int, clips: int, random: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of every file. The roles are crossed, so that a concept does not come with an object."""
    motions = tuple(DIRECTIONS)
    number = _FIRST
    for motion in ("up", "down"):
        for i in range(clips):
            yield f"moving {motion}/{i:03d}.mp4", _clip(seed, number, KINDS[i % len(KINDS)], motion)
            number += 1
    for i in range(clips):
        yield f"cup/{i:03d}.png", _image(seed, number, "cup", motions[i % len(motions)])
        number += 1
    for i in range(random):
        kind, motion = KINDS[i // len(motions) % len(KINDS)], motions[i % len(motions)]
        yield f"random/{i:03d}.mp4", _clip(seed, number, kind, motion)
        yield f"random/{i:03d}.png", _image(seed, number + random, kind, motion)
        number += 1


def _rendered(seed: int, number: int, kind: str, motion: str) -> tuple[np.ndarray, int]:
    role = Role(_LABEL_OF[motion], kind, motion, "test")
    rendered = render_scene(sample_scene(seed, number, role, Geometry()))
    return rendered.frames_THW3, rendered.scene.fps


def _clip(seed: int, number: int, kind: str, motion: str) -> bytes:
    frames_THW3, fps = _rendered(seed, number, kind, motion)
    return encode_mp4(frames_THW3, fps)


def _image(seed: int, number: int, kind: str, motion: str) -> bytes:
    frames_THW3, _ = _rendered(seed, number, kind, motion)
    file = io.BytesIO()
    Image.fromarray(frames_THW3[len(frames_THW3) // 2]).save(file, "PNG")
    return file.getvalue()
