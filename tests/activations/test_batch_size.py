"""The trial that finds a batch size, on a simulated machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtcav_ray.activations import Extractor
from vtcav_ray.activations.batch_size import Memory, batch_size_by_trial, memory_of
from vtcav_ray.models import Recogniser


class Machine:
    """A machine that takes `start + each · n` seconds and `base + view · n` bytes for n views; `hard` is its memory."""

    def __init__(self, start: float, each: float, *, base: int = 0, view: int = 1, limit: int = 10**9, hard: int = 0):
        self.start, self.each, self.base, self.view = start, each, base, view
        self.memory = Memory(limit, lambda: self.peak, self.reset)
        self.hard = hard or 10**12
        self.peak, self.now, self.sizes = 0, 0.0, list[int]()

    def reset(self) -> None:
        self.peak = 0

    def call(self, n: int) -> None:
        self.sizes.append(n)
        need = self.base + self.view * n
        if need > self.hard:
            raise torch.OutOfMemoryError("too much")
        self.peak = max(self.peak, need)
        self.now += self.start + self.each * n

    def found(self, largest: int = 64) -> int:
        return batch_size_by_trial(self.call, self.memory, largest=largest, clock=lambda: self.now)


def test_it_doubles_as_long_as_it_pays() -> None:
    # Views per second at 1, 2, 4, 8, 16, 32: 0.5, 0.67, 0.8, 0.89, 0.94, 0.97; the last doublings give 6 % and 3 %.
    assert Machine(1.0, 1.0).found() == 16
    assert Machine(0.0, 1.0).found() == 1
    assert Machine(1000.0, 1.0).found() == 64
    assert Machine(1000.0, 1.0).found(largest=40) == 32


def test_it_stays_within_memory_without_ever_asking_for_more() -> None:
    machine = Machine(1000.0, 1.0, base=100, view=10, limit=300)
    assert machine.found() == 16  # 260; 32 would take 420
    assert max(machine.sizes) == 16


def test_a_device_that_refuses_ends_the_trial() -> None:
    assert Machine(1000.0, 1.0, view=10, hard=85).found() == 8
    with pytest.raises(torch.OutOfMemoryError):
        Machine(1000.0, 1.0, view=10, hard=5).found()


def test_memory_of_a_cpu_is_this_process_s_part() -> None:
    one = memory_of(torch.device("cpu"), memory_gb=1.0)
    two = memory_of(torch.device("cpu"), memory_gb=2.0)
    assert two.limit - one.limit == pytest.approx(0.5e9, abs=0.1e9)
    assert one.peak() > 10e6


@pytest.mark.slow
def test_an_extractor_uses_what_it_found(swin: Recogniser, clips: list[np.ndarray]) -> None:
    extractor = Extractor(swin, ["late"], batch_size=3)
    before = extractor.extract(clips[:3], [[0], None, [1]])
    # This process's own peak covers its whole life, and earlier tests may have used more. So simulate it.
    tight = Memory(limit=10, peak=lambda: 11, reset=lambda: None)
    assert extractor.choose_batch_size(clips[0], gradients=True, memory=tight) == 1
    assert extractor.batch_size == 1
    found = extractor.extract(clips[:3], [[0], None, [1]])
    np.testing.assert_allclose(found.gradients["late"], before.gradients["late"], atol=1e-6)
