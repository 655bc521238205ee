"""run.json: what the newest run of a folder was asked to do, how far it is, and where its tables are."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Sequence
from typing import Any

import vtcav_ray
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.results import SHARED_STAGES, Run, relative_url
from vtcav_ray.storage import Folder, StageFolder, stage_folder

RECORD = "run.json"
PLAN = "plan.json"  # in a stage's folder: how many shards there will be, when it was begun, how many there were then
VERSIONS_OF = ("ray", "torch", "mmaction2", "mmengine", "ultralytics", "numpy", "pyarrow", "scikit-learn", "av")


class RunRecord:
    """Written at every step of a run, so that another process can tell how far it is.

    `previous` holds, stage by stage, the key of the last run that came to its end and had that stage: what was computed
    there can be carried over, also when this one is killed and started again.
    """

    def __init__(
        self, folder: Folder, config: Config, base: Run | None, home: Folder, previous: dict[str, str]
    ) -> None:
        self.folder, self.config, self._base, self._home = folder, config, base, home
        self.previous = previous
        self.keys: dict[str, str] = {}
        self._done: dict[str, StageFolder] = {}
        self._warnings: list[str] = []

    @classmethod
    def begin(cls, folder: Folder, config: Config, base: Run | None, *, carry_over: bool) -> RunRecord:
        """Open the record of a run that starts now."""
        previous = finished_keys(folder) if carry_over else {}
        return cls(folder, config, base, base.folder if base else folder, previous)

    def inputs(self) -> dict[str, StageFolder]:
        """The complete stages so far."""
        return dict(self._done)

    def earlier(self, stage: str) -> StageFolder | None:
        """The stage's output in the last run that came to its end, if that is not the one of this run."""
        key, now = self.previous.get(stage), self.keys.get(stage)
        home = self._home if stage in SHARED_STAGES else self.folder
        return None if key is None or key == now else stage_folder(home, stage, key)

    def reached(self, output: StageFolder) -> None:
        """A stage begins."""
        self.keys[output.stage] = output.key
        self.write(f"running: {output.stage}")

    def completed(self, output: StageFolder, warnings: Sequence[str]) -> None:
        """A stage is complete."""
        self.keys[output.stage] = output.key
        self._done[output.stage] = output
        self._warnings += warnings

    def write(self, status: str, *, error: str | None = None) -> None:
        """Write run.json.

        Raises:
            StageError: the folder can't be written.
        """
        record: dict[str, Any] = {
            "config": self.config.model_dump(mode="json", exclude_none=True),  # never holds any storage_options
            "keys": dict(self.keys),
            "previous": self.previous,
            "status": status,
            "warnings": self._warnings,
            "versions": versions(),
            "updated": time.time(),
        }
        if self._base is not None:
            record["base"] = relative_url(self.folder.url, self._base.folder.url)
        if error is not None:
            record["error"] = error
        try:
            self.folder.write_json(RECORD, record)
        except (PermissionError, OSError) as failure:
            raise StageError(
                f"The run folder {self.folder.url} can't be written: {failure}. Choose another with --out."
            ) from failure


def finished_keys(folder: Folder) -> dict[str, str]:
    """Stage -> key in the last run of this folder that came to its end and had this stage; empty: none did.

    A run that ended early on purpose (`--until clips`) has not the later stages: theirs are those of the run before.
    """
    if not folder.exists(RECORD):
        return {}
    record = folder.read_json(RECORD)
    finished = str(record.get("status", "")).startswith("done")
    return {**record.get("previous", {}), **(record["keys"] if finished else {})}


def videos_processed(folder: Folder) -> int:
    """How many videos the last run of this folder that came to its end had."""
    key = finished_keys(folder).get("videos")
    output = stage_folder(folder, "videos", key) if key else None
    return int(output.manifest()["rows"].get("videos", 0)) if output is not None and output.complete else 0


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the parts that decide the figures."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    return {"vtcav-ray": vtcav_ray.__version__, "python": platform.python_version(), **found}
