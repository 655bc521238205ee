"""The config's section `resources`: actors, limits of decoding, and prices. It changes no result and is in no key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vtcav_ray.config.section import ConfigSection


class StageResources(ConfigSection):
    """The resources that one actor (or task) of a stage requests from Ray, and the number of actors."""

    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="for scheduling, and a limit: an actor that holds more is ended and its shard retried"
    )
    min_actors: Annotated[int, Field(ge=1)] = 1
    max_actors: Annotated[int, Field(ge=1)] | None = Field(None, description="null: as many as the cluster holds")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None, description="views per model call (extract); `auto`: found by trial; null: 8, or by trial on a GPU"
    )
    attempts: Annotated[int, Field(ge=1)] = Field(
        3, description="a video is given up after it has caused this number of process deaths"
    )
    decode_threads: Annotated[int, Field(ge=1)] | None = Field(
        None, description="videos decoded in parallel in one actor; null: 4 if they feed a detector, else 2"
    )


class DecodeLimits(ConfigSection):
    """The maximum cost of one video before it is given up. `tracks.max_frames` and others limit frames and pixels."""

    cpu_seconds: Annotated[float, Field(gt=0)] = Field(900.0, description="processor time in the decoder per video")
    stall_seconds: Annotated[float, Field(gt=0)] = Field(
        120.0, description="a decoder call that takes longer counts as stuck, and its process is ended"
    )
    frames_gb: Annotated[float, Field(gt=0)] = Field(
        1.6, description="whole frames in memory at a time while a video is decoded; 8K at 8 bits takes 1.6"
    )
    memory_gb: Annotated[float, Field(gt=0)] = Field(
        4.0, description="memory limit of the separate process that decodes a suspect video"
    )


class RatesConfig(ConfigSection):
    """Prices per hour, from which `vtcav plan` and the report compute a cost. null: not known."""

    gpu_hour: Annotated[float, Field(ge=0)] | None = None
    cpu_hour: Annotated[float, Field(ge=0)] | None = None
    currency: str = "EUR"


class ResourcesConfig(ConfigSection):
    """The machines and processes on which the stages run. Not part of any stage's key: it changes no result."""

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
