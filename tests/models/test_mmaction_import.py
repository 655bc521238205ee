"""MMAction2 imports the same way with any other packages installed."""

from __future__ import annotations

import builtins
import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from vtcav_ray.models.mmaction_import import OPTIONAL, _hidden_from

# The error of transformers 5 if a name was removed, or if torchvision does not match torch.
GONE = """
def __getattr__(name):
    raise ModuleNotFoundError(f"Could not import module {name!r}. Are this object's requirements defined correctly?")
"""
# The error of older releases of transformers, timm and mmpretrain in that case.
MISMATCH = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
# MMEngine registers `Adafactor` as an optimizer and would accept any object.
ADAFACTOR = "def Adafactor(): ...\n"

BUILD = """
import sys
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
import torch

def forward():
    config = ModelConfig(config="x3d_s_13x6x1_facebook-kinetics400-rgb", checkpoint="untrained")
    recogniser = load_recogniser(config, "cpu")
    with torch.no_grad():
        scores = recogniser.logits(torch.zeros(1, 3, 13, 64, 64))
    assert scores.shape == (1, 400) and bool(scores.isfinite().all()), scores
"""


def installed(folder: Path, packages: dict[str, str]) -> Path:
    """Write stand-in distributions: the package, and metadata that makes it count as installed."""
    for name, source in packages.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(source)
        info = folder / f"{name}-5.17.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 5.17.0\n")
    return folder


def python(code: str, beside: Path) -> None:
    path = os.pathsep.join([str(beside), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.full
@pytest.mark.parametrize("timm", [True, pytest.param(False, marks=pytest.mark.full)])
def test_a_recogniser_runs_beside_a_transformers_that_lacks_names(
    tmp_path: Path, timm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It also neither reads nor writes yapf's cache.

    yapf 0.43 renames an empty file into its cache, then writes it: another process reads the empty file.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    python("import yapf", tmp_path)
    grammars = sorted(tmp_path.glob("cache/YAPF/*/*.pickle"))
    assert len(grammars) == 2  # else this test has emptied nothing
    for grammar in grammars:
        grammar.write_bytes(b"")
    beside = installed(tmp_path, {"transformers": GONE, **({"timm": GONE} if timm else {})})
    python(
        f"""{BUILD}
from vtcav_ray.cli.doctor import _optional
forward()
mark, text = _optional()
assert mark == "ok" and "transformers 5.17.0" in text and ("timm 5.17.0" in text) is {timm}, text
assert not {{"transformers", "timm", "decord"}} & set(sys.modules)
""",
        beside,
    )
    assert [grammar.stat().st_size for grammar in grammars] == [0, 0]


@pytest.mark.full
def test_a_recogniser_runs_beside_optional_packages_that_all_fail_and_one_that_needs_them_says_so(
    tmp_path: Path,
) -> None:
    parsed = {
        "model": {
            "type": "Recognizer2D",
            "backbone": {"type": "timm.resnet18"},
            "cls_head": {"type": "TSNHead", "num_classes": 2, "in_channels": 8},
        },
        "test_pipeline": [
            {"type": "SampleFrames", "clip_len": 1, "frame_interval": 1, "num_clips": 8, "test_mode": True},
            {"type": "Resize", "scale": [-1, 64]},
            {"type": "CenterCrop", "crop_size": 64},
            {"type": "FormatShape", "input_format": "NCHW"},
        ],
    }
    (tmp_path / "timm.json").write_text(json.dumps(parsed))
    code = f"""{BUILD}
from vtcav_ray.errors import ConfigError

forward()
for config, needed in (
    ({str(tmp_path / "timm.json")!r}, "timm.resnet18"),
    ("tsm_imagenet-pretrained-mobileone-s4_8xb16-1x1x16-50e_kinetics400-rgb", "torchvision::nms"),
):
    try:
        load_recogniser(ModelConfig(config=config, checkpoint="untrained"), "cpu")
    except ConfigError as error:
        assert needed in str(error) and config in str(error), error
    else:
        raise AssertionError(config)
"""
    python(code, installed(tmp_path / "beside", dict.fromkeys(OPTIONAL, MISMATCH)))


@pytest.mark.full
def test_a_process_keeps_its_own_transformers_imported_before_and_after(tmp_path: Path) -> None:
    """A module that is already imported is not looked up again, so hiding it must not depend on the look-up."""
    lazy = 'def __getattr__(name):\n    raise RuntimeError(f"Failed to import transformers.{name}")\n'
    beside = installed(tmp_path, {"transformers": ADAFACTOR + "from . import models\n" + lazy, "timm": MISMATCH})
    (tmp_path / "transformers" / "models.py").write_text("")
    (tmp_path / "transformers" / "later.py").write_text("Model = 1\n")
    code = f"""
import builtins, sys, transformers
before = transformers
del transformers.Adafactor  # as where its module fails to import
original = builtins.__import__
{BUILD}
forward()
import transformers, transformers.models
from transformers.later import Model
assert transformers is before and builtins.__import__ is original
try:
    import timm
except RuntimeError as error:
    assert "nms" in str(error)  # the user sees its own error, and not that it is hidden
else:
    raise AssertionError("the stand-in did not fail")
"""
    python(code, beside)


def test_packages_are_hidden_from_the_modules_that_probe_for_them_alone() -> None:
    def as_module(name: str, code: str) -> dict[str, object]:
        found: dict[str, object] = {"__name__": name}
        exec(code, found)
        return found

    original = builtins.__import__
    elsewhere = SimpleNamespace(found={})
    with _hidden_from(frozenset({"mmaction"}), frozenset({"json"})):
        for code in ("import json", "import json.decoder", "from json import loads"):
            with pytest.raises(ModuleNotFoundError, match=r"mmaction\.models"):
                as_module("mmaction.models", code)
        as_module("mmaction.models", "import csv; from importlib import util")
        as_module("mmactionfigures", "import json")
        assert importlib.util.find_spec("json") is not None
        thread = threading.Thread(target=lambda: elsewhere.found.update(as_module("theirs", "import json")))
        thread.start()
        thread.join()
    assert "json" in elsewhere.found
    assert builtins.__import__ is original
    as_module("mmaction.models", "import json")


def test_an_import_hook_that_came_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "__import__", builtins.__import__)  # restored at the end
    with _hidden_from(frozenset({"mmaction"}), frozenset({"json"})):
        below = builtins.__import__

        def theirs(*args: object, **kwargs: object) -> object:
            return below(*args, **kwargs)  # type: ignore[arg-type]

        builtins.__import__ = theirs  # type: ignore[assignment]
    assert builtins.__import__ is theirs
    exec("import json", {"__name__": "mmaction"})  # no longer hidden
