"""`vtcav maps`: run the stage and print which maps are localised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from vtcav_ray.cli.cell_options import Against, Cells, Classes, Concepts, Layers, only_significant, reopened_run
from vtcav_ray.cli.options import Overrides, RunUrl, StorageFile, TrustCode

if TYPE_CHECKING:
    from vtcav_ray.config import Config
    from vtcav_ray.runs.run import Run
    from vtcav_ray.scores.choose import Wanted

CAPTION = "deletion: chance is 0.5; the next three: minus those of random directions; 95 % intervals over source videos"


def register(app: typer.Typer, out: Console, err: Console) -> None:
    """Add the command to `app`. It prints to `out`, and errors to `err`."""

    @app.command()
    def maps(
        run_url: RunUrl,
        classes: Classes = None,
        layers: Layers = None,
        concepts: Concepts = None,
        against: Against = "random",
        cells: Cells = "significant",
        most: Annotated[int, typer.Option(min=1, help="maximum number of comparisons, largest |z| first")] = 12,
        clips: Annotated[int, typer.Option(min=2, help="class examples per class")] = 8,
        overrides: Overrides = None,
        options: StorageFile = None,
        trust_code: TrustCode = False,
    ) -> None:
        """Show where and when a clip has a concept: maps and time lines of its direction, beside random directions."""
        significant = only_significant(cells)
        run, config = reopened_run(run_url, overrides, options, trust_code)

        from vtcav_ray.scores.choose import Wanted

        wanted = Wanted(classes or (), layers or (), concepts or (), against, significant=significant, most=most)
        raise typer.Exit(run_command(run, config, wanted, clips=clips, console=out, errors=err))


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
    shown = Table(caption=CAPTION, caption_justify="left")
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
