"""Output of the preflight: rows in a terminal, and the same for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from vtcav_ray.cli.terminal import printable, printable_lines
from vtcav_ray.preflight.checks import Check, Preflight

MOST_LABELS = 40  # rows of the table of labels
_STYLE = {"ok": "green", "warn": "yellow", "stop": "bold red"}


def print_preflight(found: Preflight, console: Console) -> None:
    """Print every row, and the labels with the number of their videos and the model's class."""
    for check in found.checks:
        console.print(check_line(check), soft_wrap=True, highlight=False)
    if not found.labels:
        return
    console.print("\nLabels, and the model's classes:", highlight=False)
    for row in found.labels[:MOST_LABELS]:
        console.print(f"  {printable(row.sentence)}", soft_wrap=True, highlight=False, markup=False)
    if (more := len(found.labels) - MOST_LABELS) > 0:
        console.print(f"  and {more:,} more, all of them matched or rarer", highlight=False)
    console.print()


def check_line(check: Check) -> Text:
    """Return a row as a line: verdict, subject, message."""
    return Text.assemble(
        (f"{check.verdict:<5}", _STYLE[check.verdict]), (f"{check.subject:<12}", "bold"),
        " ", printable_lines(check.message),
    )  # fmt: skip


def preflight_json(found: Preflight) -> dict[str, Any]:
    """Return the rows for programs: `checks`, and `labels` with the model's class and the nearest one."""
    return {
        "checks": [{"subject": c.subject, "verdict": c.verdict, "message": c.message} for c in found.checks],
        "labels": [
            {"label": r.label, "videos": r.videos, "class": r.match, "nearest": r.nearest} for r in found.labels
        ],
    }
