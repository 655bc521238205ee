"""A torchvision beside a torch that it was not built for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vtcav_ray.models.torchvision_fit import ADDED, COMMAND, fit, mismatch

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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that this process and its subprocesses find, and that is not yet imported."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    folder = tmp_path / "torchvision"
    folder.mkdir()
    (folder / "__init__.py").write_text(INIT)
    (folder / "extension.py").write_text(EXTENSION)
    return folder


@pytest.mark.full
def test_its_python_part_can_be_imported_afterwards(package: Path) -> None:
    command = [sys.executable, *COMMAND.split()[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "its Python part works" in done.stdout, done.stderr  # so an import failed before, and works now
    assert (package / "extension.py").read_text() == EXTENSION + ADDED
    assert fit() == "torchvision can be imported"  # a second time, nothing is left to do
    assert (package / "extension.py").read_text() == EXTENSION + ADDED


@pytest.mark.slow
def test_another_reason_is_not_hidden(package: Path) -> None:
    (package / "__init__.py").write_text("raise ImportError('no such library')\n")
    assert COMMAND in str(mismatch())
    with pytest.raises(RuntimeError, match="for another reason: uninstall it"):
        fit()


@pytest.mark.full
def test_the_set_up_left_one_that_can_be_imported_or_none() -> None:
    assert mismatch() is None, f"run `{COMMAND}` in this environment"
