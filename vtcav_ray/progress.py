"""What the command line shows while a run goes on: bars in a terminal, a line a stage elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class TerminalProgress:
    """Implements `vtcav_ray.pipeline.Progress`. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._failures: dict[str, int] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("shards"),
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
        rows = ", ".join(f"{count:,} {name}" for name, count in sorted(manifest["rows"].items()))
        how = "re-used" if reused else f"{manifest['seconds']:.1f} s"
        self.console.print(f"[bold]{stage:<12}[/bold] {how:>9}   {rows or 'nothing to store'}", highlight=False)
        for warning in manifest["warnings"]:
            self.console.print(Text.assemble(("  note: ", "yellow"), warning))
