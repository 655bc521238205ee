"""The pipeline's own logic (keys, reuse, carrying over, retries, reruns), with small stages that need no model.

The stages have the names and structure of the real ones: `tracks` works on videos, `clips` on tracks, `activations`
on shards of clips, `scores` on all. Each stage records the work that it receives.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.helpers.house import House
from tests.helpers.small_house import scores_of
from tests.helpers.small_runs import facts, run_here
from vtcav_ray import engine, pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import StageError
from vtcav_ray.gradcam import run as gradcam_run
from vtcav_ray.planning.dry_run import dry_run
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.runs.status import run_status
from vtcav_ray.store.commits import ShardOutput
from vtcav_ray.watch.rerun import with_checkpoint


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    house = House()
    monkeypatch.setattr(pipeline, "STAGES", house.stages())
    monkeypatch.setattr(engine, "run_shards", run_here)
    monkeypatch.setattr(engine.LazySession, "start", lambda self: None)
    return house


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config({"videos": {"uri": "videos"}, "out": str(tmp_path / "run")})


def scored(run: Run) -> list[str]:
    return scores_of(run)["video_id"].to_pylist()


@pytest.mark.slow
def test_a_retry_works_on_what_failed_and_later_stages_see_it(house: House, config: Config) -> None:
    house.broken = {"v03", "v04", "v11"}
    first = pipeline.run(config)
    assert len(scored(first)) == 13
    house.worked.clear()
    house.broken = {"v11"}
    second = pipeline.run(config, retry_failed=True)
    assert house.tracks_planned == 2, "once a run: the videos are the same"
    assert sorted(house.worked["tracks"]) == ["v03", "v04", "v11"]
    assert sorted(house.worked["clips"]) == ["v03", "v04"]
    shards = second.manifest("activations")["shards"]
    assert 0 < len(house.worked["activations"]) < len(shards), "shards without a recovered video are kept"
    assert scored(second) == [v for v in house.videos if v != "v11"]
    assert second.table("failures")["video_id"].to_pylist() == ["v11"]
    # A plain run finds everything complete.
    house.worked.clear()
    assert pipeline.run(config).keys == second.keys
    assert house.worked == {}


@pytest.mark.slow
def test_a_look_at_the_clips_in_between_loses_no_activations(house: House, config: Config) -> None:
    """`--until clips` ends a run without activations. Those of the run before are still carried over."""
    house.broken = {"v05"}
    pipeline.run(config)
    pipeline.run(config, until="clips")
    house.broken = set()
    retried = pipeline.run(config, retry_failed=True)
    carried = retried.manifest("activations")["carried"]
    assert 0 < carried["kept"] < carried["units"]


@pytest.mark.slow
def test_a_retry_that_recovers_nothing_changes_nothing(house: House, config: Config) -> None:
    house.broken = {"v03"}
    first = pipeline.run(config)
    for _ in range(2):
        house.worked.clear()
        assert pipeline.run(config, retry_failed=True).keys == first.keys
        assert house.worked == {"tracks": ["v03"]}


@pytest.mark.slow
def test_once_all_is_mended_the_output_is_that_of_a_run_without_failures(
    house: House, config: Config, tmp_path: Path
) -> None:
    house.broken = {"v00", "v07"}
    pipeline.run(config)
    house.broken = {"v07"}
    pipeline.run(config, retry_failed=True)
    house.broken = set()
    last = pipeline.run(config, retry_failed=True)
    whole = pipeline.run(config.model_copy(update={"out": str(tmp_path / "whole")}))
    for stage in ("tracks", "clips", "activations", "scores"):
        assert files(last, stage) == files(whole, stage), stage


def files(run: Run, stage: str) -> dict[str, str]:
    return {p: i["sha256"] for found in run.manifest(stage)["shards"].values() for p, i in found.items()}


@pytest.mark.slow
def test_a_retry_that_is_cut_off_goes_on(house: House, config: Config) -> None:
    house.broken = {"v03", "v04"}
    pipeline.run(config)
    house.broken, house.dead_after = set(), "activations"
    house.worked.clear()
    with pytest.raises(StageError, match="no room"):
        pipeline.run(config, retry_failed=True)
    status = run_status(Run(config.run_url))
    assert (status.status, status.error) == ("stopped: activations", "no room")
    stage = status.stages[3]
    assert (stage.state, stage.done < (stage.shards or 0), stage.carried > 0) == ("unfinished", True, True)
    house.dead_after = None
    before = list(house.worked["activations"])
    last = pipeline.run(config)
    assert scored(last) == house.videos
    assert sorted(house.worked["tracks"]) == ["v03", "v04"]
    assert len(house.worked["activations"]) == len(set(house.worked["activations"])), "nothing is done twice"
    assert house.worked["activations"][: len(before)] == before
    assert last.manifest("activations")["carried"]["kept"] > 0, "also after the restart"


@pytest.mark.slow
def test_a_rerun_shares_what_does_not_depend_on_the_checkpoint(house: House, config: Config, tmp_path: Path) -> None:
    house.broken = {"v05"}
    base = pipeline.run(config)
    house.worked.clear()
    house.videos = []  # the source is gone
    other = with_checkpoint(config, "other.pth", f"{base.url}/checkpoints/other")
    rerun = pipeline.run(other, base=base)
    assert set(house.worked) == {"activations", "scores"}
    assert scored(rerun) == scored(base)
    assert rerun.record["base"] == "../.."
    assert Run(base.url).keys == base.keys
    assert {s.state for s in run_status(rerun).stages if s.stage not in ("cavs", "report")} == {"done"}
    # The rerun, when it runs again, uses what the shared run recovered.
    house.broken = set()
    house.videos = [f"v{i:02d}" for i in range(16)]
    pipeline.run(config, retry_failed=True)
    house.worked.clear()
    again = pipeline.run(other, base=Run(base.url))
    assert scored(again) == house.videos
    assert set(house.worked) == {"activations", "scores"}
    assert len(house.worked["activations"]) == 1, "one shard of clips has changed"


@pytest.mark.slow
def test_a_retry_of_a_rerun_mends_the_shared_stages(house: House, config: Config) -> None:
    house.broken = {"v05"}
    base = pipeline.run(config)
    other = with_checkpoint(config, "other.pth", f"{base.url}/checkpoints/other")
    pipeline.run(other, base=base)
    house.broken = set()
    again = pipeline.run(other, base=base, retry_failed=True)
    assert scored(again) == house.videos


@pytest.mark.slow
def test_limit_adds_videos_and_carries_the_others(house: House, config: Config) -> None:
    first = pipeline.run(pipeline.with_more_videos(config, 6))
    assert len(scored(first)) == 6
    house.worked.clear()
    second = pipeline.run(pipeline.with_more_videos(config, 4))
    assert house.worked["tracks"] == house.videos[6:10]
    assert sorted(house.worked["clips"]) == house.videos[6:10]
    assert scored(second) == house.videos[:10]
    # A run that stops in the middle of the next videos resumes with the same ones.
    house.dead_after = "activations"
    house.worked.clear()
    with pytest.raises(StageError):
        pipeline.run(pipeline.with_more_videos(config, 4))
    house.dead_after = None
    assert scored(pipeline.run(pipeline.with_more_videos(config, 4))) == house.videos[:14]
    assert house.worked["tracks"] == house.videos[10:14]


def test_fresh_makes_everything_again(house: House, config: Config) -> None:
    first = pipeline.run(config)
    assert files(pipeline.run(config, fresh=True), "scores") == files(first, "scores")
    assert sorted(house.worked["tracks"]) == sorted(house.videos * 2)
    assert "carried" not in pipeline.run(config).manifest("clips")


def test_status_reads_the_plan_and_the_commits(house: House, config: Config) -> None:
    house.dead_after = "activations"
    with pytest.raises(StageError):
        pipeline.run(config)
    run = Run(config.run_url)
    plan = json.loads((Path(run.stage("activations").folder.url) / "plan.json").read_text())
    stage = run_status(run, now=plan["started"] + 120).stages[3]
    assert (stage.done, stage.shards) == (1, plan["shards"])
    assert stage.rate == pytest.approx(0.5)
    assert stage.seconds_left == pytest.approx(120 * (plan["shards"] - 1))
    assert [s.state for s in run_status(run).stages] == ["done"] * 3 + ["unfinished"] + ["not started"] * 3


def test_ctrl_c_leaves_a_stopped_run(house: House, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "run_shards", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config)
    status = run_status(Run(config.run_url))
    assert status.status == "stopped: tracks"
    assert "Ctrl-C" in str(status.error)


def test_a_dry_run_tells_what_fresh_replaces(house: House, config: Config) -> None:
    pipeline.run(config, until="clips")
    shown = {stage.name: stage.state for stage in dry_run(config, until="activations")}
    assert shown["clips"] == "complete: would be re-used"
    assert list(shown) == ["videos", "tracks", "clips", "activations"]
    fresh = {stage.name: stage.state for stage in dry_run(config, fresh=True)}
    assert "would be computed again, replacing 1 existing shards" in fresh["videos"]
    assert fresh["activations"] == fresh["scores"] == "to do"


@pytest.fixture
def gradcam(monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline that counts the clips and has no page."""

    def prepare(context: Context) -> Work:
        count = sum(part.num_rows for _, part in context.input("clips").iter_tables("clips"))
        return Work([Shard("all", pa.table({"n": [count]}))], lambda: lambda rows: ShardOutput({"gradcam": rows}))

    monkeypatch.setattr(gradcam_run, "STAGE", Stage(facts("gradcam", ("tracks", "clips")), 1, lambda c: {}, prepare))
    monkeypatch.setattr(gradcam_run, "write_page", lambda run: None)


@pytest.mark.usefixtures("gradcam")
def test_gradcam_keeps_the_record_of_a_run_that_saw_a_retry(house: House, config: Config) -> None:
    house.videos, house.broken = house.videos[:5], {"v03"}
    pipeline.run(config)
    house.broken = set()
    run = pipeline.run(config, retry_failed=True)
    house.worked.clear()
    found = gradcam_run.run_gradcam(config)
    assert house.worked == {}
    assert found.record == run.record
    assert found.table("gradcam")["n"].to_pylist() == [5]
    # With some of its clips gone, it is computed again and belongs to the same run.
    Path(run.stage("clips").folder.url, "manifest.json").unlink()
    assert gradcam_run.run_gradcam(config).record == run.record
    # Other clips make another run.
    other = gradcam_run.run_gradcam(pipeline.with_more_videos(config, 2, fresh=True))
    assert set(other.keys) == {"videos", "tracks", "clips", "gradcam"}


@pytest.mark.usefixtures("gradcam")
def test_gradcam_on_a_rerun_uses_the_shared_clips(house: House, config: Config) -> None:
    house.videos, house.broken = house.videos[:5], {"v03"}
    base = pipeline.run(config)
    other = with_checkpoint(config, "other.pth", f"{base.url}/checkpoints/other")
    run = pipeline.run(other, base=base)
    house.worked.clear()
    house.videos = []  # the source is gone
    found = gradcam_run.run_gradcam(other)
    assert house.worked == {}
    assert found.record == run.record
    assert found.stage("gradcam").folder.url.startswith(f"{run.url}/gradcam/")
