"""The clips that all checkpoints share are made by one watcher, and the others wait for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity.nap

from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run_lease import LeaseHeld
from vtcav_ray.watch import run_one
from vtcav_ray.watch.find import FoundCheckpoint
from vtcav_ray.watch.loop import NotTheCheckpoint

FOUND = FoundCheckpoint((0, 1), "epoch_1.pth", "/exp/epoch_1.pth", "f", 7, 0.0)


class Runs:
    """Stands in for `pipeline.run`: raises the given errors, one per call, then succeeds. Keeps the arguments."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[str, Any, Any]] = []

    def __call__(self, config: Any, progress: Any, *, base: Any = None, until: Any = None) -> Any:
        self.calls.append((config.run_url, base, until))
        if self.errors:
            raise self.errors.pop(0)
        return SimpleNamespace(keys={"clips": "k"}, manifest=lambda stage: {"notes": {"model": "m@1"}})


def run_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> tuple[dict[str, object], list[float]]:
    waits: list[float] = []
    monkeypatch.setattr(run_one.pipeline, "run", runs)
    monkeypatch.setattr(run_one, "describe", lambda *_, **__: None)
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=waits.append))
    config = parse_config({"videos": {"world": {}}, "out": str(tmp_path / "run")})
    return run_one.CheckpointRunner(run_one.pipeline.Silence())(config, FOUND), waits


def test_a_watcher_waits_while_another_makes_the_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(LeaseHeld("another watcher"), LeaseHeld("another watcher"))
    about, waits = run_checkpoint(tmp_path, monkeypatch, runs)
    assert waits == [run_one.POLL_S] * 2
    shared = str(tmp_path / "run")
    assert [call[::2] for call in runs.calls[:3]] == [(shared, "clips")] * 3
    last_url, base, until = runs.calls[3]
    assert (base is not None, until) == (True, None)
    assert last_url == f"{shared}/{about['run']}"
    assert (about["model"], about["keys"]) == ("m@1", {"clips": "k"})


def test_clips_that_can_not_be_made_are_not_the_checkpoints_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotTheCheckpoint, match="no videos"):
        run_checkpoint(tmp_path, monkeypatch, Runs(ConfigError("no videos")))
