"""Show what a run would do now without doing it: which stages are complete, would resume, or would start."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import pyarrow as pa

from vtcav_ray import pipeline
from vtcav_ray.config import Config, VideosConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.preflight.checks import Preflight
from vtcav_ray.preflight.run import preflight
from vtcav_ray.runs.locate import locate
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import canonical_digest
from vtcav_ray.videos.listing import list_videos


@dataclass(frozen=True)
class PlannedStage:
    """A stage, the key of its folder (empty: not known yet), and a description of what would happen to it."""

    name: str
    key: str
    state: str


def dry_run(config: Config, *, until: str | None = None, fresh: bool = False) -> list[PlannedStage]:
    """Return every stage of the run that `config` describes.

    Keys are computed as the run computes them, so weights and checkpoints are read and the videos are listed. Nothing
    is written, and a missing planted world is not rendered.

    Args:
        config: config of the run.
        until: the last stage; None: all.
        fresh: whether the run would recompute existing output.

    Raises:
        ConfigError: under the same conditions as the run.
    """
    stages = pipeline.stages_until(until, config)
    config = pipeline.layers_filled_in(config, stages)
    folder = Folder(config.run_url, config.out_storage_options)
    if config.videos.world is not None and not _world(config, folder).exists("videos.parquet"):
        first = f"render {config.videos.world.videos} videos of the planted world"
        names = [stage.name for stage in stages]
        return [PlannedStage(names[0], "", first), *(PlannedStage(name, "", "to do") for name in names[1:])]
    done: dict[str, StageFolder] = {}
    planned = []
    for stage in stages:
        place = locate(stage, config, folder, done)
        output = place.planned if fresh else place.output
        done[stage.name] = output
        planned.append(PlannedStage(stage.name, output.key, _state(output, fresh=fresh)))
    return planned


def check(config: Config, *, until: str | None = None) -> Preflight:
    """Check what the run needs, without writing anything: see `vtcav_ray.preflight`.

    Args:
        config: config of the run.
        until: the last stage; None: all.

    Raises:
        ConfigError: no such stage or model config, or the videos can't be listed.
    """
    stages = pipeline.stages_until(until, config)
    config = pipeline.layers_filled_in(config, stages)
    folder = Folder(config.run_url, config.out_storage_options)
    given: pa.Table | None = None
    if config.videos.world is None:
        videos = list_videos(config.videos)[0]
        given = own_clips(config, videos, folder)
    elif (world := _world(config, folder)).exists("videos.parquet"):
        videos = list_videos(_of_world(config.videos, world))[0]
        given = own_clips(config, videos, folder)
    else:
        videos = _planned_world(config.videos)
    return preflight(config, videos, folder, [stage.name for stage in stages], keep=False, given=given)


def _state(output: StageFolder, *, fresh: bool) -> str:
    there = len(output.committed())
    if fresh and there:
        return f"would be computed again, replacing {there} existing shards"
    if output.complete:
        return "complete: would be re-used"
    return f"would resume after {there} shards" if there else "to do"


def own_clips(config: Config, videos: pa.Table, folder: Folder) -> pa.Table | None:
    """Return the table `given` of the config's own clips; None: it has none.

    Args:
        config: of the run.
        videos: VIDEOS table of the corpus.
        folder: the run folder.

    Raises:
        ConfigError: a folder or manifest of own clips can't be read.
    """
    if not config.clips.has_given:
        return None
    from vtcav_ray.videos.given import list_given

    return list_given(config, videos, folder).table


def corpus(config: Config) -> pa.Table:
    """Return the VIDEOS table of the run's corpus. Render a planted world, since a sample of it has to be measured.

    Raises:
        ConfigError: there is no video.
    """
    settings = config.videos
    if settings.world is not None:
        from vtcav_ray.videos.rendered import rendered_world

        world = rendered_world(settings.world, Folder(config.run_url, config.out_storage_options))
        settings = _of_world(settings, world)
    videos, _ = list_videos(settings)
    if not videos.num_rows:
        raise ConfigError(
            f"There is no video at {settings.uri}: nothing to plan. Check videos.uri and videos.extensions."
        )
    return videos


def _planned_world(settings: VideosConfig) -> pa.Table:
    """Return the VIDEOS table of a world that is not rendered yet: its labels are known without its pictures."""
    assert settings.world is not None
    from vtcav_ray.world.write import write_manifest  # imports OpenCV and PyAV

    with tempfile.TemporaryDirectory() as place:
        write_manifest(place, settings.world.videos, settings.world.seed)
        return list_videos(_of_world(settings, Folder(place)))[0]


def _of_world(settings: VideosConfig, world: Folder) -> VideosConfig:
    """Return the section `videos` for a world that is rendered."""
    options = dict(world.storage_options)
    return VideosConfig(uri=world.url, limit=settings.limit, labels=settings.labels, storage_options=options)


def _world(config: Config, folder: Folder) -> Folder:
    assert config.videos.world is not None
    return folder.below("world", canonical_digest(config.videos.world.model_dump())[:16])
