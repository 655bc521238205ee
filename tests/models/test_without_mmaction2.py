"""Without the packages of the extra `mmaction2`: the packaged model runs, and others are refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.without_packages import ROOT, python_without

pytestmark = pytest.mark.slow
VTCAV = "import sys; from vtcav_ray.cli import main; sys.argv[0] = 'vtcav'; main()"
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
recogniser = load_recogniser(ModelConfig(), device="cpu")
clips = torch.randn(1, 3, 16, 64, 64, generator=torch.Generator().manual_seed(3))
with torch.no_grad():
    print(*(x.hex() for x in recogniser.logits(clips)[0].tolist()), type(recogniser.module).__module__)
print(recogniser.description)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_without("mmaction2", tmp_path_factory.mktemp("without"))


def run(python: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run([str(python), *arguments], env=environment, capture_output=True, text=True, check=False)


def test_its_packages_are_absent_and_every_module_imports(python: Path) -> None:
    for package in ("mmaction", "mmcv", "mmengine"):
        assert "ModuleNotFoundError" in run(python, "-c", f"import {package}").stderr
    found = run(python, "-c", EVERY_MODULE)
    assert found.returncode == 0, found.stderr


def test_the_packaged_model_answers_the_same_under_the_same_key(python: Path) -> None:
    import sys

    without, with_it = (run(which, "-c", LOGITS) for which in (python, sys.executable))
    assert without.returncode == with_it.returncode == 0, without.stderr + with_it.stderr
    assert "vtcav_ray.models.planted_swin" in without.stdout
    assert "mmaction.models.recognizers" in with_it.stdout
    (ours, our_key), (theirs, their_key) = (done.stdout.split("\n", 1) for done in (without, with_it))
    assert our_key == their_key
    numbers = [[float.fromhex(word) for word in line.split()[:-1]] for line in (ours, theirs)]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)
    assert len(numbers[0]) == 4


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.config=recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb", "swin-tiny"),
        ("model.checkpoint=untrained", "asset:recogniser.py"),
        ("model.config=mine.py", "mine.py"),
    ],
)
def test_other_models_are_refused_with_the_line_to_type(python: Path, tmp_path: Path, setting: str, named: str) -> None:
    (tmp_path / "mine.py").write_text("model = dict(backbone=dict(), cls_head=dict())\n")
    setting = setting.replace("mine.py", str(tmp_path / "mine.py"))
    done = run(python, "-c", VTCAV, "layers", "asset:quickstart.yaml", "--set", setting)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "pip install 'vtcav-ray[mmaction2]'" in done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
