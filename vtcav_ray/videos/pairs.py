"""Pair a concept's own clips with its negatives by name: `pairs: by_name`.

A pair is two files of one name, without the extension: the same clip with and without a drawn mark, before and after an
edit, of the left and the right camera. The name is the path below the folder; in a manifest it is the column
`video_id`, or else the file's name. Rows of one name differ in the part of the file (`start`, `end`).
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from vtcav_ray.config import ConceptConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.rows import Failure
from vtcav_ray.text.counted import are
from vtcav_ray.video.segments import Segment

Row = dict[str, Any]  # of the table `given`, with its `name`
NAME = "name"  # of a clip in its folder or manifest
MOST_NAMES = 3


def plain_name(name: str, extensions: Collection[str]) -> str:
    """Return a name without its extension, if this is one of `extensions`: other dots are part of the name."""
    stem, extension = posixpath.splitext(name)
    return stem if extension.lower().lstrip(".") in extensions else name


def paired_by_name(
    own: Sequence[Row], negatives: Sequence[Row], failures: Sequence[Failure], concept: ConceptConfig, key: str
) -> tuple[list[Row], list[str]]:
    """Pair the clips of a concept with its negatives.

    Args:
        own, negatives: rows of the table `given`, with `name`.
        failures: of the files and manifest rows of both that can't be used. Their partners are left out.
        concept: with `pairs`.
        key: of the concept in the config.

    Returns:
        The rows of all pairs, and warnings. Both rows of a pair have the same `clip`, that of the concept's.

    Raises:
        ConfigError: a clip has no partner or several, is its own partner, or one of a pair is an image and the other a
            video. The message names the key and both places.
    """
    counts = [Counter(row[NAME] for row in side) for side in (own, negatives)]
    several = {name for count in counts for name, rows in count.items() if rows > 1}
    sides = {
        side: _by_name(rows, side, several, concept, key) for side, rows in (("clips", own), ("negatives", negatives))
    }
    failed = {name for failure in failures for name in _names_of(failure)}
    lone = {
        side: [name for name in by if name not in other]
        for side, by, other in (
            ("clips", sides["clips"], sides["negatives"]),
            ("negatives", sides["negatives"], sides["clips"]),
        )
    }
    left_out = [name for names in lone.values() for name in names if _is_of(name, failed)]
    faults = [
        _without_partner([sides[side][name] for name in names if not _is_of(name, failed)], side, concept)
        for side, names in lone.items()
    ]
    if any(faults):
        raise ConfigError(
            f"`{key}.pairs: by_name`: {' '.join(filter(None, faults))} A pair is two files of one name, without the "
            "extension. Rename or add files, or remove `pairs`."
        )
    rows: list[Row] = []
    for name, row in sides["clips"].items():
        if name in sides["negatives"]:
            partner = sides["negatives"][name]
            _check(row, partner, key)
            rows += [row, partner | {"clip": row["clip"]}]
    warning = (
        f"`{key}.pairs`: {are(len(left_out), 'clip')} left out without a usable partner (see `failures`): "
        f"{_shown(left_out)}."
    )
    return rows, [warning] * bool(left_out)


def _by_name(
    rows: Sequence[Row], side: str, several: Collection[str], concept: ConceptConfig, key: str
) -> dict[str, Row]:
    """Return the rows of a side by name; names in `several` with the part of the file."""
    found: dict[str, Row] = {}
    for row in rows:
        name = row[NAME]
        if name in several and (row["start"], row["end"]) != (None, None):
            name += f"@{Segment(row['start'], row['end']).name}"
        if name in found:
            raise ConfigError(
                f"`{key}.pairs: by_name`: `{side}` ({getattr(concept, side)}) has several clips of the name {name!r}: "
                f"{found[name]['uri']} and {row['uri']}. Rename one, or give both a `video_id` in a manifest."
            )
        found[name] = row
    return found


def _names_of(failure: Failure) -> list[str]:
    """Return the names that a file that can't be used may have: in its folder, and alone."""
    places = [place for place in (failure.video_id, failure.uri) if place]
    return [posixpath.splitext(name)[0] for place in places for name in (place, posixpath.basename(place))]


def _is_of(name: str, failed: Collection[str]) -> bool:
    whole = name.rpartition("@")[0] or name
    return name in failed or whole in failed or posixpath.basename(whole) in failed


def _without_partner(rows: Sequence[Row], side: str, concept: ConceptConfig) -> str:
    """Return a sentence about clips without a partner; "" if there are none."""
    if not rows:
        return ""
    other = "negatives" if side == "clips" else "clips"
    return (
        f"{len(rows)} of the files of `{side}` ({getattr(concept, side)}) have no partner in `{other}` "
        f"({getattr(concept, other)}): {_shown([posixpath.basename(row['uri']) for row in rows])}."
    )


def _check(row: Row, partner: Row, key: str) -> None:
    """Check that the two clips of a pair can be compared."""
    if row["uri"] == partner["uri"] and (row["start"], row["end"]) == (partner["start"], partner["end"]):
        raise ConfigError(
            f"`{key}.pairs: by_name`: {row['uri']} is in `clips` and in `negatives`, so it would be compared with "
            "itself. Give the clip without the concept as the negative."
        )
    if row["kind"] != partner["kind"]:
        raise ConfigError(
            f"`{key}.pairs: by_name`: {row['uri']} and {partner['uri']} are an image and a video. A pair needs two "
            "videos or two images."
        )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"
