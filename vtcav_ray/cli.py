"""The command `vtcav`: thin. It reads arguments, calls the library, prints, and turns errors into exit statuses."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

import vtcav_ray
from vtcav_ray import commands, logs, tables
from vtcav_ray.errors import EXIT_DONE, EXIT_TOO_MANY_FAILED, VtcavError
from vtcav_ray.watch import command as watch_command

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
    log_format: Annotated[str | None, typer.Option(help="text or json (one object a line), on stderr")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error")] = None,
) -> None:
    try:
        logs.configure(log_format, log_level)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def run(
    config: ConfigPath,
    out_url: OutUrl = None,
    overrides: Overrides = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="take N videos more than the folder has; those of earlier runs stay in")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="remove this config's output and make it anew")] = False,
    until: Annotated[str | None, typer.Option("--until", help="last stage to run, for example clips")] = None,
) -> None:
    """Run the whole pipeline, or what is missing of it, and print the scores and the report's place."""
    from vtcav_ray.config import load_config

    settings = load_config(config, overrides or (), out=out_url)  # before the slow imports: a typo is told at once

    from vtcav_ray import pipeline

    if limit is not None:
        settings = pipeline.with_more_videos(settings, limit, fresh=fresh)

    from vtcav_ray.progress import TerminalProgress
    from vtcav_ray.report.terminal import score_table_text

    with TerminalProgress(out) as progress:
        result = pipeline.run(settings, progress, until=until, fresh=fresh)
    if "report" not in result.keys:
        look = f" Look at the clips: vtcav review {result.url}" if "clips" in result.keys else ""
        out.print(f"Done until {until}.{look}", soft_wrap=True, highlight=False)
        return
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
    name: Annotated[str, typer.Argument(help=f"one of: {', '.join(tables.ALL_NAMES)}")],
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
def gradcam(
    config: ConfigPath,
    out_url: OutUrl = None,
    overrides: Overrides = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many clips, in turn over the classes")] = None,
) -> None:
    """Run the baseline, Grad-CAM, on the class examples of a run, and set it beside Video-TCAV on a page."""
    from vtcav_ray.gradcam.command import run_command

    run_command(config, out_url, overrides or (), limit, out)


@app.command()
def review(
    run_url: Annotated[str, typer.Argument(metavar="RUN", help="run folder, its clips cut")],
    host: Annotated[
        str, typer.Option(help="address to listen on; any other than loopback lets others in")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 0,
    export: Annotated[str | None, typer.Option(help="write a static contact sheet here instead of serving")] = None,
    clips: Annotated[int, typer.Option(min=1, help="with --export: at most so many clips a concept")] = 30,
) -> None:
    """Look at the clips and accept or reject them; what is rejected is left out of the next `vtcav run`."""
    from vtcav_ray.review import command

    if export is not None:
        out.print(command.export(run_url, export, clips), soft_wrap=True, highlight=False)
    else:
        command.serve(run_url, host, port, lambda line: out.print(line, soft_wrap=True, highlight=False))


@app.command()
def layers(
    config: ConfigPath,
    overrides: Overrides = None,
    names: Annotated[
        list[str] | None, typer.Option("--layer", help="only this layer (alias or path); may be given again")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="modules whose path has at most so many parts")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="an object, for programs")] = False,
) -> None:
    """List the recogniser's layers: aliases, shapes, cost, and where a sign count would say nothing."""
    from vtcav_ray.config import load_config

    settings = load_config(config, overrides or ())  # before the slow imports: a typo is told at once

    from vtcav_ray.models.layer_command import print_layers

    print_layers(settings, names, depth, out=None if as_json else out)


@app.command()
def intervene(
    run_url: Annotated[str, typer.Argument(metavar="RUN", help="run folder")],
    classes: Annotated[list[str] | None, typer.Option("--class", help="only this class; may be repeated")] = None,
    layers: Annotated[list[str] | None, typer.Option("--layer", help="only this layer; may be repeated")] = None,
    concepts: Annotated[list[str] | None, typer.Option("--concept", help="`<name>/<kind>`; may be repeated")] = None,
    against: Annotated[str, typer.Option(help="`random`, `rest of <kind>`, or another concept")] = "random",
    steps: Annotated[list[float] | None, typer.Option("--step", help="size t of the shift; may be repeated")] = None,
    cells: Annotated[int, typer.Option(min=1, help="at most so many cells, those of the largest |z|")] = 6,
    clips: Annotated[int, typer.Option(min=1, help="at most so many class clips a cell")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list of rows")] = False,
) -> None:
    """Check effects by intervention: add the shift to the activation, run the rest of the model, compare the logit."""
    from vtcav_ray.export import print_interventions
    from vtcav_ray.results import Run
    from vtcav_ray.tcav.intervene_run import STEPS, Wanted, intervene_run

    wanted = Wanted(classes or (), layers or (), concepts or (), against, cells)
    print_interventions(intervene_run(Run(run_url), wanted, steps or STEPS, max_clips=clips), as_json, out)


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


commands.register(app, out, err)
watch_command.register(app, out, err)


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
