"""The config's section `resources`: actors, limits of decoding, and prices. It changes no result and is in no key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vtcav_ray.config.section import ConfigSection


class StageResources(ConfigSection):
    """What one actor (or task) of a stage asks Ray for, and how many there may be."""

    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="scheduled by, and a limit: an actor that holds more is ended, and its shard tried again"
    )
    min_actors: Annotated[int, Field(ge=1)] = 1
    max_actors: Annotated[int, Field(ge=1)] | None = Field(None, description="null: as many as the cluster holds")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None, description="views a model call (extract); `auto`: found by trial; null: 8, or by trial on a GPU"
    )
    attempts: Annotated[int, Field(ge=1)] = Field(
        3, description="deaths of a process after which the video that caused them is given up"
    )
    decode_threads: Annotated[int, Field(ge=1)] | None = Field(
        None, description="videos decoded side by side in one actor; null: 4 where they feed a detector, 2 elsewhere"
    )


class DecodeLimits(ConfigSection):
    """What one video may cost before it is given up. Frames and pixels are limited by `tracks.max_frames` and so on."""

    cpu_seconds: Annotated[float, Field(gt=0)] = Field(900.0, description="processor time in the decoder, a video")
    stall_seconds: Annotated[float, Field(gt=0)] = Field(
        120.0, description="one call of the decoder that takes longer is taken for stuck, and its process ended"
    )
    frames_gb: Annotated[float, Field(gt=0)] = Field(
        1.6, description="whole frames that are in memory at a time while a video is decoded; 8K at 8 bits takes 1.6"
    )
    memory_gb: Annotated[float, Field(gt=0)] = Field(
        4.0, description="a suspect video's decoder, in a process of its own, may take so much"
    )


class RatesConfig(ConfigSection):
    """What an hour costs, so that `vtcav plan` and the report can name a price. null: not known."""

    gpu_hour: Annotated[float, Field(ge=0)] | None = None
    cpu_hour: Annotated[float, Field(ge=0)] | None = None
    currency: str = "EUR"


class ResourcesConfig(ConfigSection):
    """Where and how widely the stages run. Not part of any stage's key: it changes no result."""

    address: str | None = Field(None, description="of a Ray cluster; null: RAY_ADDRESS, or one started on this machine")
    num_cpus: Annotated[int, Field(ge=1)] | None = Field(None, description="of the Ray started on this machine")
    object_store_gb: Annotated[float, Field(gt=0)] | None = None
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="for Prometheus, of the Ray started on this machine; null: any free port"
    )
    decode: DecodeLimits = DecodeLimits()
    detect: StageResources = StageResources()
    cut: StageResources = StageResources()
    extract: StageResources = StageResources()
    statistics: StageResources = StageResources()
    rates: RatesConfig = RatesConfig()
