"""`tracking_parts.py` times what it names, and the whole contains its parts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_part_gets_its_own_processor_time() -> None:
    from tracking_parts import Stopwatch

    def work(seconds: float) -> str:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return "done"

    watch = Stopwatch()
    assert watch.timing("short", work)(0.001) == watch.timing("long", work)(0.02) == "done"
    assert 0.001 <= watch.seconds["short"] < watch.seconds["long"]


@pytest.mark.slow
def test_every_part_is_seen(tmp_path: Path) -> None:
    import tracking_parts

    from vtcav_ray.tracks.backends import TorchBackend
    from vtcav_ray.world import write_world

    write_world(str(tmp_path), 4, seed=0)
    run = TorchBackend.__call__
    options = ["--videos", str(tmp_path / "videos"), "--image-size", "128", "--batches", "2", "8", "--repeats", "1"]
    report = tracking_parts.main(options)
    assert TorchBackend.__call__ is run  # the patches are gone
    assert report["failures"] == 0
    assert set(report["parts_ms_per_frame"]) == {*tracking_parts.PARTS, "network"}
    assert all(spent > 0 for spent in report["parts_ms_per_frame"].values())
    assert max(report["parts_ms_per_frame"].values()) < report["ms_per_frame"]
    assert report["share_of_bare_network"] > 0
    assert set(report["bare_network_ms_per_frame"]) == {2, 8}
