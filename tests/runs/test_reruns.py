"""Repeating a run on a small world: with another checkpoint, failed videos, more videos, or from scratch.

The shards run in this process, with the real models. The tests check what the pipeline runs.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import vtcav_ray
from tests.helpers.class_folders import class_folders
from vtcav_ray import cli, pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config
from vtcav_ray.errors import StageError
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.status import run_status
from vtcav_ray.stages import NAMES as STAGES
from vtcav_ray.store.assets import resolve_asset
from vtcav_ray.store.folder import Folder
from vtcav_ray.watch.loop import WatchOptions, watch_once
from vtcav_ray.watch.page import update_report
from vtcav_ray.watch.rerun import rerun
from vtcav_ray.watch.run_one import CheckpointRunner

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_ray")]

GRADIENT_KEY = itemgetter("clip_id", "class", "layer")
QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")
SMALL = [
    "clips.per_class=4",
    "clips.min_per_class=2",
    "clips.per_concept=6",
    "clips.min_per_concept=4",
    "clips.random_pool=12",
    "clips.concepts=[{name: cup, object: cup, kinds: [spatial]}, {name: ball, object: ball, kinds: [spatial]}]",
    "activations.layers=[middle, late]",
    "cavs.random_sets=4",
    "scores.permutations=200",
    "scores.bootstrap=100",
    "shard_videos=8",
    "tracks.frame_stride=2",
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos in a folder a class."""
    return class_folders(tmp_path_factory.mktemp("world"), 32)


def config_for(videos: Path, out: Path, *more: str) -> Config:
    return load_config(QUICKSTART, [*SMALL, f"videos={{uri: '{videos}'}}", *more], out=str(out))


@pytest.fixture(scope="module")
def finished(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vtcav_ray.run(config_for(videos, tmp_path_factory.mktemp("finished") / "run"))


def next_checkpoint(path: Path, shift: float) -> str:
    state = torch.load(resolve_asset("asset:recogniser.pth"), weights_only=True)
    name = next(key for key in state["state_dict"] if key.endswith("fc_cls.weight"))
    state["state_dict"][name] = state["state_dict"][name] * (1 + shift)
    torch.save(state, path)
    return str(path)


def rows(run: Run, table: str) -> list[dict[str, Any]]:
    return run.table(table).to_pylist()


def damage(path: Path) -> bytes:
    """Make a video unreadable, but keep its size and time and so its fingerprint, as if a read had failed."""
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(b"\0" * len(content))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return content


def repair(path: Path, content: bytes) -> None:
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_rerun_reads_no_video_and_computes_no_track(
    finished: Run, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = next_checkpoint(tmp_path / "epoch_2.pth", 0.5)
    before = json.loads((Path(finished.url) / "run.json").read_text())
    away = videos.with_name("away")
    videos.rename(away)  # the source videos are no longer necessary
    try:
        result = rerun(finished.url, checkpoint)
    finally:
        away.rename(videos)
    assert result.run.url.startswith(f"{finished.url}/checkpoints/epoch_2-")
    assert sorted(p.name for p in Path(result.run.url).iterdir() if p.is_dir()) == [
        "activations", "cavs", "leases", "preflight", "report", "scores",
    ]  # fmt: skip
    assert rows(result.run, "clips") == rows(finished, "clips")
    assert {r["model"] for r in rows(result.run, "scores")} != {r["model"] for r in rows(finished, "scores")}
    assert Path(result.run.report_url).is_file()
    assert json.loads((Path(finished.url) / "run.json").read_text()) == before, "the first run stays what it was"
    assert result.saving.reused > 0
    assert 0 < result.saving.fraction < 1
    assert "re-used" in result.saving.sentence
    # The two folders still belong together after both are moved.
    moved = tmp_path / "moved"
    shutil.copytree(finished.url, moved)
    inside = moved / Path(result.run.url).relative_to(finished.url)
    assert Run(str(inside)).table("clips").num_rows == finished.table("clips").num_rows


def test_a_checkpoint_that_does_not_load_leaves_a_stopped_run(finished: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"not a checkpoint")
    with pytest.raises(StageError, match=r"bad\.pth"):
        rerun(finished.url, str(bad), str(tmp_path / "out"))
    status = run_status(Run(str(tmp_path / "out")))
    # The preflight finds it before any hours: a first run would have tracked its videos for nothing.
    assert status.status == "stopped: tracks"
    states = {stage.stage: stage.state for stage in status.stages}
    assert states["videos"] == "done"
    assert [states[name] for name in ("tracks", "clips", "activations")] == ["not started"] * 3
    assert "bad.pth" in str(status.error)


@pytest.fixture
def broken(finished: Run, videos: Path) -> Iterator[dict[Path, bytes]]:
    """The contents of videos that are unreadable during a test, and were not when `finished` was made."""
    content = {path: damage(path) for path in sorted(videos.rglob("*.mp4"))[::11]}
    yield dict(content)
    for path, whole in content.items():
        repair(path, whole)


@pytest.mark.full
def test_retry_failed_does_what_failed_and_nothing_else(
    finished: Run, videos: Path, broken: dict[Path, bytes], tmp_path: Path
) -> None:
    config = config_for(videos, tmp_path / "run", "max_failed_fraction=0.5")
    first = vtcav_ray.run(config)
    assert len(rows(first, "failures")) == len(broken) == 3
    keys = first.keys
    one, two, three = broken

    # While nothing is repaired, nothing changes and no output is lost.
    again = pipeline.run(config, retry_failed=True, until="clips")
    assert again.keys.items() <= keys.items()

    repair(one, broken[one])
    repair(two, broken[two])
    result = CliRunner().invoke(cli.app, ["retry-failed", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "3 failures before, 1 now" in result.output
    retried = Run(str(tmp_path / "run"))
    manifest = retried.manifest("tracks")
    assert manifest["retry_of"] == keys["tracks"]
    assert (manifest["metrics"]["worked_on"], manifest["metrics"]["carried"]) == (3, 29)
    for stage in ("clips", "activations"):
        carried = retried.manifest(stage)["carried"]
        assert 0 < carried["kept"] < carried["units"], stage
    # Every later stage uses what was recovered, and a plain run finds everything complete.
    recovered = {str(path.relative_to(videos)) for path in (one, two)}
    assert recovered <= {r["video_id"] for r in rows(retried, "tracks")}
    assert pipeline.run(config, until="scores").keys.items() <= retried.keys.items()
    assert run_status(retried).failures == 1

    # Once all is repaired, the files equal those of a run without failures byte for byte, also those of videos that
    # were retried together with other videos than at first.
    repair(three, broken[three])
    whole = pipeline.run(config, retry_failed=True, until="activations")
    for stage in ("tracks", "clips", "activations"):
        now, then = data_files(whole, stage), data_files(finished, stage)
        assert now.keys() == then.keys()
        close = {path for path in now if path.startswith(("gradients/", "answers/"))}
        assert {path for path in now if now[path] != then[path]} <= close
    # Logits and gradients may differ in the last bits, because batches of another size use other kernels.
    answers = [sorted(rows(run, "answers"), key=lambda row: row["clip_id"]) for run in (whole, finished)]
    assert [row["clip_id"] for row in answers[0]] == [row["clip_id"] for row in answers[1]]
    for row, twin in zip(*answers, strict=True):
        assert row["logits"] == pytest.approx(twin["logits"], rel=1e-4, abs=1e-5)
    mine_now, theirs = (sorted(rows(run, "gradients"), key=GRADIENT_KEY) for run in (whole, finished))
    assert [GRADIENT_KEY(row) for row in mine_now] == [GRADIENT_KEY(row) for row in theirs]
    for row, twin in zip(mine_now, theirs, strict=True):
        a, b = np.array(row["vector"]), np.array(twin["vector"])
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()
    assert rows(whole, "failures") == []


def data_files(run: Run, stage: str) -> dict[str, str]:
    """Return the SHA-256 of each of a stage's files."""
    shards = run.manifest(stage)["shards"].values()
    return {path: info["sha256"] for files in shards for path, info in files.items()}


def test_limit_takes_unprocessed_videos_and_keeps_the_others(videos: Path, tmp_path: Path) -> None:
    config = config_for(videos, tmp_path / "run")
    first = pipeline.run(pipeline.with_more_videos(config, 12), until="tracks")
    assert first.table("videos").num_rows == 12
    assert pipeline.with_more_videos(config, 12).videos.limit == 24
    second = pipeline.run(pipeline.with_more_videos(config, 5), until="tracks")
    assert {r["video_id"] for r in rows(first, "videos")} < {r["video_id"] for r in rows(second, "videos")}
    assert second.manifest("tracks")["metrics"]["worked_on"] == 5
    # A run that stops while adding five videos resumes with the same five.
    stopped = second.record | {"status": "running: tracks", "previous": first.keys}
    second.folder.write_json("run.json", stopped)
    assert pipeline.with_more_videos(config, 5).videos.limit == 17


def test_fresh_recomputes_everything(videos: Path, tmp_path: Path) -> None:
    config = config_for(videos, tmp_path / "run", "videos.limit=6")
    first = pipeline.run(config, until="tracks")
    tracks = Path(first.stage("tracks").folder.url)
    files = {p.name: p.read_bytes() for p in (tracks / "tracks").iterdir()}
    (tracks / "tracks" / sorted(files)[0]).write_bytes(b"damaged")
    again = pipeline.run(config, until="tracks", fresh=True)
    assert set(again.keys) == set(first.keys)
    made = Path(again.stage("tracks").folder.url)
    assert made != tracks, "beside: who reads the old output may go on"
    assert {p.name: p.read_bytes() for p in (made / "tracks").iterdir()} == files
    assert "carried" not in again.manifest("tracks")


def test_status_says_how_far_a_run_is(finished: Run, tmp_path: Path) -> None:
    whole = run_status(finished)
    assert [s.state for s in whole.stages] == ["done"] * 7
    # The state in the middle of a stage: three shards are done, two of them since it began.
    shutil.copytree(finished.url, tmp_path / "run")
    run = Run(str(tmp_path / "run"))
    folder = Path(run.stage("tracks").folder.url)
    (folder / "manifest.json").unlink()
    commits = sorted((folder / "_commits").iterdir())
    for path in commits[3:]:
        path.unlink()
    begun = Folder(str(folder))
    begun.write_json("plan.json", begun.read_json("plan.json") | {"done": 1, "started": 1000.0})
    stage = run_status(run, now=1120.0).stages[1]
    assert (stage.state, stage.done, stage.shards) == ("unfinished", 3, len(commits))
    assert stage.rate == pytest.approx(1.0)
    assert stage.seconds_left == pytest.approx(60.0 * (len(commits) - 3))
    videos = [json.loads(path.read_text())["metrics"]["videos"] for path in commits[:3]]
    assert stage.unit == "videos"
    assert stage.items_per_second == pytest.approx(sum(videos) / 3 / 60)
    shown = CliRunner().invoke(cli.app, ["status", str(tmp_path / "run")])
    assert f"3/{len(commits)}" in shown.output
    assert "videos/" in shown.output
    found = json.loads(CliRunner().invoke(cli.app, ["status", str(tmp_path / "run"), "--json"]).output)
    assert [s["stage"] for s in found["stages"]] == list(STAGES)


def test_a_watcher_reruns_each_checkpoint_and_reports_over_training(
    finished: Run, videos: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished.url, tmp_path / "run")  # its clips serve every checkpoint
    (tmp_path / "exp").mkdir()
    for step, shift in ((1, 0.5), (2, 1.0)):
        next_checkpoint(tmp_path / "exp" / f"epoch_{step}.pth", shift)
    torch.save({"state_dict": {"other.weight": torch.zeros(2)}}, tmp_path / "exp" / "epoch_3.pth")  # of another model
    config = config_for(videos, tmp_path / "run")
    options = WatchOptions(str(tmp_path / "exp" / "*.pth"), settle_s=0.1, attempts=1)
    runner = CheckpointRunner(pipeline.Silence())
    result = watch_once(config, options, runner, update_report)
    assert result.done == ["epoch_1.pth", "epoch_2.pth"]
    assert "epoch_3.pth" in result.failed
    watch = tmp_path / "run" / "watch"
    table = pq.read_table(watch / "registry.parquet").to_pylist()
    assert [(r["step"], r["status"]) for r in table] == [(1, "done"), (2, "done"), (3, "failed")]
    assert {r["clips_key"] for r in table[:2]} == {finished.keys["clips"]}
    assert all(Run(str(tmp_path / "run" / r["run"])).table("scores").num_rows for r in table[:2])
    page = (watch / "report.html").read_text()
    assert "3 checkpoints, 2 done, 1 failed" in page
    assert page.count('aria-label="effect over 2 checkpoints"') > 4
    assert Run(str(tmp_path / "run")).keys == finished.keys
