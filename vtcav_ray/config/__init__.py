"""The config of a run: one typed schema, its loading from YAML, and the template of `vtcav init`."""

from vtcav_ray.config.clips import ClipsConfig, ConceptConfig, ConceptFolders, Kind, MotionConfig, QualityConfig
from vtcav_ray.config.model import ModelConfig
from vtcav_ray.config.resources import DecodeLimits, ResourcesConfig, StageResources
from vtcav_ray.config.schema import Config
from vtcav_ray.config.section import Code, ConfigSection
from vtcav_ray.config.statistics import CavsConfig
from vtcav_ray.config.tracks import TracksConfig
from vtcav_ray.config.videos import VideosConfig, WorldConfig

__all__ = [
    "CavsConfig",
    "ClipsConfig",
    "Code",
    "ConceptConfig",
    "ConceptFolders",
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
