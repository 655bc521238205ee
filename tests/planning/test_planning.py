"""Plans: the arithmetic, the dry run, and a measured sample of the planted world compared with a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from vtcav_ray import cli, tables
from vtcav_ray.cli.plan import read_rates
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.planning.counts import (
    Range,
    classes_of,
    clip_range,
    concepts_of,
    gradient_range,
    reference_clips,
    response_passes,
)
from vtcav_ray.planning.estimate import gradient_note, per_item
from vtcav_ray.planning.sample import Timed, planned_jobs
from vtcav_ray.runs.costs import Hours, price, stage_hours

CONCEPTS = [{"name": "cup", "kinds": ["spatial"], "controls": []},
            {"name": "up", "kinds": ["spatiotemporal"], "controls": ["frozen"]}]  # fmt: skip


def config(**changes: object):
    clips = {"per_class": 5, "min_per_class": 2, "per_concept": 10, "min_per_concept": 4, "random_pool": 50,
             "concepts": CONCEPTS}  # fmt: skip
    return parse_config({"videos": {"uri": "x"}, "clips": clips, "cavs": {"random_sets": 4}, **changes})


def test_the_interval_holds_the_rate_and_is_never_negative() -> None:
    found, measured = per_item(Timed([2.0, 4.0, 6.1], [1, 2, 3]))
    assert measured
    assert found.low < 2.0 < found.high
    assert found.high < 2.3
    wild, _ = per_item(Timed([0.1, 9.0], [1, 1]))
    assert 0 < wild.low < wild.estimate < wild.high


def test_one_shard_gives_a_guess_that_says_so() -> None:
    found, measured = per_item(Timed([3.0], [2]))
    assert (found.low, found.estimate, found.high, measured) == (0.75, 1.5, 3.0, False)
    assert per_item(Timed())[0] == Range(0, 0, 0)


def test_clips_are_counted_between_the_least_and_the_most() -> None:
    settings = config()
    concepts = concepts_of(settings)
    assert concepts == [("cup", "spatial"), ("up", "spatiotemporal"), ("up", "frozen")]
    found = clip_range(settings, 400, {"lift": 100, "drop": 3}, concepts)
    assert found.high == (5 + 3) + 3 * 10 + 3 * 50
    assert found.low == (2 + 2) + 3 * 4 + 3 * 50
    few = clip_range(settings, 20, {"lift": 4}, concepts)
    assert few.high == 4 + 3 * 10 + 3 * 20


@pytest.mark.parametrize(
    ("activations", "expected"),
    [
        ({}, 8 + 5),  # own: 5 and 3; reference: 5 clips, each for the other class
        ({"reference": 2}, 8 + 2),
        ({"reference": 100}, 8 + 8),
        ({"classes": "listed"}, 16),
        ({"classes": "top-2"}, 16),
    ],
)
def test_backward_passes_are_counted(activations: dict[str, object], expected: int) -> None:
    found = gradient_range(config(activations=activations), {"lift": 100, "drop": 3})
    assert (found.estimate, found.high) == (expected, expected)
    assert found.low <= expected


def test_a_class_costs_the_same_at_the_reference_set_as_at_its_own_examples() -> None:
    classes = {str(k): 50 for k in range(400)}
    own = gradient_range(config(activations={"reference": 0}, scores={"gradients_at": "own"}), classes)
    assert gradient_range(config(), classes).high / own.high == pytest.approx(2, rel=0.01)


def test_the_plan_says_what_many_classes_cost_and_how_to_pay_less() -> None:
    settings = parse_config({"videos": {"uri": "x"}})
    classes = {str(k): 50 for k in range(400)}
    clips = Range(13_000.0, 13_940.0, 13_940.0)
    note = gradient_note(settings, classes, clips)
    passes = 400 * 30 + 30 * 399
    assert gradient_range(settings, classes).high == passes == 23_970
    assert note.startswith(f"400 classes take {passes:,} backward passes, 63% of the stage `activations`")
    assert "12,000 at the classes' examples and 11,970 more at the reference set" in note
    assert "clips.classes, or set activations.reference" in note
    listed = parse_config({"videos": {"uri": "x"}, "activations": {"classes": "listed"}})
    assert "activations.classes to `label`" in gradient_note(listed, classes, clips)
    assert gradient_note(settings, {"lift": 50}, clips) == ""


def test_controls_are_those_of_the_concept_or_of_all() -> None:
    named = [{"name": "a", "kinds": ["spatiotemporal"]}, {"name": "b", "kinds": ["spatial"]}]
    settings = parse_config({"videos": {"uri": "x"}, "clips": {"concepts": named, "controls": ["frozen", "reversed"]}})
    assert concepts_of(settings) == [("a", "spatiotemporal"), ("a", "frozen"), ("a", "reversed"), ("b", "spatial")]


def test_classes_are_those_that_the_model_has() -> None:
    labels = ["arm_wrestling"] * 3 + ["juggling"] * 9 + ["rare"] + [None]
    rows = [{"video_id": str(i), "uri": "u", "label": label} for i, label in enumerate(labels)]
    videos = pa.Table.from_pylist(rows, schema=tables.VIDEOS)
    assert classes_of(config(), videos, ["Arm wrestling", "other"]) == {"arm wrestling": 3}
    assert classes_of(config(), videos, None) == {"arm wrestling": 3, "juggling": 9}


def test_every_cav_is_counted() -> None:
    settings = config()
    _, jobs = planned_jobs(settings, concepts_of(settings), 50)
    against_random = [j for j in jobs if j.against == "random" and not j.is_null]
    assert len(against_random) == 3 * 4
    assert sum(j.is_null for j in jobs) == 3 * 6  # 4 sets per kind, each pair once


def test_prices_need_the_rates_of_what_is_held() -> None:
    resources = {"extract": {"cpus": 4.0, "gpus": 0.5}}
    hours = stage_hours("activations", 7200, resources)
    assert hours == Hours(8.0, 1.0)
    assert stage_hours("report", 3600, resources) == Hours(1.0, 0.0)
    assert price(hours, {"gpu_hour": 2.0}) == 2.0
    assert price(hours, {"gpu_hour": 2.0, "cpu_hour": 0.1}) == pytest.approx(2.8)
    assert price(hours, {"cpu_hour": 0.1}) is None
    assert price(Hours(3.0, 0.0), {"cpu_hour": 0.1}) == pytest.approx(0.3)
    assert price(hours, {}) is None


def test_rates_are_read_over_those_of_the_config() -> None:
    settings = config(resources={"rates": {"gpu_hour": 1.0, "cpu_hour": 0.5}})
    found = read_rates(["gpu=2.5", "currency=USD"], settings)
    assert found == {"gpu_hour": 2.5, "cpu_hour": 0.5, "currency": "USD"}
    for wrong in ("gpu=lots", "tpu=1", "gpu=-1", "gpu"):
        with pytest.raises(ConfigError, match="write gpu=PRICE"):
            read_rates([wrong], settings)


def world(tmp_path: Path, videos: int) -> list[str]:
    return ["configs/quickstart.yaml", "--out", str(tmp_path / "run"), "--set", f"videos.world.videos={videos}"]


@pytest.mark.slow
def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["run", *world(tmp_path, 16), "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    stages = json.loads(result.output)["stages"]
    assert [s["name"] for s in stages][:2] == ["videos", "tracks"]
    assert "render 16 videos" in stages[0]["state"]
    assert not (tmp_path / "run").exists()


def test_the_passes_of_patch_effects_are_pool_times_reference_times_layers() -> None:
    classes = {"lift": 100, "drop": 3}
    settings = config(scores={"effect": "patch"}, activations={"layers": ["late", "head"]})
    clips = clip_range(settings, 400, classes, concepts_of(settings))
    pool = 3 * 10 + 3 * 50
    assert reference_clips(settings, classes) == 5
    found = response_passes(settings, clips, classes)
    assert (found.estimate, found.high) == (pool * 5 * 2, pool * 5 * 2)
    assert found.low == (3 * 4 + 3 * 50) * 5 * 2
    few = config(scores={"effect": "patch"}, activations={"layers": ["late"], "reference": 100})
    assert response_passes(few, clips, classes).high == pool * 8  # there are no more class examples


@pytest.mark.full
def test_the_passes_of_patch_effects_are_measured(tmp_path: Path) -> None:
    arguments = ["plan", *world(tmp_path, 40), "--sample", "8", "--json", "--patch",
                 "--set", "scores.permutations=1000", "--set", "cavs.random_sets=6"]  # fmt: skip
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
    assert set(found["worker_seconds"]) == {"tracks", "clips", "activations", "responses", "cavs", "scores"}
    seconds, passes = found["worker_seconds"]["responses"], found["passes"]
    assert passes["low"] <= passes["estimate"] <= passes["high"]
    assert passes["estimate"] > 1000
    assert 0 < seconds["low"] <= seconds["estimate"] <= seconds["high"]


@pytest.mark.slow
def test_a_sample_is_measured_and_the_rest_follows(tmp_path: Path) -> None:
    arguments = ["plan", *world(tmp_path, 40), "--sample", "8", "--rate", "cpu=0.1", "--json",
                 "--set", "scores.permutations=1000", "--set", "cavs.random_sets=6"]  # fmt: skip
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
    assert (found["videos"], found["sampled"]) == (40, 8)
    assert set(found["worker_seconds"]) == {"tracks", "clips", "activations", "cavs", "scores"}
    for seconds in found["worker_seconds"].values():
        assert 0 < seconds["low"] <= seconds["estimate"] <= seconds["high"]
    total = sum(s["estimate"] for s in found["worker_seconds"].values())
    assert found["cpu_hours"]["estimate"] == pytest.approx(total / 3600)
    assert found["price"]["estimate"] == pytest.approx(0.1 * total / 3600)
    assert found["dominates"] == max(found["worker_seconds"], key=lambda n: found["worker_seconds"][n]["estimate"])
    # The videos are rendered for the sample, and the dry run lists them.
    dry = CliRunner().invoke(cli.app, ["run", *world(tmp_path, 40), "--dry-run"])
    assert "tracks       to do" in dry.output
    assert not (tmp_path / "run" / "tracks").exists()
