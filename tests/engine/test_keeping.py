"""Where processes are kept from stage to stage, and when Ray starts; shared_ray/test_resident.py keeps some."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vtcav_ray import pipeline
from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.config.loading import load_config
from vtcav_ray.engine import LazySession, resident, session
from vtcav_ray.engine.feed import Feed
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.stage import Shard, make_shards

QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")

start_early = LazySession.start_early  # tests/conftest.py replaces it


def shards(count: int) -> list[Shard]:
    return make_shards(pa.table({"video_id": [f"v{i}" for i in range(count)]}), 1)


CASES: list[tuple[bool, Callable[[], ResourcesConfig]]] = [
    (True, ResourcesConfig),
    (
        True,
        lambda: ResourcesConfig(
            **{name: StageResources(cpus=2) for name in ("detect", "cut", "extract", "statistics")}
        ),
    ),
    (False, lambda: ResourcesConfig(cut=StageResources(cpus=2))),
    (False, lambda: ResourcesConfig(extract=StageResources(gpus=1))),
    (False, lambda: ResourcesConfig(extract=StageResources(memory_gb=2))),
    (False, lambda: ResourcesConfig(extract=StageResources(batch_size="auto"))),
    (
        False,
        lambda: ResourcesConfig(
            **{name: StageResources(cpus=0.5) for name in ("detect", "cut", "extract", "statistics")}
        ),
    ),
]


@pytest.mark.parametrize(("expected", "make"), CASES)
def test_processes_are_kept_only_where_all_stages_suit(expected: bool, make: Callable[[], ResourcesConfig]) -> None:
    assert resident.can_keep(make()) is expected


@pytest.mark.parametrize(
    ("resources", "address", "started"),
    [
        (ResourcesConfig(), None, True),
        (ResourcesConfig(), "10.0.0.1:6379", False),
        (ResourcesConfig(address="10.0.0.1:6379"), None, False),
        (ResourcesConfig(extract=StageResources(gpus=1)), None, False),
    ],
)
def test_ray_starts_early_only_where_processes_are_kept(
    monkeypatch: pytest.MonkeyPatch, resources: ResourcesConfig, address: str | None, started: bool
) -> None:
    if address is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", address)
    starts: list[bool] = []
    monkeypatch.setattr(LazySession, "start", lambda self: starts.append(True))
    start_early(LazySession(resources))
    assert starts == [True] * started


@pytest.mark.parametrize("enough", ["true", "false"])
def test_ray_starts_before_the_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: str) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"listed, but not read")
    calls: list[str] = []

    def check(*_: Any, together: functools.partial[Any], **__: Any) -> None:
        assert together.keywords["imports"] is not None, "a detector's packages take seconds"
        calls.append("check")
        raise ConfigError("the checks stop this run")

    def start(self: LazySession) -> None:
        calls.append("start")

    monkeypatch.setattr(LazySession, "start_early", start)
    monkeypatch.setattr(pipeline, "preflight", check)
    settings = [f"videos={{uri: '{tmp_path / 'videos'}', enough: {enough}}}"]
    with pytest.raises(ConfigError, match="the checks stop this run"):
        pipeline.run(load_config(QUICKSTART, settings, out=str(tmp_path / "run")))
    assert calls == ["start", "check"]


def test_without_kept_processes_the_checks_run_here_in_turn() -> None:
    session = LazySession(ResourcesConfig())
    assert session.together([os.getpid, lambda: "second"], lambda: None) == [os.getpid(), "second"]


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTCAV_A", "mine")
    monkeypatch.delenv("VTCAV_B", raising=False)
    with session.environment({"VTCAV_A": "ours", "VTCAV_B": "ours"}):
        assert (os.environ["VTCAV_A"], os.environ["VTCAV_B"]) == ("ours", "ours")
    assert os.environ["VTCAV_A"] == "mine"
    assert "VTCAV_B" not in os.environ


def test_a_feed_hands_out_each_wanted_shard_once() -> None:
    first, second, third, fourth = shards(4)
    feed = Feed(4)
    feed.add([first, second])
    assert feed.take() is first
    assert feed.take() is second
    assert feed.take() is None
    feed.add([third, fourth])
    feed.stop([first.name, fourth.name])
    assert feed.take() is fourth
    assert feed.take() is None
    assert [shard.name for shard in Feed.of([first, second])] == [first.name, second.name]


@pytest.mark.slow
def test_memory_that_a_stage_has_freed_is_returned() -> None:
    code = """
from vtcav_ray.tracks.freed_memory import keep_freed_memory, return_freed_memory
from vtcav_ray.video.guard import resident_bytes
if keep_freed_memory():
    blocks = [b"x" * 2**20 for _ in range(200)]
    last = b"y" * 2**20  # so that the freed blocks do not lie at the end
    del blocks
    kept = resident_bytes()
    return_freed_memory()
    assert kept - resident_bytes() > 100 * 2**20, (kept, resident_bytes())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
