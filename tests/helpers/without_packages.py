"""An environment that lacks an extra of this package: the installed packages, without those that only it brings."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OTHER_NAMES = {"ultralytics-opencv-headless": "ultralytics"}  # distributions of the same package


def python_without(extra: str, folder: Path) -> Path:
    """Create a virtual environment in an empty folder, and return its Python. Nothing is installed or copied."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = _closure(project["dependencies"])
    hidden = {
        entry for name in _closure(project["optional-dependencies"][extra]) - needed for entry in _top_level(name)
    }
    assert hidden, "or the extra brings nothing"
    packages = folder / "packages"
    packages.mkdir(parents=True)
    for site in (Path(place) for place in sys.path if place.endswith("-packages")):
        for entry in site.iterdir():
            link = packages / entry.name
            if entry.name not in hidden and not link.is_symlink() and entry.suffix != ".pth":
                link.symlink_to(entry)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "here.pth").write_text(f"{packages}\n{ROOT}\n")
    return folder / "venv" / "bin" / "python"


def _closure(requirements: Iterable[str]) -> set[str]:
    """Return the names of installed packages that these requirements bring, with all that those need."""
    found: set[str] = set()
    todo = list(requirements)
    while todo:
        requirement = Requirement(todo.pop())
        name = canonicalize_name(requirement.name)
        environments = [{"extra": extra} for extra in ("", *requirement.extras)]
        if name in found or (
            requirement.marker is not None and not any(requirement.marker.evaluate(e) for e in environments)
        ):
            continue
        if not _is_installed(name) and name in OTHER_NAMES:
            name = OTHER_NAMES[name]
        if not _is_installed(name):
            continue  # of another system, or replaced, as the builds of OpenCV are
        needs = importlib.metadata.requires(name) or []
        found.add(name)
        todo += [need for need in needs if _wanted(need, requirement.extras)]
    return found


def _is_installed(name: str) -> bool:
    return any(True for _ in importlib.metadata.distributions(name=name))


def _wanted(need: str, extras: Iterable[str]) -> bool:
    marker = Requirement(need).marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _top_level(name: str) -> set[str]:
    """Return the names of a package's files and folders in its site-packages."""
    files = importlib.metadata.files(name) or []
    return {file.parts[0] for file in files if file.parts[0] != ".."}
