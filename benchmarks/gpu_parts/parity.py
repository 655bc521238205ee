"""Comparison of two runs of one corpus, on a GPU and on the CPU, table by table, each with its tolerance.

A GPU computes products and sums in another order, and cuDNN's float32 convolutions in TF32, which has 10 bits of
mantissa (relative 5e-4 per factor). That is torch's default, and the detector consists of convolutions. So numbers
differ; the tolerances limit by how much.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpu_parts.part import Part, Target
from vtcav_ray.runs.run import Run
from vtcav_ray.store.vectors import vectors_of

# Boxes from TF32 lie within a fraction of a pixel, an IoU of 0.98 for a small object. A box at the confidence limit
# may exist on one side only, and then also changes the tracker's output.
TRACKS_MATCHED = Target(0.97)
TRACKS_IOU = Target(0.97)
# The patch embedding's TF32 (5e-4 per factor, averaged over 96 factors), then float32 sums through 12 blocks.
ACTIVATIONS = Target(5e-3, at_least=False)
# Backward runs through the same blocks, and a gradient is smaller than its summands, so it loses more digits.
GRADIENTS = Target(2e-2, at_least=False)
# A CAV moves less than its activations, because the penalty keeps it from following single ones.
CAV_COSINE = Target(0.999)
SCORE = Target(0.02, at_least=False)  # a share of signs: one video of 25, in a few of 50 CAVs, may lie on the plane
EFFECT = Target(0.05, at_least=False)  # null standard deviations: a twentieth decides nothing
# Both draw the same permutations, so p differs only as the statistic does. Four standard errors of a permutation test
# are the most that counts as noise: 4 sqrt(p (1 - p) / B).
P_NOISE = Target(4.0, at_least=False)


def compare_tracks(part: Part, ours: Run, other: Run) -> None:
    """Return the share of boxes that both have (IoU at least a half), and their mean IoU."""
    left, right = (boxes_of(run) for run in (ours, other))
    matched, overlaps, total = 0, [], 0
    for frame in left.keys() | right.keys():
        a, b = left.get(frame, []), right.get(frame, [])
        total += max(len(a), len(b))
        for value in best_pairs(a, b):
            matched += 1
            overlaps.append(value)
    share, mean = matched / max(total, 1), float(np.mean(overlaps)) if overlaps else float("nan")
    part.note("parity, tracks", {"boxes": total, "matched": share, "mean IoU": mean})
    part.row("parity, tracks: share of boxes that both have", share, "", TRACKS_MATCHED)
    part.row("parity, tracks: mean IoU of these", mean, "", TRACKS_IOU)


def boxes_of(run: Run) -> dict[tuple[str, int], list[tuple[str, np.ndarray]]]:
    """Return (video, frame) -> labels and boxes."""
    found: dict[tuple[str, int], list[tuple[str, np.ndarray]]] = {}
    for row in run.table("tracks", columns=["video_id", "label", "frames", "boxes"]).to_pylist():
        for frame, box in zip(row["frames"], row["boxes"], strict=True):
            found.setdefault((row["video_id"], frame), []).append((row["label"], np.asarray(box)))
    return found


def best_pairs(a: list[tuple[str, np.ndarray]], b: list[tuple[str, np.ndarray]]) -> Iterator[float]:
    """Return IoUs of pairs with one label, the best first, each box once."""
    every = [
        (iou(one, other), i, j)
        for (i, (label, one)), (j, (same, other)) in itertools.product(enumerate(a), enumerate(b))
        if label == same
    ]
    used_a: set[int] = set()
    used_b: set[int] = set()
    for value, i, j in sorted(every, reverse=True):
        if value >= 0.5 and i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            yield value


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the IoU of two boxes xyxy."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = float(np.prod(np.clip(high - low, 0, None)))
    return common / (float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common)


def compare_vectors(part: Part, ours: Run, other: Run) -> None:
    """Compare activations, gradients and CAVs, row by row, layer by layer."""
    keys = {"activations": ("clip_id",), "gradients": ("clip_id", "class"), "cavs": ("concept", "against", "negatives")}
    for name, key in keys.items():
        found = {}
        for layer in ours.config.activations.layers:
            a, b = (by_key(run, name, key, layer) for run in (ours, other))
            assert a, f"{name} of {layer}: no rows"
            assert a.keys() == b.keys(), f"{name} of {layer}: {len(a)} rows and {len(b)}, of other keys"
            found[layer] = figures(np.stack([a[k] for k in a]), np.stack([b[k] for k in a]))
        part.note(f"parity, {name}", found)
        if name == "cavs":
            least = min(each["least cosine"] for each in found.values())
            part.row("parity, cavs: least cosine", least, "", CAV_COSINE)
        else:
            most = max(each["largest relative difference"] for each in found.values())
            target = ACTIVATIONS if name == "activations" else GRADIENTS
            part.row(f"parity, {name}: largest relative difference", most, "", target)


def by_key(run: Run, name: str, key: tuple[str, ...], layer: str) -> dict[tuple[str, ...], np.ndarray]:
    """Return key -> vector, without the NaN rows of CAVs that could not be trained."""
    table = run.table(name, columns=[*key, "vector"], layer=layer)
    rows = zip(*(table[column].to_pylist() for column in key), strict=True)
    return {k: v for k, v in zip(rows, vectors_of(table), strict=True) if np.isfinite(v).all()}


def figures(a_NC: np.ndarray, b_NC: np.ndarray) -> dict[str, float]:
    """Return, for rows a and b, lengths of their differences relative to the length of b, and cosines."""
    a, b = a_NC.astype(np.float64), b_NC.astype(np.float64)
    length_a, length_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    relative = np.linalg.norm(a - b, axis=1) / np.maximum(length_b, 1e-30)
    cosine = (a * b).sum(1) / np.maximum(length_a * length_b, 1e-30)
    return {
        "rows": len(a),
        "median relative difference": float(np.median(relative)),
        "largest relative difference": float(relative.max()),
        "least cosine": float(cosine.min()),
    }


def compare_scores(part: Part, ours: Run, other: Run) -> None:
    """Compare scores, effects and p of every cell."""
    names = ("class", "layer", "concept", "against")
    columns = ["tcav_score", "effect", "null_sd", "p"]
    a, b = (
        {
            tuple(row[n] for n in names): row
            for row in run.table("scores", columns=[*names, *columns, "significant"]).to_pylist()
        }
        for run in (ours, other)
    )
    assert a, "no cells"
    assert a.keys() == b.keys(), f"{len(a)} cells and {len(b)}, of other keys"
    x, y = (np.array([[rows[k][c] for c in columns] for k in a], np.float64) for rows in (a, b))
    permutations = ours.config.scores.permutations
    score = np.abs(x[:, 0] - y[:, 0])
    effect = np.abs(x[:, 1] - y[:, 1]) / y[:, 2]
    noise = np.sqrt(np.maximum(y[:, 3] * (1 - y[:, 3]), 1 / permutations) / permutations)
    p = np.abs(x[:, 3] - y[:, 3]) / noise
    found: dict[str, Any] = {
        "cells": len(a),
        "largest difference of a score": float(np.nanmax(score)),
        "largest difference of an effect, null standard deviations": float(np.nanmax(effect)),
        "largest difference of p, its standard errors": float(np.nanmax(p)),
        "significant on both or on neither": float(np.mean([a[k]["significant"] == b[k]["significant"] for k in a])),
    }
    part.note("parity, scores", found)
    part.row("parity, scores: largest difference of a score", found["largest difference of a score"], "", SCORE)
    part.row("parity, scores: largest difference of an effect, null SDs", float(np.nanmax(effect)), "", EFFECT)
    part.row("parity, scores: largest difference of p, standard errors", float(np.nanmax(p)), "", P_NOISE)
