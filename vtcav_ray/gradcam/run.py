"""The baseline on a run folder: what it needs of the pipeline, its own stage, its page."""

from __future__ import annotations

from vtcav_ray import pipeline
from vtcav_ray.concepts.stage import CLIPS, TRACKS
from vtcav_ray.config import Config
from vtcav_ray.gradcam.page import RECORD, write_page
from vtcav_ray.gradcam.stage import STAGE
from vtcav_ray.report.stage import publish_report
from vtcav_ray.results import Run
from vtcav_ray.stage import Context
from vtcav_ray.storage import Folder, StageFolder, stage_folder
from vtcav_ray.video.stage import STAGE as VIDEOS


def run_gradcam(config: Config, progress: pipeline.Progress | None = None) -> Run:
    """Run the stages that the baseline needs, where the run folder has not got them, then it, and write `gradcam.html`.

    A run that is there keeps its scores and its run.json; its report gets a link to the page.

    Raises: as `vtcav_ray.pipeline.run`.
    """
    if not _has_clips(config):
        pipeline.run(config, progress, until=CLIPS.name)
    result = Run(config.run_url, config.out_storage_options)
    output = pipeline.run_branch(config, STAGE, result, progress)
    inputs = {name: result.keys[name] for name in STAGE.inputs}
    compare = [pair.model_dump(mode="json") for pair in config.gradcam.compare]
    record = {"key": output.key, "inputs": inputs, "compare": compare, "layer": config.gradcam.drawn_layer}
    result.folder.write_json(RECORD, record)
    result = Run(config.run_url, config.out_storage_options)
    write_page(result)
    if "report" in result.keys and result.stage("report").complete:
        publish_report(result)
    return result


def _has_clips(config: Config) -> bool:
    """Whether the run folder's newest run has this config's clips, complete."""
    folder = Folder(config.run_url, config.out_storage_options)
    recorded = folder.read_json("run.json")["keys"] if folder.exists("run.json") else {}
    done: dict[str, StageFolder] = {}
    for stage in (VIDEOS, TRACKS, CLIPS):
        if recorded.get(stage.name) is None or recorded[stage.name] != stage.key(Context(config, folder, dict(done))):
            return False
        done[stage.name] = stage_folder(folder, stage.name, recorded[stage.name])
    return all(output.complete for output in done.values())
