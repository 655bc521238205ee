"""`vtcav watch`: parse the arguments, run passes and print their results."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.console import Console

from vtcav_ray.cli.run_commands import TrustCode
from vtcav_ray.errors import EXIT_DONE, EXIT_STAGE
from vtcav_ray.store.access import tells_storage_errors

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Parse `60s`, `15min`, `2h` or a plain number of seconds.

    Raises:
        typer.BadParameter: not of that form.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a length of time: write 60s, 15min or 2h.")
    return float(found[1]) * UNITS[found[2] or "s"]


def register(app: typer.Typer, out: Console, err: Console) -> None:
    """Add the command to `app`."""

    @app.command()
    def watch(
        config: Annotated[str, typer.Argument(help="YAML config; the checkpoints found replace its checkpoint")],
        checkpoints: Annotated[str, typer.Option("--checkpoints", help="glob, for example s3://bucket/exp/*.pth")],
        once: Annotated[bool, typer.Option("--once", help="one pass, then end (for cron)")] = False,
        every: Annotated[str, typer.Option("--every", help="time from the end of a pass to the next")] = "60s",
        settle: Annotated[str, typer.Option("--settle", help="a file unchanged for this long is complete")] = "30s",
        lease: Annotated[str, typer.Option("--lease", help="a watcher silent for this long counts as dead")] = "15min",
        attempts: Annotated[int, typer.Option(min=1, help="attempts per checkpoint before it counts as failed")] = 3,
        limit: Annotated[int | None, typer.Option(min=1, help="maximum number of checkpoints per pass")] = None,
        out_url: Annotated[str | None, typer.Option("--out", help="folder shared by all checkpoints")] = None,
        overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value")] = None,
        trust_code: TrustCode = False,
    ) -> None:
        """Run each complete new checkpoint once, also with several watchers, and write a report over training."""
        from vtcav_ray.config.loading import load_config
        from vtcav_ray.watch.loop import Options, Pass, watch_for_ever, watch_once

        settings = load_config(config, overrides or (), out=out_url, trust_code=trust_code)
        options = Options(checkpoints, seconds(settle), seconds(lease), attempts, limit)
        made: list[str] = []  # the runs of this pass, below the shared folder
        statuses: list[int] = []  # exit statuses of these runs

        def one_pass() -> Pass:
            return watch_once(settings, options, _run_one, _update_report)

        def _run_one(*arguments: object) -> dict[str, object]:
            # Import only if there is something to run: a pass that finds nothing new ends at once.
            from vtcav_ray.cli.progress import TerminalProgress
            from vtcav_ray.watch.run_one import CheckpointRunner

            out.print(f"Checkpoint {arguments[1].name}", highlight=False, markup=False)  # type: ignore[attr-defined]
            with TerminalProgress(out) as progress:
                about = CheckpointRunner(progress)(*arguments)  # type: ignore[arg-type]
            made.append(str(about["run"]))
            return about

        def _update_report(folder: object) -> None:
            from vtcav_ray.watch.page import update_report

            out.print(f"Report: {update_report(folder)}", soft_wrap=True)  # type: ignore[arg-type]

        def told(result: Pass) -> None:
            out.print(result.sentence, highlight=False, markup=False, soft_wrap=True)
            for name, error in result.failed.items():
                err.print(f"{name}: {error}", highlight=False, markup=False, soft_wrap=True)
            while made:
                from vtcav_ray.cli.run import status_of
                from vtcav_ray.runs.run import Run

                run = Run(f"{settings.run_url.rstrip('/')}/{made.pop()}", settings.out_storage_options)
                statuses.append(status_of(run, settings.max_failed_fraction, err))

        if not once:
            watch_for_ever(one_pass, seconds(every), told)
        result = tells_storage_errors(one_pass)()
        told(result)
        if result.failed:
            raise typer.Exit(EXIT_STAGE)
        raise typer.Exit(max(statuses, default=EXIT_DONE))
