"""The sections `clips` and `review`: concepts, class examples, random clips, and decisions of a person."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vtcav_ray.config.section import ConfigSection
from vtcav_ray.config.values import Fraction, Name
from vtcav_ray.registry import CONCEPT_KINDS, MOTION_CONTROLS

# Names in a registry (vtcav_ray.registry): the built-in ones and those that other packages add.
Kind = Annotated[str, AfterValidator(CONCEPT_KINDS.check)]
Control = Annotated[str, AfterValidator(MOTION_CONTROLS.check)]
Direction = Literal["up", "down", "left", "right", "towards", "away", "still"]
PathShape = Literal["straight", "curved", "back_and_forth"]


class MotionConfig(ConfigSection):
    """Motion that limits a concept to certain tracks. Unit: the frame's short side; camera motion is subtracted."""

    direction: Direction | None = None
    min_speed: Annotated[float, Field(ge=0)] | None = Field(None, description="short sides per second")
    max_speed: Annotated[float, Field(ge=0)] | None = None
    path: PathShape | None = None


class ConceptConfig(ConfigSection):
    """One concept: an object, a way of moving, or both. Each kind makes a separate concept `<name>/<kind>`."""

    name: Name
    object: str | None = Field(None, description="the detector's label; null: any object")
    motion: MotionConfig | None = None
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("spatial", "spatiotemporal")
    controls: tuple[Control, ...] | None = Field(None, description="of its spatiotemporal clips; null: clips.controls")


class QualityConfig(ConfigSection):
    """Quality filters for the tracks of concept clips. The manifest counts what each filter drops."""

    min_track_frames: Annotated[int, Field(ge=1)] | None = Field(None, description="null: the clip's own span")
    max_gap: Annotated[int, Field(ge=0)] = Field(5, description="longest gap that is interpolated, frames")
    min_box_side: Annotated[float, Field(ge=0)] = Field(8.0, description="pixels, median over the clip")
    min_confidence: Fraction = 0.25
    min_sharpness: Annotated[float, Field(ge=0)] = 0.0
    allow_cuts: bool = False
    duplicate_distance: Annotated[int, Field(ge=0, le=64)] = Field(
        4,
        description="clips are duplicates if their perceptual hashes (64 bits) differ in at most this number of bits; "
        "0: only equal hashes",
    )
    copy_distance: Annotated[float, Field(ge=0, le=1)] | None = Field(
        0.2,
        description="files are copies of one source video, and used once, if their signatures differ by at most this; "
        "0: only equal signatures; null: no check for copies",
    )
    max_clips_per_video: Annotated[int, Field(ge=1)] = 1


class ClipsConfig(ConfigSection):
    """Concept clips, class examples and random sets: how many, and how they are cut from the videos."""

    frames: Annotated[int, Field(ge=1)] = Field(32, description="T")
    interval: Annotated[int, Field(ge=1)] = Field(2, description="source frames from one clip frame to the next")
    size: Annotated[int, Field(ge=16, multiple_of=2)] = Field(
        224,
        description="side of a concept clip, and short side of a full frame, pixels; full frames are never enlarged",
    )
    classes: tuple[str, ...] | None = Field(None, description="null: every class that has enough videos")
    per_class: Annotated[int, Field(ge=1)] = 30
    min_per_class: Annotated[int, Field(ge=1)] = 5
    class_views: Annotated[int, Field(ge=1)] = Field(
        1,
        description="clips of each class video, spread evenly over it as by `num_clips` of a test pipeline, and "
        "averaged video by video in every figure",
    )
    per_concept: Annotated[int, Field(ge=1)] = 30
    min_per_concept: Annotated[int, Field(ge=1)] = 10
    random_pool: Annotated[int, Field(ge=1)] = Field(
        300, description="random clips per kind; at least 10 times per_concept"
    )
    concepts: tuple[ConceptConfig, ...] | Literal["auto"] = "auto"
    max_concepts: Annotated[int, Field(ge=1)] = 20
    controls: tuple[Control, ...] = Field(
        ("frozen", "shuffled", "reversed", "padding"),
        description="motion controls of every spatiotemporal clip whose concept does not name its own",
    )
    context_blur: Annotated[float, Field(ge=0)] = Field(0.0, description="blur outside the object, fraction of size")
    mask: bool = Field(
        False,
        description="show the object alone on grey in all kinds that crop it, random clips included; needs "
        "segmentation weights",
    )
    random_labels: Literal["any", "matched"] = Field(
        "any",
        description="matched: a concept's random sets have as many videos of each label as the concept has, so a CAV "
        "can't learn the label; the stage cavs chooses them, so no clip is cut again",
    )
    concept_labels: Literal["any", "other"] = Field(
        "any",
        description="other: the effect on a class is computed from concept and random clips of other classes' videos; "
        "the stage scores chooses them, so no clip is cut again",
    )
    quality: QualityConfig = QualityConfig()

    @model_validator(mode="after")
    def _unique_names(self) -> ClipsConfig:
        names = [c.name for c in self.concepts] if not isinstance(self.concepts, str) else []
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"concept names must be unique; twice: {', '.join(twice)}")
        if self.min_per_concept > self.per_concept:
            raise ValueError("`min_per_concept` is larger than `per_concept`")
        if self.min_per_class > self.per_class:
            raise ValueError("`min_per_class` is larger than `per_class`")
        return self

    @property
    def chosen_labels(self) -> str | None:
        """The first of `random_labels` and `concept_labels` that is not `any`."""
        return next((name for name in ("random_labels", "concept_labels") if getattr(self, name) != "any"), None)

    @property
    def kind_names(self) -> set[str]:
        """The kinds of all concepts in the list."""
        concepts = () if isinstance(self.concepts, str) else self.concepts
        return {kind for concept in concepts for kind in concept.kinds}

    @property
    def control_names(self) -> set[str]:
        """The motion controls of all concepts."""
        concepts = () if isinstance(self.concepts, str) else self.concepts
        return {*self.controls, *(control for concept in concepts for control in concept.controls or ())}


class ReviewConfig(ConfigSection):
    """The treatment of clips without a decision in `review.csv` (`vtcav review RUN`)."""

    undecided: Literal["use", "leave_out"] = Field(
        "use", description="leave_out: use only concept and class clips that a person accepted"
    )
