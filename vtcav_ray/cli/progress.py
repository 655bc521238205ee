"""Progress of a run on the command line: bars in a terminal, one line per stage elsewhere, JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
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
    TimeRemainingColumn,
)
from rich.text import Text

from vtcav_ray.cli.terminal import printable
from vtcav_ray.stages import ALL_STAGES

SIDE = {table for stage in ALL_STAGES for table in stage.side_tables}  # only later stages read them


class _Rate(ProgressColumn):
    """Shards per minute, over the most recent ones."""

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{60 * task.speed:,.3g}/min", style="progress.data.speed")


class JsonProgress:
    """An implementation of `vtcav_ray.pipeline.Progress`: one line of JSON per event."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._shards: dict[str, dict[str, Any]] = {}

    def say(self, event: str, **facts: Any) -> None:
        """Write a line and flush it."""
        self.stream.write(json.dumps({"event": event, "time": round(time.time(), 3), **facts}) + "\n")
        self.stream.flush()

    def stage_started(self, stage: str, *, shards: int, done: int) -> None:
        begun = time.monotonic()
        self._shards[stage] = {"total": shards, "done": done, "there": done, "failures": 0, "begun": begun}
        self.say("stage_started", stage=stage, done=done, total=shards)

    def shard_done(self, stage: str, *, failures: int) -> None:
        now = self._shards[stage]
        now["done"] += 1
        now["failures"] += failures
        rate = (now["done"] - now["there"]) / max(1e-9, time.monotonic() - now["begun"])
        self.say(
            "shard_done",
            stage=stage,
            done=now["done"],
            total=now["total"],
            failures=now["failures"],
            shards_per_second=round(rate, 4),
            seconds_left=round((now["total"] - now["done"]) / rate, 1),
        )

    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None:
        facts = {"rows": manifest["rows"], "seconds": manifest["seconds"], "warnings": manifest["warnings"]}
        self.say("stage_finished", stage=stage, reused=reused, **facts)


class TerminalProgress:
    """An implementation of `vtcav_ray.pipeline.Progress` for terminals. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._failures: dict[str, int] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("shards"),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
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

    def stage_started(self, stage: str, *, shards: int, done: int) -> None:
        self._failures[stage] = 0
        self._tasks[stage] = self._bars.add_task(stage, total=shards, completed=done, failed="")

    def shard_done(self, stage: str, *, failures: int) -> None:
        self._failures[stage] += failures
        failed = f"{self._failures[stage]} failed" if self._failures[stage] else ""
        self._bars.update(self._tasks[stage], advance=1, failed=failed)

    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None:
        if stage in self._tasks:
            self._bars.remove_task(self._tasks.pop(stage))
        rows = ", ".join(f"{count:,} {name}" for name, count in sorted(manifest["rows"].items()) if name not in SIDE)
        how = "re-used" if reused else f"{manifest['seconds']:.1f} s"
        self.console.print(Text.assemble((f"{stage:<12}", "bold"), f" {how:>9}   {rows or 'nothing to store'}"))
        for warning in manifest["warnings"]:
            self.console.print(Text.assemble(("  note: ", "yellow"), printable(warning)))
