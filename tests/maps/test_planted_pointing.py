"""The pointing game on a larger planted world, where every class has its own movement."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import vtcav_ray
from tests.helpers.planted_run import QUICKSTART
from tests.helpers.small_runs import ONE_ACTOR_A_STAGE, without_ray
from vtcav_ray.config.loading import load_config
from vtcav_ray.heatmaps.intervals import mean_interval, video_means
from vtcav_ray.maps.run import maps_run
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.watch.rerun import reopened
from vtcav_ray.world import write_world

pytestmark = [pytest.mark.slow, pytest.mark.full]

WAYS = {"lift": "up", "put_down": "down", "push_left": "left", "push_right": "right"}
MARGIN = 0.1  # by which the pointing game must beat random directions where places are kept


def planted(folder: Path) -> Run:
    """Render 240 videos and run four movements on them."""
    write_world(str(folder / "world"), videos=240, seed=1)
    concepts = ", ".join(
        f"{{name: moving {way}, motion: {{direction: {way}}}, kinds: [context]}}" for way in WAYS.values()
    )
    settings = [
        *ONE_ACTOR_A_STAGE,
        f"videos={{uri: '{folder / 'world'}'}}",
        "clips.per_class=20",
        "clips.per_concept=20",
        "clips.random_pool=100",
        f"clips.concepts=[{concepts}]",
        "activations.layers=[early, middle, late]",
        "cavs.random_sets=10",
        "scores.permutations=500",
        "scores.bootstrap=200",
    ]
    return vtcav_ray.run(load_config(QUICKSTART, settings, out=str(folder / "run")))


def maps_of_own_movements(url: str) -> pa.Table:
    """Return the rows of `maps` of each class with its own movement, at every layer."""
    parts = []
    for name, way in WAYS.items():
        run, config, _ = reopened(url)
        wanted = Wanted(classes=(name,), concepts=(f"moving {way}/context",))
        parts.append(maps_run(run, config, wanted, clips=20).table("maps"))
    return pa.concat_tables(parts)


def figures(table: pa.Table, layer: str) -> dict[str, tuple[float, float, float]]:
    """Return deletion, and pointing and timing minus those of random directions: mean and 95 % interval."""
    part = table.filter(pc.equal(table["layer"], layer))
    found = {"deletion": mean_interval(video_means(part, "deletion"))}
    for name in ("pointing", "inside", "timing"):
        with_difference = part.append_column("difference", pc.subtract(part[name], part[f"{name}_random"]))
        found[name] = mean_interval(video_means(with_difference, "difference"))
    return found


def test_maps_beat_random_directions_where_deletion_says_that_they_are_localised(tmp_path: Path) -> None:
    with without_ray():
        table = maps_of_own_movements(planted(tmp_path).url)
    early, middle = figures(table, "early"), figures(table, "middle")
    assert early["deletion"][1] > 0.75
    assert early["pointing"][1] > MARGIN
    assert early["timing"][1] > 0
    # Attention has mixed the places of the middle layer. Deletion finds it without the boxes, and the boxes agree.
    assert middle["deletion"][1] < 0.5
    assert middle["pointing"][1] < 0 < middle["pointing"][2]
