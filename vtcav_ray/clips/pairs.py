"""Own clips in pairs: the source video that a pair is, and clips that have lost their partner.

A pair is one unit of the statistics. Its two files usually have different names, so they would count as two source
videos. Here they become one; so do all files that a chain of pairs connects, such as two marks drawn onto the same
clip.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence

from vtcav_ray.clips.pools import is_paired, pair_pool

NO_PARTNER = "no_partner"  # a reason to leave a clip out


def source_of_pairs(pairs: Iterable[tuple[str, str]], corpus: Container[str]) -> dict[str, str]:
    """Return the source video that each video of a pair is part of.

    Args:
        pairs: source videos of the two clips of each pair, the concept's first.
        corpus: ids of the corpus's videos. A source that contains one of them has its id.

    Returns:
        video_id -> the id of its source; only videos of pairs.
    """
    parent: dict[str, str] = {}

    def root(video: str) -> str:
        while (above := parent.setdefault(video, video)) != video:
            parent[video] = parent[above]
            video = above
        return video

    own: set[str] = set()
    for first, second in pairs:
        own.add(first)
        parent[root(second)] = root(first)
    members: dict[str, list[str]] = {}
    for video in list(parent):
        members.setdefault(root(video), []).append(video)
    found: dict[str, str] = {}
    for some in members.values():
        name = min(some, key=lambda video: (video not in corpus, video not in own, video))
        found |= dict.fromkeys(some, name)
    return found


def without_partner(
    clips: Sequence[tuple[str, str, str, str]], reasons: Mapping[str, str], paired: Collection[str]
) -> dict[str, str]:
    """Return clips that can't be used since their partner is missing or left out: clip_id -> reason.

    Args:
        clips: (clip_id, set, name, kind) of every clip that was cut.
        reasons: clip_id -> why a clip is left out.
        paired: names of the concepts whose clips are pairs.
    """
    known = {clip_id for clip_id, *_ in clips}
    of_pool = {pair_pool(name, kind): f"concept/{name}/{kind}" for _, role, name, kind in clips if role == "concept"}
    found = {}
    for clip_id, role, name, kind in clips:
        if clip_id in reasons:
            continue
        if role == "concept" and name in paired:
            place = f"concept/{name}/{kind}"
            partner = pair_pool(name, kind) + clip_id.removeprefix(place)
        elif role == "random" and is_paired(name):
            partner = of_pool[name] + clip_id.removeprefix(name) if name in of_pool else ""
        else:
            continue
        if partner not in known:
            found[clip_id] = NO_PARTNER
        elif partner in reasons:
            found[clip_id] = reasons[partner]
    return found
