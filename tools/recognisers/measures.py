"""Accuracy on held-out clips, by class and by change of time, with intervals over groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

# Changes of a clip's frames, [T, ...] -> [T, ...].
CHANGES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "forward": lambda frames: frames,
    "reversed": lambda frames: frames[::-1],
    "frozen": lambda frames: np.repeat(frames[len(frames) // 2][None], len(frames), axis=0),
}


def accuracy_interval(correct: Sequence[bool], groups: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % interval of a share of correct answers, where clips of one group are not independent.

    Student's interval with the variance between groups (linearised, groups of unequal size), or Wilson's, if that is
    wider: the first is empty where every answer is right.
    """
    right = np.asarray(correct, np.float64)
    n, share = len(right), float(right.mean())
    z = stats.norm.ppf(0.975)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = middle - half, middle + half
    names = np.asarray(groups)
    sums = np.array([(right[names == group] - share).sum() for group in sorted(set(groups))])
    count = len(sums)
    if count > 1:
        error = math.sqrt(count / (count - 1) * float((sums**2).sum())) / n
        reach = float(stats.t.ppf(0.975, count - 1)) * error
        low, high = min(low, share - reach), max(high, share + reach)
    return max(low, 0.0), min(high, 1.0)


def summary(
    logits: dict[str, NDArray[np.float32]], labels: NDArray[np.int64], groups: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """Return accuracies and the class's own mean logit for each change in `logits`, [clips, classes] each."""
    found: dict[str, Any] = {"clips": len(labels), "groups": len(set(groups)), "changes": {}}
    for change, values in logits.items():
        right = values.argmax(1) == labels
        own = values[np.arange(len(labels)), labels]
        by_class = {
            name: {
                "clips": int((labels == k).sum()),
                "accuracy": float(right[labels == k].mean()),
                "logit": float(own[labels == k].mean()),
            }
            for k, name in enumerate(classes)
            if (labels == k).any()
        }
        found["changes"][change] = {
            "accuracy": float(right.mean()),
            "interval": accuracy_interval(right.tolist(), groups),
            "classes": by_class,
        }
    return found


@torch.no_grad()
def logits_of(model: Any, dataset: Any, change: str, batch: int) -> NDArray[np.float32]:
    """Return the logits [clips, classes] of a dataset in test mode, its clips changed by `CHANGES[change]`."""
    model.eval()
    rows = []
    for first in range(0, len(dataset), batch):
        inputs = [dataset[i]["inputs"] for i in range(first, min(first + batch, len(dataset)))]  # [1, 3, T, h, w]
        changed = [torch.from_numpy(CHANGES[change](x.numpy().swapaxes(0, 2)).swapaxes(0, 2).copy()) for x in inputs]
        data = model.data_preprocessor({"inputs": changed, "data_samples": None}, False)["inputs"]
        rows.append(model.cls_head(model.backbone(data.flatten(0, 1))))
    return torch.cat(rows).float().numpy()
