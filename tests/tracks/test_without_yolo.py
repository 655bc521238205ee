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

# All stages in one process: there, too, nothing may need the packages. The imports of all modules come last, since they
# could hide what a stage forgot.
VTCAV = """
import sys
from tests.helpers.small_runs import without_ray
from vtcav_ray.cli import main

def vtcav(*words):
    sys.argv = ["vtcav", *words]
    try:
        with without_ray():
            main()
    except SystemExit as end:
        return end.code or 0

given, refused = (words.splitlines() for words in sys.argv[1:])
print("RUN", vtcav(*given))
print("REFUSED", vtcav(*refused))
from vtcav_ray.cli.doctor import _detector  # this check alone: the others import every package that is installed
print("DOCTOR", *_detector())

import importlib, pkgutil, vtcav_ray
for module in pkgutil.walk_packages(vtcav_ray.__path__, "vtcav_ray."):
    importlib.import_module(module.name)
assert "vtcav_ray.tracks.detect" in sys.modules and "ultralytics" not in sys.modules
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def done(python: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """What one process says of a run with own tracks, of one with a detector, and of its environment."""
    write_world(str(folder / "world"), videos=24, seed=0)
    parquet_of_truth(folder / "world", folder / "tracks.parquet")
    settings = [
        *SMALL, f"videos={{uri: '{folder / 'world'}'}}", "tracks.format=parquet",
        f"tracks.source={folder / 'tracks.parquet'}",
    ]  # fmt: skip
    config = str(ROOT / "configs" / "quickstart.yaml")
    given = ["run", config, "--out", str(folder / "run"), *(w for s in settings for w in ("--set", s))]
    refused = ["run", config, "--out", str(folder / "refused"), "--set", "videos.world.videos=8"]
    found = run(python, "-c", VTCAV, "\n".join(given), "\n".join(refused))
    assert found.returncode == 0, found.stdout + found.stderr
    return found


@pytest.mark.full
def test_the_environment_lacks_the_packages_and_every_module_is_imported(
    python: Path, done: subprocess.CompletedProcess[str]
) -> None:
    for package in ("ultralytics", "lap", "polars"):
        assert "ModuleNotFoundError" in run(python, "-c", f"import {package}").stderr
    assert "DOCTOR" in done.stdout


@pytest.mark.slow
def test_a_run_with_own_tracks_needs_no_detector(folder: Path, done: subprocess.CompletedProcess[str]) -> None:
    assert "RUN 0" in done.stdout.splitlines(), done.stdout + done.stderr
    result = Run(str(folder / "run"))
    assert result.table("failures").num_rows == 0
    assert "ultralytics" not in result.manifest("tracks")["versions"]
    assert result.table("scores").num_rows > 0
    assert (folder / "run" / "report.html").is_file()


@pytest.mark.slow
def test_a_detector_is_refused_with_the_name_of_the_extra(done: subprocess.CompletedProcess[str]) -> None:
    assert "REFUSED 2" in done.stdout.splitlines(), done.stdout + done.stderr
    assert "Install it with: pip install 'vtcav-ray[yolo]'" in done.stderr
    assert "set `tracks.source` and `tracks.format`" in done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("DOCTOR"))
    assert line.startswith("DOCTOR note")
    assert "pip install 'vtcav-ray[yolo]'" in line
