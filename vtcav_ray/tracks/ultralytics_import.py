"""The one place that imports Ultralytics: offline, quiet, and without a settings file in the user's home."""

from __future__ import annotations

import os
import tempfile
from typing import Any

_SETTINGS = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}


def import_ultralytics() -> Any:
    """The `ultralytics` package. Call this before any `from ultralytics ...`.

    Ultralytics reads its environment when it is first imported: whether it may go online, install packages, or print;
    and where it writes its settings. What the user has set already stays, but for its switch to load weights safely,
    which is always on: no weights are loaded with Ultralytics here, and if some ever were, this would hold.
    """
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = os.path.join(tempfile.gettempdir(), f"vtcav-ultralytics-{os.getuid()}")
        os.makedirs(os.environ["YOLO_CONFIG_DIR"], mode=0o700, exist_ok=True)
    import ultralytics

    return ultralytics
