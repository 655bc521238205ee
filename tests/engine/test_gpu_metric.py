"""The gauge of GPU memory, with a stand-in for torch's figures. test_observe.py checks that gauges reach the port."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from vtcav_ray.engine import observe
from vtcav_ray.store.commits import ShardOutput


class Recorder(dict[str, Any]):
    """A stand-in for Ray's metrics that keeps the last value of each gauge."""

    def __missing__(self, name: str) -> SimpleNamespace:
        def set_(value: float, tags: dict[str, str]) -> None:
            self.values[name] = (value, tags)

        return SimpleNamespace(set=set_, inc=lambda *_: None, observe=lambda *_: None)

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, tuple[float, dict[str, str]]] = {}


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(observe, "_metrics", lambda: recorder)
    return recorder


def done() -> None:
    rows = pa.table({"video_id": ["a"]})
    observe.shard_done("activations", "s", rows, ShardOutput({}, metrics={"batch_items": 3, "batch_slots": 4}), 1.0)


def with_torch(monkeypatch: pytest.MonkeyPatch, *, available: bool) -> None:
    cuda = SimpleNamespace(is_available=lambda: available, max_memory_allocated=lambda: 7 * 2**20)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]


def test_where_there_is_a_gpu_its_peak_is_reported_by_stage(metrics: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    with_torch(monkeypatch, available=True)
    done()
    assert metrics.values["gpu_memory"] == (7 * 2**20, {"stage": "activations"})
    assert metrics.values["occupancy"] == (0.75, {"stage": "activations"})


def test_without_one_or_without_torch_there_is_no_figure(metrics: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    with_torch(monkeypatch, available=False)
    done()
    monkeypatch.delitem(sys.modules, "torch")
    done()
    assert set(metrics.values) == {"occupancy"}
