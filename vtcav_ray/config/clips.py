"""The sections `clips` and `review`: concepts, class examples, random clips, and decisions of a person."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from vtcav_ray.config.section import ConfigSection
from vtcav_ray.config.values import Fraction, Name
from vtcav_ray.registry import CONCEPT_KINDS, MOTION_CONTROLS

# Names in a registry (vtcav_ray.registry): the built-in ones and those that other packages add.
Kind = Annotated[str, AfterValidator(CONCEPT_KINDS.check)]
Control = Annotated[str, AfterValidator(MOTION_CONTROLS.check)]
Direction = Literal["up", "down", "left", "right", "towards", "away", "still"]
PathShape = Literal["straight", "curved", "back_and_forth"]
GIVEN, STILL = "given", "still"  # kinds of a person's own clips: videos, and images
GIVEN_KINDS = (GIVEN, STILL)
GIVEN_CONTROLS = ("frozen", "shuffled", "reversed")  # motion controls that a clip without a box can have
OF_WORLD = "world"  # `from: world`: concept folders that are rendered with the planted world


class MotionConfig(ConfigSection):
    """Motion that limits a concept to certain tracks. Unit: the frame's short side; camera motion is subtracted."""

    direction: Direction | None = None
    min_speed: Annotated[float, Field(ge=0)] | None = Field(None, description="short sides per second")
    max_speed: Annotated[float, Field(ge=0)] | None = None
    path: PathShape | None = None


class ConceptConfig(ConfigSection):
    """One concept: an object, a way of moving, or both; or your own clips.

    Each kind makes a separate concept `<name>/<kind>`. Own clips have the kind `given`, own images the kind `still`.
    """

    name: Name
    object: str | None = Field(None, description="the detector's label; null: any object")
    motion: MotionConfig | None = None
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("spatial", "spatiotemporal")
    controls: tuple[Control, ...] | None = Field(
        None, description="of its spatiotemporal or own clips; null: clips.controls"
    )
    clips: str | None = Field(
        None, description="your own clips or images instead of an object: a folder, glob or manifest, any fsspec URL"
    )
    negatives: str | None = Field(
        None, description="your own random clips to compare them with; null: random clips of the corpus, in full frame"
    )
    pairs: Literal["by_name"] | None = Field(
        None,
        description="by_name: files of `clips` and `negatives` that have one name, without the extension, are a pair: "
        "the same clip with and without the concept",
    )

    @model_validator(mode="before")
    @classmethod
    def _kinds_of_own_clips(cls, data: Any) -> Any:
        """Set the kinds of a concept of own clips: its files decide which of them it has."""
        if isinstance(data, dict) and data.get("clips") is not None and data.get("kinds") is None:
            return {**data, "kinds": GIVEN_KINDS}
        return data

    @model_validator(mode="after")
    def _own_clips_alone(self) -> ConceptConfig:
        if self.pairs is not None and (self.clips is None or self.negatives is None):
            raise ValueError("`pairs` needs both `clips` and `negatives`: give them, or remove it")
        if self.clips is None:
            if self.negatives is not None:
                raise ValueError("`negatives` belongs to a concept of your own clips: give `clips`, or remove it")
            if own := [kind for kind in self.kinds if kind in GIVEN_KINDS]:
                raise ValueError(
                    f"the kind `{own[0]}` is that of a concept with `clips`: give `clips`, or another kind"
                )
            return self
        if self.object is not None or self.motion is not None:
            raise ValueError("a concept of your own `clips` has no `object` and no `motion`: remove them")
        if set(self.kinds) != set(GIVEN_KINDS):
            raise ValueError("a concept of your own `clips` has no choice of `kinds`: remove the key")
        if other := [control for control in self.controls or () if control not in GIVEN_CONTROLS]:
            raise ValueError(
                f"your own clips have no control `{other[0]}`, since they have no box; "
                f"they have {', '.join(GIVEN_CONTROLS)}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out unused keys of own clips and pairs, so that the keys of stages without them stay the same."""
        data: dict[str, Any] = handler(self)
        unused = {"pairs"} if self.pairs is None else set()
        if self.clips is None:
            unused |= {"clips", "negatives"}
        return {k: v for k, v in data.items() if k not in unused}


class ConceptFolders(ConfigSection):
    """Own clips in folders: each folder below `from` is a concept with its name.

    Folders such as `random`, `random_0` or `random500_1` are no concepts: they are the random clips of all of them.
    """

    from_: str = Field(
        alias="from",
        description="folder of folders, any fsspec URL; `world`: the planted world renders some (videos.world)",
    )
    negatives: str | None = Field(None, description="random clips of all of them, beside those of random folders")

    @model_serializer(mode="wrap")
    def _by_alias(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"from" if key == "from_" else key: value for key, value in handler(self).items()}


def _form_of_concepts(value: Any) -> str:
    """Return the tag of what `clips.concepts` is, so that an error is about this form only."""
    if isinstance(value, dict | ConceptFolders):
        return "tuple[folders]"
    return "literal[auto]" if isinstance(value, str) else "tuple[list]"


# Tags that start as pydantic's own do not occur in messages (vtcav_ray.config.loading).
Concepts = Annotated[
    Annotated[tuple[ConceptConfig, ...], Tag("tuple[list]")]
    | Annotated[ConceptFolders, Tag("tuple[folders]")]
    | Annotated[Literal["auto"], Tag("literal[auto]")],
    Discriminator(_form_of_concepts),
]


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
    concepts: Concepts = "auto"
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
        names = [c.name for c in self.listed]
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
    def listed(self) -> tuple[ConceptConfig, ...]:
        """The concepts of the list; empty if they are proposed, or come from folders."""
        return self.concepts if isinstance(self.concepts, tuple) else ()

    @property
    def tracked(self) -> tuple[ConceptConfig, ...]:
        """The concepts of the list that are found in tracks."""
        return tuple(concept for concept in self.listed if concept.clips is None)

    @property
    def has_given(self) -> bool:
        """Whether a concept consists of own clips."""
        return isinstance(self.concepts, ConceptFolders) or any(concept.clips is not None for concept in self.listed)

    @property
    def in_pairs(self) -> frozenset[str]:
        """Names of the concepts whose own clips and negatives are pairs."""
        return frozenset(concept.name for concept in self.listed if concept.pairs is not None)

    @property
    def need_tracks(self) -> bool:
        """Whether a concept is found in tracks. Without one, no detector runs."""
        return self.concepts == "auto" or bool(self.tracked)

    @property
    def given_urls(self) -> list[tuple[str, str]]:
        """(URL, key) of every folder, glob or manifest of own clips; without `from: world`."""
        found: list[tuple[str | None, str]] = []
        if isinstance(self.concepts, ConceptFolders):
            folder = None if self.concepts.from_ == OF_WORLD else self.concepts.from_
            found = [(folder, "clips.concepts.from"), (self.concepts.negatives, "clips.concepts.negatives")]
        for i, concept in enumerate(self.listed):
            key = f"clips.concepts.{i}"
            found += [(concept.clips, f"{key}.clips"), (concept.negatives, f"{key}.negatives")]
        return [(url, key) for url, key in found if url is not None]

    def controls_of(self, concept: ConceptConfig | None) -> tuple[str, ...]:
        """Return the motion controls of a concept's own clips; None: of a concept from a folder."""
        wanted = self.controls if concept is None or concept.controls is None else concept.controls
        return tuple(control for control in wanted if control in GIVEN_CONTROLS)

    @property
    def kind_names(self) -> set[str]:
        """The kinds of all concepts in the list."""
        return {kind for concept in self.listed for kind in concept.kinds}

    @property
    def control_names(self) -> set[str]:
        """The motion controls of all concepts."""
        return {*self.controls, *(control for concept in self.listed for control in concept.controls or ())}


class ReviewConfig(ConfigSection):
    """The treatment of clips without a decision in `review.csv` (`vtcav review RUN`)."""

    undecided: Literal["use", "leave_out"] = Field(
        "use", description="leave_out: use only concept and class clips that a person accepted"
    )
