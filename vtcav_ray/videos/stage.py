"""Stage `videos`: list the input videos. Runs in the driver, since it reads names and no video content."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vtcav_ray import stages
from vtcav_ray.config import VideosConfig
from vtcav_ray.rows import Failure
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.store.commits import ShardOutput
from vtcav_ray.store.records import canonical_digest, digest_of_lists
from vtcav_ray.tables import rows_of
from vtcav_ray.videos.listing import Listing, list_all
from vtcav_ray.videos.rendered import rendered_world

if TYPE_CHECKING:
    from vtcav_ray.videos.given import Given

# Fields of a failure that the stage's key covers. A further field would change the keys of all runs with a failure.
FAILURE_IN_KEY = ("uri", "video_id", "clip_id", "error_kind", "message")


def listing_of(context: Context) -> Listing:
    """Return the videos and the failed manifest rows. Each run lists them again, so that changes are noticed."""
    if "listing" not in context.memo:
        context.memo["listing"] = _list(context)
    return context.memo["listing"]


def _list(context: Context) -> Listing:
    config = context.config.videos
    if config.world is not None:
        folder = rendered_world(config.world, context.run)
        config = VideosConfig(
            uri=folder.url, limit=config.limit, labels=config.labels, storage_options=dict(folder.storage_options)
        )
    return list_all(config)


def given_of(context: Context) -> Given | None:
    """Return the own clips of the config's concepts; None: it has none. Listed once, with the videos."""
    if not context.config.clips.has_given:
        return None
    if "given" not in context.memo:
        from vtcav_ray.videos.given import list_given

        context.memo["given"] = list_given(context.config, listing_of(context).videos, context.run)
    found: Given = context.memo["given"]
    return found


def _prepare(context: Context) -> Work:
    listing, given = listing_of(context), given_of(context)
    videos, failures = listing.videos, listing.failures
    own = {} if given is None else {"given": given.table}
    notes = {} if given is None else {"given": len(given.rows)}
    labels = videos["label"].combine_chunks().value_counts().to_pylist()
    return Work(
        shards=[Shard("all", videos)],
        make_worker=functools.partial(_keep, [*failures, *(given.failures if given is not None else ())], own),
        warnings=[*listing.warnings, *(given.warnings if given is not None else ())],
        notes={"videos": videos.num_rows, "labels": {str(c["values"]): c["counts"] for c in labels}, **notes},
    )


def _keep(failures: list[Failure], given: dict[str, pa.Table]) -> Any:
    return lambda rows: ShardOutput({"videos": rows, **given}, failures, {"videos": rows.num_rows})


def _ingredients(context: Context) -> dict[str, Any]:
    listing, given = listing_of(context), given_of(context)
    videos, failures = listing.videos, listing.failures
    if "digest" not in context.memo:  # asked for several times; a large corpus takes seconds
        context.memo["digest"] = digest_of_lists(rows_of(videos), _in_key(failures))
    found = {"listing": context.memo["digest"]}
    if given is None:
        return found
    return {**found, "given": canonical_digest([given.table.to_pylist(), _in_key(given.failures)])}


def _in_key(failures: list[Failure]) -> list[dict[str, Any]]:
    return [{name: getattr(failure, name) for name in FAILURE_IN_KEY} for failure in failures]


STAGE = Stage(stages.VIDEOS, version=1, ingredients=_ingredients, prepare=_prepare)
