"""`track_changes.py` finds tracks again, and notices those that are lost, invented or moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def track(first: int = 0, last: int = 20, x: float = 0.0, label: str = "cup", video: str = "v") -> dict[str, Any]:
    frames = list(range(first, last))
    return {"video_id": video, "label": label, "frames": frames, "boxes": [[x, 0, x + 10, 10] for _ in frames]}


def test_equal_tracks_agree() -> None:
    from track_changes import agreement

    tracks = [track(), track(x=50), track(label="ball")]
    expected = {"tracks": 3, "recall": 1.0, "precision": 1.0, "mean_iou": 1.0, "boxes_at_iou_0.9": 1.0}
    assert agreement(tracks, tracks, 16) == expected


def test_what_is_lost_moved_or_invented_counts() -> None:
    from track_changes import agreement

    def one(*changed: dict[str, Any]) -> dict[str, float]:
        return agreement([track()], list(changed), 16)

    assert one()["recall"] == 0.0
    assert one(track(video="w"))["recall"] == one(track(label="ball"))["recall"] == 0.0
    assert one(track(x=2))["mean_iou"] == pytest.approx(8 / 12, abs=1e-4)
    assert one(track(x=2))["boxes_at_iou_0.9"] == 0.0
    assert one(track(x=6))["recall"] == 0.0
    assert one(track(last=17))["recall"] == 1.0
    assert one(track(last=15))["recall"] == 0.0
    assert one(track(last=10), track(first=10))["recall"] == 0.0, "a track that breaks in two"
    assert one(track(), track(x=50))["precision"] == 0.5
    assert one(track(), track(last=5, x=50))["precision"] == 1.0, "too short for a clip"
