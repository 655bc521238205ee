"""The one typed schema of every `configs/*.yaml`. An unknown key is an error that names the nearest valid key.

Each section has its file in this folder. A stage's key is a hash of the sections that determine it (see
`vtcav_ray.pipeline`). So keys that change no result, such as those of `resources`, must not be in another section.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from vtcav_ray.config.clips import OF_WORLD, ClipsConfig, ConceptFolders, ReviewConfig
from vtcav_ray.config.gradcam import GradcamConfig
from vtcav_ray.config.model import ActivationsConfig, ModelConfig
from vtcav_ray.config.resources import ResourcesConfig
from vtcav_ray.config.section import Code, ConfigSection, StorageOptions
from vtcav_ray.config.statistics import CavsConfig, ScoresConfig
from vtcav_ray.config.tracks import TracksConfig
from vtcav_ray.config.values import Fraction, Name, Seed
from vtcav_ray.config.videos import VideosConfig
from vtcav_ray.store.urls import check_url


class Config(ConfigSection):
    """A whole experiment."""

    name: Name = "run"
    seed: Seed = 0
    out: str | None = Field(None, description="run folder, any fsspec URL; null: runs/<name>")
    out_storage_options: StorageOptions = Field(default_factory=dict)
    videos: VideosConfig
    tracks: TracksConfig = TracksConfig()
    clips: ClipsConfig = ClipsConfig()
    model: ModelConfig = ModelConfig()
    activations: ActivationsConfig = ActivationsConfig()
    review: ReviewConfig = ReviewConfig()
    cavs: CavsConfig = CavsConfig()
    scores: ScoresConfig = ScoresConfig()
    gradcam: GradcamConfig = GradcamConfig()
    resources: ResourcesConfig = ResourcesConfig()
    shard_videos: Annotated[int, Field(ge=1)] | None = Field(
        None, description="videos per shard; null: from the corpus's size"
    )
    max_failed_fraction: Fraction = 0.1

    @model_validator(mode="after")
    def _gradients_are_there(self) -> Config:
        if self.scores.gradients_at == "all" and self.activations.classes == "label":
            raise ValueError(
                "`scores.gradients_at: all` needs gradients of a class at other classes' examples: "
                "set activations.classes to `listed` or `top-k`"
            )
        if self.scores.gradients_at == "reference" and self.activations.reference == 0:
            raise ValueError(
                "`scores.gradients_at: reference` needs a reference set, and `activations.reference` is 0: set it to "
                "null (as many videos as clips.per_class) or a number, or set scores.gradients_at to `own`"
            )
        if self.scores.effect == "patch" and self.activations.reference == 0:
            raise ValueError(
                "`scores.effect: patch` needs a reference set, and `activations.reference` is 0: set it to null (as "
                "many videos as clips.per_class) or a number, or set scores.effect to first_order"
            )
        return self

    @model_validator(mode="after")
    def _patch_effects_are_of_any_label(self) -> Config:
        if self.scores.effect == "patch" and (chosen := self.clips.chosen_labels):
            raise ValueError(
                f"`scores.effect: patch` compares clips of any label, and `clips.{chosen}` chooses them: set it to "
                "`any`, or scores.effect to `first_order`"
            )
        return self

    @model_validator(mode="after")
    def _urls_are_allowed(self) -> Config:
        for section in ("videos", "tracks", "model"):
            for name in ("uri", "labels", "weights", "names", "text_encoder", "source", "config", "checkpoint"):
                if isinstance(url := getattr(getattr(self, section), name, None), str):
                    check_url(url, f"{section}.{name}")
        if self.out is not None:
            check_url(self.out, "out")
        for url, key in self.clips.given_urls:
            check_url(url, key)
        return self

    @model_validator(mode="after")
    def _world_has_concepts(self) -> Config:
        concepts = self.clips.concepts
        if isinstance(concepts, ConceptFolders) and concepts.from_ == OF_WORLD and self.videos.world is None:
            raise ValueError(
                "`clips.concepts.from: world` renders concept folders with the planted world, and `videos.world` is "
                "not set: set it, or write `./world` for a folder of that name"
            )
        return self

    @model_validator(mode="after")
    def _enough_needs_a_detector(self) -> Config:
        if self.videos.enough and not (self.clips.need_tracks and not self.tracks.given):
            raise ValueError(
                "`videos.enough: true` saves tracking, and this run detects nothing (its concepts are own clips, or "
                "its tracks exist already): remove the key, and set videos.limit to use fewer videos"
            )
        return self

    @model_validator(mode="after")
    def _backend_has_its_processor(self) -> Config:
        if self.tracks.backend == "onnxruntime" and self.resources.detect.gpus > 0:
            raise ValueError(
                "`tracks.backend: onnxruntime` runs on CPUs, and `resources.detect.gpus` gives the detector a GPU: set "
                "tracks.backend to auto, or resources.detect.gpus to 0"
            )
        return self

    @property
    def stops_at_enough(self) -> bool:
        """Whether tracking may stop before the corpus ends (`videos.enough`).

        Named concepts say when they have enough clips. `concepts: auto` asks for the `max_concepts` most frequent ones,
        which a corpus may not have; so there, it is the default only if `videos.limit` bounds the search.
        """
        if not self.clips.need_tracks or self.tracks.given:
            return False
        if self.videos.enough is not None:
            return self.videos.enough
        return self.clips.concepts != "auto" or self.videos.limit is not None

    def trusting(self, code: Code) -> Config:
        """Return a copy that allows these of its programs: `.py` model configs and TensorRT engines."""
        return self.model_copy(update={"model": self.model.trusting(code), "tracks": self.tracks.trusting(code)})

    @property
    def run_url(self) -> str:
        """The run folder."""
        return self.out or f"runs/{self.name}"
