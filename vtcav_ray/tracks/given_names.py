"""Which video of the run a file of tracks means: names in such files have no extension, no folder, or another one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from vtcav_ray.videos.labels import name_keys, plain_name

_MOST_COMPARED = 5_000  # names among which the nearest is looked for
MOST_SHOWN = 5


class VideoNames:
    """The videos of a run, by the names that files of tracks may give them.

    A name matches a video's id; or the id without its extension, its folder or both, if no other video has that name.

    Args:
        video_ids: of the run.
    """

    def __init__(self, video_ids: Iterable[str]) -> None:
        self._known: dict[str, str | None] = {}  # None: several videos
        self._ids = list(video_ids)
        exact = {plain_name(video_id): video_id for video_id in self._ids}
        for video_id in self._ids:
            for key in dict.fromkeys(name_keys(plain_name(video_id))[1:]):
                if key not in exact:
                    self._known[key] = video_id if key not in self._known else None
        self._known |= exact

    def match(self, name: str) -> str | None:
        """Return the video_id that a name means; None if no video, or several videos, can be meant."""
        keys = name_keys(plain_name(name))
        return next((self._known[key] for key in keys if key in self._known), None)

    def nearest(self, name: str) -> str:
        """Return the nearest video's id as a clause; empty if none looks like it."""
        near = difflib.get_close_matches(plain_name(name), self._ids[:_MOST_COMPARED], n=1, cutoff=0.4)
        return f" (nearest: {near[0]!r})" if near else ""

    def without_video(self, unmatched: Mapping[str, str], count: int, source: str) -> str:
        """Return a sentence about names that match no video.

        Args:
            unmatched: name -> where it is; the first few are enough.
            count: number of all such names.
            source: as the config names it.
        """
        first = list(unmatched.items())[:MOST_SHOWN]
        named = "; ".join(f"{name!r} ({where}){self.nearest(name)}" for name, where in first)
        more = f"; and {count - len(first):,} more" if count > len(first) else ""
        return f"Names without a video in {source}: {count:,}, whose tracks are not used: {named}{more}."


def without_lines(missing: Iterable[str], total: int, source: str) -> str:
    """Return a sentence about videos that have no tracks in a source."""
    names = list(missing)
    more = f" and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else ""
    return (
        f"Videos without a line in {source}: {len(names):,} of {total:,}: {', '.join(names[:MOST_SHOWN])}{more}. They "
        "give class examples, and no clips around objects."
    )
