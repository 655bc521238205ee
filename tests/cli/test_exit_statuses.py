"""Commands that finish a run exit with 4 if too many inputs failed; a rerun has its own folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.helpers.house import House
from tests.helpers.small_runs import run_here
from vtcav_ray import cli, engine, pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.gradcam import run as gradcam_run
from vtcav_ray.runs.run import Run
from vtcav_ray.watch.loop import Pass
from vtcav_ray.watch.rerun import rerun


@pytest.fixture
def reran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, str]:
    """A run of 4 videos with a failure, which allows none, and another checkpoint."""
    house = House()
    monkeypatch.setattr(pipeline, "STAGES", house.stages())
    monkeypatch.setattr(engine, "run_shards", run_here)
    monkeypatch.setattr(engine.LazySession, "start", lambda self: None)
    monkeypatch.setattr("vtcav_ray.cli.score_table.print_answers", lambda console, run: None)
    house.videos, house.broken = house.videos[:4], {"v03"}
    checkpoint = tmp_path / "next.pth"
    checkpoint.write_bytes(b"weights")
    config = parse_config({"videos": {"uri": "videos"}, "out": str(tmp_path / "run"), "max_failed_fraction": 0.01})
    return pipeline.run(config), str(checkpoint)


def test_a_rerun_with_too_many_failures_exits_4(reran: tuple[Run, str]) -> None:
    run, checkpoint = reran
    strict = CliRunner().invoke(cli.app, ["rerun", run.url, "--checkpoint", checkpoint])
    assert strict.exit_code == 4, strict.output
    assert "1 of 4 videos failed" in strict.output
    lax = ["--set", "max_failed_fraction=0.5"]
    assert CliRunner().invoke(cli.app, ["rerun", run.url, "--checkpoint", checkpoint, *lax]).exit_code == 0


def test_a_rerun_never_goes_into_the_run_itself(reran: tuple[Run, str], monkeypatch: pytest.MonkeyPatch) -> None:
    run, checkpoint = reran
    monkeypatch.chdir(Path(run.url).parent)
    Path("link").symlink_to("run")
    for out in ("run", "./run/", f"{run.url}/", "link"):
        with pytest.raises(ConfigError, match="is the run itself"):
            rerun("run", checkpoint, out)
    assert Run(run.url).record == run.record


def test_watch_and_gradcam_exit_4_too(reran: tuple[Run, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = reran
    one = SimpleNamespace(name="next.pth")

    def watch_once(settings: Config, options: object, run_one: Any, update_report: object) -> Pass:
        run_one(settings, one)
        return Pass(done=[one.name])

    monkeypatch.setattr("vtcav_ray.watch.run_one.CheckpointRunner", lambda *_: lambda *_: {"run": "."})
    monkeypatch.setattr("vtcav_ray.watch.loop.watch_once", watch_once)
    known, nothing = run.table, pa.table({"class": []})
    monkeypatch.setattr(run, "table", lambda n, **of: nothing if n == "gradcam_summary" else known(n, **of))
    monkeypatch.setattr(run, "manifest", lambda stage: {"notes": {"untrained": False}})
    monkeypatch.setattr(gradcam_run, "run_gradcam", lambda config, progress: run)
    file = tmp_path / "c.yaml"
    for allowed, status in ((0.01, 4), (0.5, 0)):
        file.write_text(json.dumps({"videos": {"uri": "videos"}, "max_failed_fraction": allowed}))
        for command in (["watch", str(file), "--checkpoints", "*.pth", "--once"], ["gradcam", str(file)]):
            result = CliRunner().invoke(cli.app, [*command, "--out", run.url])
            assert result.exit_code == status, result.output
