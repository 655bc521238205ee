"""A small run without models, and a config for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.small_house import SmallHouse
from tests.helpers.small_runs import run_here
from vtcav_ray import engine, pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> SmallHouse:
    house = SmallHouse()
    monkeypatch.setattr(pipeline, "STAGES", house.stages())
    monkeypatch.setattr(engine, "run_shards", run_here)
    monkeypatch.setattr(engine.LazySession, "start", lambda self: None)
    return house


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config({"videos": {"uri": "videos"}, "out": str(tmp_path / "run")})


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Return a path that exists once a hostile program ran."""
    return tmp_path / "ran"
