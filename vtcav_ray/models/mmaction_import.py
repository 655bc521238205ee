"""The only import of MMAction2, with the repairs that its wheel needs before it can be imported."""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import os
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from vtcav_ray.errors import ConfigError

# Packages that MMAction2, MMEngine and MMCV import at their own import if they are installed. No recogniser needs them,
# and each may fail: transformers and timm if torchvision does not match torch, MMDetection and MMPreTrain if their
# versions do not match, the optimizers if CUDA's libraries are missing. transformers alone takes seconds.
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

    The result does not depend on other installed packages:

    - The multimodal models (VindLU) are not imported. MMAction2 1.2.0 enables them if `transformers` is installed, and
      then needs timm and a transformers of 2023. No recogniser uses them.
    - The packages in `OPTIONAL` are not imported. Other modules of the process may import them before, during and
      after.
    - mmaction2 1.2.0's wheel lacks `mmaction.models.localizers.drn`, which `mmaction.models` imports. A stub replaces
      it: it belongs to a temporal localiser, which no recogniser uses.
    - yapf, which MMEngine imports, does not use its cache: see `import_mmengine`.

    MMAction2's other modules (data sets, hooks, metrics) would take another second of processor time. MMEngine's
    registries import them on request.

    Raises:
        ImportError: mmaction2, mmengine or mmcv is not installed, or their versions do not work together.
    """
    global _ready
    with _lock:
        if _ready:
            return
        drn = types.ModuleType(f"{_DRN}.drn")
        drn.DRN = type("DRN", (), {})  # type: ignore[attr-defined]
        for module in (types.ModuleType(_DRN), drn):
            sys.modules.setdefault(module.__name__, module)
        # MMAction2's Swin calls it so at every construction; there is nothing that a user could change.
        warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release", category=UserWarning)
        with warnings.catch_warnings(), _without_multimodal(), _hidden_from(_PROBING, OPTIONAL):
            warnings.simplefilter("ignore")
            import_mmengine()
            import mmaction.models  # noqa: F401 - which registers them
            from mmengine.registry import init_default_scope

            init_default_scope("mmaction")
        _ready = True


def is_installed() -> bool:
    """Return whether MMAction2 and what it needs are installed, without importing them."""
    return all(importlib.util.find_spec(name) is not None for name in sorted(_PROBING))


def require_mmaction(what: str) -> None:
    """Check that MMAction2 is installed.

    Args:
        what: what needs it, the start of the message.

    Raises:
        ConfigError: it is not; the message says how to install it.
    """
    if not is_installed():
        raise ConfigError(
            f"{what} needs MMAction2, which is not installed. Install it with: pip install 'vtcav-ray[mmaction2]' "
            "(README.md, Start, has the lines for a machine without a display)."
        )


def import_backbone_of(model: Mapping[str, Any]) -> None:
    """Import MMAction2's only backbone that needs an optional package, if the model uses it.

    Args:
        model: the `model` dictionary of a config.

    Raises:
        ImportError: the backbone is MobileOneTSM, and mmpretrain is not installed.
    """
    if (model.get("backbone") or {}).get("type") == "MobileOneTSM":
        import mmaction.models.backbones.mobileone_tsm  # noqa: F401 - which registers it


def packaged_configs() -> Path:
    """Return the folder of model configs in the mmaction2 wheel, with e.g. `recognition/swin/*.py` below it.

    Raises:
        ConfigError: MMAction2 is not installed.
    """
    require_mmaction("A packaged model config")
    spec = importlib.util.find_spec("mmaction")  # which, unlike importlib.resources, does not import it
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / ".mim" / "configs"


def import_mmengine() -> None:
    """Import MMEngine. Call it before any `from mmengine...`, where MMAction2 is not needed.

    MMEngine imports yapf, which caches its grammar in the user's cache folder. yapf 0.43 renames the file into place
    before it is written, so processes that start together can read an empty one. Here yapf does not use the cache;
    building the grammar takes less than 0.02 s.

    Raises:
        ImportError: mmengine is not installed.
    """
    import platformdirs

    with mock.patch.object(platformdirs, "user_cache_dir", return_value=f"{os.devnull}/yapf"):
        import mmengine  # noqa: F401 - which imports yapf


@contextlib.contextmanager
def _without_multimodal() -> Iterator[None]:
    """Replace MMAction2's multimodal models by an empty module inside the context.

    The module's own check reads the metadata of transformers, which can also fail. So it is not run at all.
    """
    if _MULTIMODAL in sys.modules:  # the process has already imported them
        yield
        return
    sys.modules[_MULTIMODAL] = types.ModuleType(_MULTIMODAL)
    try:
        yield
    finally:
        del sys.modules[_MULTIMODAL]  # a program that needs them can import the real ones afterwards


@contextlib.contextmanager
def _hidden_from(importers: frozenset[str], packages: frozenset[str]) -> Iterator[None]:
    """Make `packages` look uninstalled to the modules of `importers`, and to no others, inside the context.

    A finder in `sys.meta_path` does not suffice: it is not called for packages that are already imported, and it does
    not know the importer, so an import of transformers in another thread would fail.
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
        # Other code may have wrapped this function meanwhile. Then it stays, and from now on hides nothing.
        packages = frozenset()
        if builtins.__import__ is guarded:
            builtins.__import__ = original
