"""`vtcav maps`: choose cells of a finished run, run the stage on them, and write `maps.html`."""

from __future__ import annotations

from vtcav_ray import pipeline
from vtcav_ray.config import Config
from vtcav_ray.maps.page import write_page
from vtcav_ray.maps.stage import Chosen, check_projections, maps_stage
from vtcav_ray.report.stage import publish_report
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import writing
from vtcav_ray.scores.again import choose_again
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.store.access import report_storage_errors

RECORD = "maps.json"


@report_storage_errors
def maps_run(
    run: Run, config: Config, wanted: Wanted, *, clips: int = 8, progress: pipeline.Progress | None = None
) -> Run:
    """Make the maps of a run's cells, and open the run with their tables `maps` and `maps_summary`.

    A killed call resumes with its missing shards if it is repeated. The output of other cells stays in the folder;
    `maps.json` names the newest. The report gets a link to the page.

    Args:
        run: a run with finished scores.
        config: the run's, which may have other `resources`, `scores` and addresses of the same model.
        wanted: the cells.
        clips: class examples per class.
        progress: receives the stage's events.

    Raises:
        ConfigError: no such cell, a projection without maps, another model than the run's, or another config.
        StageError: the stage could not be completed.
    """
    with writing(run.folder, "vtcav maps"):
        cells = choose_again(run, config, wanted)
        check_projections(cells, config)
        stage = maps_stage(Chosen(cells, clips))
        output = pipeline.run_branch(config, stage, run, progress)
        inputs = {name: run.keys[name] for name in stage.inputs_of(run.keys)}
        run.folder.write_json(RECORD, {"key": output.key, "inputs": inputs})
        result = Run(run.url, run.folder.storage_options, verify=run.folder.verify)
        write_page(result)
        if "report" in result.keys and result.stage("report").complete:
            publish_report(result)
    return result
