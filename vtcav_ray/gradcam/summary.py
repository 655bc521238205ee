"""From clips to classes: means with bootstrap intervals over source videos, and mean maps aligned to the tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from vtcav_ray import tables
from vtcav_ray.gradcam.measures import ALIGNED_SIDE
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.tables import AGGREGATE
from vtcav_ray.tcav.bootstrap import expanded_interval, weights

ALL = "all"
RESAMPLES = 2000
CONFIDENCE = 0.95
_STREAM = 31  # random stream of the resamples: figures with the same number of videos share one draw
_MAX_R = 1 - 1e-12
CORRELATIONS = ("direction", "direction_predicted", "shuffled_weights_similarity", "track_agreement")
MEASURES = tuple(
    field.name for field in tables.GRADCAM if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
)


def mean_interval(values_V: np.ndarray, seed: int = 0, *, correlation: bool = False) -> tuple[float, float, float]:
    """Return the mean over source videos and both ends of its 95 % interval. A single video gives NaN ends.

    Args:
        values_V: one figure per source video.
        seed: of the resamples.
        correlation: the figures are correlations. The interval is taken on Fisher's scale, artanh(r), so its ends lie
            inside [-1, 1].
    """
    if not len(values_V):
        return float("nan"), float("nan"), float("nan")
    mean = float(values_V.mean())
    n = len(values_V)
    if n < 2:
        return mean, float("nan"), float("nan")
    resampled = weights(n, RESAMPLES, seed, _STREAM).numpy().astype(np.float64) @ values_V
    if correlation:
        low, high = _interval(_fisher(resampled), float(_fisher(np.array(mean))), n)
        return mean, float(np.tanh(low)), float(np.tanh(high))
    low, high = _interval(resampled, mean, n)
    return mean, low, high


def _fisher(correlation: np.ndarray) -> np.ndarray:
    """Return artanh(r), finite also for r = 1 and for rounding errors beyond."""
    return np.arctanh(np.clip(correlation, -_MAX_R, _MAX_R))


def separation(a_N: np.ndarray, b_M: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Return the AUC with which one figure separates two sets of source videos, and both ends of its 95 % interval.

    AUC = P(a > b) + P(a = b) / 2. 1 or 0: the sets don't overlap; 0.5: the figure does not separate them. If the AUC is
    0 or 1, all resamples are equal, and the interval is that of Clopper & Pearson for min(N, M) trials.
    """
    n, m = len(a_N), len(b_M)
    if not n or not m:
        return float("nan"), float("nan"), float("nan")
    wins_NM = (a_N[:, None] > b_M[None]) + 0.5 * (a_N[:, None] == b_M[None])
    area = float(wins_NM.mean())
    if min(n, m) < 2:
        return area, float("nan"), float("nan")
    end = ((1 - CONFIDENCE) / 2) ** (1 / min(n, m))
    if area in (0.0, 1.0):
        return (area, end, 1.0) if area else (area, 0.0, 1 - end)
    left = weights(n, RESAMPLES, seed, _STREAM + 1).numpy().astype(np.float64)
    right = weights(m, RESAMPLES, seed, _STREAM + 2).numpy().astype(np.float64)
    low, high = _interval(((left @ wins_NM) * right).sum(1), area, min(n, m))
    return area, max(low, 0.0), min(high, 1.0)


def _interval(resampled_B: np.ndarray, estimate: float, n: int) -> tuple[float, float]:
    low, high = expanded_interval(
        torch.from_numpy(resampled_B)[:, None],
        np.array([estimate]),
        np.array([float(n - 1)]),
        np.array([np.sqrt(n / (n - 1))]),
        CONFIDENCE,
    )
    return float(low[0]), float(high[0])


def video_means(table: pa.Table, measure: str) -> np.ndarray:
    """Return one figure per source video, sorted by the videos' names: the mean over the clips that have the figure."""
    by_video: dict[str, list[float]] = {}
    for video, value in zip(table["video_id"].to_pylist(), table[measure].to_pylist(), strict=True):
        if value is not None and np.isfinite(value):
            by_video.setdefault(video, []).append(value)
    return np.array([np.mean(by_video[video]) for video in sorted(by_video)])


def summarise(table: pa.Table) -> pa.Table:
    """Return the `GRADCAM_SUMMARY` of a `GRADCAM` table: each class and all together, by layer and mode."""
    rows = []
    groups: dict[tuple[str, str, str], list[int]] = {}
    columns = (table[name].to_pylist() for name in ("class", "layer", "mode"))
    for i, (name, layer, mode) in enumerate(zip(*columns, strict=True)):
        for group in (ALL, name):
            groups.setdefault((group, layer, mode), []).append(i)
    for (name, layer, mode), members in groups.items():
        part = table.take(members)
        for measure in MEASURES:
            values = video_means(part, measure)
            mean, low, high = mean_interval(values, correlation=measure in CORRELATIONS)
            figures = {"mean": mean, "ci_low": low, "ci_high": high}
            rows.append(
                {
                    "class": name,
                    "layer": layer,
                    "mode": mode,
                    "measure": measure,
                    **{k: None if np.isnan(v) else v for k, v in figures.items()},
                    "n": len(values),
                }
            )
    return pa.Table.from_pylist(rows, schema=tables.GRADCAM_SUMMARY)


def aggregate(parts: Sequence[pa.Table]) -> pa.Table:
    """Return the mean maps aligned to the tracks (`AGGREGATE`), from the shards' sums."""
    total: dict[tuple[str, str, str], list[np.ndarray | int]] = {}
    for part in parts:
        for row in part.to_pylist():
            for name in (row["class"], ALL):
                entry = total.setdefault(
                    (name, row["layer"], row["mode"]), [0, np.zeros(ALIGNED_SIDE**2), np.zeros(ALIGNED_SIDE**2)]
                )
                entry[0] += row["clips"]
                entry[1] = entry[1] + np.array(row["sum"])
                entry[2] = entry[2] + np.array(row["count"])
    rows = []
    for (name, layer, mode), (clips, summed, seen) in sorted(total.items()):
        with np.errstate(invalid="ignore", divide="ignore"):
            rows.append({"class": name, "layer": layer, "mode": mode, "clips": clips, "map": summed / seen})
    return pa.Table.from_pylist(rows, schema=AGGREGATE)


def finished(output: StageFolder) -> ShardOutput:
    """Return the stage's last shard: summary and mean maps of the other shards' tables."""
    # A stage that was killed after this shard computes it again, from the other shards only: nothing counts twice.
    measured = output.read("gradcam")
    clips = measured if measured is not None else tables.GRADCAM.empty_table()
    parts = [part for _, part in output.iter_tables("aligned")]
    made = {"gradcam_summary": summarise(clips), "aggregate": aggregate(parts)}
    return ShardOutput({name: table for name, table in made.items() if table.num_rows})
