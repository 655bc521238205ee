"""A run's progress, read from its folder alone: it works from another machine, during a run or after a crash."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table

from vtcav_ray.runs.record import PLAN
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import IN_ORDER, NAMES
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
        rate: shards per minute since the stage began or resumed; None: no shard since then.
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


@dataclass(frozen=True)
class RunStatus:
    """The status of a whole run: the facts in run.json, and its stages in order."""

    url: str
    status: str
    error: str | None
    updated: float
    stages: tuple[StageStatus, ...]

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
    shown = [stage.name for stage in IN_ORDER if stage.name in NAMES or stage.name in run.keys]
    stages = tuple(
        _stage_status(run.stage(name), now) if name in run.keys else StageStatus(name, "not started") for name in shown
    )
    return RunStatus(run.url, str(record.get("status", "")), record.get("error"), record.get("updated", now), stages)


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
    since, spent = len(done) - plan["done"], now - plan["started"]
    if since > 0 and spent > 0:
        rate = 60 * since / spent
        left = 60 * (plan["shards"] - len(done)) / rate
    return StageStatus(
        output.stage,
        "unfinished",
        plan["shards"],
        len(done),
        rate=rate,
        seconds_left=left,
        last=_last_commit(output, now),
        failures=sum(record["failures"] for record in output.records()),
        carried=plan.get("carried", {}).get("kept", 0),
    )


def _last_commit(output: StageFolder, now: float) -> float | None:
    """Return the seconds since the newest commit record was written."""
    times = [t for entry in output.folder.entries(COMMITS) if (t := modified_at(entry)) is not None]
    return max(0.0, now - max(times)) if times else None


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
            "" if stage.rate is None else f"{stage.rate:.1f}/min",
            "" if stage.seconds_left is None else duration(stage.seconds_left),
            "" if stage.last is None else f"{duration(stage.last)} ago",
            str(stage.failures) if stage.failures else "",
        )
    return table


def duration(seconds: float) -> str:
    """Return a duration as text: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
