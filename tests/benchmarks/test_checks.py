"""The checks of `make bench-smoke` pass good figures, and do fail on bad ones."""

from __future__ import annotations

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
    return [run for run in committed("truth")["runs"] if run["world"] in ("motion", "untrained")]


def test_truth_passes_what_was_committed() -> None:
    from worlds.scoring import complaints

    assert complaints(checked_worlds()) == []


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
    assert any("power" in text for text in complaints(changed(p=1e4)))
    assert any("without an effect" in text for text in complaints(changed(p=1e-4)))


def test_truth_fails_on_a_network_that_did_not_learn() -> None:
    from worlds.scoring import complaints

    runs = [run for run in checked_worlds() if run["world"] == "untrained"]
    found = complaints(
        [*runs, {"world": "motion", "seed": 0, "not_scored": "0.500 of held-out clips right, under 0.9"}]
    )
    assert any("held-out" in text for text in found)
    assert any("None, under" in text for text in found)


def test_throughput_fails_where_a_ratio_fell_or_was_never_measured() -> None:
    from throughput import fallen

    before = {"a": {"ratio": {"median": 2.0}}}
    assert fallen({"a": {"ratio": {"median": 1.1}}}, before) == []
    assert len(fallen({"a": {"ratio": {"median": 0.9}}, "b": {"ratio": {"median": 9.0}}}, before)) == 2


def test_scaling_fails_where_nodes_are_lost() -> None:
    from scaling import complaints

    before = {"runs": [{"nodes": 1, "efficiency_steady": 1.0}, {"nodes": 2, "efficiency_steady": 0.98}]}
    assert complaints(before, before) == []
    now = copy.deepcopy(before)
    now["runs"][1]["efficiency_steady"] = 0.5
    assert len(complaints(now, before)) == 1
