"""A torchvision beside a torch that it was not built for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vtcav_ray.models.torchvision_fit import ADDED, COMMAND, mismatch

# As torchvision's own: `_has_ops` is false if the compiled library did not load, and the import then fails.
EXTENSION = "import torch\n\ndef _has_ops():\n    return False\n"
INIT = """
import torch
from . import extension

@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets

@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold):
    return dets

__version__ = "0.0.1"
"""


def python(code: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *code], capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "torchvision"
    folder.mkdir()
    (folder / "__init__.py").write_text(INIT)
    (folder / "extension.py").write_text(EXTENSION)
    return folder


@pytest.mark.slow
def test_its_python_part_can_be_imported_afterwards(package: Path, tmp_path: Path) -> None:
    before = python(["-c", "import torchvision"], tmp_path)
    assert "operator torchvision::nms does not exist" in before.stderr
    said = python(["-c", "from vtcav_ray.models.torchvision_fit import mismatch; print(mismatch())"], tmp_path)
    assert COMMAND in said.stdout
    for sentence in ("its Python part works", "torchvision can be imported"):  # a second time, nothing is left to do
        done = python(COMMAND.split()[1:], tmp_path)
        assert sentence in done.stdout, done.stderr
    assert (package / "extension.py").read_text() == EXTENSION + ADDED
    assert python(["-c", "import torchvision; print(torchvision.__version__)"], tmp_path).stdout == "0.0.1\n"


@pytest.mark.slow
def test_another_reason_is_not_hidden(package: Path, tmp_path: Path) -> None:
    (package / "__init__.py").write_text("raise ImportError('no such library')\n")
    done = python(COMMAND.split()[1:], tmp_path)
    assert done.returncode != 0
    assert "for another reason: uninstall it" in done.stderr


def test_the_set_up_left_one_that_can_be_imported_or_none() -> None:
    assert mismatch() is None, f"run `{COMMAND}` in this environment"
