"""The planted world: small rendered videos whose truth is known, and two small models trained on them.

`write_world` renders videos, a manifest and the truth. `asset` returns the path of a shipped model.
"""

from __future__ import annotations

from pathlib import Path

from vtcav_ray.world.rules import KINDS, MOTION_ONLY, ClassRule, MotionRule, Role
from vtcav_ray.world.scene import Geometry
from vtcav_ray.world.write import WorldSummary, write_world

__all__ = [
    "KINDS",
    "MOTION_ONLY",
    "ClassRule",
    "Geometry",
    "MotionRule",
    "Role",
    "WorldSummary",
    "asset",
    "write_world",
]

_ASSETS = Path(__file__).parent / "assets"


def asset(name: str) -> Path:
    """Return the path of a shipped file.

    The files are recogniser.py, recogniser.pth, recogniser_labels.txt, detector.pt and detector.yaml.

    Raises:
        FileNotFoundError: no file of that name is shipped; the message lists the shipped files.
    """
    path = _ASSETS / name
    if Path(name).name != name or not path.is_file():
        shipped = ", ".join(sorted(p.name for p in _ASSETS.iterdir() if p.is_file())) if _ASSETS.is_dir() else "nothing"
        raise FileNotFoundError(f"the planted world ships no file {name!r}; shipped are: {shipped}")
    return path
