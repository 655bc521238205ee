"""Model configs that are programs (`.py`): run them, and name the dialects that are not read.

MMEngine finds the packages of `_base_ = ['mmaction::...']` with `pkg_resources`, which setuptools has removed. So its
two look-ups are replaced while a config is read.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
import runpy
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vtcav_ray.errors import ConfigError
from vtcav_ray.models.mmaction_import import import_mmaction, import_mmengine
from vtcav_ray.store.files import read_bytes
from vtcav_ray.store.urls import shown

logger = logging.getLogger(__name__)

# Transforms that MMAction2 removed in 1.0.
OLD_STEPS = frozenset({"Collect", "ToTensor", "Normalize"})
_lock = threading.Lock()


def data_of_own_program(path: str) -> dict[str, Any]:
    """Run a `.py` config of this package, which has no `_base_` and needs no MMEngine, and return its variables."""
    return {name: value for name, value in runpy.run_path(path).items() if not name.startswith("__")}


def data_of_program(path: str, uri: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Run a `.py` config and return its variables. The caller has checked that it may run.

    Args:
        path: of the file, or its URL.
        uri: as the user named it, for messages.

    Raises:
        ConfigError: the program fails, or is written for MMAction2 0.x.
    """
    import_mmengine()
    from mmengine.config import Config
    from mmengine.config.utils import ConfigParsingError

    with tempfile.TemporaryDirectory() as folder:
        if "://" in path:
            local = Path(folder) / "config.py"
            local.write_bytes(read_bytes(path, storage_options, what="model config"))
            path = str(local)
        try:
            with _packages_found():
                lazy = bool(Config._is_lazy_import(path))
                if lazy:
                    import_mmaction()  # its repairs, before the config imports MMAction2
                loaded = Config.fromfile(path, import_custom_modules=False)
        except (
            ConfigParsingError, OSError, SyntaxError, NameError, AttributeError, LookupError, TypeError, ValueError,
            ImportError, RuntimeError,
        ) as error:  # fmt: skip
            raise ConfigError(
                f"The model config {shown(uri)} (model.config) can't be read: {type(error).__name__}: "
                f"{' '.join(str(error).split())}"
            ) from error
    data: dict[str, Any] = loaded.to_dict()
    if lazy:
        data = {name: _with_bare_types(data[name]) for name in data if name in _READ}
    check_version(data, uri)
    unscoped: dict[str, Any] = _unscoped(data)
    return unscoped


_READ = frozenset(
    {"model", "test_pipeline", "val_pipeline", "test_dataloader", "classes", "dataset_meta", "label_file",
     "custom_imports", "data"}
)  # fmt: skip


def check_version(data: Mapping[str, Any], uri: str) -> None:
    """Refuse configs of MMAction2 0.x by name: they have no `data_preprocessor`, and other transforms.

    Raises:
        ConfigError: it is one.
    """
    pipeline = data.get("test_pipeline") or data.get("val_pipeline") or ()
    kinds = [step.get("type") for step in pipeline if isinstance(step, dict)] if isinstance(pipeline, list) else []
    steps = {kind for kind in kinds if isinstance(kind, str)}
    old_data = isinstance(data.get("data"), dict) and "test_dataloader" not in data
    if "model" in data and (old_data or OLD_STEPS & steps):
        raise ConfigError(
            f"The model config {shown(uri)} (model.config) is written for MMAction2 0.x, and 1.x is installed. Give "
            "the config of the same model from MMAction2 1.x (the packaged ones need no file: `vtcav layers` lists the "
            "nearest names), and a checkpoint from its model zoo. Or move it by hand: "
            "https://mmaction2.readthedocs.io/en/latest/migration.html"
        )


def import_modules(imports: Any, uri: str, folder: str) -> None:
    """Import the modules that a config's `custom_imports` names, so that they register their classes.

    Args:
        imports: the value of `custom_imports`.
        uri: the config, for messages.
        folder: of the config; modules are also looked for in it.

    Raises:
        ConfigError: a module can't be imported, unless `allow_failed_imports` is set.
    """
    names, optional = _names_of(imports, uri)
    for name in names:
        logger.info("the model config %s imports %s (custom_imports)", shown(uri), name)
        try:
            with _looked_for_in(folder):
                importlib.import_module(name)
        except (
            ImportError, OSError, SyntaxError, NameError, AttributeError, LookupError, TypeError, ValueError,
            RuntimeError, AssertionError,
        ) as error:  # fmt: skip
            if optional and isinstance(error, ImportError):
                logger.warning("the model config %s: %s can't be imported: %s", shown(uri), name, error)
                continue
            raise ConfigError(
                f"The model config {shown(uri)} (model.config): `custom_imports` names {name}, which can't be "
                f"imported: {type(error).__name__}: {' '.join(str(error).split())} Put its folder on PYTHONPATH (on "
                "every node), or beside the config."
            ) from error


def _names_of(imports: Any, uri: str) -> tuple[list[str], bool]:
    given = imports.get("imports", ()) if isinstance(imports, Mapping) else imports
    names = [given] if isinstance(given, str) else list(given or ())
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigError(
            f"The model config {shown(uri)} (model.config): `custom_imports` must be "
            "dict(imports=['package.module'], allow_failed_imports=False)."
        )
    return names, isinstance(imports, Mapping) and bool(imports.get("allow_failed_imports"))


@contextlib.contextmanager
def _looked_for_in(folder: str) -> Iterator[None]:
    if not folder or folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextlib.contextmanager
def _packages_found() -> Iterator[None]:
    """Replace MMEngine's look-up of packages inside the context."""
    from mmengine.config import config

    with _lock:
        before = config.is_installed, config.get_installed_path
        config.is_installed, config.get_installed_path = _is_installed, _installed_path
        try:
            yield
        finally:
            config.is_installed, config.get_installed_path = before


def _is_installed(package: str) -> bool:
    return _module_of(package) is not None


def _installed_path(package: str) -> str:
    module = _module_of(package)
    spec = importlib.util.find_spec(module) if module is not None else None
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    return str(next(iter(spec.submodule_search_locations)))


def _module_of(package: str) -> str | None:
    """Return the module of a package by either name: mmaction2 is imported as mmaction."""
    if package.isidentifier() and importlib.util.find_spec(package) is not None:
        return package
    try:
        listed = importlib.metadata.distribution(package).read_text("top_level.txt") or ""
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (name for name in listed.split() if importlib.util.find_spec(name) is not None)
    return next(found, None)


def _unscoped(node: Any) -> Any:
    """Return a config without `_scope_: mmaction`, which MMEngine writes into all that comes from `mmaction::`."""
    if isinstance(node, dict):
        return {k: _unscoped(v) for k, v in node.items() if not (k == "_scope_" and v == "mmaction")}
    if isinstance(node, list | tuple):
        return type(node)(_unscoped(value) for value in node)
    return node


def _with_bare_types(node: Any) -> Any:
    """Return a part of a new-style config with registered names in place of classes, as other configs have them."""
    if isinstance(node, dict):
        return {key: _bare(value) if key == "type" else _with_bare_types(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_with_bare_types(value) for value in node)
    return node


def _bare(kind: Any) -> Any:
    if isinstance(kind, type):
        return kind.__name__
    return (
        kind.rpartition(".")[2]
        if isinstance(kind, str) and kind.startswith(("mmaction.", "mmcv.", "mmengine."))
        else kind
    )
