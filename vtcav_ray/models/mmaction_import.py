"""The one place that imports MMAction2, and the repairs that its wheel needs before it can be imported."""

from __future__ import annotations

import builtins
import contextlib
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

# Packages that MMAction2, MMEngine and MMCV import at their own import, only because they are installed. None of them
# is needed to run a recogniser, and each may fail: transformers and timm where torchvision does not match torch,
# MMDetection and MMPreTrain where they are of other versions, the optimizers where CUDA's libraries are missing.
# transformers alone takes seconds.
OPTIONAL = frozenset({
    "apex", "bitsandbytes", "colossalai", "dadaptation", "deepspeed", "lion_pytorch", "mmcls", "mmdet", "mmpose",
    "mmpretrain", "Sophia", "timm", "transformers",
})  # fmt: skip
_PROBING = frozenset({"mmaction", "mmcv", "mmengine"})
_MULTIMODAL = "mmaction.models.multimodal"
_DRN = "mmaction.models.localizers.drn"

_lock = threading.Lock()
_ready = False


def import_mmaction() -> None:
    """Import MMAction2's models and register them with MMEngine. Call it before any `from mmaction...`.

    The result does not depend on what else is installed:

    - The multimodal models (VindLU) stay out. MMAction2 1.2.0 turns them on where `transformers` is installed, and then
      needs timm and a transformers of 2023. No recogniser uses them.
    - The packages in `OPTIONAL` stay out. Other modules of the process may import them before, meanwhile and after.
    - mmaction2 1.2.0's wheel lacks `mmaction.models.localizers.drn`, which `mmaction.models` imports. A stand-in takes
      its place: it belongs to a temporal localiser, which no recogniser uses.

    MMAction2's other modules (data sets, hooks, metrics) take a second of processor time more. MMEngine's registries
    import them when something asks for them.

    Raises:
        ImportError: mmaction2, mmengine or mmcv is not installed, or not in a version that works together.
    """
    global _ready
    with _lock:
        if _ready:
            return
        drn = types.ModuleType(f"{_DRN}.drn")
        drn.DRN = type("DRN", (), {})  # type: ignore[attr-defined]
        for module in (types.ModuleType(_DRN), drn):
            sys.modules.setdefault(module.__name__, module)
        with warnings.catch_warnings(), _without_multimodal(), _hidden_from(_PROBING, OPTIONAL):
            warnings.simplefilter("ignore")
            import mmaction.models  # noqa: F401 - which registers them
            from mmengine.registry import init_default_scope

            init_default_scope("mmaction")
        _ready = True


def import_backbone_of(model: Mapping[str, Any]) -> None:
    """Import the one backbone of MMAction2's own that needs an optional package, where a model uses it.

    Args:
        model: the `model` dictionary of a config.

    Raises:
        ImportError: it is MobileOneTSM, and mmpretrain is not installed.
    """
    if (model.get("backbone") or {}).get("type") == "MobileOneTSM":
        import mmaction.models.backbones.mobileone_tsm  # noqa: F401 - which registers it


def packaged_configs() -> Path:
    """The folder of model configs inside the mmaction2 wheel, e.g. `recognition/swin/*.py` below it."""
    return Path(str(resources.files("mmaction"))) / ".mim" / "configs"


@contextlib.contextmanager
def _without_multimodal() -> Iterator[None]:
    """Put an empty module in the place of MMAction2's multimodal models, for as long as the block lasts.

    The module's own check reads the metadata of transformers, which can fail too. So it is not run at all.
    """
    if _MULTIMODAL in sys.modules:  # the process has imported them itself
        yield
        return
    sys.modules[_MULTIMODAL] = types.ModuleType(_MULTIMODAL)
    try:
        yield
    finally:
        del sys.modules[_MULTIMODAL]  # a program that wants them can import the real ones afterwards


@contextlib.contextmanager
def _hidden_from(importers: frozenset[str], packages: frozenset[str]) -> Iterator[None]:
    """Make `packages` look uninstalled to the modules of `importers`, and to no others, while the block lasts.

    A finder in `sys.meta_path` would not do: it is not asked for packages that are imported already, and it does not
    know who imports, so that an import of transformers in another thread would fail.
    """
    original = builtins.__import__

    def guarded(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        if level == 0 and name.partition(".")[0] in packages:
            importer = str((globals or {}).get("__name__"))
            if importer.partition(".")[0] in importers:
                raise ModuleNotFoundError(f"No module named {name!r} for {importer}: vtcav-ray hides it", name=name)
        return original(name, globals, locals, fromlist, level)

    builtins.__import__ = guarded
    try:
        yield
    finally:
        # Something else may have put its own function above this one meanwhile: then this one goes on below it.
        packages = frozenset()
        if builtins.__import__ is guarded:
            builtins.__import__ = original
