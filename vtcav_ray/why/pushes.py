"""How present a concept is in a clip, and how far it pushes a class's logit there.

A concept's direction at a layer is that of its effect (`vtcav_ray.tcav.effect`), in P-space:

    v = mean of the concept's source videos - mean of the source videos of its random clips

PRESENCE of the concept in a clip with activation z: the share of its random clips (those of its kind) whose
projection u·v is below z·v. Equal projections count half. 0.5 is a typical random clip, 1 more than all of them.

PUSH of the concept on class k at the clip: to first order, the change of the logit h_k if the clip's whole activation
moved from "random" to "concept",

    push_k = gain · (P∇h_k)·v,

with the gradient at this clip (Kim et al., "Interpretability Beyond Feature Attribution", 2018, equation 1, with v for
the CAV) and the gain of the layer at the clip (`vtcav_ray.activations.projections.Projection.gains`). The mean of the
push over a class's reference clips is the concept effect times the gain.

The INTERVAL is over the R runs of the concept's CAVs: each run compares the concept's clips with its own random set,
and gives its own v. It holds the central 95 % of the R pushes. It says how much the push depends on which random clips
the concept is compared with, and nothing about other clips of the concept. A concept in pairs is always compared with
the same clips, so it has no interval.

Presence times push orders the concepts of a clip: a concept that pushes but is not there explains nothing.

Legend: N clips of the pool, R runs, d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.arrays import video_means

SHARE = 0.95  # of the runs inside the interval
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ConceptClips:
    """The clips that define one concept's direction, as rows of the pool.

    Attributes:
        concept: `<name>/<kind>`.
        own: its clips.
        random: the random clips of its kind.
        runs: R pairs of rows: the concept's clips and the random set of each run; none for a concept in pairs.
        paired: `random[i]` is the partner of `own[i]`.
    """

    concept: str
    own: Rows
    random: Rows
    runs: Sequence[tuple[Rows, Rows]]
    paired: bool = False


@dataclass(frozen=True)
class Push:
    """A concept's push on one class at one clip, in units of the target (logits), with its interval over the runs."""

    push: float
    ci_low: float
    ci_high: float


def direction(vectors: ArrayLike, videos: ArrayLike, clips: ConceptClips) -> NDArray[np.float64]:
    """Return v, [d].

    Args:
        vectors: the pool, [N, d].
        videos: source video of each of its rows; a video counts once.
        clips: the concept's.
    """
    pool, names = np.asarray(vectors), np.asarray(videos)
    own, other = (video_means(pool[rows], names[rows]).mean(axis=0) for rows in (clips.own, clips.random))
    return np.asarray(own - other)


def presence(value: ArrayLike, random: ArrayLike) -> NDArray[np.float64]:
    """Return the share of random clips below each value, in [0, 1]. Equal ones count half.

    Args:
        value: projections on v of the clips to rate, any shape.
        random: projections of the random clips, [M].

    Raises:
        ValueError: there are no random clips, or a number is not finite.
    """
    values, others = np.asarray(value, np.float64), np.sort(np.asarray(random, np.float64).ravel())
    if not len(others):
        raise ValueError("random is empty: there is nothing to compare the clip with")
    if not (np.isfinite(values).all() and np.isfinite(others).all()):
        raise ValueError("value and random must be finite")
    below, up_to = (np.searchsorted(others, values, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / 2 / len(others))


def push(projections: ArrayLike, videos: ArrayLike, clips: ConceptClips, gain: float) -> Push:
    """Compute one push from the pool's projections on the clip's gradient.

    Args:
        projections: (P∇h_k)·z of every row z of the pool, [N].
        videos: source video of each row.
        clips: the concept's. Without runs, the interval is NaN.
        gain: of the layer at the clip.
    """
    values, names = np.asarray(projections, np.float64)[:, None], np.asarray(videos)

    def difference(own: Rows, other: Rows) -> float:
        sides = (video_means(values[rows], names[rows]).mean() for rows in (own, other))
        return gain * float(next(sides) - next(sides))

    low, high = interval([difference(*rows) for rows in clips.runs])
    return Push(difference(clips.own, clips.random), float(low), float(high))


def interval(runs: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the interval over the runs, [...] each; NaN without runs.

    Args:
        runs: the pushes of the runs, [..., R].
    """
    values = np.asarray(runs, np.float64)
    if not values.shape[-1]:
        none = np.full(values.shape[:-1], np.nan)
        return none, none
    tail = (1 - SHARE) / 2
    low, high = np.quantile(values, (tail, 1 - tail), axis=-1)
    return low, high
