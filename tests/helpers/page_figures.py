"""Made-up figures for the pages of compare, watch and explain."""

from __future__ import annotations

import pyarrow as pa

from vtcav_ray.compare import COMPARISON
from vtcav_ray.watch.page import Point, build_page
from vtcav_ray.watch.registry import CheckpointRecord
from vtcav_ray.why.run import ConceptPush, Explanation


def comparison() -> pa.Table:
    rows = []
    for step in range(2):
        for name in ("lift", "drop"):
            for concept in ("cup/spatial", "up/spatiotemporal"):
                moved = name == "lift" and concept.startswith("up") and step == 1
                change = 0.4 if moved else 0.01
                rows.append(
                    {
                        "run_a": f"runs/e{step}", "run_b": f"runs/e{step + 1}", "model_a": "a", "model_b": "b",
                        "class": name, "layer": "late", "concept": concept, "against": "random", "effect_a": 0.1,
                        "effect_b": 0.1 + change, "change": change, "ci_low": change - 0.05, "ci_high": change + 0.05,
                        "p": 0.001, "q": 0.004 if moved else 1.0, "moved": moved, "paired": True, "learnable": True,
                        "tcav_score_a": 0.5, "tcav_score_b": float("nan"), "tcav_score_change": float("nan"),
                    }
                )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=COMPARISON)


def watch_page() -> str:
    records = [
        CheckpointRecord(
            f"{k}", "u", f"epoch_{k}.pth", k, "f", 1, "done", run=f"checkpoints/e{k}", model="m@1", keys={"clips": "a"}
        )
        for k in range(3)
    ]
    records.append(CheckpointRecord("3", "u", "epoch_3.pth", 3, "f", 1, "failed", error="The file is cut off."))
    effects = {
        0: Point(-0.5, -0.7, -0.3, 0.2, True),
        1: Point(0.0, -0.1, 0.1, None, False),
        2: Point(1, 0.5, 1.5, 0.9, True),
    }
    series = {("lift" * 30, "up/spatiotemporal", layer): effects for layer in ("early", "late")}
    return build_page(records, series)


def concept_push(name: str, layer: str, push: float, runner_up: float, presence: float = 0.5) -> ConceptPush:
    return ConceptPush(name, layer, presence, push, push - 0.1, push + 0.1, runner_up, runner_up - 0.1, runner_up + 0.1)


EXPLAINED = Explanation(
    video="a.mp4",
    label="lift",
    predicted="push_left",
    runner_up="lift",
    probabilities={"push_left": 0.7, "lift": 0.25, "put_down": 0.05},
    target="logit",
    source="the run's tables",
    concepts=[
        concept_push("stripes/context", "late", 2.0, -1.0, 0.9),
        concept_push("stripes/context", "early", 1.0, -1.0, 0.9),
        concept_push("moving up/context", "late", -1.0, 1.0),
    ],
)
