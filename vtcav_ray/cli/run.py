"""`vtcav run`: output during and after the run, and how it stops."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console

from vtcav_ray import pipeline
from vtcav_ray.cli.progress import JsonProgress, TerminalProgress
from vtcav_ray.cli.score_table import print_answers
from vtcav_ray.config import Config
from vtcav_ray.errors import EXIT_DONE, EXIT_STOPPED, EXIT_TOO_MANY_FAILED
from vtcav_ray.pipeline import FailedInputs
from vtcav_ray.runs.run import Run


@dataclass(frozen=True)
class RunOptions:
    """Options of `vtcav run`.

    Attributes:
        until: the last stage to run; None: all stages.
        fresh: recompute this config's output and replace it.
        as_json: print one line of JSON per event on stdout, and nothing else there.
        verify: check every file of a complete stage, and recompute broken ones.
        take_over: end another run that writes into the folder.
    """

    until: str | None = None
    fresh: bool = False
    as_json: bool = False
    verify: bool = True
    take_over: bool = False


def run_and_print(config: Config, options: RunOptions, *, again: str, console: Console, errors: Console) -> int:
    """Run the pipeline and print the results. Ctrl-C stops the actors and prints how to resume.

    Args:
        config: of the run.
        options: of the command.
        again: the command that resumes the run, without credentials.
        console, errors: for people.

    Returns:
        The exit status.
    """
    if not options.as_json:
        with TerminalProgress(console) as progress:
            return _run(config, options, progress, again=again, console=console, errors=errors)
    with only_ours(sys.stdout) as stdout:
        return _run(config, options, JsonProgress(stdout), again=again, console=console, errors=errors)


@contextlib.contextmanager
def only_ours(stdout: TextIO) -> Iterator[TextIO]:
    """Yield a stream to the process's standard output that nothing else writes to.

    Libraries and child processes print to standard output (Ray does when its raylet dies), which would break a program
    that reads JSON. Inside this context, their output goes to standard error. A stream other than the process's
    standard output is yielded unchanged.
    """
    try:
        own = stdout.fileno() == 1
    except (OSError, ValueError):  # a stream in memory
        own = False
    if not own:
        yield stdout
        return
    stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as ours:
            yield ours
    finally:
        stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _run(
    config: Config,
    options: RunOptions,
    progress: JsonProgress | TerminalProgress,
    *,
    again: str,
    console: Console,
    errors: Console,
) -> int:
    events = progress if isinstance(progress, JsonProgress) else None
    try:
        result = pipeline.run(
            config,
            progress,
            until=options.until,
            fresh=options.fresh,
            verify=options.verify,
            take_over=options.take_over,
        )
    except KeyboardInterrupt:
        # The engine's session has already ended: a Ray that was started for this run is stopped.
        errors.print(
            f"Stopped. Every finished shard is kept in {config.run_url}. Resume with: {again}",
            soft_wrap=True,
            highlight=False,
        )
        return EXIT_STOPPED
    if isinstance(progress, TerminalProgress):
        progress.print_notes()
    failures = pipeline.failed_inputs(result)
    if "report" not in result.keys:
        _tell_done_until(options, result, failures, events, console)
    elif events is not None:
        _say_done(events, result, failures)
    else:
        _print_done(result, failures, console)
    return status_of(result, config.max_failed_fraction, errors)


def status_of(result: Run, allowed: float, errors: Console) -> int:
    """Return the exit status of a command that completed a run. Print a sentence if the status is not 0."""
    failures = pipeline.failed_inputs(result)
    if failures.fraction <= allowed:
        return EXIT_DONE
    errors.print(
        f"{failures.failed} of {failures.total} videos failed somewhere in {result.url}, more than max_failed_fraction "
        f"= {allowed:g} allows. The results are from the rest.",
        soft_wrap=True,
        highlight=False,
    )
    return EXIT_TOO_MANY_FAILED


def _tell_done_until(
    options: RunOptions, result: Run, failures: FailedInputs, events: JsonProgress | None, console: Console
) -> None:
    if events is not None:
        counts = {"failed_videos": failures.failed, "videos": failures.total}
        events.say("done", run=result.url, until=options.until, keys=result.keys, **counts)
        return
    check = f" Check the clips: vtcav review {result.url}" if "clips" in result.keys else ""
    console.print(f"Done until {options.until}.{check}", soft_wrap=True, highlight=False)
    _print_failed(result, failures, console)


def _print_failed(result: Run, failures: FailedInputs, console: Console) -> None:
    if failures.failed:
        console.print(
            f"{failures.failed} of {failures.total} videos failed somewhere: vtcav table {result.url} failures",
            soft_wrap=True,
        )


def _say_done(events: JsonProgress, result: Run, failures: FailedInputs) -> None:
    scores = result.table("scores", columns=["significant"])
    events.say(
        "done",
        run=result.url,
        report=result.report_url,
        keys=result.keys,
        cells=scores.num_rows,
        significant=sum(bool(s) for s in scores["significant"].to_pylist()),
        failed_videos=failures.failed,
        videos=failures.total,
        untrained=bool(result.manifest("activations")["notes"]["untrained"]),
    )


def _print_done(result: Run, failures: FailedInputs, console: Console) -> None:
    print_answers(console, result)
    if result.manifest("activations")["notes"]["untrained"]:
        console.print("The model is UNTRAINED: the scores above are those of random weights.", style="bold red")
    _print_failed(result, failures, console)
    console.print(f"Report: {result.report_url}", soft_wrap=True)
