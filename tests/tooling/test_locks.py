"""The containers' lock files agree with pyproject.toml and constraints.txt."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
COMMON, CUDA, CPU = (ROOT / name for name in ("requirements.lock", "cluster/torch-cuda.lock", "cluster/torch-cpu.lock"))
Tool = Callable[[str], ModuleType]


def requirements(path: Path, tool: Tool) -> list[Requirement]:
    return [Requirement(entry.partition("\\")[0].strip()) for entry in tool("lock").entries(path.read_text())]


def versions(path: Path, tool: Tool) -> dict[str, str]:
    """Return name -> the one version that the file allows."""
    found = {}
    for requirement in requirements(path, tool):
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


def constrained() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_locks_and_constraints_hold_the_same_versions(tool: Tool) -> None:
    constraints, common = constrained(), versions(COMMON, tool)
    both = constraints.keys() & common.keys()
    assert {name: common[name] for name in both} == {name: constraints[name] for name in both}
    # Everything that CI tests with. The rest is for other systems.
    others = [r for r in requirements(COMMON, tool) if canonicalize_name(r.name) not in constraints]
    elsewhere = ("win32", 'sys_platform == "emscripten"')
    assert {r.name for r in others if not any(system in str(r.marker) for system in elsewhere)} == set()
    assert len(both) > 100


def test_torch_is_of_one_version_in_both_images(tool: Tool) -> None:
    torch = constrained()["torch"]
    assert versions(CPU, tool) == {"torch": f"{torch}+cpu"}
    cuda = versions(CUDA, tool)
    assert cuda["torch"] == torch
    assert any(name.startswith("nvidia-cublas") for name in cuda)
    assert not cuda.keys() & versions(COMMON, tool).keys()


@pytest.mark.parametrize("path", [COMMON, CUDA, CPU], ids=lambda p: p.name)
def test_every_entry_has_a_hash_and_no_address(path: Path, tool: Tool) -> None:
    entries = tool("lock").entries(path.read_text())
    assert entries
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", entry), entry
    assert "://" not in path.read_text()
    assert not re.search(r"^--(extra-)?index|^--find-links", path.read_text(), re.MULTILINE)


def test_the_lock_holds_all_that_the_package_asks_for(tool: Tool) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(line) for line in project["dependencies"]]
    wanted += [Requirement(line) for extra in tool("lock").EXTRAS for line in extras[extra]]
    locked = versions(COMMON, tool) | versions(CUDA, tool)
    for requirement in wanted:
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement
    assert {"mmaction2", "transformers", "timm", "safetensors", "ultralytics-opencv-headless"} <= locked.keys()


def test_the_images_have_one_opencv_which_needs_no_display(tool: Tool) -> None:
    assert [name for name in versions(COMMON, tool) if name.startswith("opencv")] == ["opencv-python-headless"]


RESOLVED = """\
# a comment
numpy==2.4.6 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
nvidia-cublas==13 ; sys_platform == 'linux' \\
    --hash=sha256:cc
nvidia-ml-py==13.6 \\
    --hash=sha256:dd
torch==2.13.0 \\
    --hash=sha256:ee
torchvision==0.28.0 \\
    --hash=sha256:ff
"""


def test_torch_and_its_cuda_libraries_are_split_off(tool: Tool) -> None:
    lock = tool("lock")
    common, cuda = lock.split(RESOLVED)
    assert [lock.name_of(entry) for entry in lock.entries(common)] == ["numpy", "nvidia-ml-py", "torchvision"]
    assert [lock.name_of(entry) for entry in lock.entries(cuda)] == ["nvidia-cublas", "torch"]
    assert lock.entries(common)[0].count("--hash") == 2
    assert lock.version_of("torch", cuda) == "2.13.0"


def test_the_cpu_build_is_locked_from_a_folder_of_wheels(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tool("lock")
    monkeypatch.setenv("TORCH_LINKS", str(tmp_path))
    with pytest.raises(lock.LockError, match=r"no wheel of torch 1\.0"):
        lock.lock_cpu_torch("1.0")
    (tmp_path / "torch-1.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").write_bytes(b"wheel")
    (tmp_path / "torch-1.0.1+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").write_bytes(b"another version")
    assert lock.lock_cpu_torch("1.0") == (
        "torch==1.0+cpu \\\n    --hash=sha256:ba59926159d2aa256eb8739b8da7e2b574b960e1202c6d624cbe981cef996c91"
    )


def test_a_package_without_a_hash_is_refused(
    tool: Tool, tmp_path: Path, program: Callable[[Path, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tool("lock")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(lock.LockError, match="not installed"):
        lock.run_uv([])
    program(tmp_path / "uv", "printf 'a==1 \\\\\\n    --hash=sha256:aa\\nb==2\\n'")
    with pytest.raises(lock.LockError, match="no hash for b"):
        lock.run_uv([])
    program(tmp_path / "uv", "echo 'no solution found' >&2; exit 1")
    with pytest.raises(lock.LockError, match="no solution found"):
        lock.run_uv([])
