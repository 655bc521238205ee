"""Stage `videos`, of runs that look at no more videos than they need (`videos.enough`).

Without that setting, and where the corpus is no larger than the first round, it is the stage of
`vtcav_ray.videos.stage`, with the same key. Else its table holds the videos that were looked at, in the order of the
rounds. Its key covers everything that the rounds depend on, so it is known before the search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.given import plan_given
from vtcav_ray.clips.search import Search, round_size, sentence
from vtcav_ray.clips.stage import class_names_of
from vtcav_ray.runs.stage import Context, Work
from vtcav_ray.tracks.stage import STAGE as TRACKS
from vtcav_ray.videos import stage as listing
from vtcav_ray.videos.stage import STAGE as WHOLE

RULE = 2  # raised when the rule chooses other videos, or when a plan uses reserved videos otherwise
# Of config.clips: how clips look, not which videos could give one.
OF_LOOKS = {"size", "class_views", "controls", "context_blur", "random_labels", "concept_labels"}
SEARCHED = "searched"  # in a context's memo: a function that returns the search, ended


def search_of(context: Context) -> Search | None:
    """Return a new search in the run's corpus; None: all of its videos are looked at."""
    videos = whole_corpus(context)
    if videos is None:
        return None
    config, own = context.config, frozenset[str]()
    if (given := listing.given_of(context)) is not None:
        own = frozenset(plan_given(given.table, Corpus.of(videos).examples, config.clips, config.seed).sources)
    return Search(config, videos, class_names_of(config), own)


def whole_corpus(context: Context) -> pa.Table | None:
    """Return the VIDEOS table of a corpus that is searched in rounds; None: the run looks at all videos."""
    settings, size = context.config.videos, round_size(context.config)
    if not context.config.stops_at_enough or (settings.limit is not None and settings.limit <= size):
        return None
    unlimited = context.config.model_copy(update={"videos": settings.model_copy(update={"limit": None})})
    videos = listing.listing_of(replace(context, config=unlimited)).videos  # listed once: the memo is shared
    return videos if videos.num_rows > size else None


def _ingredients(context: Context) -> dict[str, Any]:
    videos = whole_corpus(context)
    found = WHOLE.ingredients(context)
    if videos is None:
        return found
    config = context.config
    return {
        **found,
        "enough": {
            "rule": RULE,
            "round": round_size(config),
            "limit": config.videos.limit,
            "clips": config.clips.model_dump(mode="json", exclude=OF_LOOKS),
            "classes": class_names_of(config),
            "seed": config.seed,
            "tracks": TRACKS.ingredients(context),
        },
    }


def _prepare(context: Context) -> Work:
    work = WHOLE.prepare(context)
    if whole_corpus(context) is None:
        return work
    searched: Callable[[], Search] = context.memo[SEARCHED]
    search = searched()
    notes = search.notes()
    (shard,) = work.shards
    videos = search.looked_at()

    return replace(
        work,
        shards=[replace(shard, rows=videos)],  # the worker keeps its rows, and adds own clips and failures
        warnings=[*work.warnings, sentence(notes)],
        notes={**work.notes, "videos": videos.num_rows, "enough": notes},
    )


STAGE = replace(WHOLE, ingredients=_ingredients, prepare=_prepare)
