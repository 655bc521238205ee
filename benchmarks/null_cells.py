"""Cells with known truth for `calibration.py`: simulated vectors, or stored activations of random clips.

Legend: C cells, R random sets, n clips of a set, V class videos, d numbers of an activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rate(hits: NDArray[Any]) -> dict[str, float | int]:
    """Return the share of hits with its 95 % interval (Clopper & Pearson)."""
    count, total = int(hits.sum()), len(hits)
    between = scipy.stats.binomtest(count, total).proportion_ci(0.95)
    return {"rate": count / total, "low": float(between.low), "high": float(between.high), "cells": total}


@dataclass(frozen=True)
class Cell:
    """One cell's data: `gradients` [V, d]; the concept's and the sets' activations, each set [videos, clips, d]."""

    gradients: Array
    concept: Array
    sets: list[Array]


@dataclass(frozen=True)
class World:
    """Random vectors with the structure of activations.

    Attributes:
        dim: d.
        clips: clips per source video, which share a part of their variance.
        collinear: expected cosine of two class videos' gradients.
        decay: the covariance's eigenvalues fall as rank^-decay.
    """

    dim: int = 32
    clips: int = 1
    collinear: float = 0.8
    decay: float = 1.0
    shared: float = 0.5  # share of a clip's variance that belongs to its video

    @property
    def spread(self) -> Array:
        """Return the standard deviation of an activation along each axis, [d]."""
        values = np.arange(1, self.dim + 1) ** (-self.decay / 2)
        return np.asarray(values * np.sqrt(self.dim / np.square(values).sum()))

    def activations(self, rng: np.random.Generator, videos: int) -> Array:
        """Draw clips of `videos` new source videos, [videos, clips, d], with heavy-tailed, skewed coordinates."""
        own = _skewed(rng, (videos, 1, self.dim)) * np.sqrt(self.shared)
        each = _skewed(rng, (videos, self.clips, self.dim)) * np.sqrt(1 - self.shared)
        return np.asarray((own + each) * self.spread + 2.0)

    def direction(self, rng: np.random.Generator) -> Array:
        """Draw the population's mean gradient of a class, [d]."""
        return rng.normal(size=self.dim) / np.sqrt(self.dim)

    def gradients(self, rng: np.random.Generator, mean: Array, videos: int) -> Array:
        """Draw gradients of new class videos, [videos, d], with the expected cosine `collinear`."""
        noise = rng.normal(size=(videos, self.dim)) * np.linalg.norm(mean) / np.sqrt(self.dim)
        return np.asarray(mean + noise * np.sqrt(1 / self.collinear - 1))

    def effect_sd(self, mean: Array, n: int) -> float:
        """Return the standard deviation of the concept effect under the null, for n videos per side."""
        variance = self.shared + (1 - self.shared) / self.clips
        return float(np.sqrt(2 / n * variance * np.square(mean * self.spread).sum()))


def _skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw numbers of unit variance, mean 0 and skewness 1: half that of an exponential, as after a GELU."""
    return np.asarray(rng.gamma(4.0, 0.5, size=shape) - 2.0)


Draw = Callable[[np.random.Generator, int], Cell]  # (rng, sets) -> a null cell


def simulated(world: World, n: int, videos: int, z: float = 0.0) -> Draw:
    """Draw cells of `n` videos per set, the concept shifted by `z` null SDs of the effect along the mean gradient."""

    def draw(rng: np.random.Generator, sets: int) -> Cell:
        mean = world.direction(rng)
        gradients = world.gradients(rng, mean, videos)
        # The shift follows the covariance, like that of a real concept, instead of the bare gradient.
        along = mean * world.spread**2
        shift = z * world.effect_sd(mean, n) * along / (along @ mean)
        concept = world.activations(rng, n) + shift
        return Cell(gradients, concept, [world.activations(rng, n) for _ in range(sets)])

    return draw


def given(path: Path, n: int) -> Draw:
    """Draw cells from stored activations of random clips. Every draw redistributes the videos."""
    stored = np.load(path, allow_pickle=False)
    activations, groups = stored["activations"].astype(np.float64), stored["groups"]
    gradients, classes = stored["gradients"].astype(np.float64), stored["gradient_classes"]
    videos = np.unique(groups)
    means = np.stack([activations[groups == video].mean(axis=0) for video in videos])
    names = np.unique(classes)

    def draw(rng: np.random.Generator, sets: int) -> Cell:
        if (sets + 1) * n > len(videos):
            raise ValueError(f"{sets + 1} sets of {n} need {(sets + 1) * n} source videos, and there are {len(videos)}")
        dealt = rng.permutation(len(videos))[: (sets + 1) * n].reshape(sets + 1, n)
        own = gradients[classes == rng.choice(names)]
        return Cell(own, means[dealt[0]][:, None], [means[one][:, None] for one in dealt[1:]])

    return draw
