"""Objects that stay are left out of garbage collection during a scan, and only then."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from vtcav_ray.clips.settled import settled, uncollected


class Node:
    """An object that refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
def test_only_objects_from_before_are_left_out() -> None:
    node = Node()
    before = weakref.ref(node)
    with settled():
        del node
        inside = weakref.ref(Node())
        gc.collect()
        assert inside() is None
        assert before() is not None
    gc.collect()
    assert before() is None


def test_an_error_ends_it_too() -> None:
    def scan() -> None:
        with settled():
            assert gc.get_freeze_count()
            raise KeyError

    with pytest.raises(KeyError):
        scan()
    assert not gc.get_freeze_count()


@pytest.mark.slow
def test_what_the_program_froze_stays_frozen() -> None:
    gc.freeze()
    with settled():
        pass
    assert gc.get_freeze_count()


def test_nothing_is_collected_inside_and_everything_after_it() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), uncollected():
        raise KeyError
    assert gc.isenabled()


def test_a_program_without_collection_keeps_it_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
