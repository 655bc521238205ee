"""The command `vtcav`: thin. It reads arguments, calls the library, prints, and turns errors into exit statuses."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

import vtcav_ray
from vtcav_ray import tables
from vtcav_ray.errors import EXIT_DONE, EXIT_TOO_MANY_FAILED, VtcavError

app = typer.Typer(
    help="Video-TCAV on Ray: which concepts, moving or still, a video action recogniser uses, and how sure one can be.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# Piped output has no width of its own, and 80 columns would cut the score table's names.
out = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140)
err = Console(stderr=True)

ConfigPath = Annotated[str, typer.Argument(help="YAML config, for example configs/quickstart.yaml")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value, for example clips.frames=16")]
OutUrl = Annotated[str | None, typer.Option("--out", help="run folder, any fsspec URL")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vtcav-ray {vtcav_ray.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def run(config: ConfigPath, out_url: OutUrl = None, overrides: Overrides = None) -> None:
    """Run the whole pipeline, or what is missing of it, and print the scores and the report's place."""
    from vtcav_ray.config import load_config

    settings = load_config(config, overrides or (), out=out_url)  # before the slow imports: a typo is told at once

    from vtcav_ray import pipeline
    from vtcav_ray.progress import TerminalProgress
    from vtcav_ray.report.terminal import score_table_text

    with TerminalProgress(out) as progress:
        result = pipeline.run(settings, progress)
    out.print(score_table_text(result.table("scores"), width=out.width))
    if result.manifest("activations")["notes"]["untrained"]:
        out.print("[bold red]The model is UNTRAINED: the scores above are those of random weights.[/bold red]")
    failures = pipeline.failed_inputs(result)
    if failures.failed:
        out.print(
            f"{failures.failed} of {failures.total} videos failed somewhere: vtcav table {result.url} failures",
            soft_wrap=True,
        )
    out.print(f"Report: {result.report_url}", soft_wrap=True)
    if failures.fraction > settings.max_failed_fraction:
        err.print(
            f"That is more than max_failed_fraction = {settings.max_failed_fraction} allows. The results above are "
            "from the rest.",
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_TOO_MANY_FAILED)


@app.command()
def world(
    folder: Annotated[str, typer.Argument(metavar="OUT", help="folder to render into, any fsspec URL")],
    videos: Annotated[int, typer.Option(min=8, help="how many videos")] = 400,
    seed: Annotated[int, typer.Option(help="the same seed gives the same bytes")] = 0,
) -> None:
    """Render the planted world: small videos of moving objects, with labels and the truth beside them."""
    from vtcav_ray.world import write_world

    summary = write_world(folder, videos=videos, seed=seed)
    labels = ", ".join(f"{label} {count}" for label, count in summary.labels.items())
    how = "there already" if summary.reused else "rendered"
    out.print(f"{summary.videos} videos {how} ({labels}): {summary.uri}", soft_wrap=True, highlight=False)
    out.print("Labels are in videos.parquet, the truth (objects, boxes, motions) in truth.parquet beside it.")


@app.command()
def table(
    run_url: Annotated[str, typer.Argument(metavar="RUN", help="run folder")],
    name: Annotated[str, typer.Argument(help=f"one of: {', '.join(tables.NAMES)}")],
    form: Annotated[str, typer.Option("--format", help="table, csv, json (lines) or parquet (to stdout)")] = "table",
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many rows")] = None,
) -> None:
    """Print a table of a run."""
    from vtcav_ray.export import FORMATS, print_table
    from vtcav_ray.results import Run

    if form not in FORMATS:
        raise typer.BadParameter(f"{form!r}: choose one of {', '.join(FORMATS)}", param_hint="--format")
    print_table(Run(run_url).table(name), form, limit, out, sys.stdout.buffer)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN_A RUN_B [RUN...]", help="run folders, in order")],
    as_json: Annotated[bool, typer.Option("--json", help="every compared cell as a line of JSON")] = False,
    page: Annotated[str | None, typer.Option("--html", help="also write a page to this file")] = None,
) -> None:
    """Which effects moved beyond their uncertainty from run to run: paired where the videos are the same."""
    from vtcav_ray.compare.command import compare as compare_and_print

    compare_and_print(runs, as_json=as_json, page=page, console=out)


@app.command()
def doctor(
    url: Annotated[
        str | None, typer.Option("--url", help="also check that this bucket or folder can be listed")
    ] = None,
) -> None:
    """Check this machine: versions, devices, the parts that are known to break, the packaged models, storage."""
    from vtcav_ray.doctor import examine

    findings = examine(url)
    for finding in findings:
        out.print(finding.line, highlight=False, soft_wrap=True)
    if any(finding.broken for finding in findings):
        raise typer.Exit(3)


def main() -> None:
    """Entry point. Exit status: 0 done, 2 config or arguments, 3 a stage failed, 4 too many inputs failed."""
    try:
        app(standalone_mode=True)
    except VtcavError as error:
        err.print(f"[bold red]vtcav:[/bold red] {_escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        err.print("Stopped. What is finished is kept: the same command goes on from there.")
        sys.exit(130)
    sys.exit(EXIT_DONE)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
