"""What `vtcav doctor` says of torchvision and transformers."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from vtcav_ray.cli import doctor
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import transformers_models
from vtcav_ray.models.torchvision_fit import COMMAND


def vision(has_ops: bool) -> Any:
    module: Any = types.ModuleType("torchvision")
    module.__version__, module.extension = "1.2.3", types.SimpleNamespace(_has_ops=lambda: has_ops)
    return module


def test_torchvision_matches_or_has_only_its_python_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", vision(True))
    assert doctor._torchvision() == ("ok", "1.2.3 matches torch")
    monkeypatch.setitem(sys.modules, "torchvision", vision(False))
    mark, text = doctor._torchvision()
    assert mark == "ok"
    assert "its Python part works" in text
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert doctor._torchvision() == ("ok", "not installed, not needed")


def test_a_torchvision_that_breaks_transformers_has_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    mark, text = doctor._torchvision()
    assert mark == "note"
    assert COMMAND in text


def test_transformers_lists_its_networks_or_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert "not installed" in doctor._transformers()[1]
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "5.0")
    monkeypatch.setattr(transformers_models, "architectures", lambda: ("videomae", "vivit"))
    assert doctor._transformers() == ("ok", "5.0: videomae, vivit")

    def broken() -> None:
        raise ConfigError("it can't be used here")

    monkeypatch.setattr(transformers_models, "architectures", broken)
    assert doctor._transformers() == ("note", "it can't be used here")
