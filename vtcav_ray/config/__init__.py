"""The config of a run: one typed schema, its loading from YAML, and the template of `vtcav init`."""

from vtcav_ray.config.resources import DecodeLimits, ResourcesConfig, StageResources
from vtcav_ray.config.schema import (
    CavsConfig,
    ClipsConfig,
    ConceptConfig,
    Config,
    Kind,
    ModelConfig,
    MotionConfig,
    QualityConfig,
    TracksConfig,
    VideosConfig,
    WorldConfig,
)
from vtcav_ray.config.section import Code, ConfigSection

__all__ = [
    "CavsConfig",
    "ClipsConfig",
    "Code",
    "ConceptConfig",
    "Config",
    "ConfigSection",
    "DecodeLimits",
    "Kind",
    "ModelConfig",
    "MotionConfig",
    "QualityConfig",
    "ResourcesConfig",
    "StageResources",
    "TracksConfig",
    "VideosConfig",
    "WorldConfig",
]
