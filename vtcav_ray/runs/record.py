"""run.json: the config of a folder's newest run, its progress, and where its tables are."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.runs.fresh import Retired, remove_retired, replaced
from vtcav_ray.runs.run import Run, relative_url
from vtcav_ray.runs.run_lease import Writer
from vtcav_ray.stages import SHARED
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import RUN_JSON, BrokenFile, RunJson, checked
from vtcav_ray.version import __version__

logger = logging.getLogger(__name__)

RECORD = "run.json"
PLAN = "plan.json"  # in a stage's folder: number of shards, when the work began, and how many shards were done then
VERSIONS_OF = ("ray", "torch", "mmaction2", "mmengine", "ultralytics", "numpy", "pyarrow", "scikit-learn", "av")
OTHER_NAMES = {"ultralytics": "ultralytics-opencv-headless"}  # distributions of the same package


class RunRecord:
    """The record of a run, written at every step, so that another process can read the run's progress.

    `previous` holds, for each stage, the key of the last finished run that had the stage. Results from there can be
    carried over, also after this run is killed and started again.
    """

    def __init__(
        self,
        folder: Folder,
        config: Config,
        base: Run | None,
        before: RunJson | None = None,
        *,
        carry_over: bool = True,
        writer: Writer | None = None,
    ) -> None:
        self.folder, self.config, self._base, self._writer = folder, config, base, writer
        self._home = base.folder if base is not None else folder
        self._before = dict(before["keys"]) if before is not None else {}
        self.previous = _finished(before) if carry_over else {}
        retired = before.get("retired", []) if before is not None else []
        self._retired: list[Retired] = [(stage, key) for stage, key in retired]
        self.keys: dict[str, str] = {}
        self._done: dict[str, StageFolder] = {}
        self._warnings: list[str] = []
        self._enough: dict[str, Any] | None = None

    @classmethod
    def begin(
        cls, folder: Folder, config: Config, base: Run | None, *, carry_over: bool, writer: Writer | None = None
    ) -> RunRecord:
        """Open the record of a run that starts now.

        Args:
            folder, config, base: as in `vtcav_ray.pipeline.run`.
            carry_over: remember the outputs of the previous run, to carry over from.
            writer: checked before each write; None: no other process writes here.
        """
        try:
            before = read_run_json(folder)
        except BrokenFile as error:  # it is rewritten now; losing it costs computing time, but no rows
            logger.warning("%s", error)
            before = None
        return cls(folder, config, base, before, carry_over=carry_over, writer=writer)

    def retire(self, output: StageFolder, ingredients: dict[str, Any]) -> None:
        """Note that a fresh run has recomputed a stage. The next run removes the previous run's output of it."""
        old = stage_folder(self.folder, output.stage, self._before.get(output.stage, output.key))
        if replaced(old, output, ingredients, self.keys, self._retired):
            self._retired.append((old.stage, old.key))

    def remove_retired(self) -> None:
        """Remove outputs that earlier fresh runs have replaced, unless a rerun in this folder still uses them."""
        if self._retired:
            remove_retired(self.folder, self._retired, self._used())
            self._retired = []

    def _used(self) -> set[Retired]:
        """Return each (stage, key) that the folder's newest run, or a rerun below it, names."""
        used = set(self._before.items())
        for name in self.folder.names("checkpoints"):
            try:
                record = read_run_json(self.folder.below("checkpoints", name))
            except BrokenFile as error:
                logger.warning("%s", error)
                continue
            used |= set(record["keys"].items()) if record is not None else set()
        return used

    def inputs(self) -> dict[str, StageFolder]:
        """Return the stages that are complete so far."""
        return dict(self._done)

    def earlier(self, stage: str) -> StageFolder | None:
        """Return the stage's output in the last finished run; None: there is none, or it is this run's own."""
        key, now = self.previous.get(stage), self.keys.get(stage)
        home = self._home if stage in SHARED else self.folder
        return None if key is None or key == now else stage_folder(home, stage, key)

    def reached(self, output: StageFolder) -> None:
        """Record that a stage begins."""
        self.keys[output.stage] = output.key
        self.write(f"running: {output.stage}")

    def completed(self, output: StageFolder, warnings: Sequence[str], enough: Mapping[str, Any] | None = None) -> None:
        """Record that a stage is complete.

        Args:
            enough: how many videos of how many were looked at, by set (`videos.enough`); None: not this stage.
        """
        if enough is not None:
            self._enough = dict(enough)
        self.keys[output.stage] = output.key
        self._done[output.stage] = output
        self._warnings += warnings

    def write(self, status: str, *, error: str | None = None) -> None:
        """Write run.json.

        Raises:
            StageError: the folder can't be written. LeaseLost: another run has taken it over; nothing is written.
        """
        if self._writer is not None:
            self._writer.check(look=True)
        record: dict[str, Any] = {
            "config": self.config.recorded(),  # never holds any storage_options
            "keys": dict(self.keys),
            "previous": self.previous,
            "status": status,
            "warnings": self._warnings,
            "versions": versions(),
            "updated": time.time(),
        }
        if self._base is not None:
            record["base"] = relative_url(self.folder.url, self._base.folder.url)
        if self._enough is not None:
            record["enough"] = self._enough
        if self._retired:
            record["retired"] = [list(pair) for pair in self._retired]
        if error is not None:
            record["error"] = error
        try:
            self.folder.write_json(RECORD, record)
        except (PermissionError, OSError) as failure:
            raise StageError(
                f"The run folder {self.folder.url} can't be written: {failure}. Choose another with --out."
            ) from failure


def read_run_json(folder: Folder) -> RunJson | None:
    """Read run.json of a folder; None: there is none.

    Raises:
        BrokenFile: the file is damaged.
    """
    try:
        return checked(folder.read_json(RECORD), RUN_JSON, f"{folder.url}/{RECORD}")
    except FileNotFoundError:
        return None


def finished_keys(folder: Folder) -> dict[str, str]:
    """Return stage -> key in the last finished run of this folder that had the stage; empty: no run has finished.

    A run that ended early on purpose (`--until clips`) lacks the later stages. Their keys are those of the run before.

    Raises:
        BrokenFile: run.json is damaged.
    """
    return _finished(read_run_json(folder))


def _finished(record: RunJson | None) -> dict[str, str]:
    if record is None:
        return {}
    finished = str(record.get("status", "")).startswith("done")
    return {**record.get("previous", {}), **(record["keys"] if finished else {})}


def videos_processed(folder: Folder) -> int:
    """Return the number of videos in the last finished run of this folder."""
    key = finished_keys(folder).get("videos")
    output = stage_folder(folder, "videos", key) if key else None
    return int(output.manifest()["rows"].get("videos", 0)) if output is not None and output.complete else 0


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of the packages that determine the results."""
    return {"vtcav-ray": __version__, "python": platform.python_version(), **_versions_of_packages()}


@functools.cache  # reads a file for each package, and a run asks twice a stage
def _versions_of_packages() -> dict[str, str]:
    found = {}
    for name in VERSIONS_OF:
        for distribution in filter(None, (OTHER_NAMES.get(name), name)):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # an extra
                found[name] = importlib.metadata.version(distribution)
                break
    return found
