"""The main job, end to end, on a small planted world.

The shards run in this process. tests/engine/test_object_storage_runs.py, tests/jobs and tests/tooling/test_wheel.py do
whole runs on a real Ray.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import vtcav_ray
from tests.helpers.class_folders import class_folders
from tests.helpers.planted_run import QUICKSTART, SMALL, PlantedRun
from vtcav_ray import cli, tables
from vtcav_ray.clips.decisions import FILE, Decisions, Subject, format_decisions
from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.pipeline import STAGES, failed_inputs
from vtcav_ray.stages import ANSWER, TABLES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_ray")]


class Recorder:
    """Progress that records the stages that ran and those that were reused."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.reused: list[str] = []
        self.shards: dict[str, tuple[int, int]] = {}

    def stage_started(self, stage: str, *, shards: int, done: int) -> None:
        self.shards[stage] = (shards, done)

    def shard_done(self, stage: str, *, failures: int) -> None: ...

    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None:
        (self.reused if reused else self.ran).append(stage)


@pytest.fixture(scope="module")
def small(planted: PlantedRun, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a copy of the planted run, which these tests change."""
    return planted.config(planted.copy(tmp_path_factory.mktemp("copy") / "run"))


@pytest.fixture(scope="module")
def finished(small: Config) -> vtcav_ray.Run:
    return vtcav_ray.Run(small.run_url)


def data_files(url: str) -> dict[str, bytes]:
    return {str(p.relative_to(url)): p.read_bytes() for p in Path(url).rglob("*.parquet")}


def test_every_table_has_the_columns_that_its_page_promises(finished: vtcav_ray.Run) -> None:
    for name in TABLES:
        table = finished.table(name)
        assert table.schema.names == tables.EMPTY_SCHEMAS[name].names, name
        if name != "failures":
            # Of these videos the model may get none wrong.
            assert table.num_rows > 0 or name == "mistakes", name


def test_the_counts_fit_together(finished: vtcav_ray.Run, small: Config) -> None:
    clips = finished.table("clips", columns=["clip_id", "set", "name", "video_id"])
    assert len(set(clips["clip_id"].to_pylist())) == clips.num_rows
    by_set: dict[str, set[str]] = {}
    for row in clips.to_pylist():
        by_set.setdefault(row["set"], set()).add(row["video_id"])
    # A video gives class examples, concept examples, or random clips, never two of these.
    assert by_set["class"].isdisjoint(by_set["concept"])
    assert by_set["class"].isdisjoint(by_set["random"])
    assert by_set["concept"].isdisjoint(by_set["random"])
    for layer in small.activations.layers:
        activations = finished.table("activations", layer=layer)
        assert sorted(activations["clip_id"].to_pylist()) == sorted(clips["clip_id"].to_pylist())
        gradients = finished.table("gradients", layer=layer)
        examples = {r["clip_id"]: r["name"] for r in clips.to_pylist() if r["set"] == "class"}
        rows = list(zip(*(gradients[name].to_pylist() for name in ("clip_id", "class", "reference")), strict=True))
        # Every example has the gradient of its own class, and a reference clip also those of the other classes.
        reference = {clip for clip, _, marked in rows if marked}
        assert {(clip, name) for clip, name, _ in rows} == set(examples.items()) | {
            (clip, name) for clip in reference for name in examples.values()
        }
        assert len({(clip, name) for clip, name, _ in rows}) == len(rows)
        assert len(reference) == small.clips.per_class
        per_class = Counter(examples[clip] for clip in reference)
        assert per_class.keys() == set(examples.values())
        assert max(per_class.values()) - min(per_class.values()) <= 1
        assert np.isfinite(np.stack(gradients["vector"].to_numpy(zero_copy_only=False))).all()


def test_an_effect_is_checked_by_intervention(finished: vtcav_ray.Run) -> None:
    options = ["--class", "lift", "--layer", "head", "--concept", "moving up/context", "--clips", "2", "--json"]
    steps = ["--step", "0.5", "--step", "1"]
    answer = CliRunner().invoke(cli.app, ["intervene", finished.url, *options, *steps])
    assert answer.exit_code == 0, answer.output
    rows = json.loads(answer.stdout)
    assert [row["step"] for row in rows] == [0.5, 1.0]
    for row in rows:  # after the head there is only a linear map
        assert row["real"] == pytest.approx(row["predicted"], rel=1e-3)
    kept = finished.table("interventions")
    assert kept.schema == tables.INTERVENTIONS
    assert kept.to_pylist() == rows
    there = ["--class", "lift", "--layer", "early@moving", "--clips", "2", "--step", "0.1", "--cells", "1", "--json"]
    (row,) = json.loads(CliRunner().invoke(cli.app, ["intervene", finished.url, *there]).stdout)
    assert row["layer"] == "early@moving"
    assert row["gain"] > 1
    assert np.isfinite([row["predicted"], row["real"]]).all()
    for wrong in (["--layer", "nose"], ["--step", "0"], ["--against", "nobody"]):
        assert isinstance(CliRunner().invoke(cli.app, ["intervene", finished.url, *wrong]).exception, ConfigError)


def test_the_scores_are_a_full_grid_with_figures_in_range(finished: vtcav_ray.Run, small: Config) -> None:
    rows = finished.table("scores").to_pylist()
    every = [r for r in rows if r["against"] == "random"]
    random = [r for r in every if r["layer"] != ANSWER]
    assert len(every) - len(random) == len(random) / len(small.activations.layers), "the answer is one more row"
    cells = {(r["class"], r["layer"], r["concept"]) for r in random}
    assert len(cells) == len(random)
    classes = {c for c, _, _ in cells}
    assert classes == {"lift", "put_down", "push_left", "push_right"}
    concepts = {c for _, _, c in cells}
    assert {"moving up/context", "cup/spatial", "cup/spatiotemporal"} <= concepts
    assert len(cells) == len(classes) * len(concepts) * len(small.activations.layers)
    for row in random:
        if not row["degenerate"]:
            assert 0 <= row["tcav_ci_low"] <= row["tcav_score"] <= row["tcav_ci_high"] <= 1
        assert 0 < row["p"] <= row["q"] <= 1
        assert row["ci_low"] <= row["effect"] <= row["ci_high"]
        assert row["R"] == 10
    assert {r["layer"] for r in random if r["degenerate"]} == {"head"}


def test_the_model_uses_how_the_object_moves(finished: vtcav_ray.Run) -> None:
    """The planted truth appears at the depth where a pilot run showed it clearly: moving up favours `lift`."""
    effects = {
        (r["class"], r["concept"]): r["z"]
        for r in finished.table("scores").to_pylist()
        if r["layer"] == "late" and r["against"] == "random"
    }
    assert effects["lift", "moving up/context"] > 3
    assert effects["lift", "moving up/context"] > effects["put_down", "moving up/context"]
    assert effects["lift", "moving up/context"] > 2 * abs(effects["lift", "cup/spatial"])


def test_running_again_touches_nothing(finished: vtcav_ray.Run, small: Config) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(small.run_url).rglob("*.parquet")}
    recorder = Recorder()
    vtcav_ray.run(small, recorder)
    assert recorder.ran == []
    assert recorder.reused == [stage.name for stage in STAGES]
    assert {p: p.stat().st_mtime_ns for p in Path(small.run_url).rglob("*.parquet")} == before


@pytest.mark.full
def test_a_change_of_the_statistics_touches_no_model(finished: vtcav_ray.Run, small: Config) -> None:
    recorder = Recorder()
    changed = small.model_copy(update={"scores": small.scores.model_copy(update={"correction": "bh"})})
    vtcav_ray.run(changed, recorder)
    assert recorder.ran == ["scores", "report"]


@pytest.mark.full
def test_a_review_leaves_clips_out_and_touches_no_model(finished: vtcav_ray.Run, small: Config) -> None:
    """A rejected clip, concept or class example leaves every later stage; undoing that restores the old output."""
    clips = finished.table("clips", columns=["clip_id", "set", "name", "kind", "control_of"]).to_pylist()
    cup = next(r["clip_id"] for r in clips if r["name"] == "cup" and r["kind"] == "spatiotemporal")
    lift = next(r["clip_id"] for r in clips if r["set"] == "class" and r["name"] == "lift")
    decisions = Decisions().changed(
        [
            (Subject("concept", "moving up/context"), "reject"),
            (Subject("concept", "cup/spatiotemporal", cup), "reject"),
            (Subject("class", "lift", lift), "reject"),
        ]
    )
    recorder = Recorder()
    page_before = Path(vtcav_ray.run(small).report_url).read_bytes()
    finished.folder.write_bytes(FILE, format_decisions(decisions).encode())
    try:
        result = vtcav_ray.run(small, recorder)
        assert recorder.ran == ["cavs", "scores", "report"]
        out = {row["clip_id"] for row in result.stage("cavs").read("left_out").to_pylist()}
        twins = {r["clip_id"] for r in clips if r["control_of"] == cup}
        assert twins
        assert {cup, lift, *twins} < out
        assert {r["clip_id"] for r in clips if r["name"] == "moving up"} < out
        before, after = finished.table("scores").to_pylist(), result.table("scores").to_pylist()
        assert "moving up/context" not in {r["concept"] for r in after} | {r["against"] for r in after}
        n = {row["class"]: row["n"] for row in before}
        assert {row["class"]: row["n"] for row in after} == {**n, "lift": n["lift"] - 1}
        held = {(r["concept"], r["n_concept"]) for r in before if r["against"] == "random"}
        kept = {(r["concept"], r["n_concept"]) for r in after if r["against"] == "random"}
        videos = dict(held)["cup/spatiotemporal"]
        assert {("cup/spatiotemporal", videos - 1), ("cup/frozen", videos - 1), ("cup/spatial", videos)} <= kept
        page = Path(result.report_url).read_text()
        assert "clips are left out" in page
        assert b"clips are left out" not in page_before
        # An acceptance without effect, or a note, does not count as a new review.
        again = Recorder()
        noted = decisions.changed([(Subject("concept", "cup/spatial"), "accept")])
        finished.folder.write_bytes(FILE, format_decisions(noted).encode())
        vtcav_ray.run(small, again)
        assert again.ran == []
    finally:
        (Path(finished.url) / FILE).unlink()
    back = Recorder()
    vtcav_ray.run(small, back)
    assert back.ran == []
    assert Path(finished.report_url).read_bytes() == page_before


def test_a_broken_review_is_reported_before_any_work(small: Config, tmp_path: Path) -> None:
    changed = small.model_copy(update={"out": str(tmp_path)})
    (tmp_path / FILE).write_text("set,name,clip_id,decision\nconcept,cup/spatial,,perhaps\n")
    recorder = Recorder()
    with pytest.raises(ConfigError, match=r"review\.csv, line 2"):
        vtcav_ray.run(changed, recorder)
    assert recorder.ran == []


def test_a_run_can_stop_after_a_stage(small: Config, finished: vtcav_ray.Run) -> None:
    recorder = Recorder()
    result = vtcav_ray.run(small, recorder, until="tracks")
    assert recorder.reused == ["videos", "tracks"]
    assert set(result.keys) == {"videos", "tracks"}
    vtcav_ray.run(small, recorder)
    with pytest.raises(ConfigError, match="There are: videos"):
        vtcav_ray.run(small, until="reports")


def test_a_new_checkpoint_keeps_tracks_and_clips(finished: vtcav_ray.Run, small: Config, tmp_path: Path) -> None:
    import torch

    from vtcav_ray.store.assets import resolve_asset

    state = torch.load(resolve_asset("asset:recogniser.pth"), weights_only=True)
    name = next(key for key in state["state_dict"] if key.endswith("fc_cls.bias"))
    state["state_dict"][name] = state["state_dict"][name] + 1
    torch.save(state, tmp_path / "next.pth")
    recorder = Recorder()
    changed = small.model_copy(
        update={"model": small.model.model_copy(update={"checkpoint": str(tmp_path / "next.pth")})}
    )
    vtcav_ray.run(changed, recorder, until="activations")
    assert recorder.ran == ["activations"]
    assert recorder.reused == ["videos", "tracks", "clips"]


def test_what_is_missing_is_done_again_byte_for_byte(finished: vtcav_ray.Run, small: Config) -> None:
    """The state is that after a kill: a shard lacks its commit record and a file, and the stage lacks its manifest."""
    before = data_files(small.run_url)
    stage = Path(small.run_url) / "activations" / finished.keys["activations"]
    records = sorted((stage / "_commits").iterdir())
    assert len(records) > 2
    (stage / "manifest.json").unlink()
    for path in json.loads(records[1].read_text())["files"]:
        (stage / path).unlink()
    records[1].unlink()
    times = {p: p.stat().st_mtime_ns for p in records if p != records[1]}
    recorder = Recorder()
    vtcav_ray.run(small, recorder)
    assert recorder.ran == ["activations"]  # its key is unchanged, so no later stage runs again
    assert recorder.shards["activations"] == (len(records), len(records) - 1)
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert data_files(small.run_url) == before


def test_the_report_is_one_file_that_names_what_was_found(finished: vtcav_ray.Run) -> None:
    page = Path(finished.report_url).read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    for text in ("moving up", "put_down", "lift"):
        assert text in page


def test_every_bad_input_is_a_row_and_the_run_goes_on(tmp_path: Path, finished: vtcav_ray.Run, small: Config) -> None:
    """Good videos lie among empty, truncated, fake, short, picture-less and mislabelled ones."""
    folder = class_folders(tmp_path, 40)
    good = sorted((folder / "lift").glob("*.mp4"))[0].read_bytes()
    bad = folder / "lift"
    (bad / "empty.mp4").write_bytes(b"")
    (bad / "truncated.mp4").write_bytes(good[: len(good) // 3])
    (bad / "words.mp4").write_text("this is no video\n" * 50)
    (folder / "juggle").mkdir()
    (folder / "juggle" / "unknown.mp4").write_bytes(good)
    config = load_config(
        QUICKSTART,
        [
            *SMALL,
            f"videos={{uri: '{folder}'}}",
            "clips.min_per_class=2",
            "clips.per_class=4",
            "activations.layers=[late]",
            "cavs.random_sets=4",
            "max_failed_fraction=0.01",
        ],
        out=str(tmp_path / "run"),
    )
    result = vtcav_ray.run(config)  # tests/engine/shared_ray/test_poison.py covers Ray's part
    failures = {Path(row["video_id"]).stem: row["error_kind"] for row in result.table("failures").to_pylist()}
    assert failures["empty"] == "empty"
    assert failures["words"] == "not_video"
    assert "truncated" in failures
    # A label that the model lacks is no error: its video serves concepts and random sets, and a warning names it.
    assert "unknown" not in failures
    assert any("no class for 1 labels ('juggle'" in w for w in result.manifest("clips")["warnings"])
    assert result.table("scores").num_rows > 0
    assert failed_inputs(result).fraction > 0.01
    # The command line reports it by its exit status.
    config_file = tmp_path / "c.yaml"
    config_file.write_text(json.dumps(config.model_dump(mode="json", exclude_none=True)))
    assert CliRunner().invoke(cli.app, ["run", str(config_file)]).exit_code == 4


def test_a_model_that_does_not_load_is_a_clear_error(small: Config, tmp_path: Path, finished: vtcav_ray.Run) -> None:
    (tmp_path / "bad.pth").write_bytes(b"not a checkpoint")
    broken = small.model_copy(
        update={"model": small.model.model_copy(update={"checkpoint": str(tmp_path / "bad.pth")})}
    )
    with pytest.raises(StageError, match=r"bad\.pth"):
        vtcav_ray.run(broken)
