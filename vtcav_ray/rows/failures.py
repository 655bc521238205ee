"""Failures: inputs that can't be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vtcav_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One input that can't be used, a row of `failures`. `stage` is filled in when the shard is committed."""

    stage: str | None = None
    uri: str | None = None
    video_id: str | None = None
    clip_id: str | None = None
    error_kind: str  # see vtcav_ray.errors.InputError
    message: str
    attempts: int = 1

    @classmethod
    def of_video(cls, row: Mapping[str, Any], error: InputError, *, attempts: int = 1) -> Failure:
        """Return the failure of a whole video.

        Args:
            row: names the video by its columns `uri` and `video_id`; either may be absent.
            error: why the video can't be used.
            attempts: number of worker processes that it cost.
        """
        return cls(
            uri=row.get("uri"),
            video_id=row.get("video_id"),
            error_kind=error.kind,
            message=error.message,
            attempts=attempts,
        )

    @classmethod
    def of_clip(cls, row: Mapping[str, Any], error: InputError) -> Failure:
        """Return the failure of one clip, named by the row's columns `clip_id`, `video_id` and, if present, `uri`."""
        return dataclasses.replace(cls.of_video(row, error), clip_id=row["clip_id"])
