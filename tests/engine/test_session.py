"""A local Ray that is slow to start is started again; if Ray can't start, the error says so."""

from __future__ import annotations

import sys
import threading

import pytest
import ray

from vtcav_ray.config import ResourcesConfig
from vtcav_ray.engine import session
from vtcav_ray.errors import EnvironmentFault


class Starter:
    """A stand-in for `ray.init` that raises the given errors, one per call, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, **options: object) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


SLOW = "The current node timed out during startup."


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


def test_a_slow_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Starter(Exception(SLOW), Exception(SLOW))
    monkeypatch.setattr(ray, "init", start)
    with session.ray_session(ResourcesConfig()):
        assert start.calls == 3


def test_in_the_end_it_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Starter(*[Exception(SLOW)] * session.STARTS_TRIED)
    monkeypatch.setattr(ray, "init", start)
    with (
        pytest.raises(EnvironmentFault, match=r"timed out during startup.*run again"),
        session.ray_session(ResourcesConfig()),
    ):
        pass
    assert start.calls == session.STARTS_TRIED


def test_metrics_without_their_packages_are_refused_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this check Ray would start, and no process would listen on the port."""
    start = Starter()
    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setitem(sys.modules, "ray.dashboard.optional_deps", None)
    with (
        pytest.raises(EnvironmentFault, match=r"`resources\.metrics_port`.*pip install 'vtcav-ray\[cluster\]'"),
        session.ray_session(ResourcesConfig(metrics_port=9090)),
    ):
        pass
    assert start.calls == 0
    with session.ray_session(ResourcesConfig()):
        assert start.calls == 1


def test_a_cluster_that_does_not_answer_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Starter(ConnectionError("refused"))
    monkeypatch.setattr(ray, "init", start)
    resources = ResourcesConfig(address="10.0.0.1:6379")
    with pytest.raises(EnvironmentFault, match=r"10\.0\.0\.1.*RAY_ADDRESS"), session.ray_session(resources):
        pass
    assert start.calls == 1


def test_a_slip_of_ours_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", Starter(TypeError("unexpected keyword")))
    with pytest.raises(TypeError), session.ray_session(ResourcesConfig()):
        pass


def test_threads_of_ray_data_end_before_ray_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that calls Ray after `ray.shutdown()` would end the process without a message."""
    alive: list[bool] = []
    monkeypatch.setattr(ray, "init", Starter())
    end = threading.Event()
    with session.ray_session(ResourcesConfig()):
        thread = threading.Thread(target=end.wait, name="iter_threaded", daemon=True)
        thread.start()
        monkeypatch.setattr(ray, "shutdown", lambda: alive.append(thread.is_alive()))
        threading.Timer(0.3, end.set).start()
    assert alive == [False]


def test_a_thread_of_ray_data_that_never_ends_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", Starter())
    monkeypatch.setattr(session, "DATA_THREADS_SECONDS", 0.2)
    end = threading.Event()
    with session.ray_session(ResourcesConfig()):
        threading.Thread(target=end.wait, name="Prefetcher", daemon=True).start()
    end.set()
