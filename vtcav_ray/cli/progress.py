"""Progress of a run on the command line: bars in a terminal, one line per stage elsewhere, JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from vtcav_ray.cli.notes import MOST_SHOWN, grouped
from vtcav_ray.cli.preflight import preflight_json
from vtcav_ray.cli.terminal import printable, printable_lines
from vtcav_ray.preflight.checks import Preflight
from vtcav_ray.runs.pace import shards_per_second
from vtcav_ray.runs.status import duration, rate_text
from vtcav_ray.stages import ALL_STAGES

WORLD = "world"  # the bar of a planted world that is being rendered
PREFLIGHT = "preflight"  # the source of its notes
SIDE = {table for stage in ALL_STAGES for table in stage.side_tables}  # only later stages read them


def _now() -> float:
    return time.monotonic()


@dataclass
class _Pace:
    """When a stage began and its shards were done, by this process's monotonic clock."""

    total: int
    done: int
    started: float = field(default_factory=_now)
    times: list[float] = field(default_factory=list)
    failures: int = 0
    items: list[float] = field(default_factory=list)
    unit: str = ""

    def note(self, count: int = 1, failures: int = 0) -> None:
        self.done += count
        self.times += [_now()] * count
        self.failures += failures

    def note_items(self, items: float, unit: str) -> None:
        """Note what the next shard holds."""
        self.items.append(items)
        self.unit = unit

    def items_per_second(self) -> float | None:
        if not self.unit or len(self.items) != len(self.times):
            return None
        return shards_per_second(self.times, self.started, _now(), self.items)

    def per_second(self) -> float | None:
        return shards_per_second(self.times, self.started, _now())

    def seconds_left(self) -> float | None:
        rate = self.per_second()
        return None if not rate else (self.total - self.done) / rate


class _Rate(ProgressColumn):
    """Items per second, as `vtcav_ray.runs.pace` counts them; where a stage has no items, its shards."""

    def render(self, task: Task) -> Text:
        pace: _Pace = task.fields["pace"]
        text = rate_text(pace.items_per_second(), pace.unit) or rate_text(pace.per_second(), task.fields["unit"])
        return Text(text, style="progress.data.speed")


class _Left(ProgressColumn):
    """Time left at that rate."""

    def render(self, task: Task) -> Text:
        left = task.fields["pace"].seconds_left()
        return Text("" if left is None else f"{duration(left)} left", style="progress.remaining")


class JsonProgress:
    """An implementation of `vtcav_ray.pipeline.Progress`: one line of JSON per event."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._shards: dict[str, _Pace] = {}

    def say(self, event: str, **facts: Any) -> None:
        """Write a line and flush it."""
        self.stream.write(json.dumps({"event": event, "time": round(time.time(), 3), **facts}) + "\n")
        self.stream.flush()

    def checked(self, found: Preflight) -> None:
        """Write the rows of the preflight."""
        self.say("checked", **preflight_json(found))

    def stage_started(self, stage: str, *, shards: int, done: int) -> None:
        self._shards[stage] = _Pace(shards, done)
        self.say("stage_started", stage=stage, done=done, total=shards)

    def shards_added(self, stage: str, *, shards: int, done: int) -> None:
        """Note that a round of shards follows."""
        self._shards[stage].total += shards
        self._shards[stage].done += done

    def items_done(self, stage: str, *, items: float, unit: str) -> None:
        """Note what the shard that is done next holds."""
        self._shards[stage].note_items(items, unit)

    def shard_done(self, stage: str, *, failures: int) -> None:
        now = self._shards[stage]
        now.note(failures=failures)
        rate, left, items = now.per_second(), now.seconds_left(), now.items_per_second()
        self.say(
            "shard_done",
            stage=stage,
            done=now.done,
            total=now.total,
            failures=now.failures,
            **({} if items is None else {"unit": now.unit, "items_per_second": round(items, 4)}),
            shards_per_second=None if rate is None else round(rate, 4),
            seconds_left=None if left is None else round(left, 1),
        )

    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None:
        facts = {"rows": manifest["rows"], "seconds": manifest["seconds"], "warnings": manifest["warnings"]}
        self.say("stage_finished", stage=stage, reused=reused, **facts)


class TerminalProgress:
    """An implementation of `vtcav_ray.pipeline.Progress` for terminals. Use it as a context manager.

    Notes are collected, and printed once, at the end or by `print_notes`.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._paces: dict[str, _Pace] = {}
        self._tasks: dict[str, TaskID] = {}
        self._notes: list[tuple[str, str]] = []
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            _Rate(),
            TimeElapsedColumn(),
            _Left(),
            TextColumn("{task.fields[failed]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self.print_notes()

    def checked(self, found: Preflight) -> None:
        """Collect the warnings of the preflight. An error follows by itself."""
        self._notes += [(PREFLIGHT, check.message) for check in found.checks if check.verdict == "warn"]

    def rendered(self, done: int, total: int) -> None:
        """Show how many videos of a planted world are rendered."""
        if done and WORLD not in self._tasks:
            self._start(WORLD, total, 0, "videos")
        if WORLD in self._tasks:
            self._advance(WORLD, done - self._paces[WORLD].done)
            if done >= total:
                self._bars.remove_task(self._tasks.pop(WORLD))

    def stage_started(self, stage: str, *, shards: int, done: int) -> None:
        self._start(stage, shards, done, "shards")

    def shards_added(self, stage: str, *, shards: int, done: int) -> None:
        """Show that a round of shards follows."""
        pace = self._paces[stage]
        pace.total, pace.done = pace.total + shards, pace.done + done
        self._bars.update(self._tasks[stage], total=pace.total, completed=pace.done)

    def items_done(self, stage: str, *, items: float, unit: str) -> None:
        """Note what the shard that is done next holds."""
        self._paces[stage].note_items(items, unit)

    def shard_done(self, stage: str, *, failures: int) -> None:
        self._advance(stage, 1, failures)

    def _start(self, name: str, total: int, done: int, unit: str) -> None:
        if name in self._tasks:  # after a search, the stage starts again and finds its shards
            self._bars.remove_task(self._tasks.pop(name))
        pace = self._paces[name] = _Pace(total, done)
        self._tasks[name] = self._bars.add_task(name, total=total, completed=done, failed="", pace=pace, unit=unit)

    def _advance(self, name: str, count: int, failures: int = 0) -> None:
        pace = self._paces[name]
        pace.note(count, failures)
        failed = f"{pace.failures} failed" if pace.failures else ""
        self._bars.update(self._tasks[name], completed=pace.done, failed=failed)

    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None:
        if stage in self._tasks:
            self._bars.remove_task(self._tasks.pop(stage))
        rows = ", ".join(f"{count:,} {name}" for name, count in sorted(manifest["rows"].items()) if name not in SIDE)
        how = "re-used" if reused else f"{manifest['seconds']:.1f} s"
        self.console.print(Text.assemble((f"{stage:<12}", "bold"), f" {how:>9}   {rows or 'nothing to store'}"))
        if not reused:  # the run that computed the stage has told its notes
            self._notes += [(stage, warning) for warning in manifest["warnings"]]

    def print_notes(self) -> None:
        """Print the notes that came since the last call, the worst first."""
        groups, self._notes = grouped(self._notes), []
        for group in groups[:MOST_SHOWN]:
            style = "bold red" if group.rank == 0 else "yellow"
            where = f"{', '.join(group.stages)}: "
            self.console.print(
                Text.assemble(("note: ", style), (where, "dim"), printable_lines(group.sentence)), soft_wrap=True
            )
        if len(groups) > MOST_SHOWN:
            more = f"{len(groups) - MOST_SHOWN} more notes are in the report."
            self.console.print(Text.assemble(("note: ", "yellow"), printable(more)))
