"""A run's progress, read from its folder alone: it works from another machine, during a run or after a crash."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table

from vtcav_ray.runs.pace import shards_per_second
from vtcav_ray.runs.record import PLAN
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import silent_since
from vtcav_ray.stages import IN_ORDER, NAMES, TRACKS, facts_of
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.folder import modified_at
from vtcav_ray.store.records import COMMITS, PLAN_JSON, checked

State = Literal["done", "unfinished", "not started"]


@dataclass(frozen=True)
class StageStatus:
    """One stage of a run.

    Attributes:
        shards: planned shards; None: the stage has not begun.
        done: committed shards.
        rate: shards per minute, of the last minute if that had several, else since the stage began or resumed; None:
            no shard since then.
        unit, items_per_second: what the shards hold (videos, clips), and their rate, from the mean shard; empty and
            None: not known.
        seconds_left: estimate at that rate.
        last: seconds since the newest shard was committed; None: none yet, or the storage keeps no times.
        failures: rows of `failures`.
        carried: videos or shards carried over from an earlier output.
    """

    stage: str
    state: State
    shards: int | None = None
    done: int = 0
    rate: float | None = None
    seconds_left: float | None = None
    last: float | None = None
    failures: int = 0
    carried: int = 0
    unit: str = ""
    items_per_second: float | None = None


@dataclass(frozen=True)
class RunStatus:
    """The status of a whole run: the facts in run.json, and its stages in order.

    Attributes:
        not_running_since: last sign of life of a process that says `running` and has ended or is silent, seconds since
            the epoch; None: it runs, it has ended in order, or the storage can't tell.
    """

    url: str
    status: str
    error: str | None
    updated: float
    stages: tuple[StageStatus, ...]
    not_running_since: float | None = None

    @property
    def sentence(self) -> str:
        """The status in words: `running: tracks`, or `not running since 2026-01-01 12:00:00 UTC (it was ...)`."""
        if self.not_running_since is None:
            return self.status
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.not_running_since))
        return f"not running since {since} (was {self.status}). Its process ended. Start it again: it resumes."

    @property
    def failures(self) -> int:
        return sum(stage.failures for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run_status(run: Run, now: float | None = None) -> RunStatus:
    """Read the status of every stage of a run.

    Args:
        run: a finished or unfinished run.
        now: seconds since the epoch; None: this machine's clock.
    """
    now = time.time() if now is None else now
    record = run.record
    tracked = run.config.clips.need_tracks
    expected = [name for name in NAMES if tracked or name != TRACKS.name]
    shown = [stage.name for stage in IN_ORDER if stage.name in expected or stage.name in run.keys]
    stages = tuple(
        _stage_status(run.stage(name), now) if name in run.keys else StageStatus(name, "not started") for name in shown
    )
    status = str(record.get("status", ""))
    silent = silent_since(run.folder, now) if status.startswith("running") else None
    return RunStatus(run.url, status, record.get("error"), record.get("updated", now), stages, silent)


def _stage_status(output: StageFolder, now: float) -> StageStatus:
    if output.complete:
        manifest = output.manifest()
        shards = len(manifest["shards"])
        carried = manifest.get("carried", {}).get("kept", 0)
        failures = manifest["rows"].get("failures", 0)
        return StageStatus(output.stage, "done", shards, shards, failures=failures, carried=carried)
    done = output.committed() - {"final"}
    if not output.folder.exists(PLAN):
        return StageStatus(output.stage, "unfinished", done=len(done))
    plan = checked(output.folder.read_json(PLAN), PLAN_JSON, f"{output.folder.url}/{PLAN}")
    rate = left = None
    times = _commit_times(output)
    since = len(done) - plan["done"]
    if since > 0 and (pace := _pace(times, since, plan["started"], now)) is not None:
        rate = 60 * pace
        left = (plan["shards"] - len(done)) / pace
    records = output.records()
    facts = facts_of(output.stage)
    items = [record["metrics"].get(facts.unit or "", 0.0) for record in records]
    known = rate is not None and facts.items and any(items)
    return StageStatus(
        output.stage,
        "unfinished",
        plan["shards"],
        len(done),
        rate=rate,
        seconds_left=left,
        last=max(0.0, now - max(times)) if times else None,
        failures=sum(record["failures"] for record in records),
        carried=plan.get("carried", {}).get("kept", 0),
        unit=facts.items if known else "",
        items_per_second=rate / 60 * sum(items) / len(items) if rate is not None and known else None,
    )


def _commit_times(output: StageFolder) -> list[float]:
    """Return when each commit record was written, in seconds since the epoch; empty if the storage keeps no times."""
    return [t for entry in output.folder.entries(COMMITS) if (t := modified_at(entry)) is not None]


def _pace(times: list[float], since: int, started: float, now: float) -> float | None:
    """Return shards per second, of the `since` shards that were done after the stage began or resumed."""
    newest = sorted(times)[-since:]
    # Without times, or with times of another clock, only the number of shards counts.
    return shards_per_second(newest if len(newest) == since else [started] * since, started, now)


def status_table(status: RunStatus) -> Table:
    """Return the status as a table for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (("stage", "left"), ("", "left"), ("shards", "right"), ("rate", "right"), ("left", "right"),
                       ("last", "right"), ("failures", "right")):  # fmt: skip
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for stage in status.stages:
        shards = "" if stage.shards is None else f"{stage.done}/{stage.shards}"
        table.add_row(
            stage.stage,
            stage.state,
            shards or (str(stage.done) if stage.done else ""),
            rate_text(stage.items_per_second, stage.unit)
            or rate_text(None if stage.rate is None else stage.rate / 60, "shards"),
            "" if stage.seconds_left is None else duration(stage.seconds_left),
            "" if stage.last is None else f"{duration(stage.last)} ago",
            str(stage.failures) if stage.failures else "",
        )
    return table


def rate_text(per_second: float | None, unit: str) -> str:
    """Return a rate as text: `12.5 clips/s`, below one a second `7.2 videos/min`; empty: not known."""
    if not per_second:
        return ""
    return f"{per_second:,.3g} {unit}/s" if per_second >= 1 else f"{60 * per_second:,.3g} {unit}/min"


def duration(seconds: float) -> str:
    """Return a duration as text: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
