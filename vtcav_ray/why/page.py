"""The explanations of one or several videos as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtcav_ray.pages import Shell, asset, render
from vtcav_ray.pages.render import HERE, SAVING, function
from vtcav_ray.pages.wording import layer_and_places, signed
from vtcav_ray.text.label_sets import split_labels
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.why.run import ConceptPush, Explanation

ROOM = "vtcav_ray.why"
MAX_CLASSES = 5
HEADS = ("concept", "layer", "presence", "push on the prediction", "95 % of runs", "push on the runner-up", "weight")


@dataclass(frozen=True)
class Row:
    """A line of a video's table, as text; `meter`: presence in percent, for its bar."""

    concept: str
    layer: str
    presence: str
    meter: str
    push: str
    interval: str
    runner_up: str
    weight: str


@dataclass(frozen=True)
class Card:
    """One video on the page."""

    id: str
    video: str
    verdict: str
    sentences: Sequence[str]
    probabilities: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    source: str


def build_page(explanations: Sequence[Explanation], title: str, failures: Sequence[tuple[str, str]] = ()) -> str:
    """Build a page that opens from disk and loads nothing from the network.

    Args:
        explanations: of the videos, in order.
        title: name of the run.
        failures: (video, message) of the videos that could not be explained.
    """
    shell = Shell(
        title=f"{title} · Video-TCAV, single videos",
        styles=[asset(HERE, "page.css")],
        scripts=[function(asset(HERE, "theme.js", *SAVING, "saving.js"))],
        images=True,
        inline_styles=True,
    )
    cards = [_card(one, f"video-{number}") for number, one in enumerate(explanations, 1)]
    return render(ROOM, "explain.html", shell=shell, title=title, cards=cards, heads=HEADS, failures=failures)


def sentences(explanation: Explanation) -> list[str]:
    """Say which concepts favour the predicted class most, and which the runner-up."""
    toward, away = ([one for one in _best(explanation) if sign * one.weight > 0][:2] for sign in (1, -1))
    found = []
    for some, name, other in (
        (toward, explanation.predicted, explanation.runner_up),
        (away, explanation.runner_up, explanation.predicted),
    ):
        parts = [
            f"{one.concept} at {one.layer} (weight {signed(one.weight)}, more present than in "
            f"{one.presence:.0%} of its random clips)"
            for one in some
        ]
        if parts:
            found.append(f"Towards {name} and away from {other}: {'; '.join(parts)}.")
    return found


def verdict(explanation: Explanation) -> str:
    """Say what the model answers, and whether that is right."""
    probability = explanation.probabilities[explanation.predicted]
    answer = f"The model answers {explanation.predicted} (probability {probability:.3f})"
    if explanation.label is None:
        return f"{answer}. The true class is not known."
    labels = split_labels(explanation.label, NameIndex(list(explanation.probabilities)))
    if explanation.predicted in labels:
        others = [label for label in labels if label != explanation.predicted]
        also = f" It is also {' and '.join(others)}." if others else ""
        return f"{answer}, which is right.{also} The runner-up is {explanation.runner_up}."
    true = [f"{label}{_probability_of(explanation, label)}" for label in labels]
    what = "The true class is" if len(true) == 1 else "The true classes are"
    return f"{answer}, which is wrong. {what} {' and '.join(true)}."


def _probability_of(explanation: Explanation, label: str) -> str:
    probability = explanation.probabilities.get(label)
    return f" (probability {probability:.3f})" if probability is not None else ", which the model does not have"


def _best(explanation: Explanation) -> list[ConceptPush]:
    """Return each concept once, at the layer of its largest weight."""
    found: dict[str, ConceptPush] = {}
    for one in explanation.concepts:
        found.setdefault(one.concept, one)
    return list(found.values())


def _card(explanation: Explanation, id: str) -> Card:
    shown = list(explanation.probabilities.items())[:MAX_CLASSES]
    return Card(
        id=id,
        video=explanation.video,
        verdict=verdict(explanation),
        sentences=sentences(explanation),
        probabilities=[(name, f"{p:.3f}") for name, p in shown],
        rows=rows_of(explanation),
        source=explanation.source,
    )


def rows_of(explanation: Explanation) -> list[Row]:
    """Return the lines of a video's table, in the explanation's order."""
    return [_row(one) for one in explanation.concepts]


def _row(one: ConceptPush) -> Row:
    layer = " ".join(filter(None, layer_and_places(one.layer)))
    known = np.isfinite([one.ci_low, one.ci_high]).all()
    return Row(
        concept=one.concept,
        layer=layer,
        presence=f"{one.presence:.0%}",
        meter=f"{100 * one.presence:.0f}",
        push=signed(one.push),
        interval=f"{signed(one.ci_low)} … {signed(one.ci_high)}" if known else "–",
        runner_up=signed(one.push_runner_up),
        weight=signed(one.weight),
    )
