"""The installed builds of OpenCV. Four distributions share the folder `cv2`, and the one installed last overwrites it.

This package and its extra `yolo` declare `opencv-python-headless`. mmaction2, mmcv-lite and mmengine (the extra
`mmaction2`) declare `opencv-contrib-python` and `opencv-python`, which need a display's libraries (libGL, libxcb). pip
can't leave out what a package declares, and installs `opencv-contrib-python` last.
"""

from __future__ import annotations

import importlib.metadata

HEADLESS = "opencv-python-headless"
BUILDS = (HEADLESS, "opencv-contrib-python-headless", "opencv-python", "opencv-contrib-python")


def installed_builds() -> dict[str, str]:
    """Return the installed distributions of OpenCV: name -> version. More than one is one too many."""
    found = {}
    for name in BUILDS:
        for distribution in importlib.metadata.distributions(name=name):
            found[name] = distribution.version
            break
    return found


def command_for_one_build(builds: dict[str, str]) -> str:
    """Return the commands that leave one build, which needs no display, in the environment.

    Args:
        builds: as `installed_builds` returns them.
    """
    version = builds.get(HEADLESS) or next(iter(builds.values()), None)
    wanted = f"{HEADLESS}=={version}" if version else HEADLESS
    others = [name for name in builds if name != HEADLESS]
    remove = f"pip uninstall --yes {' '.join(others)} && " if others else ""
    return f"{remove}pip install --no-deps --force-reinstall {wanted}"


def fault(error: ImportError) -> str | None:
    """Return what to do if `error` says that OpenCV can't be imported; None: it is another error."""
    if error.name != "cv2":
        return None
    builds = installed_builds()
    if not builds:
        return f"OpenCV is not installed. Run: {command_for_one_build(builds)}"
    listed = ", ".join(f"{name} {version}" for name, version in builds.items())
    why = " These share one folder, and the last one installed overwrites the others." if len(builds) > 1 else ""
    return f"OpenCV can't be imported: {error}. Installed: {listed}.{why} Run: {command_for_one_build(builds)}"


def mixture() -> str | None:
    """Return what to do if builds of several versions, whose files are mixed, are installed; None: one version."""
    builds = installed_builds()
    if len(set(builds.values())) <= 1:
        return None
    listed = ", ".join(f"{name} {version}" for name, version in builds.items())
    return f"{listed} share one folder, and their files are mixed. Keep one: {command_for_one_build(builds)}"


def finding() -> tuple[bool, str]:
    """Import OpenCV. Return whether its builds can't disturb each other, and a sentence about them.

    Raises:
        ImportError: OpenCV can't be imported; see `fault`.
    """
    import cv2
    from cv2.version import headless

    builds = installed_builds()
    loaded = f"{cv2.__version__} {'without' if headless else 'with'} windows"
    if mixed := mixture():
        return False, f"{loaded}; {mixed}"
    listed = ", ".join(f"{name} {version}" for name, version in builds.items())
    if len(builds) <= 1:
        return True, f"{loaded} ({listed or 'not installed by pip'})"
    return True, (
        f"{loaded}; {listed} share one folder, in one version, so the last one installed works. To keep one: "
        f"{command_for_one_build(builds)}"
    )
