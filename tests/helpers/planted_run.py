"""One run of a small planted world that is made once per session and shared by tests that read a run.

It runs without Ray, which would load the models in an actor per stage. tests/engine/test_object_storage_runs.py
compares whole runs with and without Ray. The videos are beside the run folder, so a copy of the folder has the same
stage keys: tests that change a run copy it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.small_runs import ONE_ACTOR_A_STAGE, without_ray
from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config
from vtcav_ray.runs.run import Run

QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")
VIDEOS = 96
SMALL = [
    *ONE_ACTOR_A_STAGE,
    "clips.per_class=8",
    "clips.per_concept=8",
    "clips.min_per_concept=6",
    "clips.random_pool=24",
    "clips.concepts=[{name: moving up, motion: {direction: up}, kinds: [context]}, "
    "{name: cup, object: cup, kinds: [spatial, spatiotemporal], controls: [frozen]}]",
    "activations.layers=[early, early@moving, middle, late, head]",
    "cavs.random_sets=10",
    "scores.permutations=500",
    "scores.bootstrap=200",
]


@dataclass(frozen=True)
class PlantedRun:
    """The folder that has the world and the run."""

    folder: Path

    @property
    def overrides(self) -> list[str]:
        """Settings over configs/quickstart.yaml."""
        return [*SMALL, f"videos={{uri: '{self.folder / 'world'}'}}"]

    @property
    def run(self) -> Run:
        """The run itself, only to be read."""
        return Run(str(self.folder / "run"))

    def config(self, out: Path, *more: str) -> Config:
        """The run's config, for another folder."""
        return load_config(QUICKSTART, [*self.overrides, *more], out=str(out))

    def copy(self, out: Path, stages: Sequence[str] = ()) -> Path:
        """Copy the run, or some of its stages, into a folder in which it may be changed."""
        if not stages:
            return Path(shutil.copytree(self.folder / "run", out))
        for stage in stages:
            shutil.copytree(self.folder / "run" / stage, out / stage)
        return out


def opened(url: str) -> tuple[Run, Config]:
    """Open a run with the config that it was made with."""
    from vtcav_ray.watch.rerun import reopened

    run, config, _ = reopened(url)
    return run, config


def make(folder: Path) -> None:
    """Render the world and do the run. Takes about half a minute."""
    import vtcav_ray
    from vtcav_ray.world import write_world

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_world(str(folder / "world"), videos=VIDEOS, seed=0)
    planted = PlantedRun(folder)
    with without_ray():
        vtcav_ray.run(planted.config(folder / "run"))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
