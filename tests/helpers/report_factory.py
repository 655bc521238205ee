"""Made-up report data with planted numbers that the tests know."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.report.data import ACCURACY_COLUMNS, ConceptFacts, Entanglement, ReportData, StageSummary
from vtcav_ray.report.previews import Preview, make_preview
from vtcav_ray.tcav.null_histograms import EFFECT_BINS, EFFECT_REACH, SCORE_BINS
from vtcav_ray.why.examples import ExplainedExample, ExplainedExamples
from vtcav_ray.why.run import ConceptPush, Explanation

NASTY = "<script>alert(1)</script>\"'&</title><!--"
LAYERS = ("early", "middle", "late", "head")
CLASSES = ("lift", "put_down", "push_left", "push_right")
MODEL = "recogniser.pth@1f2e3d4c5b6a"
KINDS = ("spatial", "spatiotemporal", "frozen", "shuffled", "reversed", "padding")
# The motion that defines each class: its own concept raises it, the opposite one lowers it.
SENSITIVITIES = pa.schema(
    [(name, pa.string()) for name in ("class", "layer", "concept", "video_id")] + [("sensitivity", pa.float32())]
)
OWN = {"lift": "cup up", "put_down": "cup down", "push_left": "cup left", "push_right": "cup right"}
OPPOSITE = {"cup up": "cup down", "cup down": "cup up", "cup left": "cup right", "cup right": "cup left"}


def cell(**values: Any) -> dict[str, Any]:
    """Make one row of the scores table: a plain, readable, not significant cell, with these changes."""
    row = {
        "class": "lift",
        "layer": "late",
        "concept": "cup up/spatiotemporal",
        "against": "random",
        "tcav_score": 0.6,
        "tcav_ci_low": 0.45,
        "tcav_ci_high": 0.75,
        "tcav_p": 0.4,
        "tcav_q": 1.0,
        "learnable": True,
        "significant": False,
        "n": 30,
        "R": 50,
        "tcav_magnitude": 0.02,
        "tcav_smooth": 0.55,
        "tcav_null_mean": 0.5,
        "tcav_null_sd": 0.12,
        "effect": 0.02,
        "ci_low": -0.05,
        "ci_high": 0.09,
        "null_sd": 0.04,
        "z": 0.5,
        "p": 0.6,
        "q": 1.0,
        "n_concept": 30,
        "n_random": 300,
        "held_out_accuracy": 0.91,
        "null_accuracy": 0.62,
        "stability": 0.7,
        "collinearity": 0.63,
        "degenerate": False,
        "decided_by": "effect and score",
        "model": MODEL,
        "note": "",
        **values,
    }
    row.setdefault("kind", row["concept"].rpartition("/")[2])
    if "tcav_effect" not in row:
        known = row["tcav_score"] is not None and row["tcav_null_mean"] is not None
        row["tcav_effect"] = row["tcav_score"] - row["tcav_null_mean"] if known else None
    return row


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=tables.SCORES)


def world_rows(classes: tuple[str, ...] = CLASSES, *, seed: int = 0) -> list[dict[str, Any]]:
    """Make four classes defined by motion: moving concepts count more with depth, still ones never count."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in classes:
        for concept in OPPOSITE:
            for kind in KINDS:
                for depth, layer in enumerate(LAYERS):
                    rows.append(_world_cell(rng, name, concept, kind, depth, layer))
    return rows


def _world_cell(rng: np.random.Generator, name: str, concept: str, kind: str, depth: int, layer: str) -> dict[str, Any]:
    depth = min(depth, 3)
    moving = kind in ("spatiotemporal", "reversed")
    sign = 0.0
    if moving and OWN.get(name) == concept:
        sign = 1.0
    elif moving and OWN.get(name) == OPPOSITE[concept]:
        sign = -0.7
    if kind == "reversed":
        sign = -sign
    strength = (0.0, 0.25, 0.9, 1.1)[depth] * sign
    null_sd = (0.02, 0.03, 0.05, 0.06)[depth]
    effect = strength + rng.normal() * null_sd * 0.8
    half = 1.6 * null_sd + 0.08 * abs(strength)
    z = effect / null_sd
    significant = abs(z) > 3.6
    degenerate = layer == "head"
    score_sd = (0.10, 0.2, 0.3, 0.48)[depth]
    score = float(np.clip(0.5 + 0.5 * np.tanh(strength * 2) + rng.normal() * 0.08, 0, 1))
    if degenerate:
        score = 1.0 if effect > 0 else 0.0
    learnable = not (kind == "padding" and depth < 2)
    return cell(
        **{"class": name},
        concept=f"{concept}/{kind}",
        layer=layer,
        tcav_score=score,
        tcav_ci_low=max(0.0, score - 0.12),
        tcav_ci_high=min(1.0, score + 0.12),
        tcav_null_sd=score_sd,
        effect=effect,
        ci_low=effect - half,
        ci_high=effect + half,
        null_sd=null_sd,
        z=z,
        p=0.0001 if significant else 0.3,
        q=0.003 if significant else 1.0,
        significant=significant and learnable,
        learnable=learnable,
        degenerate=degenerate,
        decided_by="effect" if degenerate or score_sd > 0.25 else "effect and score",
        held_out_accuracy=0.58 if not learnable else 0.8 + 0.05 * depth,
        stability=0.5 + 0.1 * depth,
        collinearity=(0.3, 0.6, 0.9, 1.0)[depth],
        note="the gradient is the same for every clip" if degenerate else "",
    )


def clip(concept: str, *, size: int = 64, frames: int = 16, seed: int = 0) -> np.ndarray:
    """Make a bright square that moves as the concept's name says, or stands still; uint8 [T, H, W, 3]."""
    rng = np.random.default_rng(seed)
    ground = np.clip(rng.normal(90, 25, (size // 8, size // 8, 3)), 0, 255).astype(np.uint8)
    movie = np.repeat(np.kron(ground, np.ones((8, 8, 1), np.uint8))[None], frames, 0)
    dx, dy = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}.get(concept.split("/")[0][4:], (0, 0))
    moving = concept.endswith(("spatiotemporal", "shuffled", "reversed"))
    for t in range(frames):
        step = (t - frames // 2) * 2 if moving else 0
        x, y = size // 2 + dx * step, size // 2 + dy * step
        movie[t, max(0, y - 8) : y + 8, max(0, x - 8) : x + 8] = (235, 200 - 20 * (seed % 5), 60)
    return movie


@functools.cache
def preview(concept: str, seed: int) -> Preview:
    return make_preview(f"c{seed}", f"video_{seed:03d}", clip(concept, seed=seed))


def accuracies(concepts: list[str], *, random_sets: int = 50, seed: int = 0) -> pa.Table:
    """Make the cavs table without its vectors."""
    rng = np.random.default_rng(seed)
    rows = []
    for depth, layer in enumerate(LAYERS):
        for concept in (*concepts, *(f"random/{kind}" for kind in sorted({c.rpartition("/")[2] for c in concepts}))):
            is_null = concept.startswith("random/")
            kind = concept.rpartition("/")[2]
            values = np.clip(rng.normal(0.5 if is_null else 0.8 + 0.05 * depth, 0.06, random_sets), 0, 1)
            for i, value in enumerate(values):
                name = f"{concept}#{i}" if is_null else concept
                against = f"random/{kind}#{i + random_sets if is_null else i}"
                rows.append((layer, name, against, is_null, value))
    return pa.Table.from_pylist([dict(zip(ACCURACY_COLUMNS, row, strict=True)) for row in rows])


def sensitivities(rows: list[dict[str, Any]], *, videos: int = 30, seed: int = 0) -> pa.Table:
    """Make each class video's sensitivity in each cell against random clips; the share above zero is the score."""
    rng = np.random.default_rng(seed)
    found = []
    for row in rows:
        if row["against"] == "random" and row["tcav_score"] is not None:
            values = np.sort(rng.exponential(0.05, videos)) * np.where(
                np.arange(videos) < row["tcav_score"] * videos, 1, -1
            )
            about = {name: row[name] for name in ("class", "layer", "concept")}
            found += [{**about, "video_id": f"video_{v:03d}", "sensitivity": float(s)} for v, s in enumerate(values)]
    return pa.Table.from_pylist(found, schema=SENSITIVITIES)


def nulls(rows: list[dict[str, Any]], *, permutations: int = 1000, seed: int = 0) -> pa.Table:
    """Make skewed nulls of the effects, unlike any bell curve, and two-humped nulls of the scores."""
    rng = np.random.default_rng(seed)
    found = []
    for row in rows:
        t = np.clip((rng.gamma(4.0, size=permutations) - 4) / 2, -EFFECT_REACH, EFFECT_REACH)
        scores = np.concatenate((rng.beta(2, 5, 600), rng.beta(5, 2, 625)))
        found.append(
            {name: row[name] for name in ("class", "layer", "concept", "against")}
            | {
                "effect_unit": row["null_sd"],
                "effect_counts": np.histogram(t, EFFECT_BINS, (-EFFECT_REACH, EFFECT_REACH))[0],
                "score_counts": np.histogram(scores, SCORE_BINS, (0, 1))[0],
            }
        )
    return pa.Table.from_pylist(found, schema=tables.NULLS)


def explained(classes: tuple[str, ...] = CLASSES, *, videos: int = 4) -> ExplainedExamples:
    """Explain a few examples of each class: the first is answered with the next class, and each has its own figures."""
    found = []
    for k, name in enumerate(classes):
        for v in range(videos if len(classes) > 1 else 0):
            predicted = classes[(k + 1) % len(classes)] if v == 0 else name
            runner_up = name if v == 0 else classes[(k + 1) % len(classes)]
            others = {c: 0.001 for c in classes if c not in (predicted, runner_up)}
            rows = [
                ConceptPush(f"{concept}/spatiotemporal", layer, 0.8, push, push - 0.2, push + 0.2, -0.5, -0.7, -0.3)
                for depth, layer in enumerate(LAYERS)
                for concept in OPPOSITE
                if (push := 0.25 * (depth + 1) * (1 if OWN.get(predicted) == concept else -0.1) + 0.01 * v)
            ]
            rows.sort(key=lambda row: -abs(row.weight))
            explanation = Explanation(
                video=f"video_{v:03d}",
                label=name,
                predicted=predicted,
                runner_up=runner_up,
                probabilities={predicted: 0.7 + 0.02 * v, runner_up: 0.2, **others},
                target="logit",
                source="the run's tables",
                concepts=rows,
            )
            found.append(ExplainedExample(name, explanation, at_clip=v < 2))
    return ExplainedExamples(found)


def report_data(rows: list[dict[str, Any]] | None = None, **changes: Any) -> ReportData:
    """Make a whole report's data. `rows`: of the scores table; None: the planted world."""
    rows = world_rows() if rows is None else rows
    names = sorted({r["concept"] for r in rows})
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(len(names), 8))
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    data: dict[str, Any] = {
        "title": "planted world",
        "scores": table(rows),
        "concepts": {name: ConceptFacts(30, 28, tuple(preview(name, k) for k in range(4))) for name in names},
        "class_clips": {str(r["class"]): 30 for r in rows},
        "accuracies": accuracies(names),
        "entanglement": [Entanglement(layer, names, unit @ unit.T) for layer in LAYERS],
        "sensitivities": sensitivities(rows),
        "nulls": nulls(rows),
        "explained": explained(tuple(dict.fromkeys(str(r["class"]) for r in rows))),
        "failures": pa.Table.from_pylist(
            [
                {
                    "stage": "tracks",
                    "uri": "videos/broken.mp4",
                    "video_id": "broken",
                    "clip_id": None,
                    "error_kind": "truncated",
                    "message": "The file ends after 1,204 bytes.",
                    "attempts": 1,
                }
            ],
            schema=tables.FAILURES,
        ),
        "stages": [
            StageSummary("videos", "0a1b2c", 0.8, {"videos": 400}, 41_000, {}),
            StageSummary("tracks", "1a2b3c", 62.0, {"tracks": 512, "failures": 1}, 1_240_000, {"decode_seconds": 21.5}),
            StageSummary(
                "clips", "2a3b4c", 18.4, {"clips": 1520}, 88_000_000, {}, ["Only 28 of 30 clips for `cup up`."]
            ),
            StageSummary("activations", "3a4b5c", 71.2, {"activations": 6080, "gradients": 480}, 9_300_000, {}),
            StageSummary("cavs", "4a5b6c", 3.1, {"cavs": 4800}, 15_000_000, {}, (), {"solver": "logistic"}),
            StageSummary("scores", "5a6b7c", 2.2, {"scores": len(rows)}, 70_000, {}),
        ],
        "config": {
            "name": "planted world",
            "videos": {"world": {"videos": 400, "seed": 0}},
            "activations": {"layers": list(LAYERS)},
            "cavs": {"random_sets": 50, "solver": "logistic"},
            "scores": {"alpha": 0.05, "correction": "holm"},
        },
        "versions": {"vtcav-ray": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        "warnings": [
            "Only 28 of 30 clips for `cup up`.",
            "R + 1 = 51 is under m / α = 7680: the score's p can't decide.",
        ],
        "url": "runs/planted",
        "updated": 1_790_000_000.0,
    }
    return ReportData(**{**data, **changes})
