"""The one place that imports MMAction2, and the repairs that its wheel needs before it can be imported."""

from __future__ import annotations

import sys
import threading
import types
import warnings
from importlib import resources
from pathlib import Path

_lock = threading.Lock()
_ready = False


def import_mmaction() -> None:
    """Import MMAction2's models and register them with MMEngine. Call it before any `from mmaction...`.

    Its other modules (data sets, hooks, metrics), which take a second of processor time more, are imported by the
    registries of MMEngine when something asks for them.

    mmaction2 1.2.0's wheel lacks `mmaction.models.localizers.drn`, which `mmaction.models` imports. A stand-in
    module takes its place: it belongs to a temporal localiser, which no recogniser uses.

    Raises:
        ImportError: mmaction2, mmengine or mmcv is not installed, or not in a version that works together.
    """
    global _ready
    with _lock:
        if _ready:
            return
        for name in ("mmaction.models.localizers.drn", "mmaction.models.localizers.drn.drn"):
            sys.modules.setdefault(name, types.ModuleType(name))
        sys.modules["mmaction.models.localizers.drn.drn"].DRN = type("DRN", (), {})  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mmaction.models  # noqa: F401 - which registers them
            from mmengine.registry import init_default_scope

            init_default_scope("mmaction")
        _ready = True


def packaged_configs() -> Path:
    """The folder of model configs inside the mmaction2 wheel, e.g. `recognition/swin/*.py` below it."""
    return Path(str(resources.files("mmaction"))) / ".mim" / "configs"
