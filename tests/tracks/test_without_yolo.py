"""Without the extra `yolo`, in an environment that lacks its packages: own tracks run, and a detector is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.own_tracks import parquet_of_truth
from tests.helpers.small_runs import ONE_ACTOR_A_STAGE
from tests.helpers.without_packages import ROOT, python_without
from vtcav_ray.runs.run import Run
from vtcav_ray.world import write_world

# All stages in one process: there, too, nothing may need the packages.
VTCAV = """
import sys
from tests.helpers.small_runs import without_ray
from vtcav_ray.cli import main
sys.argv[0] = "vtcav"
with without_ray():
    main()
"""
SMALL = [
    *ONE_ACTOR_A_STAGE,
    "clips.per_class=2",
    "clips.min_per_class=2",
    "clips.concepts=[{name: cup, object: cup, kinds: [spatial, spatiotemporal]}]",
    "clips.min_per_concept=2",
    "clips.per_concept=2",
    "clips.random_pool=4",
    "activations.layers=[late]",
    "cavs.random_sets=2",
    "scores.permutations=100",
]
# This check of `vtcav doctor` alone: the others import every package that is installed.
DOCTOR = "from vtcav_ray.cli.doctor import _detector; print(*_detector())"
EVERY_MODULE = """
import importlib, pkgutil, sys, vtcav_ray
for module in pkgutil.walk_packages(vtcav_ray.__path__, "vtcav_ray."):
    importlib.import_module(module.name)
assert "vtcav_ray.tracks.detect" in sys.modules and "ultralytics" not in sys.modules
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_without("yolo", tmp_path_factory.mktemp("without"))


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments],
        capture_output=True,
        text=True,
        cwd=python.parent,
        env={**environment, "COLUMNS": "300"},
    )


def vtcav(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(python, "-c", VTCAV, *arguments)


@pytest.mark.slow
def test_the_environment_lacks_the_packages_and_every_module_is_imported(python: Path) -> None:
    for package in ("ultralytics", "lap", "polars"):
        assert "ModuleNotFoundError" in run(python, "-c", f"import {package}").stderr
    found = run(python, "-c", EVERY_MODULE)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_a_run_with_own_tracks_needs_no_detector(python: Path, tmp_path: Path) -> None:
    write_world(str(tmp_path / "world"), videos=24, seed=0)
    parquet_of_truth(tmp_path / "world", tmp_path / "tracks.parquet")
    settings = [
        *SMALL, f"videos={{uri: '{tmp_path / 'world'}'}}", "tracks.format=parquet",
        f"tracks.source={tmp_path / 'tracks.parquet'}",
    ]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    config = str(ROOT / "configs" / "quickstart.yaml")
    done = vtcav(python, "run", config, *words, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    result = Run(str(tmp_path / "run"))
    assert result.table("failures").num_rows == 0
    assert "ultralytics" not in result.manifest("tracks")["versions"]
    assert result.table("scores").num_rows > 0
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_a_detector_is_refused_with_the_name_of_the_extra(python: Path, tmp_path: Path) -> None:
    config = str(ROOT / "configs" / "quickstart.yaml")
    words = ["--set", "videos.world.videos=8", "--out", str(tmp_path / "run")]
    done = vtcav(python, "run", config, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Install it with: pip install 'vtcav-ray[yolo]'" in done.stderr
    assert "set `tracks.source` and `tracks.format`" in done.stderr
    line = run(python, "-c", DOCTOR).stdout
    assert line.startswith("note")
    assert "pip install 'vtcav-ray[yolo]'" in line
