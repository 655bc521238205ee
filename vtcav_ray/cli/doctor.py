"""`vtcav doctor`: check this machine. Each finding says what was checked, the result, and the fix."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vtcav_ray.errors import ConfigError, StageError

Mark = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    name: str
    mark: Mark
    text: str

    @property
    def broken(self) -> bool:
        return self.mark == "broken"

    @property
    def line(self) -> str:
        return f"{self.mark:<7} {self.name:<22} {self.text}"


def examine(url: str | None = None, storage_options: Mapping[str, Any] | None = None) -> list[Finding]:
    """Check versions, devices, known problems, packaged models, and, if `url` is given, storage."""
    checks: list[tuple[str, Callable[[], tuple[Mark, str]]]] = [
        ("versions", _versions),
        ("devices", _devices),
        ("torchvision", _torchvision),
        ("transformers", _transformers),
        ("mmaction2", _mmaction),
        ("optional packages", _optional),
        ("decoding and encoding", _av),
        ("opencv", _opencv),
        ("torchcodec", _torchcodec),
        ("recogniser asset", _recogniser),
        ("detector asset", _detector),
        ("ray", _ray),
        ("chromium", _chromium),
    ]
    findings = [_finding(name, check) for name, check in checks]
    if url is not None:
        findings.append(_finding(f"storage {url}", lambda: _storage(url, dict(storage_options or {}))))
    return findings


def _finding(name: str, check: Callable[[], tuple[Mark, str]]) -> Finding:
    # Report any kind of error and continue with the next check.
    try:
        return Finding(name, *check())
    except Exception as error:  # noqa: BLE001
        return Finding(name, "broken", f"{type(error).__name__}: {error}")


def _versions() -> tuple[Mark, str]:
    from vtcav_ray.runs.record import versions

    return "ok", ", ".join(f"{name} {version}" for name, version in versions().items())


def _devices() -> tuple[Mark, str]:
    import torch

    cpus = len(os.sched_getaffinity(0))
    if not torch.cuda.is_available():
        return "ok", f"{cpus} CPU cores, no GPU: everything runs, but full-size models are slow"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    use = "a stage uses one if its section of `resources` sets `gpus`"
    return "ok", f"{cpus} CPU cores, GPUs: {', '.join(names)}; {use}"


def _torchvision() -> tuple[Mark, str]:
    try:
        module = importlib.import_module("torchvision")
    except ImportError:
        return "ok", "not installed, not needed"
    except RuntimeError as error:
        from vtcav_ray.models.torchvision_fit import COMMAND

        return "note", (
            f"does not match this torch ({error}), so transformers and timm can't be imported: install a build that "
            f"matches, or run `{COMMAND}`, as `make setup` does"
        )
    if not module.extension._has_ops():
        return "ok", f"{module.__version__}: built for another torch; its Python part works, and no more is needed"
    return "ok", f"{module.__version__} matches torch"


def _transformers() -> tuple[Mark, str]:
    if importlib.util.find_spec("transformers") is None:
        return (
            "ok",
            "not installed; needed only for `model.framework: transformers` (pip install 'vtcav-ray[transformers]')",
        )
    from vtcav_ray.models.transformers_models import architectures

    try:
        found = architectures()
    except ConfigError as error:
        return "note", str(error)
    return "ok", f"{importlib.metadata.version('transformers')}: {', '.join(found)}"


def _mmaction() -> tuple[Mark, str]:
    from vtcav_ray.models.mmaction_import import import_mmaction, is_installed, packaged_configs

    if not is_installed():
        return (
            "ok",
            "not installed; needed only for `model.framework: mmaction2` with other models than the packaged one "
            "(pip install 'vtcav-ray[mmaction2]')",
        )
    import_mmaction()
    count = len(list((packaged_configs() / "recognition").glob("*/*.py")))
    return "ok", f"imports; {count} packaged recogniser configs"


def _optional() -> tuple[Mark, str]:
    from vtcav_ray.models.mmaction_import import OPTIONAL

    # Find the packages without importing them: the import may fail.
    found = [name for name in sorted(OPTIONAL, key=str.lower) if importlib.util.find_spec(name)]
    if not found:
        return "ok", "none of MMAction2's optional packages is installed, and none is needed"
    listed = ", ".join(_with_version(name) for name in found)
    return "ok", f"{listed}: kept out of MMAction2, and used only where a model config names one (timm.*)"


def _with_version(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:  # a bare folder, or a distribution of another name
        return name


def _av() -> tuple[Mark, str]:
    import av

    av.Codec("libx264", "w")
    return "ok", f"PyAV {av.__version__} with H.264"


def _opencv() -> tuple[Mark, str]:
    from vtcav_ray.video.opencv_builds import fault, finding

    try:
        clean, text = finding()
    except ImportError as error:
        return "broken", fault(error) or str(error)
    return ("ok" if clean else "note"), text


def _torchcodec() -> tuple[Mark, str]:
    from vtcav_ray.runs.devices import pick_device
    from vtcav_ray.video.gpu_decode import check_torchcodec

    device = str(pick_device("auto"))
    try:
        check_torchcodec(device)
    except StageError as error:
        return "note", f"can't be used; needed only for `tracks.decoder: torchcodec`: {error}"
    return "ok", f"{importlib.metadata.version('torchcodec')} decodes on `{device}`"


def _recogniser() -> tuple[Mark, str]:
    from vtcav_ray.config import ModelConfig
    from vtcav_ray.models import load_recogniser

    recogniser = load_recogniser(ModelConfig(), device="cpu")
    return "ok", f"loads: {', '.join(recogniser.class_names)}"


def _detector() -> tuple[Mark, str]:
    from vtcav_ray.config import TracksConfig
    from vtcav_ray.tracks.detect import Detector

    if missing := [name for name in ("ultralytics", "lap") if importlib.util.find_spec(name) is None]:
        return "note", (
            f"not loaded: {' and '.join(missing)} not installed. Needed only to detect objects, not for own tracks "
            "(`tracks.source`): pip install 'vtcav-ray[yolo]'"
        )
    detector = Detector(TracksConfig(), device="cpu")
    return "ok", f"loads (backend {detector.backend}): {', '.join(detector.names.values())}"


def _ray() -> tuple[Mark, str]:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    where = f"RAY_ADDRESS is {address}" if address else "a run starts Ray on this machine"
    free = shutil.disk_usage("/dev/shm").free / 1e9 if os.path.isdir("/dev/shm") else 0.0
    if free < 1.0:
        return "note", f"{ray.__version__}; {where}; /dev/shm has only {free:.1f} GB, so the object store will be slow"
    return "ok", f"{ray.__version__}; {where}"


def _chromium() -> tuple[Mark, str]:
    for program in ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome"):
        if found := shutil.which(program):
            return "ok", found
    return "note", "not found: the report opens in any browser; only the tests that render it are skipped"


def _storage(url: str, options: dict[str, Any]) -> tuple[Mark, str]:
    from vtcav_ray.store.folder import Folder

    folder = Folder(url, options)
    entries = folder.fs.ls(folder.root, detail=False)
    return "ok", f"reachable, {len(entries)} entries at the top"
