"""`vtcav faithful`: check the explanation of a finished run."""

from __future__ import annotations

from vtcav_ray import pipeline
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.faithful.plan import Chosen, choose_sets
from vtcav_ray.faithful.stage import check_projections, faithful_stage
from vtcav_ray.report.stage import publish_report
from vtcav_ray.runs.costs import CheckSizes
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import writing
from vtcav_ray.scores.again import choose_again
from vtcav_ray.scores.choose import CellKey, Wanted
from vtcav_ray.store.access import report_storage_errors
from vtcav_ray.tables import CELL_KEY

RECORD = "faithful.json"


@report_storage_errors
def faithful_run(
    run: Run,
    config: Config,
    wanted: Wanted,
    *,
    clips: int = CheckSizes.clips,
    random_sets: int = CheckSizes.random_sets,
    concepts: int = CheckSizes.concepts,
    progress: pipeline.Progress | None = None,
) -> Run:
    """Run all checks, and open the run with their table `faithfulness`.

    A killed call resumes with its missing shards if it is repeated. The report gets a section.

    Args:
        run: a run with finished scores.
        config: the run's, which may have other `resources`, `scores` and addresses of the same model.
        wanted: cells; their classes, layers and concepts are examined, all with all.
        clips: maximum reference clips per class.
        random_sets: directions of chance per layer and kind.
        concepts: maximum number of concepts, those with the largest |z| first.
        progress: receives the stage's events.

    Raises:
        ConfigError: no such cell, a projection whose directions can't be erased, another model or config than the
            run's.
        StageError: the stage could not be completed.
    """
    if random_sets < 19:
        raise ConfigError(f"--random-sets is {random_sets}: with fewer than 19, no p can reach 0.05.")
    with writing(run.folder, "vtcav faithful"):
        chosen = _chosen(run, config, wanted, clips, random_sets, concepts)
        check_projections(chosen.layers, config)
        stage = faithful_stage(chosen)
        output = pipeline.run_branch(config, stage, run, progress)
        inputs = {name: run.keys[name] for name in stage.inputs}
        run.folder.write_json(RECORD, {"key": output.key, "inputs": inputs})
        result = Run(run.url, run.folder.storage_options, verify=run.folder.verify)
        if "report" in result.keys and result.stage("report").complete:
            publish_report(result)
    return result


def _chosen(run: Run, config: Config, wanted: Wanted, clips: int, random_sets: int, most: int) -> Chosen:
    cells = choose_again(run, config, wanted)
    table = run.table("scores", columns=[*CELL_KEY, "effect", "z"]).to_pylist()
    known = {CellKey(*(row[name] for name in CELL_KEY)): row for row in table}
    largest: dict[str, float] = {}
    for cell in cells:
        z = known[cell]["z"]
        largest[cell.concept] = max(largest.get(cell.concept, 0.0), abs(z) if z is not None and z == z else 0.0)
    kept = set(sorted(largest, key=lambda concept: (-largest[concept], concept))[:most])
    effects = {
        key: row["effect"] for key, row in known.items() if row["effect"] is not None and key.against == "random"
    }
    return choose_sets(
        [cell for cell in cells if cell.concept in kept],
        effects,
        clips=clips,
        random_sets=random_sets,
        in_curves=CheckSizes.in_curves,
    )
