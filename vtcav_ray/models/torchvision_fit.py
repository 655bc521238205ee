"""torchvision beside a torch that it was not built for.

    python -m vtcav_ray.models.torchvision_fit

Package indexes that have a CPU build of torch may have only the CUDA build of torchvision, which Ultralytics and timm
require. Its compiled operators then don't load, and since 0.15 its import fails: it describes the operators `nms` and
`qnms` to PyTorch, which does not know them. transformers and timm import torchvision wherever it is installed, and fail
with it. They need only its Python part.

The command leaves a torchvision that can be imported, or none, alone. Otherwise it adds lines to torchvision's
`extension.py` that name these operators whenever the compiled ones did not load. Everything in Python then works; the
compiled operators raise torchvision's own error. Installing torchvision again undoes it. `make setup` runs it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = "python -m vtcav_ray.models.torchvision_fit"
ADDED = """

# Added by vtcav-ray (vtcav_ray.models.torchvision_fit).
if not _has_ops():
    _NAMED = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _NAMED.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def mismatch() -> str | None:
    """Return what to do if the installed torchvision can't be imported; None: it can, or there is none.

    It is tried in another process, since a failed import leaves half of it behind.
    """
    if _folder() is None or _imports():
        return None
    return f"The installed torchvision does not match torch: install a build that matches, or run `{COMMAND}`."


def fit() -> str:
    """Make torchvision's Python part importable. Return what was found or done, in a sentence.

    Raises:
        RuntimeError: it still can't be imported.
    """
    folder = _folder()
    if folder is None:
        return "torchvision is not installed, and not needed"
    if _imports():
        return "torchvision can be imported"
    file = folder / "extension.py"
    text = file.read_text(encoding="utf-8")
    if ADDED not in text:
        # A new file in place of the old one, which an installer may have linked to its cache.
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, suffix=".py", delete=False) as new:
            new.write(text + ADDED)
        os.chmod(new.name, file.stat().st_mode)
        os.replace(new.name, file)
    if not _imports():
        raise RuntimeError(f"torchvision in {folder} can't be imported, and for another reason: uninstall it.")
    return "torchvision does not match torch: its compiled operators are left out, and its Python part works"


def _folder() -> Path | None:
    spec = importlib.util.find_spec("torchvision")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _imports() -> bool:
    found = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    return found.returncode == 0


if __name__ == "__main__":
    print(fit())
