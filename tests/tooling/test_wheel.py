"""The wheel: what it declares, what it holds, and `vtcav demo` from it in an environment of its own."""

from __future__ import annotations

import email
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.small_runs import SMALLEST

ROOT = Path(__file__).parents[2]
DEVELOPERS_TOOLS = {"pytest", "ruff", "mypy", "mkdocs", "pre-commit", "hypothesis", "import-linter", "jupytext", "uv"}

pytestmark = pytest.mark.slow


def tracked(*folders: str) -> list[Path]:
    """Return the files of the checkout that a build may see: those that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no checkout")
    return [Path(name) for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that no earlier build's files get into it. Downloads nothing."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked("vtcav_ray", "pyproject.toml", "README.md", "LICENSE", "LICENSE-NOTES.md"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    pip("wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out), str(copy))
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh environment with the wheel, and beside it this environment's packages, found through a .pth file.

    The wheel comes first on the path. So its own files are used, and not those of the checkout.
    """
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip("--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    others = [p for p in sys.path if p.endswith("site-packages")]
    (packages / "zz_others.pth").write_text("\n".join(others) + "\n")
    yield folder
    shutil.rmtree(folder)


def requirements(wheel: Path) -> dict[str, list[str]]:
    """Return extra -> names of its requirements; without an extra: an empty string."""
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(opened.read(name))
    found: dict[str, list[str]] = {}
    for line in metadata.get_all("Requires-Dist", []):
        extra = re.search(r"extra == ['\"](.+?)['\"]", line)
        found.setdefault(extra[1] if extra else "", []).append(re.match(r"[\w.-]+", line)[0].lower())  # type: ignore[index]
    return found


def test_the_wheel_holds_all_package_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        inside = {name for name in opened.namelist() if not name.split("/")[0].endswith(".dist-info")}
    expected = {name.as_posix() for name in tracked("vtcav_ray") if "__pycache__" not in name.parts}
    assert inside == expected
    assert {"vtcav_ray/py.typed", "vtcav_ray/world/assets/recogniser.pth"} <= inside


def test_it_declares_one_opencv_and_no_developers_tools(wheel: Path) -> None:
    needed = requirements(wheel)
    assert [name for name in needed[""] if name.startswith("opencv")] == ["opencv-python-headless"]
    assert not DEVELOPERS_TOOLS & {*needed[""], *needed["yolo"], *needed["mmaction2"]}
    assert {"ray", "torch", "pandas"} <= set(needed[""])
    # MMAction2's packages declare builds of OpenCV that need a display, and pip can't leave these out.
    assert not {"mmaction2", "mmcv-lite", "mmengine"} & {*needed[""], *needed["yolo"]}
    assert {"mmaction2", "mmcv-lite", "mmengine"} <= set(needed["mmaction2"])


def test_all_that_pip_installs_for_the_demo_has_one_opencv(wheel: Path) -> None:
    needed = requirements(wheel)
    todo, found = [*needed[""], *needed["yolo"]], set()
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in found and any(True for _ in importlib.metadata.distributions(name=name)):
            parsed = [Requirement(line) for line in importlib.metadata.requires(name) or []]
            todo += [need.name for need in parsed if need.marker is None or need.marker.evaluate({"extra": ""})]
        found.add(name)
    assert {name for name in found if name.startswith("opencv")} == {"opencv-python-headless"}
    assert {"ultralytics-opencv-headless", "aiobotocore"} <= found


def vtcav(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    left_out = {"PYTHONPATH", "RAY_ADDRESS", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        [str(installed / "bin" / "vtcav"), *arguments],
        cwd=folder,
        env={**environment, "COLUMNS": "160", "BROWSER": "true"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_installed_command_is_the_wheels_own(installed: Path, tmp_path: Path) -> None:
    code = "import vtcav_ray; print(vtcav_ray.__file__)"
    found = subprocess.run(
        [str(installed / "bin" / "python"), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(installed)
    shown = vtcav(installed, tmp_path, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "demo" in shown.stdout


@pytest.mark.full
def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    # With two CPUs, one process would import packages early while another one works.
    sets = [word for override in [*SMALLEST, "resources.num_cpus=1"] for word in ("--set", override)]
    done = vtcav(installed, tmp_path, "demo", "--out", "mine", *sets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "vtcav open mine" in done.stdout
    assert (tmp_path / "mine" / "report.html").is_file()
    assert json.loads((tmp_path / "mine" / "run.json").read_text())["status"] == "done"
    opened = vtcav(installed, tmp_path, "open", "mine")
    assert opened.returncode == 0, opened.stderr
    assert "report.html" in opened.stdout
