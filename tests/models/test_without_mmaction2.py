"""Without the packages of the extra `mmaction2`: models of other frameworks run, and MMAction2's are refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.hugging_face import SIDE, need_transformers, save
from tests.helpers.without_packages import ROOT, python_without

pytestmark = pytest.mark.slow
END = "=== end ==="
# One command after the other, each with one setting.
VTCAV = f"""
import sys
from vtcav_ray.cli import main
for setting in sys.argv[1:]:
    sys.argv = ["vtcav", "layers", "asset:quickstart.yaml", "--set", setting]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, end.code
    else:
        raise AssertionError(setting)
    print({END!r}, file=sys.stderr)
"""
# At first only what is used: an import of all modules could hide what one of them forgot.
EVERY_MODULE = """
import importlib, pkgutil, sys, vtcav_ray
for module in pkgutil.walk_packages(vtcav_ray.__path__, "vtcav_ray."):
    importlib.import_module(module.name)
assert "vtcav_ray.models.mmaction" in sys.modules and "mmengine" not in sys.modules
"""
# Also the key: it does not say with which classes the network was built.
LOGITS = """
import torch
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.models.mmaction import load_mmaction
recogniser = load_recogniser(ModelConfig(), device="cpu")
clips = torch.randn(1, 3, 16, 64, 64, generator=torch.Generator().manual_seed(3))
with torch.no_grad():
    print(*(x.hex() for x in recogniser.logits(clips)[0].tolist()), type(recogniser.module).__module__)
print(recogniser.description)
"""
# A preflight and an extraction for each setting. tests/test_imports.py has the other stages.
EXTRACTIONS = """
import sys
import numpy as np
from vtcav_ray.activations import Extractor
from vtcav_ray.config.loading import load_config
from vtcav_ray.preflight.model import model_checks
from vtcav_ray.store.folder import Folder

SMALL = ["clips.frames=4", "clips.size=32", "activations.layers=[late]"]
for model in sys.argv[1:]:
    config = load_config("asset:quickstart.yaml", [model, *SMALL], out="run")
    checks, classes = model_checks(config, Folder("run"), keep=False)
    assert classes is not None and all(check.verdict != "stop" for check in checks), checks
    extractor = Extractor(load_recogniser(config.model, "cpu"), ["late"])
    found = extractor.extract([np.zeros((4, 32, 32, 3), np.uint8)], [[0]])
    assert np.isfinite(found.gradients["late"]).all()
    print("extracted with", config.model.framework)
"""
OWN = """
from torch import nn
from vtcav_ray.models import NetworkSpec

def build():
    pool = nn.AdaptiveAvgPool3d(1)
    network = nn.Sequential(nn.Conv3d(3, 4, 3, stride=4), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 4))
    return network, NetworkSpec(("lift", "put_down", "push_left", "push_right"), 32, layer_aliases={"late": "0"})
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_without("mmaction2", tmp_path_factory.mktemp("without"))


def run(python: Path | str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [str(python), *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def answer(python: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the packaged model answers there, and its key. Then it runs other models, and imports every module."""
    need_transformers()
    folder = tmp_path_factory.mktemp("models")
    (folder / "own.py").write_text(OWN)
    models = [
        "model={framework: python, config: 'own:build'}",
        f"model={{framework: transformers, checkpoint: '{save('videomae', folder / 'm', image_size=SIDE)}'}}",
    ]
    found = run(python, "-c", LOGITS + EXTRACTIONS + EVERY_MODULE, *models, cwd=folder)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_models_of_other_frameworks_run(answer: str) -> None:
    lines = answer.splitlines()[-2:]
    assert lines == ["extracted with python", "extracted with transformers"]


def test_its_packages_are_absent_and_every_module_imports(python: Path, answer: str) -> None:
    for package in ("mmaction", "mmcv", "mmengine"):
        assert "ModuleNotFoundError" in run(python, "-c", f"import {package}").stderr
    assert answer


def test_the_packaged_model_answers_the_same_under_the_same_key(
    answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = 'load_recogniser(ModelConfig(), device="cpu")'
    theirs = 'load_mmaction(ModelConfig(), torch.device("cpu"), 0, fused=False)'
    assert ours in LOGITS
    exec(LOGITS.replace(ours, theirs), {})
    with_it = capsys.readouterr().out
    assert "vtcav_ray.models.planted_swin" in answer
    assert "mmaction.models.recognizers" in with_it
    (here, our_key), (there, their_key) = (said.splitlines()[:2] for said in (answer, with_it))
    assert our_key == their_key
    numbers = [[float.fromhex(word) for word in line.split()[:-1]] for line in (here, there)]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)
    assert len(numbers[0]) == 4


def test_other_models_are_refused_with_the_line_to_type(python: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("model = dict(backbone=dict(), cls_head=dict())\n")
    named = {
        "model.config=recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb": "swin-tiny",
        "model.checkpoint=untrained": "asset:recogniser.py",
        f"model.config={tmp_path / 'mine.py'}": "mine.py",
    }
    done = run(python, "-c", VTCAV, *named)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stderr.split(END)
    assert len(said) == len(named) + 1
    for message, name in zip(said, named.values(), strict=False):
        assert "pip install 'vtcav-ray[mmaction2]'" in message
        assert name in message
        assert "Traceback" not in message
