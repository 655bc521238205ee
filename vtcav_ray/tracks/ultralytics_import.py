"""The only place that imports Ultralytics: offline, quiet, and without a settings file in the user's home."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from vtcav_ray.errors import ConfigError

_SETTINGS = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}


def import_ultralytics() -> Any:
    """Import and return the `ultralytics` package. Call this before any `from ultralytics ...`.

    Ultralytics reads its environment on first import: whether it may go online, install packages or print, and where it
    writes its settings. Values that the user has set are kept, except for the switch to load weights safely, which is
    always on: Ultralytics loads no weights here, and the switch protects if that ever changes.

    Raises:
        ConfigError: Ultralytics or its tracker's package is not installed.
    """
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = os.path.join(tempfile.gettempdir(), f"vtcav-ultralytics-{os.getuid()}")
        os.makedirs(os.environ["YOLO_CONFIG_DIR"], mode=0o700, exist_ok=True)
    try:
        import lap  # noqa: F401 - the trackers need it; Ultralytics would install it by itself

        with _any_torchvision():
            import ultralytics
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Detecting objects needs Ultralytics, and the package `{error.name}` is not installed. Install it with: "
            "pip install 'vtcav-ray[yolo]' (LICENSE-NOTES.md: it is AGPL-3.0). Or give your own tracks, which need no "
            "detector: set `tracks.source` and `tracks.format` (docs/howto/own_tracks.md)."
        ) from error
    return ultralytics


def prefer_own_nms() -> None:
    """Make Ultralytics use its own NMS where the process has imported a torchvision without compiled operators.

    Ultralytics takes torchvision's if the process has imported it, as transformers and timm do.
    """
    vision = sys.modules.get("torchvision")
    if vision is not None and not vision.extension._has_ops():
        from ultralytics.utils.nms import TorchNMS

        vision.ops.nms = TorchNMS.nms


@contextlib.contextmanager
def _any_torchvision() -> Iterator[None]:
    """Let Ultralytics be imported where no torchvision is installed, inside the context: it asks for its version."""
    original = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name == "torchvision":
                return "0.0.0"
            raise

    importlib.metadata.version = version
    try:
        yield
    finally:
        importlib.metadata.version = original
