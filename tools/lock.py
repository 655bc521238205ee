"""Write what the containers install, with hashes: `make lock`.

    requirements.lock         everything but torch and the CUDA libraries: both images
    cluster/torch-cuda.lock   torch as the package index has it, and its CUDA libraries: the GPU image
    cluster/torch-cpu.lock    torch's CPU build, from the index that cluster/Containerfile.cpu names: the CPU image

Versions are those of constraints.txt. uv resolves for all Pythons and platforms at once, and reads metadata only. Where
the index of CPU builds can't be reached, `TORCH_LINKS=FOLDER make lock` takes the hashes of the wheels in a folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLDEST_PYTHON = "3.11"
# The images run models of each framework, on clusters. They have one OpenCV, without a display, so the builds that
# mmaction2, mmcv-lite and mmengine declare are left out.
EXTRAS = ("cluster", "mmaction2", "onnx", "timm", "transformers", "yolo")
OPENCV_OTHERS = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
CUDA = re.compile(r"torch|triton|cuda-.*|nvidia-(?!ml-py$).*")
OPTIONS = (
    "--quiet", "--no-config", "--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes", "--no-header",
    "--no-emit-index-url", "--no-emit-find-links",
)  # fmt: skip


class LockError(Exception):
    """The files can't be written. The message says why and what to do."""


def main() -> None:
    try:
        common, cuda = split(resolve())
        write(ROOT / "requirements.lock", "Both images: everything but torch and the CUDA libraries.", common)
        write(ROOT / "cluster" / "torch-cuda.lock", "The GPU image: torch and its CUDA libraries.", cuda)
        cpu = lock_cpu_torch(version_of("torch", cuda))
        write(ROOT / "cluster" / "torch-cpu.lock", "The CPU image: torch's build without CUDA.", cpu)
    except LockError as error:
        sys.exit(str(error))


def resolve() -> str:
    """Resolve the package with `EXTRAS` under constraints.txt, without the OpenCV builds that need a display."""
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    with tempfile.TemporaryDirectory() as folder:
        without = Path(folder, "without.txt")
        without.write_text("\n".join(OPENCV_OTHERS) + "\n")
        return run_uv(["pyproject.toml", *extras, "--constraints", "constraints.txt", "--excludes", str(without)])


def lock_cpu_torch(version: str) -> str:
    """Lock torch's CPU build alone; its dependencies are in requirements.lock."""
    pinned = f"torch=={version}+cpu"
    if links := os.environ.get("TORCH_LINKS"):
        wheels = sorted(Path(links).glob(f"torch-{version}+cpu-*.whl"))
        if not wheels:
            raise LockError(f"TORCH_LINKS={links} holds no wheel of torch {version}+cpu.")
        return " \\\n".join([pinned, *(f"    --hash=sha256:{_sha256(wheel)}" for wheel in wheels)])
    index = re.search(r"^ARG TORCH_INDEX=(\S+)$", (ROOT / "cluster" / "Containerfile.cpu").read_text(), re.MULTILINE)
    if index is None:
        raise LockError("cluster/Containerfile.cpu has no line `ARG TORCH_INDEX=<URL>`.")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "torch.in")
        wanted.write_text(f"{pinned}\n")
        try:
            return run_uv([str(wanted), "--no-deps", "--index-url", index[1]])
        except LockError as error:
            raise LockError(
                f"{error}\ncluster/torch-cpu.lock was not written. Where the index {index[1]} can't be reached, name a "
                f"folder that has the wheel of torch {version}+cpu: TORCH_LINKS=FOLDER make lock"
            ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_uv(arguments: list[str]) -> str:
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", *OPTIONS, "--no-annotate", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LockError(f"{uv} is not installed. `make setup` installs it.") from error
    if done.returncode != 0:
        raise LockError(f"uv could not resolve the lock files:\n{done.stderr.strip()}")
    for entry in entries(done.stdout):
        if "--hash=sha256:" not in entry:
            raise LockError(f"uv found no hash for {name_of(entry)}.")
    return done.stdout


def entries(text: str) -> list[str]:
    """Return the entries of a lock file: a requirement and its hashes, over several lines."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [entry for entry in re.split(r"\n(?=\S)", lines.strip()) if entry]


def split(text: str) -> tuple[str, str]:
    """Split into the packages of both images, and torch with its CUDA libraries."""
    found = entries(text)
    cuda = [entry for entry in found if CUDA.fullmatch(name_of(entry))]
    return "\n".join(e for e in found if e not in cuda), "\n".join(cuda)


def name_of(entry: str) -> str:
    return entry.partition("==")[0]


def version_of(name: str, text: str) -> str:
    for entry in entries(text):
        if name_of(entry) == name:
            return entry.partition("==")[2].split()[0]
    raise LockError(f"{name} is not among what uv resolved.")


def write(path: Path, what: str, text: str) -> None:
    path.write_text(f"# {what}\n# `make lock` writes this file from pyproject.toml and constraints.txt.\n{text}\n")


if __name__ == "__main__":
    main()
