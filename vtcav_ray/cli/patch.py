"""`vtcav patch`: run the stage and print its effects, or only what it would compute."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from vtcav_ray.cli.tables import as_cell
from vtcav_ray.config import Config
from vtcav_ray.pages.wording import duration
from vtcav_ray.patch.run import Cost, cost, patch_run
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.tables import CELL_KEY

FIGURES = ("effect_patch", "effect_first_order", "z", "p", "q")


def run_command(
    run: Run,
    config: Config,
    wanted: Wanted,
    *,
    limit_reference: int | None,
    dry: bool,
    as_json: bool,
    console: Console,
    errors: Console,
) -> int:
    """Compute and print the patch effects (see `vtcav_ray.patch.run.patch_run`), or what they would cost.

    Returns:
        The exit status.
    """
    if dry:
        _print_cost(cost(run, config, wanted, limit_reference=limit_reference), as_json, console)
        return 0
    from vtcav_ray.cli.progress import TerminalProgress
    from vtcav_ray.cli.run import status_of

    with TerminalProgress(errors if as_json else console) as progress:
        result = patch_run(run, config, wanted, limit_reference=limit_reference, progress=progress)
    rows = result.table("patch_effects")
    if as_json:
        print(json.dumps([_without_nan(row) for row in rows.to_pylist()]))
    else:
        _print_effects(rows, console)
        for line in result.manifest("patch")["warnings"]:
            console.print(line, soft_wrap=True, highlight=False)
    failed = sum(1 for row in result.table("failures").to_pylist() if row["stage"] == "patch")
    if failed:
        errors.print(f"{failed} clips failed: vtcav table {result.url} failures", soft_wrap=True)
    return status_of(result, config.max_failed_fraction, errors)


def _without_nan(row: dict[str, object]) -> dict[str, object]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _print_effects(rows: pa.Table, console: Console) -> None:
    shown = Table(
        caption="change of the class's target, in logits, when a concept's clip takes the place of a random one in the "
        "reference clips' activation; first order: its prediction; q: corrected for these comparisons",
        caption_justify="left",
    )
    for name in CELL_KEY:
        shown.add_column(name)
    for name in (*FIGURES, "sign", "n", "note"):
        shown.add_column(name.removeprefix("effect_").replace("_", " "), justify="left" if name == "note" else "right")
    for row in rows.to_pylist():
        agrees = {True: "same", False: "OTHER", None: "–"}[row["same_sign"]]
        shown.add_row(
            *(as_cell(row[name]) for name in CELL_KEY),
            *(_figure(name, row[name]) for name in FIGURES),
            agrees,
            f"{row['n_concept']}, {row['n_random']}",
            row["note"],
        )
    console.print(shown)


def _figure(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.2g}" if name in ("p", "q") else f"{value:+.1f}" if name == "z" else f"{value:+.3f}"


def _print_cost(found: Cost, as_json: bool, console: Console) -> None:
    if as_json:
        fields = {"cells": found.cells, "pool": dict(found.pool), "references": dict(found.references)}
        print(json.dumps({**fields, "passes": found.passes, "most_seconds": found.most_seconds}))
        return
    for line in cost_sentences(found):
        console.print(line, soft_wrap=True, highlight=False)


def cost_sentences(found: Cost) -> Sequence[str]:
    """Return the cost as sentences."""
    lines = [
        f"{layer}: {clips:,} pool clips x {found.references[layer]} reference clips = {found.passes[layer]:,} passes "
        "of the network after this layer"
        for layer, clips in found.pool.items()
    ]
    total = f"{found.cells} comparisons, {sum(found.passes.values()):,} passes in all"
    if found.most_seconds is None:
        return [*lines, f"{total}. The run has no record of the seconds of a pass."]
    return [
        *lines,
        f"{total}: at most {duration(found.most_seconds)} of one actor (a pass of the WHOLE network took "
        f"{found.seconds_a_pass:.3g} s in the stage `activations`; the rest of it takes less, the deeper the layer).",
    ]
