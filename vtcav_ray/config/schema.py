"""The one typed schema of every `configs/*.yaml`. An unknown key is an error that names the nearest valid key.

A stage's key is a hash of the sections that determine it (see `vtcav_ray.pipeline`). So keys that change no result,
such as those of `resources`, must not be in another section.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from vtcav_ray.config.gradcam import GradcamConfig
from vtcav_ray.config.resources import ResourcesConfig
from vtcav_ray.config.section import Code, ConfigSection, NamesCode, StorageOptions
from vtcav_ray.registry import CONCEPT_KINDS, MOTION_CONTROLS, PROJECTIONS, SOLVERS, TRACK_SOURCES, UnknownName
from vtcav_ray.stages import ANSWER
from vtcav_ray.store.containers import VIDEO_EXTENSIONS
from vtcav_ray.store.urls import (
    ANY_ADDRESS,
    MAX_OBJECT_BYTES,
    MAX_OBJECT_SECONDS,
    READ_LIMITS,
    SCHEMES,
    ReadLimits,
    check_url,
    origin_of,
)

# Names in a registry (vtcav_ray.registry): the built-in ones and those that other packages add.
Kind = Annotated[str, AfterValidator(CONCEPT_KINDS.check)]
Control = Annotated[str, AfterValidator(MOTION_CONTROLS.check)]
Solver = Annotated[str, AfterValidator(SOLVERS.check)]
TrackSource = Annotated[str, AfterValidator(TRACK_SOURCES.check)]
Direction = Literal["up", "down", "left", "right", "towards", "away", "still"]
PathShape = Literal["straight", "curved", "back_and_forth"]
Name = Annotated[str, Field(pattern=r"^[^/\x00-\x1f]+$", min_length=1, max_length=80)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0)]


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


class TracksConfig(NamesCode):
    """Detection by YOLO in batches over many videos, and tracking video by video."""

    weights: str = Field("asset:detector.pt", description=".pt, .onnx or .engine; `asset:` is a packaged file")
    names: str | None = Field(None, description="label file for weights that carry no class names")
    tracker: Literal["bytetrack", "botsort"] = "bytetrack"
    tracker_options: dict[str, Any] = Field(default_factory=dict)
    image_size: Annotated[int, Field(ge=32, multiple_of=32)] = 640
    confidence: Fraction = 0.1
    iou: Fraction = 0.7
    classes: tuple[str, ...] | None = Field(None, description="keep only these labels")
    frame_stride: Annotated[int, Field(ge=1)] = 1
    max_frames: Annotated[int, Field(ge=1)] = Field(20_000, description="maximum number of frames decoded per video")
    max_pixels: Annotated[int, Field(ge=1)] = Field(8192 * 8192, description="refuse larger frames")
    batch_size: Annotated[int, Field(ge=1)] = 32
    camera_motion: bool = True
    decoder: Literal["pyav", "torchcodec"] = Field(
        "pyav",
        description="torchcodec: on the detector's GPU, if it has one; needs the extra `torchcodec` and FFmpeg's "
        "shared libraries",
    )
    storage_options: StorageOptions = Field(default_factory=dict)
    source: TrackSource | None = Field(
        None, description="where tracks come from; null: `ultralytics`, which this section's other keys set up"
    )


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


class ModelConfig(NamesCode):
    """The recogniser that is explained."""

    framework: str = Field("mmaction2", description="or `torchvision`, or the name of your own entry point")
    config: str = Field("asset:recogniser.py", description="MMAction2 config: a file, a URL, or a packaged name")
    checkpoint: str = Field("asset:recogniser.pth", description="a .pth on any URL, or `untrained`: random weights")
    labels: str | None = Field(None, description="file, one class name per line; null: from the config or checkpoint")
    storage_options: StorageOptions = Field(default_factory=dict)


def _check_projection(spec: str) -> str:
    PROJECTIONS.resolve(spec)
    return spec


AUTO = "auto"  # the layers of the model's family


def _listed_auto(layers: Any) -> Any:
    return (AUTO,) if layers == AUTO else layers


class ActivationsConfig(ConfigSection):
    """The activations and gradients to store from a forward and a backward pass."""

    layers: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_listed_auto)] = Field(
        (AUTO,),
        description="`early@moving`: with its own projection. auto: early, middle, late and head; where these are "
        "convolutional, also with the projections moving and still",
    )
    projection: Annotated[str, AfterValidator(_check_projection)] = "mean"
    sketch_seed: int = 0
    target: Literal["logit", "log_odds", "log_probability"] = "logit"
    classes: Literal["label", "listed"] | Annotated[str, Field(pattern=r"^top-[1-9]\d*$")] = Field(
        "label",
        description="differentiate each class example's own label, its top-k answers, or all of clips.classes",
    )
    reference: Annotated[int, Field(ge=0)] | None = Field(
        None, description="videos of the reference set, where every class is differentiated; null: clips.per_class"
    )
    views: Literal["center", "test"] = Field(
        "center", description="one centre crop of the stored clip, or the config's own crops, averaged"
    )
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="of the stored activations; gradients are always float32"
    )
    compile: bool = False

    @field_validator("layers")
    @classmethod
    def _projections_of_layers(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        for layer in layers:
            name, at, own = layer.partition("@")
            if name == ANSWER:
                raise ValueError(f"{layer!r} is the name of the model's own answer in the scores, beside the layers")
            if not at:
                continue
            if not name:
                raise ValueError(f"{layer!r}: before the @ comes the layer's name")
            try:
                PROJECTIONS.resolve(own)
            except UnknownName as error:
                raise ValueError(
                    f"{layer!r}: after the @ comes the layer's own projection, and {own!r} is none. {error.known}"
                ) from error
        if twice := sorted({layer for layer in layers if layers.count(layer) > 1}):
            raise ValueError(f"layers must be unique; twice: {', '.join(twice)}")
        if AUTO in layers and len(layers) > 1:
            raise ValueError(f"`{AUTO}` stands alone: write `layers: {AUTO}`, or name every layer")
        return layers

    @property
    def layers_are_auto(self) -> bool:
        """Whether the layers are those of the model's family, which a run fills in when it starts."""
        return self.layers == (AUTO,)

    @property
    def projection_names(self) -> set[str]:
        """The registered names of the projections that the layers use."""
        specs = [layer.partition("@")[2] or self.projection for layer in self.layers]
        return {PROJECTIONS.resolve(spec)[0] for spec in specs}


class ReviewConfig(ConfigSection):
    """The treatment of clips without a decision in `review.csv` (`vtcav review RUN`)."""

    undecided: Literal["use", "leave_out"] = Field(
        "use", description="leave_out: use only concept and class clips that a person accepted"
    )


class CavsConfig(ConfigSection):
    """Concept activation vectors: R for each concept and layer, one per random set."""

    solver: Solver = "logistic"
    regularization: Annotated[float, Field(gt=0)] | None = Field(None, description="null: the solver's own default")
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.33
    random_sets: Annotated[int, Field(ge=1)] = Field(50, description="R")
    relative: tuple[Literal["groups", "pairs"], ...] = Field(
        ("groups", "pairs"), description="a concept against the rest of its kind; moving against still and controls"
    )


class ScoresConfig(ConfigSection):
    """Statistics. Changing them runs no model."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    correction: Literal["step_down", "holm", "bh", "none"] = Field(
        "step_down",
        description="step_down: within a concept, the classes and layers share the permutations (Westfall and Young), "
        "then Holm over the concepts; holm: over all cells one by one; bh: false discovery rate",
    )
    effect: Literal["first_order", "patch"] = Field(
        "first_order",
        description="first_order: along the gradient, without running the model; patch: the real change of the target "
        "when concept clips' activations replace those of the reference clips, for pool x reference x layers passes",
    )
    min_effect: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.05,
        description="smallest effect of interest, share of the class's margin (root mean square distance of the other "
        "classes' clips from its own, measured as the effect is); a cell is called only if its interval lies beyond, "
        "and has no effect only if it lies inside; 0: off",
    )
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    permutations: Annotated[int, Field(ge=100)] = 100_000
    gradients_at: Literal["reference", "own", "all"] = Field(
        "reference",
        description="where the concept effect takes a class's mean gradient: at the reference set (examples spread "
        "evenly over the classes), at the class's own examples, or at all examples that have one "
        "(activations.classes: listed or top-k)",
    )

    @property
    def per_cell_correction(self) -> Literal["holm", "bh", "none"]:
        """The correction of tests that do not share permutations."""
        return "holm" if self.correction == "step_down" else self.correction


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
            for name in ("uri", "labels", "weights", "names", "config", "checkpoint"):
                if isinstance(url := getattr(getattr(self, section), name, None), str):
                    check_url(url, f"{section}.{name}")
        if self.out is not None:
            check_url(self.out, "out")
        return self

    def trusting(self, code: Code) -> Config:
        """Return a copy that allows these of its programs: `.py` model configs and TensorRT engines."""
        return self.model_copy(update={"model": self.model.trusting(code), "tracks": self.tracks.trusting(code)})

    @property
    def run_url(self) -> str:
        """The run folder."""
        return self.out or f"runs/{self.name}"
