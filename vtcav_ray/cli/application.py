"""The command `vtcav`: read arguments, call the library, print, and turn errors into exit statuses."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from vtcav_ray.cli import cell_options, setup_commands
from vtcav_ray.cli import demo as demo_commands
from vtcav_ray.cli import explain as explain_command
from vtcav_ray.cli import faithful as faithful_command
from vtcav_ray.cli import maps as maps_command
from vtcav_ray.cli import run_commands as commands
from vtcav_ray.cli import watch as watch_command
from vtcav_ray.cli.help import examples_text, grouped
from vtcav_ray.cli.options import AsJson, ConfigPath, NoVerify, OutUrl, Overrides, StorageFile, TakeOver, TrustCode
from vtcav_ray.cli.run_commands import opened
from vtcav_ray.cli.terminal import printable_lines
from vtcav_ray.errors import EXIT_DONE, EXIT_STAGE, ConfigError, VtcavError
from vtcav_ray.runs import logs
from vtcav_ray.runs.interrupt import end_like_ctrl_c
from vtcav_ray.stages import ALL_TABLES
from vtcav_ray.version import __version__

# Names of files, labels and concepts are printed literally: `[b]` and `:car:` in them are not markup.
out = Console(
    # Piped output has no width, and rich's default of 80 columns would cut the score table's names.
    width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140,
    markup=False,
    emoji=False,
)
err = Console(stderr=True, markup=False, emoji=False)
app = typer.Typer(
    cls=commands.interruptible(err),
    help="Video-TCAV on Ray: which concepts, moving or still, a video action recogniser uses, and how certain that is.",
    epilog=examples_text(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vtcav-ray {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    log_format: Annotated[str | None, typer.Option(help="text or json (one object per line), on stderr")] = None,
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
        int | None, typer.Option(min=1, help="use N more videos than the run folder has; keep those of earlier runs")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="recompute this config's output beside the existing one, then replace that")
    ] = False,
    until: Annotated[str | None, typer.Option("--until", help="last stage to run, for example clips")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="print what would be done, and do nothing")] = False,
    no_verify: NoVerify = False,
    take_over: TakeOver = False,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
) -> None:
    """Run the pipeline, or only what is missing, and print the scores and the report's location."""
    from vtcav_ray.config.loading import load_config, shown_override

    settings = load_config(
        config, overrides or (), out=out_url, trust_code=trust_code
    )  # before the slow imports, to report a typo at once

    if limit is not None:
        from vtcav_ray.pipeline import with_more_videos

        settings = with_more_videos(settings, limit, fresh=fresh)
    if dry:
        from vtcav_ray.cli.plan import print_dry_run

        print_dry_run(settings, until=until, fresh=fresh, as_json=as_json, console=out)
        return
    from vtcav_ray.cli.run import RunOptions, run_and_print

    given = [("--set", shown_override(o)) for o in overrides or ()]
    given += [(name, str(v)) for name, v in (("--out", out_url), ("--limit", limit), ("--until", until)) if v]
    words = [word for pair in given for word in pair] + ["--trust-code"] * trust_code
    again = shlex.join(["vtcav", "run", config, *words])
    run_options = RunOptions(until=until, fresh=fresh, as_json=as_json, verify=not no_verify, take_over=take_over)
    raise typer.Exit(run_and_print(settings, run_options, again=again, console=out, errors=err))


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    out_url: OutUrl = None,
    rates: Annotated[
        list[str] | None, typer.Option("--rate", help="gpu=2.50, cpu=0.04 (per hour), currency=EUR; repeatable")
    ] = None,
    sample: Annotated[int, typer.Option(min=2, help="number of videos to measure")] = 8,
    patch_effects: Annotated[
        bool, typer.Option("--patch", help="with scores.effect: patch, and the passes that it takes")
    ] = False,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
) -> None:
    """Measure a short sample and estimate the whole run: hours, bytes, price, and the stage that dominates."""
    from vtcav_ray.config.loading import load_config

    chosen = [*(overrides or ()), *(["scores.effect=patch"] if patch_effects else [])]
    settings = load_config(config, chosen, out=out_url, trust_code=trust_code)

    from vtcav_ray.cli.plan import plan as plan_and_print

    plan_and_print(settings, sample=sample, rates=rates or (), as_json=as_json, console=out)


@app.command()
def table(
    run_url: Annotated[str, typer.Argument(metavar="RUN", help="run folder")],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help=f"one of: {', '.join(ALL_TABLES)}; without it, list them all"),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="table, csv, json (one array), jsonl (lines) or parquet (to stdout)")
    ] = "table",
    columns: Annotated[str | None, typer.Option(help="only these, in this order: class,layer,effect")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="only rows with layer=late, p<=0.05, message~codec, label=null; repeatable")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="sort by these columns; -effect: largest first")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="maximum number of rows")] = None,
    options: StorageFile = None,
) -> None:
    """Print a table of a run, or some of its rows and columns. Without NAME, list all tables."""
    from vtcav_ray.cli.table_query import TableQuery, names_of
    from vtcav_ray.cli.tables import FORMATS, print_list_of_tables, print_table

    if form not in FORMATS:
        raise typer.BadParameter(f"{form!r}: choose one of {', '.join(FORMATS)}", param_hint="--format")
    run = opened(run_url, options)
    if name is None:
        print_list_of_tables(run, out)
        return
    query = TableQuery(names_of(columns), where or (), names_of(sort) or (), limit)
    whole = limit is None or query.needs_all_rows
    print_table(query.of(run.table(name) if whole else run.head(name, limit or 0)), form, out, sys.stdout.buffer)


@app.command()
def gradcam(
    config: ConfigPath,
    out_url: OutUrl = None,
    overrides: Overrides = None,
    limit: Annotated[int | None, typer.Option(min=1, help="maximum number of clips, in turn over the classes")] = None,
    place: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1", help="part of the frame, in fractions: which share of each map lies there?"
        ),
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Run the baseline, Grad-CAM, on a run's class examples, and write a page that compares it with Video-TCAV."""
    from vtcav_ray.cli.gradcam import run_command

    asked = [*(overrides or ()), *([f"gradcam.place=[{place}]"] if place is not None else [])]
    raise typer.Exit(run_command(config, out_url, asked, limit, out, err, trust_code=trust_code))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN_A RUN_B [RUN...]", help="run folders, in order")],
    as_json: AsJson = False,
    page: Annotated[str | None, typer.Option("--html", help="also write a page to this file")] = None,
    options: StorageFile = None,
) -> None:
    """Show which effects moved beyond their uncertainty between runs, paired where the videos are the same."""
    from vtcav_ray.cli.compare import compare_and_print

    compare_and_print([opened(url, options) for url in runs], as_json=as_json, page=page, console=out)


@app.command()
def export(
    run_url: Annotated[str, typer.Argument(metavar="RUN", help="run folder")],
    folder: Annotated[str, typer.Option("--to", help="local folder for figures and tables")] = "export",
    formats: Annotated[str, typer.Option("--figures", help="any of png, svg and pdf")] = "png,svg,pdf",
    classes: Annotated[list[str] | None, typer.Option("--class", help="only this class's figure; repeatable")] = None,
    tracker: Annotated[
        str | None, typer.Option("--log", help="log to tensorboard, mlflow or wandb at --to, instead of writing files")
    ] = None,
    step: Annotated[int, typer.Option(help="training step, for --log")] = 0,
    tracks: Annotated[
        str | None, typer.Option("--tracks", help="write the tracks instead, in this format: mot (MOTChallenge)")
    ] = None,
    options: StorageFile = None,
) -> None:
    """Export figures (PNG, SVG, PDF) and tables (Parquet, CSV, LaTeX), the tracks, or log to an experiment tracker."""
    run = opened(run_url, options)
    if tracks is not None:
        from vtcav_ray.exports.tracks import export_tracks

        sequences = export_tracks(run, tracks, folder)
        out.print(f"Tracks of {sequences:,} videos in {folder}, as {tracks}", soft_wrap=True, highlight=False)
        return
    if tracker is not None:
        from vtcav_ray.exports.trackers import log_run

        logged = log_run(run, tracker, destination=folder, step=step)
        out.print(f"{logged:,} figures logged with {tracker} at {folder}", soft_wrap=True, highlight=False)
        return
    from vtcav_ray.exports import export as export_run

    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"--to {folder} is a file. Give a folder for the figures and tables; it need not exist.")
    written = export_run(run, folder, formats=[f for f in formats.split(",") if f], classes=classes or ())
    out.print(f"{len(written)} files in {folder}: {', '.join(path.name for path in written)}", soft_wrap=True)


@app.command()
def review(
    run_url: Annotated[str, typer.Argument(metavar="RUN", help="run folder with clips")],
    host: Annotated[
        str, typer.Option(help="address to listen on; other machines can connect unless it is loopback")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free port")] = 0,
    export: Annotated[str | None, typer.Option(help="write a static contact sheet here instead of serving")] = None,
    clips: Annotated[int, typer.Option(min=1, help="with --export: maximum number of clips per concept")] = 30,
    options: StorageFile = None,
) -> None:
    """Review the clips, and accept or reject them. The next `vtcav run` leaves out rejected clips."""
    from vtcav_ray.cli import review as command

    run = opened(run_url, options)
    if export is not None:
        out.print(command.export(run, export, clips), soft_wrap=True, highlight=False)
    else:
        command.serve(run, host, port, lambda line: out.print(line, soft_wrap=True, highlight=False))


@app.command()
def intervene(
    run_url: Annotated[str, typer.Argument(metavar="RUN", help="run folder")],
    classes: cell_options.Classes = None,
    layers: cell_options.Layers = None,
    concepts: cell_options.Concepts = None,
    against: cell_options.Against = "random",
    steps: Annotated[list[float] | None, typer.Option("--step", help="size t of the shift; repeatable")] = None,
    cells: Annotated[int, typer.Option(min=1, help="maximum number of comparisons, largest |z| first")] = 6,
    clips: Annotated[int, typer.Option(min=1, help="maximum number of class clips per comparison")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list of rows")] = False,
    options: StorageFile = None,
    trust_code: TrustCode = False,
) -> None:
    """Check effects at several sizes of a shift, with the layer's gain. To test finite effects: vtcav patch."""
    from vtcav_ray.cli.tables import print_interventions
    from vtcav_ray.intervene.run import STEPS, intervene_run
    from vtcav_ray.scores.choose import Wanted

    wanted = Wanted(classes or (), layers or (), concepts or (), against, most=cells)
    run = opened(run_url, options)
    rows = intervene_run(run, wanted, steps or STEPS, max_clips=clips, trust_code=trust_code)
    print_interventions(rows, as_json, out)


@app.command()
def patch(
    run_url: Annotated[str, typer.Argument(metavar="RUN", help="run folder")],
    classes: cell_options.Classes = None,
    layers: cell_options.Layers = None,
    concepts: cell_options.Concepts = None,
    against: cell_options.Against = "random",
    cells: cell_options.Cells = "significant",
    most: Annotated[int, typer.Option(min=1, help="maximum number of significant comparisons, largest |z| first")] = 24,
    limit_reference: Annotated[
        int | None, typer.Option(min=1, help="maximum number of reference videos, spread over the classes")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="print the number of passes and their cost only")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list of rows")] = False,
    overrides: Overrides = None,
    options: StorageFile = None,
    trust_code: TrustCode = False,
) -> None:
    """Test finite effects: put concept clips' activation into reference clips, and run the rest of the model."""
    significant = cell_options.only_significant(cells)
    run, config = cell_options.reopened_run(run_url, overrides, options, trust_code)

    from vtcav_ray.cli.patch import run_command
    from vtcav_ray.scores.choose import Wanted

    limit = most if significant else None
    wanted = Wanted(classes or (), layers or (), concepts or (), against, significant=significant, most=limit)
    raise typer.Exit(
        run_command(
            run,
            config,
            wanted,
            limit_reference=limit_reference,
            dry=dry,
            as_json=as_json,
            console=out,
            errors=err,
        )
    )


commands.register(app, out, err)
setup_commands.register(app, out)
watch_command.register(app, out, err)
explain_command.register(app, out, err)
maps_command.register(app, out, err)
faithful_command.register(app, out, err)
demo_commands.register(app, out, err)
grouped(app)


def main() -> None:
    """Entry point. Exit status: 0 done, 2 config or arguments, 3 a stage failed, 4 too many inputs failed."""
    end_like_ctrl_c()
    try:
        app(standalone_mode=True)
    except VtcavError as error:
        _print_error(printable_lines(str(error)))
        sys.exit(error.exit_status)
    except ImportError as error:
        from vtcav_ray.video.opencv_builds import fault

        message = fault(error)
        if message is None:
            raise
        _print_error(message)
        sys.exit(EXIT_STAGE)
    sys.exit(EXIT_DONE)


def _print_error(message: str) -> None:
    err.print(Text.assemble(("vtcav:", "bold red"), " ", message), soft_wrap=True, highlight=False)
