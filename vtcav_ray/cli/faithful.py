"""`vtcav faithful`: run the checks of an explanation and print their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from vtcav_ray.cli.cell_options import Cells, Classes, Concepts, Layers, only_significant, reopened_run
from vtcav_ray.cli.options import AsJson, Overrides, RunUrl, StorageFile, TrustCode

if TYPE_CHECKING:
    from vtcav_ray.config import Config
    from vtcav_ray.runs.run import Run
    from vtcav_ray.scores.choose import Wanted


def register(app: typer.Typer, out: Console, err: Console) -> None:
    """Add the command to `app`. It prints to `out`, and errors to `err`."""

    @app.command()
    def faithful(
        run_url: RunUrl,
        classes: Classes = None,
        layers: Layers = None,
        concepts: Concepts = None,
        cells: Cells = "significant",
        most: Annotated[int, typer.Option(min=1, help="maximum number of concepts, largest |z| first")] = 12,
        clips: Annotated[int, typer.Option(min=2, help="maximum reference clips per class")] = 8,
        random_sets: Annotated[int, typer.Option(min=19, help="random directions per layer and kind")] = 60,
        as_json: AsJson = False,
        overrides: Overrides = None,
        options: StorageFile = None,
        trust_code: TrustCode = False,
    ) -> None:
        """Check an explanation: erase its concepts, shuffle the weights, split the videos; each beside random sets."""
        significant = only_significant(cells)
        run, config = reopened_run(run_url, overrides, options, trust_code)

        from vtcav_ray.scores.choose import Wanted

        wanted = Wanted(classes or (), layers or (), concepts or (), significant=significant)
        sizes = {"clips": clips, "random_sets": random_sets, "concepts": most}
        raise typer.Exit(run_command(run, config, wanted, sizes, as_json=as_json, console=out, errors=err))


def run_command(
    run: Run, config: Config, wanted: Wanted, sizes: dict[str, int], *, as_json: bool, console: Console, errors: Console
) -> int:
    """Run the checks and print their answers (see `vtcav_ray.faithful.run.faithful_run`).

    Returns:
        The exit status.
    """
    import json

    from vtcav_ray.cli.progress import TerminalProgress
    from vtcav_ray.cli.run import status_of
    from vtcav_ray.faithful.run import faithful_run
    from vtcav_ray.report.faithfulness import answers

    with TerminalProgress(errors if as_json else console) as progress:
        result = faithful_run(run, config, wanted, progress=progress, **sizes)
    rows = result.table("faithfulness").to_pylist()
    if as_json:
        console.print(json.dumps(rows), soft_wrap=True, highlight=False)
        return status_of(result, config.max_failed_fraction, errors)
    shown = Table("check", "answer")
    for answer in answers(rows):
        shown.add_row(answer.check, answer.text)
    console.print(shown)
    for line in result.manifest("faithful")["warnings"]:
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"All figures: vtcav table {result.url} faithfulness", soft_wrap=True, highlight=False)
    return status_of(result, config.max_failed_fraction, errors)
