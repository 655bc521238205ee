"""Files packaged with vtcav-ray, written `asset:NAME` in a config.

`vtcav_ray/world/assets/` has the planted world's two models, `vtcav_ray/models/assets/` the class names of Kinetics,
`vtcav_ray/config/assets/` the quickstart's config.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from vtcav_ray.errors import ConfigError

SCHEME = "asset:"
ROOMS = ("world", "models", "config")


def resolve_asset(uri: str) -> str:
    """Return the local path of an `asset:NAME`; return any other path or URL unchanged.

    Raises:
        ConfigError: the package has no file of that name; the message lists the names that exist.
    """
    if not uri.startswith(SCHEME):
        return uri
    name = uri.removeprefix(SCHEME)
    root = Path(str(resources.files("vtcav_ray")))
    folders = [root / room / "assets" for room in ROOMS]
    found = [folder / name for folder in folders if Path(name).name == name and (folder / name).is_file()]
    if not found:
        known = sorted(p.name for folder in folders if folder.is_dir() for p in folder.iterdir() if p.is_file())
        raise ConfigError(f"`{uri}`: no such packaged file; available: {', '.join(known) or 'none'}.")
    return str(found[0])
