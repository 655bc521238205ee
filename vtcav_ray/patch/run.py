"""`vtcav patch`: choose cells of a finished run, run the stage on them, and record its output in `patch.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vtcav_ray import pipeline
from vtcav_ray.config import Config
from vtcav_ray.patch.plan import Chosen, pool_clips
from vtcav_ray.patch.stage import patch_stage
from vtcav_ray.report.stage import publish_report
from vtcav_ray.responses.reference import read_reference
from vtcav_ray.runs.costs import BACKWARD
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import writing
from vtcav_ray.scores.again import choose_again
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.scores.sides import accepted, comparisons
from vtcav_ray.store.access import report_storage_errors

RECORD = "patch.json"


@dataclass(frozen=True)
class Cost:
    """The passes that a choice of cells needs.

    Attributes:
        cells: number of cells.
        pool, references: layer -> pool clips, and reference clips.
        seconds_a_pass: of one forward pass of the whole network in one actor, from the run's stage `activations`;
            None: not recorded.
    """

    cells: int
    pool: Mapping[str, int]
    references: Mapping[str, int]
    seconds_a_pass: float | None

    @property
    def passes(self) -> dict[str, int]:
        """Passes of the rest of the network by layer; with several views of a clip, each has one."""
        return {layer: clips * self.references[layer] for layer, clips in self.pool.items()}

    @property
    def most_seconds(self) -> float | None:
        """Actor seconds if every pass took as long as one of the whole network; None: not known."""
        return None if self.seconds_a_pass is None else sum(self.passes.values()) * self.seconds_a_pass


@report_storage_errors
def patch_run(
    run: Run,
    config: Config,
    wanted: Wanted,
    *,
    limit_reference: int | None = None,
    progress: pipeline.Progress | None = None,
) -> Run:
    """Compute the patch effects of a run's cells, and open the run with their tables `patched` and `patch_effects`.

    A killed call resumes with its missing shards if it is repeated. The output of other cells stays in the folder;
    `patch.json` names the newest.

    Args:
        run: a run with finished scores.
        config: the run's, which may have other `resources`, `scores` and addresses of the same model.
        wanted: the cells.
        limit_reference: maximum number of reference videos, spread evenly over the classes; None: all.
        progress: receives the stage's events.

    Raises:
        ConfigError: no such cell, no reference set, another model than the run's, or another config.
        StageError: the stage could not be completed.
    """
    with writing(run.folder, "vtcav patch"):
        chosen = _chosen(run, config, wanted, limit_reference)
        stage = patch_stage(chosen)
        output = pipeline.run_branch(config, stage, run, progress)
        inputs = {name: run.keys[name] for name in stage.inputs_of(run.keys)}
        run.folder.write_json(RECORD, {"key": output.key, "inputs": inputs})
        result = Run(run.url, run.folder.storage_options, verify=run.folder.verify)
        if "report" in result.keys and result.stage("report").complete:
            publish_report(result)  # it shows the finite change beside the effect
    return result


@report_storage_errors
def cost(run: Run, config: Config, wanted: Wanted, *, limit_reference: int | None = None) -> Cost:
    """Return what `patch_run` would compute. Runs no model. Raises the ConfigErrors of `patch_run`."""
    chosen = _chosen(run, config, wanted, limit_reference)
    activations = accepted(run.stage("activations"), run.stage("cavs"))
    pool, references = {}, {}
    for layer in chosen.layers:
        pool[layer] = len(pool_clips(chosen, layer, comparisons(activations, layer, config)))
        clips = read_reference(activations, layer, limit_reference, config.seed)["clip_id"]
        references[layer] = len(clips.unique())
    metrics = run.manifest("activations")["metrics"]
    forward = metrics.get("clips", 0) + BACKWARD * metrics.get("gradients", 0)
    seconds = metrics.get("seconds", 0.0)
    return Cost(len(chosen.cells), pool, references, seconds / forward if seconds and forward else None)


def _chosen(run: Run, config: Config, wanted: Wanted, limit_reference: int | None) -> Chosen:
    return Chosen(choose_again(run, config, wanted), wanted.significant, limit_reference)
