"""`vtcav maps`: run the stage and print which maps are localised."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from vtcav_ray.config import Config
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.choose import Wanted


def run_command(run: Run, config: Config, wanted: Wanted, *, clips: int, console: Console, errors: Console) -> int:
    """Make maps and print their summary (see `vtcav_ray.maps.run.maps_run`).

    Returns:
        The exit status.
    """
    from vtcav_ray.cli.progress import TerminalProgress
    from vtcav_ray.cli.run import status_of
    from vtcav_ray.maps.page import HEADS, figures
    from vtcav_ray.maps.run import maps_run

    with TerminalProgress(console) as progress:
        result = maps_run(run, config, wanted, clips=clips, progress=progress)
    shown = Table(caption="95 % intervals over source videos; chance: random directions", caption_justify="left")
    for head in (*HEADS, "localised"):
        shown.add_column(head)
    words = {True: "yes", False: "no", None: "–"}
    for row in result.table("maps_summary").to_pylist():
        shown.add_row(*figures(row), words[row["localised"]])
    console.print(shown)
    for line in result.manifest("maps")["warnings"]:
        console.print(line, soft_wrap=True, highlight=False)
    failed = sum(1 for row in result.table("failures").to_pylist() if row["stage"] == "maps")
    if failed:
        errors.print(f"{failed} clips failed: vtcav table {result.url} failures", soft_wrap=True)
    console.print(f"Page: {result.url.rstrip('/')}/maps.html", soft_wrap=True)
    return status_of(result, config.max_failed_fraction, errors)
