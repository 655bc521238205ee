"""The sentences above the report's table of mistakes, and the misclassified examples below it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import pyarrow as pa

from vtcav_ray.pages.wording import count, equals, signed
from vtcav_ray.why.examples import ExplainedExample, ExplainedExamples

MAX_ROWS = 12
MOST_MISTAKES = 30  # misclassified examples that are named
OLD = "An older version made this run's activations, without the model's answers: run it again to see its mistakes."


@dataclass(frozen=True)
class Mistaken:
    """A misclassified example, as text; `address`: of its explanation."""

    video: str
    address: str
    label: str
    predicted: str
    probability: str
    of_label: str
    push: str


def example_id(name: str, video: str) -> str:
    """Return the id of an example's plain HTML, which is also its address: as JavaScript's encodeURIComponent."""
    return "/".join(("example", *(quote(part, safe="!'()*~") for part in (name, video))))


def example_address(name: str, video: str) -> str:
    """Return the address of an example's explanation, within the page."""
    return f"#{example_id(name, video)}"


def sentences(rows: pa.Table | None, alpha: float) -> list[str]:
    """Say how many examples are misclassified, and which concept pushes them to the wrong class.

    Args:
        rows: of `tables.MISTAKES`; None: the run has no such table.
        alpha: of the test.
    """
    if rows is None:
        return [OLD]
    if not rows.num_rows:
        return ["The model answers every class example correctly, as far as its classes are tested here."]
    first = rows.slice(0, 1).to_pylist()[0]
    wrong, right = first["n_mistakes"], first["n_correct"]
    found = [f"The model answers {count(wrong, 'class example')} wrongly and {right:,} correctly."]
    if first["note"]:
        return [*found, first["note"]]
    if not first["significant"]:
        return [
            *found,
            f"No concept is shown to push to the wrong class (smallest q {equals(first['q'])}, α = {alpha:g}).",
        ]
    found.append(
        f"{first['concept']} at {first['layer']} pushes to the wrong class most clearly: by "
        f"{signed(first['difference'])} logits more where the model errs than where it is right "
        f"(q {equals(first['q'])})."
    )
    others = sum(rows["significant"].to_pylist()) - 1
    if others:
        found.append(f"{count(others, 'more row')} of the table {'is' if others == 1 else 'are'} significant.")
    return found


def mistaken(found: ExplainedExamples | None) -> tuple[list[Mistaken], int]:
    """Return the misclassified examples, the surest answers first, and how many more there are."""
    wrong = [one for one in found.examples if one.mistaken] if found is not None else []
    wrong.sort(key=lambda one: -one.explanation.probabilities[one.explanation.predicted])
    return [_mistaken(one) for one in wrong[:MOST_MISTAKES]], max(0, len(wrong) - MOST_MISTAKES)


def _mistaken(one: ExplainedExample) -> Mistaken:
    found = one.explanation
    of_label = found.probabilities.get(found.label or "")
    towards = [row for row in found.concepts if row.weight > 0]
    return Mistaken(
        video=found.video,
        address=example_address(one.name, found.video),
        label=found.label or "–",
        predicted=found.predicted,
        probability=f"{found.probabilities[found.predicted]:.3f}",
        of_label="–" if of_label is None else f"{of_label:.3f}",
        push=f"{towards[0].concept} at {towards[0].layer} ({signed(towards[0].weight)})" if towards else "–",
    )
