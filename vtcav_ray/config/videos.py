"""The section `videos`: which videos a run reads."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from vtcav_ray.config.section import ConfigSection, StorageOptions
from vtcav_ray.config.values import Seed
from vtcav_ray.store.containers import VIDEO_EXTENSIONS
from vtcav_ray.store.urls import (
    ANY_ADDRESS,
    MAX_OBJECT_BYTES,
    MAX_OBJECT_SECONDS,
    READ_LIMITS,
    SCHEMES,
    ReadLimits,
    origin_of,
)


class WorldConfig(ConfigSection):
    """Render the planted world instead of reading videos: small clips whose truth is known."""

    videos: Annotated[int, Field(ge=8)] = 400
    seed: Seed = 0


class VideosConfig(ConfigSection):
    """The source of the videos: a folder, a glob, or a manifest, on any fsspec URL."""

    uri: str | None = None
    world: WorldConfig | None = None
    labels: str | None = Field(
        None, description="CSV, TSV, JSON Lines or Parquet with video_id or uri, and label; or lines `PATH LABEL`"
    )
    extensions: tuple[str, ...] = VIDEO_EXTENSIONS
    limit: Annotated[int, Field(ge=1)] | None = None
    enough: bool | None = Field(
        None,
        description="track videos in random order, and stop when every set of clips is full; null: true if concepts "
        "are named, and for `concepts: auto` if `limit` is set",
    )
    round: Annotated[int, Field(ge=1)] | None = Field(
        None, description="with `enough`: number of videos after which the sets are counted; null: 512"
    )
    follow_links: bool = Field(False, description="also take symbolic links that lead out of the folder")
    schemes: tuple[str, ...] = Field(SCHEMES, description="URL schemes that rows of a manifest may have")
    private_addresses: bool = Field(
        False,
        description="rows of a manifest and redirects may lead to this machine and to private networks; the hosts of "
        "`uri` and `labels` may always",
    )
    max_bytes: Annotated[int, Field(ge=1)] = Field(MAX_OBJECT_BYTES, description="of one remote video")
    max_fetch_seconds: Annotated[float, Field(gt=0)] = Field(MAX_OBJECT_SECONDS, description="to read a remote video")
    storage_options: StorageOptions = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> VideosConfig:
        if (self.uri is None) == (self.world is None):
            if self.uri is not None:
                raise ValueError(
                    "there are both `uri` (your videos) and `world` (the planted world): remove one. On the command "
                    "line, to read your videos: --set videos.world=null; to render the world: --set videos.uri=null"
                )
            raise ValueError("give `uri` (your videos: a folder, glob or manifest) or `world` (the planted world)")
        return self

    @property
    def read_options(self) -> dict[str, Any]:
        """`storage_options` with the limits for reading videos. All code that opens a video uses these."""
        named = tuple(origin for url in (self.uri, self.labels) if url and (origin := origin_of(url)))
        private = (ANY_ADDRESS,) if self.private_addresses else named
        return {**self.storage_options, READ_LIMITS: ReadLimits(private, self.max_bytes, self.max_fetch_seconds)}
