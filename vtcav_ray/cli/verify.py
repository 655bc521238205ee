"""`vtcav verify RUN`: check that the files of a run folder are unchanged since they were written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.console import Console

from vtcav_ray.cli.terminal import printable
from vtcav_ray.errors import EXIT_DONE, EXIT_STAGE
from vtcav_ray.runs.damage import Damage, Examination, examine
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import ALL_NAMES

ROUND = 1e6  # bytes per MB


@dataclass(frozen=True)
class StageResult:
    """The result for one stage of a run.

    Attributes:
        stage, url: its name and folder.
        found: what was checked, and what is broken.
    """

    stage: str
    url: str
    found: Examination


def examine_run(run: Run) -> list[StageResult]:
    """Check every stage that a run has reached, in order, including stages of the run that it is a rerun of."""
    keys = run.keys
    outputs = [run.stage(name) for name in ALL_NAMES if name in keys]
    return [StageResult(output.stage, output.folder.url, examine(output)) for output in outputs]


def verify_run(run: Run, out: Console, *, as_json: bool = False) -> int:
    """Check a run and print the result.

    Returns:
        The exit status: 0 if every file matches its record and every stage its plan, otherwise 3.
    """
    results = examine_run(run)
    broken = [(result, damage) for result in results for damage in result.found.damage]
    if as_json:
        stages = [{"stage": r.stage, "url": r.url, **asdict(r.found)} for r in results]
        print(json.dumps({"run": run.url, "ok": not broken, "stages": stages}))
        return EXIT_STAGE if broken else EXIT_DONE
    for result in results:
        found = result.found
        state = "as written" if not found.damage else f"{len(found.damage)} broken"
        counts = f"{found.shards:,} shards, {found.files:,} files, {found.bytes / ROUND:,.1f} MB"
        out.print(f"{result.stage:<12} {state:>12}   {counts}", soft_wrap=True, highlight=False)
        for damage in found.damage:
            out.print(f"  {printable(_sentence(damage))}", soft_wrap=True, highlight=False)
    if broken:
        again = sorted({f"{r.stage}/{d.shard}" for r, d in broken if d.shard is not None})
        shards = f" Shards to recompute: {', '.join(again)}." if again else ""
        out.print(
            f"{run.url} is damaged.{printable(shards)} `vtcav run` on this folder repairs what is broken.",
            soft_wrap=True,
            highlight=False,
        )
        return EXIT_STAGE
    out.print(f"{run.url}: every file is unchanged, and every stage is complete.", soft_wrap=True)
    return EXIT_DONE


def _sentence(damage: Damage) -> str:
    shard = f"shard {damage.shard}: " if damage.shard is not None else ""
    return f"{shard}{damage.file}: {damage.what}"
