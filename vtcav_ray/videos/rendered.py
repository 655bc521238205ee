"""The planted world inside a run folder. It is rendered once."""

from __future__ import annotations

from collections.abc import Callable

from vtcav_ray.config import VideosConfig, WorldConfig
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import canonical_digest


def rendered_world(world: WorldConfig, run: Folder, progress: Callable[[int, int], None] | None = None) -> Folder:
    """Return the planted world's folder inside the run folder. Render the world if it is not there yet.

    Args:
        world: the section of the config.
        run: the run folder.
        progress: called with (videos done, all videos) after each video.
    """
    folder = run.below("world", canonical_digest(world.model_dump())[:16])
    from vtcav_ray.world import write_world  # imports OpenCV and PyAV, which a listing does not need

    # A complete world is kept; a partial one, left by a killed run, is rendered again.
    write_world(
        folder.url,
        videos=world.videos,
        seed=world.seed,
        overwrite=True,
        storage_options=folder.storage_options,
        progress=progress,
    )
    return folder


def rendered_concepts(videos: VideosConfig, run: Folder) -> Folder:
    """Return the concept folders that belong to the planted world. Render them if they are not there yet."""
    assert videos.world is not None, "the config was checked"
    folder = rendered_world(videos.world, run).below("concepts")
    from vtcav_ray.world.concepts import write_concepts

    write_concepts(folder.url, seed=videos.world.seed, storage_options=folder.storage_options)
    return folder
