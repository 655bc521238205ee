"""The sentences above the report's table of mistakes."""

from __future__ import annotations

import pyarrow as pa

from vtcav_ray.pages.wording import count, equals, signed

MAX_ROWS = 12
OLD = "An older version made this run's activations, without the model's answers: run it again to see its mistakes."


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
