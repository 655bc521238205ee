"""Run the baseline on a run folder: the pipeline stages that it needs, its own stage, its page."""

from __future__ import annotations

from vtcav_ray import pipeline
from vtcav_ray.clips.stage import STAGE as CLIPS
from vtcav_ray.config import Config
from vtcav_ray.gradcam.page import RECORD, write_page
from vtcav_ray.gradcam.stage import STAGE
from vtcav_ray.report.stage import publish_report
from vtcav_ray.runs.record import RECORD as RUN_RECORD
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import writing
from vtcav_ray.store.access import report_storage_errors
from vtcav_ray.store.folder import Folder


@report_storage_errors
def run_gradcam(config: Config, progress: pipeline.Progress | None = None) -> Run:
    """Run the stages that the baseline needs and the run folder lacks, then the baseline, and write `gradcam.html`.

    An existing run keeps its scores and its run.json, and its report gets a link to the page. Only if the config asks
    for other clips does this config's run, up to its clips, become the folder's newest run.

    Raises: as `vtcav_ray.pipeline.run`.
    """
    with writing(Folder(config.run_url, config.out_storage_options), "vtcav gradcam"):
        return _run(config, progress)


def _run(config: Config, progress: pipeline.Progress | None) -> Run:
    _bring_clips(config, progress)
    result = Run(config.run_url, config.out_storage_options)
    output = pipeline.run_branch(config, STAGE, result, progress)
    inputs = {name: result.keys[name] for name in STAGE.inputs_of(result.keys)}
    compare = [pair.model_dump(mode="json") for pair in config.gradcam.compare]
    record = {"key": output.key, "inputs": inputs, "compare": compare, "layer": config.gradcam.drawn_layer}
    result.folder.write_json(RECORD, record)
    result = Run(config.run_url, config.out_storage_options)
    write_page(result)
    if "report" in result.keys and result.stage("report").complete:
        publish_report(result)
    return result


def _bring_clips(config: Config, progress: pipeline.Progress | None) -> None:
    """Make sure that the run folder's newest run has this config's clips, complete."""
    folder = Folder(config.run_url, config.out_storage_options)
    if not folder.exists(RUN_RECORD):
        pipeline.run(config, progress, until=CLIPS.name)
        return
    there = Run(config.run_url, config.out_storage_options)
    if pipeline.outputs_there(config, there, CLIPS.name):
        return
    made = pipeline.run(config, progress, base=there.base_run(), until=CLIPS.name)
    if made.keys.items() <= there.keys.items():  # only some of its own clips were missing, so it is still the same run
        folder.write_json(RUN_RECORD, there.record)
