"""The extrapolation of a measured sample: every figure of the plan, by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.helpers.tracked_things import videos_table
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.planning.counts import NOTHING, Range
from vtcav_ray.planning.estimate import Plan, estimate
from vtcav_ray.planning.looked import Shown, looked_at
from vtcav_ray.planning.sample import Sample, Timed

# Two shards that took the same time for each item, so the intervals of the rates have no width.
EVEN = Sample(
    videos=8,
    tracks=Timed([1.0, 1.0], [4, 4], bytes=800),  # 0.25 s and 100 bytes per video
    clips=Timed([2.0, 2.0], [10, 10], bytes=4000, rows=20),  # 0.2 s and 200 bytes
    activations=Timed([3.0, 3.0], [30, 30], bytes=6000, rows=60),  # 0.1 s and 100 bytes
)
CPUS = {"detect": {"cpus": 1, "gpus": 0}, "cut": {"cpus": 2, "gpus": 0}, "extract": {"cpus": 4, "gpus": 0}}


def config(**changes: Any) -> Config:
    clips = {
        "concepts": [{"name": "cup", "object": "cup", "kinds": ["spatial"]}], "per_class": 5, "min_per_class": 2,
        "per_concept": 10, "min_per_concept": 4, "random_pool": 50,
    }  # fmt: skip
    return parse_config(
        {
            "videos": {"uri": "x"},
            "clips": clips,
            "activations": {"layers": ["late"]},
            "cavs": {"random_sets": 4},
            "resources": CPUS,
            **changes,
        }
    )


def corpus(count: int) -> pa.Table:
    return videos_table({f"{i:05d}.mp4": ("lift", "drop")[i % 2] for i in range(count)})


def plan_of(settings: Config, sample: Sample = EVEN, *, videos: int = 40, rates: dict[str, Any] | None = None) -> Plan:
    return estimate(settings, corpus(videos), sample, None, rates or {})


def test_counts_are_those_that_the_config_allows() -> None:
    plan = plan_of(config())
    assert (plan.videos, plan.sampled) == (40, 8)
    assert plan.clips == Range(2 * 2 + 4 + 10, 2 * 5 + 10 + 40, 2 * 5 + 10 + 40)
    assert plan.gradients == Range(4 + 4, 10 + 5, 10 + 5)  # own, and at 5 reference clips for the other class
    assert plan.cavs == 4 + 6  # random sets, and their pairs
    assert plan.cells == 1 * 2 * (1 + 1)  # concept x classes x (layer and answer)
    assert plan.passes == NOTHING
    assert (plan.looked_at, plan.whole_hours, plan.whole_price) == (None, None, None)


def test_seconds_are_rates_times_counts() -> None:
    seconds = plan_of(config()).worker_seconds
    assert set(seconds) == {"tracks", "clips", "activations"}
    assert seconds["tracks"] == Range(10.0, 10.0, 10.0)
    assert (seconds["clips"].low, seconds["clips"].estimate) == pytest.approx((0.2 * 18, 0.2 * 60))
    assert seconds["activations"].estimate == pytest.approx(0.1 * (60 + 15))


def test_hours_and_price_are_of_the_held_cpus() -> None:
    plan = plan_of(config(), rates={"cpu_hour": 0.36, "currency": "USD"})
    hours = (1 * 10 + 2 * 12 + 4 * 7.5) / 3600
    assert plan.cpu_hours.estimate == pytest.approx(hours)
    assert plan.gpu_hours == NOTHING
    assert plan.price is not None
    assert plan.price.estimate == pytest.approx(0.36 * hours)
    assert plan.price.low < plan.price.estimate
    assert (plan.currency, plan.dominates) == ("USD", "activations")


def test_without_a_rate_the_hours_say_what_dominates() -> None:
    held = {**CPUS, "extract": {"cpus": 1, "gpus": 0}}
    plan = plan_of(config(resources=held))
    assert plan.price is None
    assert (plan.currency, plan.dominates) == ("EUR", "clips")


def test_bytes_are_those_of_the_samples_rows() -> None:
    found = plan_of(config()).bytes
    assert found.estimate == pytest.approx(40 * 100 + 60 * 200 + (60 + 15) * 100)
    assert found.low == pytest.approx(0.7 * (40 * 100 + 18 * 200 + (18 + 8) * 100))
    assert found.high == pytest.approx(1.4 * found.estimate)


def test_patch_effects_take_their_passes_and_bytes() -> None:
    sample = Sample(
        EVEN.videos, EVEN.tracks, EVEN.clips, EVEN.activations, responses=Timed([5.0, 5.0], [100, 100]), dims=()
    )
    plan = plan_of(config(scores={"effect": "patch"}), sample)
    assert plan.passes.estimate == (10 + 40) * 5 * 1  # pool x reference clips x layers
    assert plan.worker_seconds["responses"].estimate == pytest.approx(0.05 * 250)
    assert plan.bytes.estimate == pytest.approx(plan_of(config()).bytes.estimate + 250 * 4 * 2)  # for two classes


def test_the_statistics_are_timed_at_the_samples_dimension() -> None:
    settings = config(scores={"permutations": 100, "bootstrap": 100})
    with_vectors = Sample(EVEN.videos, EVEN.tracks, EVEN.clips, EVEN.activations, dims=(4,))
    plan = plan_of(settings, with_vectors)
    for stage in ("cavs", "scores"):
        seconds = plan.worker_seconds[stage]
        assert 0 < seconds.estimate < 60
        assert (seconds.low, seconds.high) == pytest.approx((seconds.estimate / 3, seconds.estimate * 3))
    assert plan.bytes.estimate == pytest.approx(plan_of(settings).bytes.estimate + 4 * 4 * plan.cavs)


def test_a_search_that_stops_early_is_compared_with_tracking_everything() -> None:
    sample = Sample(EVEN.videos, EVEN.tracks, EVEN.clips, EVEN.activations, shown=Shown(100, {"cup": 50}, 90))
    settings, videos = config(), 2_000
    plan = plan_of(settings, sample, videos=videos, rates={"cpu_hour": 1.0})
    expected = looked_at(settings, corpus(videos), sample.shown, None)
    assert expected is not None
    assert expected[1] < videos
    assert plan.looked_at == Range(*expected)
    assert plan.worker_seconds["tracks"].estimate == pytest.approx(0.25 * expected[1])
    assert plan.whole_hours is not None
    assert plan.price is not None
    assert plan.whole_price is not None
    saved = 0.25 * (videos - expected[1]) / 3600
    assert plan.whole_hours[0] - plan.cpu_hours.estimate == pytest.approx(saved)
    assert plan.whole_price - plan.price.estimate == pytest.approx(saved)


def test_a_single_shard_is_a_guess_and_the_samples_notes_are_kept() -> None:
    sample = Sample(4, EVEN.tracks, EVEN.clips, Timed([3.0], [30]), notes=("Something was not measured.",))
    notes = plan_of(config(), sample).notes
    assert notes[0] == "Something was not measured."
    assert notes[1].startswith("Where the sample has a single shard, the interval is a guess")
    assert not any("is a guess" in note for note in plan_of(config()).notes)


def test_the_checks_afterwards_are_named_with_their_time() -> None:
    (note,) = plan_of(config()).notes
    passes = 8 * 2 * (3 * 1 + 1 * 60 + 4 * (3 + 20))  # clips x classes x (erased, chance, curves)
    assert f"at most {passes:,} passes" in note
    assert "at most 4 min" in note  # 0.1 s each


def test_gpus_that_the_machine_lacks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    held = {**CPUS, "detect": {"cpus": 1, "gpus": 0.5}, "extract": {"cpus": 1, "gpus": 1}}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "resources.detect and resources.extract ask for GPUs" in plan_of(config(resources=held)).notes[-1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    plan = plan_of(config(resources=held))
    assert not any("ask for GPUs" in note for note in plan.notes)
    assert plan.gpu_hours.estimate == pytest.approx((0.5 * 10 + 1 * 7.5) / 3600)
