"""Commands for a run that exists: status, retry-failed, rerun. `vtcav_ray.cli` puts them into `vtcav`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from vtcav_ray.errors import EXIT_TOO_MANY_FAILED

RunUrl = Annotated[str, typer.Argument(metavar="RUN", help="run folder, any fsspec URL")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value, for example resources.num_cpus=8")]


def register(app: typer.Typer, out: Console, err: Console) -> None:
    """Add the commands to `app`; they print to `out`."""

    @app.command()
    def status(
        run_url: RunUrl, as_json: Annotated[bool, typer.Option("--json", help="one JSON object, for scripts")] = False
    ) -> None:
        """How far a run is: stages, shards done of all, rate, failures. Can be asked while it runs, from anywhere."""
        from vtcav_ray.results import Run
        from vtcav_ray.status import run_status, status_table

        found = run_status(Run(run_url))
        if as_json:
            print(json.dumps(found.as_json()))
            return
        out.print(f"{found.url}: {found.status}", highlight=False, soft_wrap=True, markup=False)
        if found.error:
            out.print(found.error, highlight=False, soft_wrap=True, markup=False)
        out.print(status_table(found))
        if found.failures:
            out.print(f"{found.failures} failures: vtcav table {found.url} failures", soft_wrap=True, markup=False)

    @app.command("retry-failed")
    def retry_failed(run_url: RunUrl, overrides: Overrides = None) -> None:
        """Try again what failed in a run, and only that; later stages then see what was recovered."""
        from vtcav_ray import pipeline
        from vtcav_ray.progress import TerminalProgress
        from vtcav_ray.rerun import reopened

        run, settings, base = reopened(run_url, overrides or ())
        before = run.table("failures").num_rows
        if not before:
            out.print("Nothing failed in this run.")
            return
        with TerminalProgress(out) as progress:
            result = pipeline.run(settings, progress, base=base, retry_failed=True)
        left = result.table("failures").num_rows
        out.print(f"{before} failures before, {left} now. Report: {result.report_url}", soft_wrap=True)
        if pipeline.failed_inputs(result).fraction > settings.max_failed_fraction:
            raise typer.Exit(EXIT_TOO_MANY_FAILED)

    @app.command()
    def rerun(
        run_url: RunUrl,
        checkpoint: Annotated[str, typer.Option("--checkpoint", help="the other checkpoint, a .pth on any URL")],
        out_url: Annotated[
            str | None, typer.Option("--out", help="run folder; default: RUN/checkpoints/NAME-DIGEST")
        ] = None,
        fresh: Annotated[bool, typer.Option("--fresh", help="remove what this rerun has already")] = False,
        overrides: Overrides = None,
    ) -> None:
        """Run again on another checkpoint: tracks and clips are re-used, the source videos are not read."""
        from vtcav_ray import rerun as reruns
        from vtcav_ray.progress import TerminalProgress
        from vtcav_ray.report.terminal import score_table_text

        with TerminalProgress(out) as progress:
            result = reruns.rerun(run_url, checkpoint, out_url, overrides or (), progress=progress, fresh=fresh)
        out.print(score_table_text(result.run.table("scores"), width=out.width))
        out.print(result.saving.sentence)
        out.print(f"Report: {result.run.report_url}", soft_wrap=True)
