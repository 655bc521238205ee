from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from vtcav_ray.activations.prefetch import BATCHES_AHEAD, batches_ahead
from vtcav_ray.errors import InputError

CPU = torch.device("cpu")


def pixels(i: int) -> np.ndarray:
    return np.full((1, 2, 4, 4, 3), i, np.uint8)


def test_batches_come_in_order_whatever_finishes_first() -> None:
    def load(i: int) -> np.ndarray:
        time.sleep(0.02 if i % 3 == 0 else 0.0)
        return pixels(i)

    groups = [[0, 1, 2], [5], [4, 3]]
    found = list(batches_ahead(load, groups, CPU, threads=3))
    assert [batch.members for batch in found] == groups
    for batch in found:
        assert batch.pixels is not None
        assert batch.pixels[:, 0, 0, 0, 0, 0].tolist() == batch.members


def test_the_next_batches_are_read_while_the_model_has_one_and_no_more_than_those() -> None:
    read: set[int] = set()
    reached = threading.Event()

    def load(i: int) -> np.ndarray:
        read.add(i)
        if len(read) > BATCHES_AHEAD:
            reached.set()
        return pixels(i)

    batches = batches_ahead(load, [[i] for i in range(20)], CPU, threads=2)
    next(batches)
    assert reached.wait(5)  # the model would run here
    time.sleep(0.05)
    assert len(read) <= BATCHES_AHEAD + 2
    batches.close()
    time.sleep(0.05)
    assert len(read) <= BATCHES_AHEAD + 2


def test_a_clip_that_cannot_be_read_is_left_out_and_other_errors_rise() -> None:
    def load(i: int) -> np.ndarray:
        if i == 1:
            raise InputError("decode", "damaged")
        if i == 9:
            raise ConnectionError("the network went away")
        return pixels(i)

    first, second = batches_ahead(load, [[0, 1, 2], [1]], CPU, threads=2)
    assert first.members == [0, 2]
    assert first.errors[1].message == "damaged"
    assert second.pixels is None
    assert list(second.errors) == [1]
    with pytest.raises(ConnectionError):
        list(batches_ahead(load, [[0], [9], [2]], CPU, threads=2))


def test_nothing_to_do() -> None:
    assert list(batches_ahead(pixels, [], CPU, threads=1)) == []
