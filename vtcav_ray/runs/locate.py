"""The key of a stage's output and the folder that holds it. No other module decides this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vtcav_ray.config import Config
from vtcav_ray.runs.retry import newest
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Context, Stage
from vtcav_ray.stages import VIDEOS
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder


@dataclass(frozen=True)
class Located:
    """The place of a stage's output, existing or planned.

    Attributes:
        context: what the stage may read; its `memo` keeps values that were read for the key.
        planned: the folder of the key.
        output: the folder that counts: `planned`, or the one with which retries and repairs have replaced it.
        borrowed: whether the folder belongs to the run that this is a rerun of.
    """

    context: Context
    planned: StageFolder
    output: StageFolder
    borrowed: bool


def locate(
    stage: Stage, config: Config, folder: Folder, inputs: Mapping[str, StageFolder], base: Run | None = None
) -> Located:
    """Compute a stage's key and find its folder.

    Args:
        stage: one of the seven, or a branch.
        config: of the run.
        folder: of the run.
        inputs: outputs of the stages before it.
        base: the run that this is a rerun of. Its folder has the shared stages. Its list of videos is used unchanged,
            because the source videos may be gone.

    Raises:
        ConfigError: the config names something that does not exist.
        BrokenFile: a pointer to a newer output is damaged.
    """
    borrowed = base is not None and stage.facts.shared
    home = base.folder if base is not None and borrowed else folder
    context = Context(config, home, dict(inputs))
    key = base.keys[VIDEOS.name] if base is not None and stage.facts == VIDEOS else stage.key(context)
    planned = stage_folder(home, stage.name, key)
    return Located(context, planned, newest(planned), borrowed)
