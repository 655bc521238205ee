"""How well an explanation predicts what a change of time really costs each class.

For each class: the accuracy (and the class's logit) on its clips as they are, minus that on the same clips reversed,
frozen or shuffled. Beside it, at each layer and on the same activations:

- `effect`: the concept effect of the clips against their changed twins, logits;
- `sign count`: the TCAV score of the CAVs between clips and twins;
- `paper`: Video-TCAV's recipe: 10 CAVs (SGD) of the clips against random clips, and 10 of the changed clips against the
  same random clips; the difference of the two mean TCAV scores.

The figure of merit is Spearman's rank correlation over classes, with an interval from resampled classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tools.cases.rivals import SETS, own_examples, set_scores
from vtcav_ray.runs.run import Run
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tables.stages import classes_of

CHANGES = ("reversed", "frozen", "shuffled")
RECIPES = ("effect", "sign count", "paper")
RESAMPLES = 2000


def measure(run: Run) -> dict[str, Any]:
    """Return the losses and the answers of every recipe for each class, and their rank correlations."""
    real = real_losses(run)
    classes = sorted(real)
    layers = run.config.activations.layers
    answers = _ours(run)
    for layer in layers:
        for (change, name), value in _paper(run, classes, layer).items():
            answers[change, layer, "paper", name] = value
    found: dict[str, Any] = {"classes": real, "answers": [], "summary": []}
    for change in CHANGES:
        for layer in layers:
            by_recipe = {r: [answers[change, layer, r, name] for name in classes] for r in RECIPES}
            found["answers"].append(
                {"change": change, "layer": layer, **dict(zip(RECIPES, by_recipe.values(), strict=True))}
            )
            for loss in ("accuracy", "logit"):
                truth = [real[name][change][loss] for name in classes]
                row = {"change": change, "layer": layer, "loss": loss}
                found["summary"].append(row | correlations(by_recipe, truth))
    return found


def real_losses(run: Run) -> dict[str, dict[str, Any]]:
    """Return for each class the loss of accuracy, logit and probability by change, on the concept's clips."""
    table = run.table("answers")
    names = classes_of(table)
    rows = [row for row in table.to_pylist() if row["set"] == "concept" and row["name"] in names]
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({row["name"] for row in rows}):
        k = names.index(name)
        logits = {
            kind: np.array([row["logits"] for row in rows if row["name"] == name and row["kind"] == kind])
            for kind in ("given", *(f"given_{change}" for change in CHANGES))
        }
        right = {kind: float((values.argmax(1) == k).mean()) for kind, values in logits.items()}
        own = {kind: float(values[:, k].mean()) for kind, values in logits.items()}
        found[name] = {"clips": len(logits["given"]), "accuracy": right["given"], "logit": own["given"]}
        for change in CHANGES:
            kind = f"given_{change}"
            found[name][change] = {"accuracy": right["given"] - right[kind], "logit": own["given"] - own[kind]}
    return found


def _ours(run: Run) -> dict[tuple[str, str, str, str], float]:
    columns = {"effect": "effect", "sign count": "tcav_score"}
    found = {}
    table = run.table("scores", columns=["class", "layer", "concept", "against", *columns.values()])
    own = pc.equal(pc.binary_join_element_wise(table["class"], "given", "/"), table["concept"])
    for row in table.filter(own).to_pylist():
        name, change = row["class"], row["against"].rpartition("/given_")[2]
        if row["against"] == f"{name}/given_{change}":
            for recipe, column in columns.items():
                value = row[column]
                found[change, row["layer"], recipe, name] = np.nan if value is None else float(value)
    return found


def _paper(run: Run, classes: Sequence[str], layer: str) -> dict[tuple[str, str], float]:
    """Return P(clips) - P(changed clips) for each change and class."""
    pool = run.table("activations", layer=layer)
    vectors = vectors_of(pool)
    sets, names, kinds = (pool[column].to_numpy(zero_copy_only=False) for column in ("set", "name", "kind"))
    slopes = run.table("gradients", layer=layer)
    at, of = vectors_of(slopes), slopes["class"].to_numpy(zero_copy_only=False)
    own = own_examples(run)
    examples = slopes["clip_id"].to_numpy(zero_copy_only=False)
    random = np.flatnonzero((sets == "random") & (kinds == "given"))
    scores: dict[tuple[str, str], float] = {}
    for name in classes:
        gradients = at[(of == name) & np.array([own.get(clip) == name for clip in examples])]
        for kind in ("given", *(f"given_{change}" for change in CHANGES)):
            rows = np.flatnonzero((sets == "concept") & (names == name) & (kinds == kind))
            scores[kind, name] = float(set_scores(vectors, rows, random, gradients, SETS["paper"]).mean())
    return {(c, name): scores["given", name] - scores[f"given_{c}", name] for c in CHANGES for name in classes}


def correlations(answers: Mapping[str, Sequence[float]], truth: Sequence[float]) -> dict[str, Any]:
    """Return each recipe's rank correlation with the truth, and how far `effect` is ahead, with 95 % intervals."""
    rng = np.random.default_rng(0)
    n = len(truth)
    draws = rng.integers(n, size=(RESAMPLES, n))
    right = np.asarray(truth, np.float64)
    values = {recipe: np.asarray(answer, np.float64) for recipe, answer in answers.items()}
    found: dict[str, Any] = {}
    resampled = {}
    for recipe, answer in values.items():
        resampled[recipe] = rank_correlation(answer[draws], right[draws])
        found[recipe] = {"rho": float(rank_correlation(answer, right)), "interval": _interval(resampled[recipe])}
    for rival in ("sign count", "paper"):
        ahead = resampled["effect"] - resampled[rival]
        found[f"ahead of {rival}"] = {
            "rho": found["effect"]["rho"] - found[rival]["rho"],
            "interval": _interval(ahead),
        }
    return found


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's correlation along the last axis, ties at their mean rank.

    It is 0 where one side has no spread or a value that is not finite: such an answer ranks nothing.
    """
    from scipy.stats import rankdata

    a, b = (rankdata(x, axis=-1) for x in (one, other))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    usable = (size > 0) & np.isfinite(one).all(-1) & np.isfinite(other).all(-1)
    return np.asarray(np.where(usable, (a * b).sum(-1) / np.where(size > 0, size, 1.0), 0.0), np.float64)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def draw(merit: Mapping[str, Any], path: Path, change: str = "reversed", layer: str = "late") -> None:
    """Draw the real loss of the class's logit and of its accuracy over each recipe's answer, a dot per class."""
    from matplotlib.figure import Figure

    from vtcav_ray.exports import figures

    row = next(a for a in merit["answers"] if (a["change"], a["layer"]) == (change, layer))
    shown = ("effect", "sign count", "paper")
    labels = ("concept effect, logits", "sign count", "paper's recipe, difference of scores")
    with figures.style():
        figure = Figure(figsize=(7.2, 4.4))
        panels = figure.subplots(2, 3, sharey="row")
        for y, loss in enumerate(("accuracy", "logit")):
            truth = [merit["classes"][name][change][loss] for name in sorted(merit["classes"])]
            found = next(s for s in merit["summary"] if (s["change"], s["layer"], s["loss"]) == (change, layer, loss))
            for x, (recipe, label) in enumerate(zip(shown, labels, strict=True)):
                panels[y, x].scatter(row[recipe], truth, s=14, color=figures.LOWERS, alpha=0.8, linewidth=0)
                panels[y, x].set_title(f"rank correlation {found[recipe]['rho']:.2f}", fontsize=8)
                panels[1, x].set_xlabel(label)
            panels[y, 0].set_ylabel(f"real loss of {loss}")
        figure.suptitle(f"{change} clips, layer {layer}: one dot per class", fontsize=9, fontweight="bold")
        figure.tight_layout()
        figures.save(figure, path)
