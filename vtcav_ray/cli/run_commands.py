"""Commands for an existing run: status, verify, retry-failed, rerun. `vtcav_ray.cli` adds them to `vtcav`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from vtcav_ray.cli.options import AsJson, NoVerify, Overrides, RunUrl, StorageFile, TakeOver, TrustCode
from vtcav_ray.cli.terminal import printable_lines
from vtcav_ray.errors import EXIT_STOPPED

if TYPE_CHECKING:
    from vtcav_ray.runs.run import Run

GO_ON = (
    "run",
    "retry-failed",
    "rerun",
    "gradcam",
    "patch",
    "maps",
    "faithful",
    "watch",
)  # commands that resume unfinished work


def opened(run_url: str, storage_file: str | None) -> Run:
    """Open the run at a URL, with the storage options of a file.

    Raises:
        ConfigError: there is no run, or the file contains no options.
    """
    from vtcav_ray.config.loading import read_options
    from vtcav_ray.runs.run import Run

    return Run(run_url, read_options(storage_file))


def interruptible(err: Console) -> type[TyperGroup]:
    """Return the class of the command group. On Ctrl-C it prints to `err` what is kept; typer would print nothing."""

    class Interruptible(TyperGroup):
        def invoke(self, ctx: Any) -> Any:
            from vtcav_ray.store.access import report_storage_errors  # imports fsspec, which `--help` does not need

            try:
                return report_storage_errors(super().invoke)(ctx)  # report all storage errors in the same way
            except KeyboardInterrupt:
                goes_on = ctx.invoked_subcommand in GO_ON
                rest = " Finished work is kept: the same command, without --fresh, resumes from there."
                err.print(f"Stopped.{rest if goes_on else ''}", soft_wrap=True)
                raise typer.Exit(EXIT_STOPPED) from None

    return Interruptible


def register(app: typer.Typer, out: Console, err: Console) -> None:
    """Add the commands to `app`; they print to `out`."""
    _add_status(app, out)
    _add_verify(app, out)
    _add_retry_failed(app, out, err)
    _add_rerun(app, out, err)


def _add_status(app: typer.Typer, out: Console) -> None:
    @app.command()
    def status(
        run_url: RunUrl,
        as_json: AsJson = False,
        options: StorageFile = None,
    ) -> None:
        """Show a run's progress: stages, finished shards, rate, failures. Works while it runs, from any machine."""
        from vtcav_ray.runs.status import run_status, status_table

        found = run_status(opened(run_url, options))
        if as_json:
            print(json.dumps(found.as_json()))
            return
        out.print(f"{found.url}: {found.sentence}", highlight=False, soft_wrap=True, markup=False)
        if found.error:
            out.print(printable_lines(found.error), highlight=False, soft_wrap=True, markup=False)
        out.print(status_table(found))
        if found.failures:
            out.print(f"{found.failures} failures: vtcav table {found.url} failures", soft_wrap=True, markup=False)


def _add_verify(app: typer.Typer, out: Console) -> None:
    @app.command()
    def verify(
        run_url: RunUrl,
        as_json: AsJson = False,
        options: StorageFile = None,
    ) -> None:
        """Check every file of a run against its record, and every stage against its plan: 0 intact, 3 broken."""
        from vtcav_ray.cli.verify import verify_run

        raise typer.Exit(verify_run(opened(run_url, options), out, as_json=as_json))


def _add_retry_failed(app: typer.Typer, out: Console, err: Console) -> None:
    @app.command("retry-failed")
    def retry_failed(
        run_url: RunUrl,
        overrides: Overrides = None,
        no_verify: NoVerify = False,
        take_over: TakeOver = False,
        options: StorageFile = None,
        trust_code: TrustCode = False,
    ) -> None:
        """Retry only what failed in a run; later stages then use the recovered inputs."""
        from vtcav_ray import pipeline
        from vtcav_ray.cli.progress import TerminalProgress
        from vtcav_ray.cli.run import status_of
        from vtcav_ray.config.loading import read_options
        from vtcav_ray.watch.rerun import reopened

        run, settings, base = reopened(run_url, overrides or (), read_options(options), trust_code=trust_code)
        before = run.table("failures").num_rows
        if not before:
            out.print("Nothing failed in this run.")
            return
        with TerminalProgress(out) as progress:
            result = pipeline.run(
                settings, progress, base=base, retry_failed=True, verify=not no_verify, take_over=take_over
            )
        left = result.table("failures").num_rows
        out.print(f"{before} failures before, {left} now. Report: {result.report_url}", soft_wrap=True)
        raise typer.Exit(status_of(result, settings.max_failed_fraction, err))


def _add_rerun(app: typer.Typer, out: Console, err: Console) -> None:
    @app.command()
    def rerun(
        run_url: RunUrl,
        checkpoint: Annotated[str, typer.Option("--checkpoint", help="new checkpoint, a .pth on any URL")],
        out_url: Annotated[
            str | None, typer.Option("--out", help="run folder; default: RUN/checkpoints/NAME-DIGEST")
        ] = None,
        fresh: Annotated[bool, typer.Option("--fresh", help="recompute the existing output of this rerun")] = False,
        overrides: Overrides = None,
        no_verify: NoVerify = False,
        take_over: TakeOver = False,
        options: StorageFile = None,
        trust_code: TrustCode = False,
    ) -> None:
        """Run on another checkpoint: re-use tracks and clips, without reading the source videos."""
        from vtcav_ray.cli.progress import TerminalProgress
        from vtcav_ray.cli.run import status_of
        from vtcav_ray.cli.score_table import print_answers
        from vtcav_ray.config.loading import read_options
        from vtcav_ray.watch import rerun as reruns

        storage = read_options(options)
        with TerminalProgress(out) as progress:
            result = reruns.rerun(
                run_url,
                checkpoint,
                out_url,
                overrides or (),
                progress=progress,
                fresh=fresh,
                storage_options=storage,
                verify=not no_verify,
                take_over=take_over,
                trust_code=trust_code,
            )
        print_answers(out, result.run)
        out.print(result.saving.sentence)
        out.print(f"Report: {result.run.report_url}", soft_wrap=True)
        raise typer.Exit(status_of(result.run, result.run.config.max_failed_fraction, err))
