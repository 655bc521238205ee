"""`overheads.py` measures gaps and shares from the spans of shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SPANS = {"tracks": [(2.0, 4.0), (3.0, 6.0)], "clips": [(8.0, 9.0)]}


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_figures_of_two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    import overheads

    monkeypatch.setattr(overheads, "_cpus", lambda: 2)
    found = overheads.figures(SPANS, (9.25, 9.75), 10.0)
    assert (found["first_shard_began"], found["first_shard"]) == (2.0, 4.0)
    assert found["gaps"] == {"tracks to clips": 2.0}
    assert found["after_the_last_shard"] == 1.0
    assert found["work_share"] == 0.5  # 2 to 6 and 8 to 9 of ten seconds
    assert found["share_with_report"] == 0.55
    assert found["busy_share"] == 0.3  # 2 + 3 + 1 seconds of two processes
    assert found["stage_seconds"] == {"tracks": 4.0, "clips": 1.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"shards": {"tracks": 1}}, "no shards of scores"),
        ({"first_shard": 11.0}, "not inside the run"),
        ({"gaps": {"tracks to clips": -1.0}}, "gaps"),
        ({"work_share": 1.2}, "work_share"),
        ({"stages_share": 0.3}, "stages_share"),
    ],
)
def test_figures_that_cannot_be_right_are_reported(change: dict[str, Any], words: str | None) -> None:
    import overheads

    stages = ("tracks", "clips", "activations", "cavs", "scores")
    spans = {stage: [(2.0 * place + 1, 2.0 * place + 2)] for place, stage in enumerate(stages)}
    found = {**overheads.figures(spans, (10.1, 10.4), 10.5), "seconds": 10.5, "stages_share": 0.9, **change}
    complaints = overheads.complaints(found)
    assert bool(complaints) == (words is not None)
    assert words is None or any(words in text for text in complaints)
