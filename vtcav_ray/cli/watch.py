"""`vtcav watch`: parse the arguments, run passes and print their results."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vtcav_ray.cli.options import TrustCode
from vtcav_ray.errors import EXIT_DONE, EXIT_STAGE

if TYPE_CHECKING:
    from vtcav_ray.config import Config
    from vtcav_ray.store.folder import Folder
    from vtcav_ray.watch.find import FoundCheckpoint
    from vtcav_ray.watch.loop import Pass, WatchOptions

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
        from vtcav_ray.store.access import report_storage_errors
        from vtcav_ray.watch.loop import WatchOptions, watch_for_ever

        settings = load_config(config, overrides or (), out=out_url, trust_code=trust_code)
        options = WatchOptions(checkpoints, seconds(settle), seconds(lease), attempts, limit)
        passes = _Passes(settings, options, out, err)
        if not once:
            watch_for_ever(passes.run, seconds(every), passes.report)
        result = report_storage_errors(passes.run)()
        passes.report(result)
        if result.failed:
            raise typer.Exit(EXIT_STAGE)
        raise typer.Exit(max(passes.statuses, default=EXIT_DONE))


class _Passes:
    """Runs passes, and prints what each did."""

    def __init__(self, settings: Config, options: WatchOptions, out: Console, err: Console) -> None:
        self.statuses: list[int] = []  # exit statuses of the finished runs
        self._settings, self._options, self._out, self._err = settings, options, out, err
        self._made: list[str] = []  # the runs of this pass, below the shared folder

    def run(self) -> Pass:
        from vtcav_ray.watch.loop import watch_once

        return watch_once(self._settings, self._options, self._run_one, self._update_report)

    def report(self, result: Pass) -> None:
        """Print a pass's result, and the status of each of its runs."""
        self._out.print(result.sentence, highlight=False, markup=False, soft_wrap=True)
        for name, error in result.failed.items():
            self._err.print(f"{name}: {error}", highlight=False, markup=False, soft_wrap=True)
        while self._made:
            from vtcav_ray.cli.run import status_of
            from vtcav_ray.runs.run import Run

            url = f"{self._settings.run_url.rstrip('/')}/{self._made.pop()}"
            run = Run(url, self._settings.out_storage_options)
            self.statuses.append(status_of(run, self._settings.max_failed_fraction, self._err))

    def _run_one(self, config: Config, checkpoint: FoundCheckpoint) -> dict[str, object]:
        # Import only if there is something to run: a pass that finds nothing new ends at once.
        from vtcav_ray.cli.progress import TerminalProgress
        from vtcav_ray.watch.run_one import CheckpointRunner

        self._out.print(f"Checkpoint {checkpoint.name}", highlight=False, markup=False)
        with TerminalProgress(self._out) as progress:
            about = CheckpointRunner(progress)(config, checkpoint)
        self._made.append(str(about["run"]))
        return about

    def _update_report(self, folder: Folder) -> None:
        from vtcav_ray.watch.page import update_report

        self._out.print(f"Report: {update_report(folder)}", soft_wrap=True)
