"""The checks of `make bench-smoke` pass good figures and fail on bad ones."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def committed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def checked_worlds() -> list[dict[str, Any]]:
    return [run for run in committed("truth_n60")["runs"] if run["world"] in ("motion", "untrained")]


def test_truth_passes_what_was_committed() -> None:
    from worlds.scoring import complaints

    assert complaints(checked_worlds()) == []


@pytest.mark.slow
def test_truth_fails_on_turned_signs_on_lost_power_and_on_false_calls() -> None:
    from worlds.scoring import CHECKED, complaints

    def changed(**columns: float) -> list[dict[str, Any]]:
        runs = copy.deepcopy(checked_worlds())
        for run in runs:
            for name, factor in columns.items():
                values = run["answers"][CHECKED][name]
                moved = [[[min(1.0, v * factor) for v in row] for row in one] for one in values]
                run["answers"][CHECKED][name] = moved
        return runs

    assert any("area under ROC" in text for text in complaints(changed(z=-1.0)))
    assert any("power" in text for text in complaints(changed(q=1e4)))
    assert any("without an effect" in text for text in complaints(changed(q=1e-4)))


@pytest.mark.slow
def test_truth_counts_a_layers_own_move_with_the_sign_that_was_planted() -> None:
    from worlds.scoring import cells_of, moves_as_planted, summary

    run = copy.deepcopy(next(run for run in checked_worlds() if run["world"] == "motion"))
    last = "late"
    run["moves"][last]["motion"] = [{"mean": 1.0, "error": 0.1}, {"mean": -1.0, "error": 0.1}]  # left raises class 0
    planted = [c for c in cells_of(run) if c["layer"] == last and c["verdict"] != "none"]
    assert len(planted) == 4
    assert all(map(moves_as_planted, planted))
    assert summary(cells_of(run))["logits"]["auc_moved"] == 1.0
    for against in (
        [{"mean": -1.0, "error": 0.1}, {"mean": 1.0, "error": 0.1}],
        [{"mean": 0.2, "error": 0.1}, {"mean": -0.2, "error": 0.1}],
    ):
        run["moves"][last]["motion"] = against
        cells = [c for c in cells_of(run) if c["layer"] == last]
        assert not any(map(moves_as_planted, cells))
        assert summary(cells)["logits"]["auc_moved"] is None


def test_truth_fails_on_a_network_that_did_not_learn() -> None:
    from worlds.scoring import complaints

    runs = [run for run in checked_worlds() if run["world"] == "untrained"]
    found = complaints(
        [*runs, {"world": "motion", "seed": 0, "not_scored": "0.500 of held-out clips right, under 0.9"}]
    )
    assert any("held-out" in text for text in found)
    assert any("None, under" in text for text in found)


def figures(median: float) -> dict[str, Any]:
    return {"ratio": {"median": median}}


def test_a_ratio_is_held_against_the_committed_one() -> None:
    from smoke import fallen

    before = {"a": figures(2.0)}
    assert fallen({"a": figures(1.5)}, before) == []
    assert fallen({"a": figures(1.1), "b": figures(9.0)}, before) == ["a", "b"], "fell; was never measured"


def test_the_smoke_run_fails_where_ours_takes_twice_as_long() -> None:
    from smoke import checked

    before = committed("smoke")["ways"]
    for name, committed_figures in before.items():
        was = committed_figures["ratio"]["median"]
        assert checked({name: lambda was=was: figures(was)}, before) == []
        found = checked({name: lambda was=was: figures(was / 2)}, before)
        assert len(found) == 1
        assert name in found[0]


def test_the_smoke_run_forgives_one_noisy_measurement_and_not_three() -> None:
    from smoke import checked

    before = {"a": figures(2.0)}
    values = iter([0.9, 1.0, 1.9])
    assert checked({"a": lambda: figures(next(values))}, before) == []
    values = iter([0.9, 1.0, 1.1])
    assert checked({"a": lambda: figures(next(values))}, before) == [
        "a: 0.90, 1.00, 1.10 times, all under 0.7 of the committed 2.00"
    ]


def test_the_smoke_run_fails_where_a_ratio_was_never_measured() -> None:
    from smoke import checked

    assert "not in smoke.json" in checked({"new": lambda: figures(9.0)}, {})[0]


def test_a_way_that_became_slower_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that does its work twice raises a complaint. The clock is simulated, so other processes don't matter."""
    import environment
    import smoke

    clock = [0.0]
    monkeypatch.setattr(environment.time, "process_time", lambda: clock[0])

    def work() -> None:
        clock[0] += 1.0

    def twice() -> None:
        work()
        work()

    before = {"a": figures(1.0)}
    assert smoke.checked({"a": lambda: environment.ratios(work, work, 3)}, before) == []
    assert len(smoke.checked({"a": lambda: environment.ratios(work, twice, 3)}, before)) == 1


@pytest.mark.slow
def test_scaling_keeps_what_was_measured_after_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scaling

    def of_nodes(count: int, shards_a_node: int, seconds: float) -> dict[str, Any]:
        if count == 4:
            raise RuntimeError("the machine went away")
        calls.append(count)
        return {"nodes": count, "shards_per_second": 0.3 * count, "shards_per_second_steady": 0.3 * count}

    monkeypatch.setattr(scaling, "_of_nodes", of_nodes)
    file, calls = tmp_path / "scaling.json", []
    with pytest.raises(RuntimeError, match="went away"):
        scaling.main(["nodes", "--nodes", "1", "2", "4", "8", "--out", str(file)])
    assert [run["nodes"] for run in json.loads(file.read_text())["nodes"]["runs"]] == [1, 2]
    scaling.main(["nodes", "--nodes", "1", "2", "8", "--missing", "--out", str(file)])
    found = json.loads(file.read_text())["nodes"]
    assert [(run["nodes"], run["efficiency"]) for run in found["runs"]] == [(1, 1.0), (2, 1.0), (8, 1.0)]
    assert found["without_sleep"]["nodes"] == 8
    assert calls == [1, 2, 8, 8], "no step twice; the last without sleep"
    scaling.main(["nodes", "--nodes", "1", "--shards", "3", "--out", str(file)])
    assert len(json.loads(file.read_text())["nodes"]["runs"]) == 1, "other settings are not mixed with these"


@pytest.mark.slow
def test_throughput_goes_on_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import baselines
    import baselines_vectors
    import baselines_whole
    import throughput

    monkeypatch.setattr(throughput, "_FILE", tmp_path / "throughput.json")
    monkeypatch.setattr(throughput, "_PROFILE", tmp_path / "profile.txt")
    monkeypatch.setattr(baselines, "small_world", lambda videos: contextlib.nullcontext())
    calls: list[str] = []

    def ways(name: str) -> Any:
        return lambda *given: {name: (lambda: calls.append(name), lambda: sum(range(1000)))}

    def whole(world: Any) -> Any:
        raise RuntimeError("too late")

    for module, make in (
        (baselines, "tracking_ways"), (baselines, "extraction_ways"), (baselines_vectors, "cav_ways"),
        (baselines_vectors, "score_ways"), (baselines_vectors, "captum_ways"), (baselines_whole, "clip_ways"),
    ):  # fmt: skip
        monkeypatch.setattr(module, make, ways(make))
    monkeypatch.setattr(baselines_whole, "Whole", whole)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="too late"):
            throughput.main(["--repeats", "1", "--missing"])
        found = json.loads((tmp_path / "throughput.json").read_text())["ways"]
        assert len(found) == 6, "an error at the end loses nothing"
    assert len(calls) == 12, "each is warmed up and measured once, and not again"


def test_scaling_fails_where_nodes_are_lost() -> None:
    from scaling import complaints

    before = {"runs": [{"nodes": 1, "efficiency_steady": 1.0}, {"nodes": 2, "efficiency_steady": 0.98}]}
    assert complaints(before, before) == []
    now = copy.deepcopy(before)
    now["runs"][1]["efficiency_steady"] = 0.5
    assert len(complaints(now, before)) == 1
