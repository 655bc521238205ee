"""Names of the pools of random clips, and which pool a concept is compared with.

random/<kind>                 clips of the corpus cut as the concept's kind is; random clips from folders
random/<name>/<kind>          those of one concept alone: its `negatives`
random/<name>/<kind> in pairs the same, where each is the partner of one of the concept's clips (`pairs: by_name`)
random/<kind> of the corpus   clips of the corpus beside a person's own clips, which come from elsewhere
"""

from __future__ import annotations

from collections.abc import Container

RANDOM = "random"
_OF_CORPUS = " of the corpus"
_PAIRS = " in pairs"
IN_PAIRS = "in pairs: each clip is compared with its own negative"
UNMATCHED = (
    "unmatched: the random clips come from the corpus, and the concept's own clips from elsewhere; the effect may be "
    "that of the footage"
)


def shared_pool(kind: str) -> str:
    """Return the pool of every concept of a kind."""
    return f"{RANDOM}/{kind}"


def own_pool(name: str, kind: str) -> str:
    """Return the pool of one concept."""
    return f"{RANDOM}/{name}/{kind}"


def pair_pool(name: str, kind: str) -> str:
    """Return the pool of one concept's negatives that are the partners of its clips.

    A partner's clip_id ends as its clip's does: `<pool>/<clip>` and `concept/<name>/<kind>/<clip>`.
    """
    return f"{RANDOM}/{name}/{kind}{_PAIRS}"


def corpus_pool(kind: str) -> str:
    """Return the pool of own clips that have no other."""
    return f"{RANDOM}/{kind}{_OF_CORPUS}"


def pool_of(concept: str, kind: str, pools: Container[str]) -> str:
    """Return the pool of a concept among those that exist; without any, the name of its kind's pool.

    Args:
        concept: `<name>/<kind>`.
        kind: of the concept.
        pools: names of the pools that have clips.
    """
    order = (f"{RANDOM}/{concept}{_PAIRS}", f"{RANDOM}/{concept}", shared_pool(kind), corpus_pool(kind))
    return next((name for name in order if name in pools), shared_pool(kind))


def is_unmatched(pool: str) -> bool:
    """Return whether a pool stands in for random clips like the concept's own."""
    return pool.endswith(_OF_CORPUS)


def is_paired(pool: str) -> bool:
    """Return whether each clip of a pool is the partner of one of the concept's clips."""
    return pool.endswith(_PAIRS)
