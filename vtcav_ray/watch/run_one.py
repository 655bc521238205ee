"""Run one checkpoint for a watcher: make the shared clips once, then rerun."""

from __future__ import annotations

import tenacity

from vtcav_ray import pipeline
from vtcav_ray.config import Config
from vtcav_ray.errors import VtcavError
from vtcav_ray.models import describe
from vtcav_ray.runs.record import RECORD
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import LeaseHeld
from vtcav_ray.stages import SHARED, TRACKS
from vtcav_ray.store.folder import Folder
from vtcav_ray.watch.find import FoundCheckpoint
from vtcav_ray.watch.loop import NotTheCheckpoint
from vtcav_ray.watch.rerun import run_folder, with_checkpoint

POLL_S = 2.0


class CheckpointRunner:
    """A runner of one config's checkpoints.

    Args:
        progress: see `vtcav_ray.pipeline.run`.
    """

    def __init__(self, progress: pipeline.Progress) -> None:
        self.progress = progress

    def __call__(self, config: Config, checkpoint: FoundCheckpoint) -> dict[str, object]:
        shared = Folder(config.run_url, config.out_storage_options)
        ours = with_checkpoint(config, checkpoint.url, config.run_url)
        describe(ours.model, seed=config.seed)  # if it is rejected here, the checkpoint is at fault
        try:
            base = self._base(ours, shared)
        except VtcavError as error:
            raise NotTheCheckpoint(error) from error
        out = run_folder(shared, checkpoint.url, checkpoint.id).url
        run = pipeline.run(with_checkpoint(config, checkpoint.url, out), self.progress, base=base)
        return {
            "run": out.removeprefix(shared.url.rstrip("/") + "/"),
            "model": run.manifest("activations")["notes"]["model"],
            "keys": run.keys,
        }

    @tenacity.retry(retry=tenacity.retry_if_exception_type(LeaseHeld), wait=tenacity.wait_fixed(POLL_S))
    def _base(self, config: Config, shared: Folder) -> Run:
        """Return the run whose clips all checkpoints share. The first watcher makes it, the others wait."""
        if shared.exists(RECORD):
            run = Run(shared.url, shared.storage_options)
            names = [name for name in SHARED if name != TRACKS.name or config.clips.need_tracks]
            if all(name in run.keys and run.stage(name).complete for name in names):
                return run
        return pipeline.run(config, self.progress, until=SHARED[-1])
