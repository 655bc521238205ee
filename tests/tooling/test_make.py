"""The Python that `make` uses for a virtual environment, and when it installs which packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "make_venv.sh"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
Program = Callable[[Path, str], Path]
# A Python that fits, and that shows which one made the environment.
FITS = 'case "$1" in -c) exit 0;; esac\necho "$0" > "$3"'
NOT_SWITCHED_ON = 'echo "pyenv: command not found" >&2; exit 127'
TOO_OLD = "exit 1"


def make_venv(path: Path, folder: Path, *python: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(SCRIPT), str(folder), *python]
    environment = {"PATH": str(path), "SYSTEM_PYTHONS": str(path / "system")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_newest_python_that_runs_is_taken(tmp_path: Path, program: Program) -> None:
    found = tmp_path / "bin"
    program(found / "python3.13", NOT_SWITCHED_ON)
    program(found / "python3.12", FITS)
    program(found / "python3.11", FITS)
    assert make_venv(found, tmp_path / "venv").returncode == 0
    assert (tmp_path / "venv").read_text().strip().endswith("python3.12")
    program(found / "python3.13", FITS)
    assert make_venv(found, tmp_path / "venv").returncode == 0
    assert (tmp_path / "venv").read_text().strip().endswith("python3.13")


def test_the_python_of_the_distribution_is_taken_before_another_of_its_version(
    tmp_path: Path, program: Program
) -> None:
    found = tmp_path / "bin"
    program(found / "python3.12", FITS)
    program(found / "python3.11", FITS)
    program(found / "system" / "python3.11", FITS)
    assert make_venv(found, tmp_path / "venv").returncode == 0
    assert (tmp_path / "venv").read_text().strip().endswith("bin/python3.12")
    assert make_venv(found, tmp_path / "venv", "python3.11").returncode == 0
    assert (tmp_path / "venv").read_text().strip().endswith("system/python3.11")
    assert make_venv(found, Path("--which"), "python3.11").stdout == f"{found}/system/python3.11\n"
    program(found / "system" / "python3.11", TOO_OLD)
    assert make_venv(found, Path("--which"), "python3.11").stdout == f"{found}/python3.11\n"


def test_plain_python3_is_taken_where_it_is_all_that_fits(tmp_path: Path, program: Program) -> None:
    found = tmp_path / "bin"
    program(found / "python3.11", NOT_SWITCHED_ON)
    program(found / "python3", FITS)
    assert make_venv(found, tmp_path / "venv").returncode == 0
    assert (tmp_path / "venv").read_text().strip().endswith("python3")


def test_without_a_supported_python_it_is_a_sentence(tmp_path: Path, program: Program) -> None:
    found = tmp_path / "bin"
    program(found / "python3.13", NOT_SWITCHED_ON)
    program(found / "python3", TOO_OLD)
    done = make_venv(found, tmp_path / "venv")
    assert done.returncode == 1
    assert done.stderr.startswith("No supported Python was found")
    assert "PYTHON=/path/to/python" in done.stderr
    assert "pyenv" not in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_named_is_taken_or_refused(tmp_path: Path, program: Program) -> None:
    found = tmp_path / "bin"
    program(found / "python3.13", FITS)
    named = program(tmp_path / "elsewhere" / "python", FITS)
    assert make_venv(found, tmp_path / "venv", str(named)).returncode == 0
    assert (tmp_path / "venv").read_text().strip() == str(named)
    old = program(tmp_path / "elsewhere" / "old", TOO_OLD)
    done = make_venv(found, tmp_path / "other", str(old))
    assert done.returncode == 1
    assert f"PYTHON={old} can't be used" in done.stderr


def test_the_files_agree_on_the_supported_pythons() -> None:
    tried = re.search(r"^supported='(.+)'", SCRIPT.read_text(), re.MULTILINE)
    assert tried is not None
    versions = tried[1].split()
    classified = [c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if "Python :: 3." in c]
    assert versions == classified[::-1]
    oldest, newest = classified[0], classified[-1]
    above = f"3.{int(newest.partition('.')[2]) + 1}"
    assert PROJECT["project"]["requires-python"] == f">={oldest},<{above}"
    # Lint and type checks must target the oldest Python.
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest
    image = re.search(r"^PYTHON_IMAGE=.*python:(\d+\.\d+)", (ROOT / "cluster" / "images.env").read_text(), re.MULTILINE)
    assert image is not None
    assert image[1] in versions
    ci = re.search(r"^export PYTHON=python(\S+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert ci is not None
    assert ci[1] in versions


class Checkout:
    """A folder with the Makefile and its inputs, and a virtual environment whose programs record their calls."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.folder, self.calls = folder, folder / "calls"
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder / name)
        for name in ("python", "vtcav", "ruff", "lint-imports"):
            program(folder / "venv" / "bin" / name, f'echo "{name} $*" >> {self.calls}')

    def make(self, *targets: str) -> list[str]:
        """Run `make` and return the recorded calls."""
        self.calls.write_text("")
        command = ["make", "--silent", "VENV=venv", *targets]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=60)
        return self.calls.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path, program: Program) -> Checkout:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return Checkout(tmp_path, program)


def installed(calls: list[str]) -> list[str]:
    """Return what was installed with its dependencies, in the order of the calls."""
    return [call.rpartition(" ")[2] for call in calls if "pip install" in call and "--editable" in call]


def test_a_quickstart_installs_what_a_run_needs_and_once(checkout: Checkout) -> None:
    calls = checkout.make("quickstart")
    assert installed(calls) == [".[mmaction2,yolo]"]
    assert calls[-1] == "vtcav run configs/quickstart.yaml"
    assert checkout.make("quickstart") == ["vtcav run configs/quickstart.yaml"]


@pytest.mark.parametrize("target", ["test", "lint", "setup"])
def test_tests_and_checks_install_the_rest_which_serves_a_quickstart_too(checkout: Checkout, target: str) -> None:
    assert installed(checkout.make("quickstart")) == [".[mmaction2,yolo]"]
    assert installed(checkout.make(target)) == [".[dev,mmaction2,yolo]"]
    for again in ("quickstart", target, "quickstart"):
        assert installed(checkout.make(again)) == []


def test_a_set_up_for_tests_alone_serves_a_quickstart(checkout: Checkout) -> None:
    assert installed(checkout.make("setup")) == [".[dev,mmaction2,yolo]"]
    assert checkout.make("quickstart") == ["vtcav run configs/quickstart.yaml"]


def test_both_in_one_call_install_one_after_the_other(checkout: Checkout) -> None:
    assert installed(checkout.make("-j4", "lint", "quickstart")) == [".[dev,mmaction2,yolo]"]
    (checkout.folder / "constraints.txt").write_text("# other versions\n")
    assert installed(checkout.make("-j4", "quickstart", "lint")) == [".[mmaction2,yolo]", ".[dev,mmaction2,yolo]"]


def test_other_versions_are_installed_again(checkout: Checkout) -> None:
    assert installed(checkout.make("setup")) == [".[dev,mmaction2,yolo]"]
    (checkout.folder / "constraints.txt").write_text("# other versions\n")
    assert installed(checkout.make("quickstart")) == [".[mmaction2,yolo]"]
    # The stamp of the old set-up was removed with it.
    assert installed(checkout.make("setup")) == [".[dev,mmaction2,yolo]"]
    assert len(list((checkout.folder / "venv").glob(".setup-*"))) == 2


def test_one_opencv_stays_whatever_was_installed(checkout: Checkout) -> None:
    for target in ("quickstart", "setup"):
        calls = checkout.make(target)
        place = next(i for i, call in enumerate(calls) if "--editable" in call)
        assert "pip uninstall" in calls[place + 1]
        assert "--force-reinstall" in calls[place + 2]
        assert calls[place + 2].endswith("opencv-python-headless")
