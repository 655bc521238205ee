"""`vtcav init`: write a valid, commented config for the user's model and bucket."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError

KINETICS = "asset:kinetics400.txt"
TEMPLATE = """\
# Video-TCAV for your own model and videos. Check it: vtcav run {file} --dry-run
# Estimate its cost: vtcav plan {file} --rate gpu=2.50   Run it: vtcav run {file}
name: {name}  # of the run, on every page
seed: 0                           # of every random choice: the same seed gives the same results
out: {out}  # the run folder, any fsspec URL; a stopped run resumes there, a new checkpoint re-uses tracks and clips

videos:                           # what to read
  # A folder with one folder per class, a glob, or a CSV or Parquet manifest with the columns uri and label;
  # a local path, s3://, gs:// and so on. Credentials come from the environment, as for other tools.
  uri: {videos}  # your videos
{found}  # labels: labels.csv            # video_id or uri, and label; if the folders are not the labels
  # limit: 200                    # use only the first 200 videos
  # enough: false                 # track all videos, not only until every set of clips is full: docs/scaling.md
  # storage_options: {{endpoint_url: "http://localhost:9000"}}   # for fsspec, for example another S3 server

tracks:                           # how objects are found and followed
  # Ultralytics YOLO weights (.pt, .onnx): they find the objects. `asset:detector.pt` knows only the planted world.
  weights: {weights}  # a file or URL
  image_size: 640                 # pixels; as the detector was trained
  confidence: 0.1                 # least confidence of a detection; the tracker drops stray ones
  frame_stride: 2                 # detect in every second frame
  # vocabulary: [red card]        # words for YOLO-World or YOLOE weights: docs/howto/words_and_masks.md

clips:                            # what is cut from the videos: concepts, class examples, random sets
  frames: 32                      # T, as your recogniser expects
  interval: {interval}                     # source frames from one frame to the next
  size: 224                       # pixels, as your recogniser expects
  per_class: {per_class:<21}# class examples, each from a different video
  min_per_class: {min_per_class:<17}# classes with fewer videos are left out
  per_concept: 30                 # clips of each concept, from different videos where possible
  random_pool: 300                # random clips per kind; ten times per_concept or more
  # random_labels: matched        # random sets with a concept's own labels: then a CAV can't learn the class
  # concept_labels: other         # a class's effects from concept clips of other classes: docs/concepts.md
  # mask: true                    # show objects alone on grey; needs segmentation weights
  # classes: [playing tennis, arm wrestling]   # null: every class with enough videos
  concepts: auto                  # proposed from the tracks. Or name your own:
  # concepts:
  #   - {{name: racket, object: tennis racket, kinds: [spatial, spatiotemporal], controls: [frozen, reversed]}}
  #   - {{name: moving up, motion: {{direction: up, min_speed: 0.2}}, kinds: [context]}}
  #   - {{name: mine, clips: "s3://bucket/spinning", negatives: "s3://bucket/not spinning"}}   # docs/howto/own_clips.md
  #   - {{name: marked, clips: with, negatives: without, pairs: by_name}}   # the same clips with and without it

model:                            # the recogniser to explain
  framework: mmaction2            # or transformers, python, torchvision: docs/howto/any_model.md
  config: {model_config}  # the network, as its framework describes it
  checkpoint: {checkpoint}  # its weights; `untrained` runs without any, and every page says so
  {labels_line}

activations:                      # where the model is read
  layers: auto                    # by the model's family. Or name aliases and modules: [early, early@moving, late]
  projection: mean                # or time, space, flat, moving, still, grid:4, sketch:4096: see docs/models.md

cavs:                             # the concepts' directions
  random_sets: 50                 # R; below 20 the p of the sign count has little power

scores:                           # the statistics; changing them runs no model
  alpha: 0.05                     # family-wise error: how often any finding is wrong
  correction: step_down           # or holm (all comparisons one by one), bh (false discovery rate), none
  min_effect: 0.05                # smallest effect of interest, share of the distance between classes; 0: off
  effect: first_order             # or patch: finite effects, which run the model; `vtcav plan --patch` has the price

resources:                        # of one worker of each stage; Ray starts as many as fit
  # address: ray://head:10001     # null: RAY_ADDRESS, or Ray is started on this machine
  detect: {{cpus: 1}}               # per worker; with a GPU: {{cpus: 4, gpus: 1}}
  extract: {{cpus: 1}}              # runs the recogniser; with a GPU: {{cpus: 4, gpus: 1}}
  # rates: {{gpu_hour: 2.50, cpu_hour: 0.04, currency: EUR}}   # then plans and reports show a price
"""


MIN_PER_CONCEPT = 10  # of the section `clips`


@dataclass(frozen=True)
class OwnConcepts:
    """A folder of concept folders: its URL, the files of the smallest concept, and sentences about them."""

    folder: str
    fewest: int
    sentences: tuple[str, ...] = ()


def write_config(
    file: str,
    *,
    videos: str,
    weights: str,
    model_config: str,
    checkpoint: str,
    out: str | None,
    force: bool,
    found: Sequence[str] = (),
    interval: int = 2,
    per_class: int = 30,
    min_per_class: int = 5,
    concepts: OwnConcepts | None = None,
) -> Path:
    """Write a commented config, checked against the schema first.

    Args:
        file: to write.
        videos, weights, model_config, checkpoint: as in the config.
        out: run folder; None: `runs/<file name>`.
        force: overwrite an existing file.
        found: sentences about the videos, written as comments.
        interval, per_class, min_per_class: as in the section `clips`.
        concepts: a folder of own clips; None: concepts are found in tracks.

    Raises:
        ConfigError: the file exists already, or its folder is not writable.
    """
    path = Path(file)
    if path.exists() and not force:
        raise ConfigError(f"{file} exists already. Name another file, or overwrite it with --force.")
    text = TEMPLATE.format(
        file=file,
        name=json.dumps(path.stem, ensure_ascii=False),
        out=_quoted(out or f"runs/{path.stem}"),
        videos=_quoted(videos),
        weights=_quoted(weights),
        model_config=_quoted(model_config),
        checkpoint=_quoted(checkpoint),
        found="".join(f"  # Found: {line_of(sentence)}\n" for sentence in found),
        interval=interval,
        per_class=per_class,
        min_per_class=min_per_class,
        labels_line=labels_line(model_config),
    )
    if concepts is not None:
        text = _with_own_concepts(text, concepts)
    parse_config(yaml.safe_load(text), where=file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error}. Name another file.") from error
    return path


def _with_own_concepts(text: str, own: OwnConcepts) -> str:
    """Replace the concepts of a config by own clips, and remove its section `tracks`, since nothing is detected."""
    start, end = _place_of("tracks", text), _place_of("clips", text)
    text = text[:start] + text[end:]
    start, end = text.index("  concepts: auto"), _place_of("model", text) - 1
    block = f"""\
  controls: [frozen, reversed]    # the same clips without their motion, and backwards; images have none
  # A folder of clips or images for each concept. Folders such as `random` are random clips for all of them; without
  # one, clips of the videos take their place, and every page says so. More: docs/howto/own_clips.md
  concepts: {{from: {_quoted(own.folder)}}}
"""
    if own.fewest < MIN_PER_CONCEPT:
        least = f"  min_per_concept: {max(own.fewest, 2):<15}"
        block = f"{least}# the smallest concept has {own.fewest}; 10 or more are better\n{block}"
    text = text[:start] + block + text[end:]
    return re.sub(r"^  detect: .*\n", "", text, flags=re.MULTILINE)


def _place_of(section: str, text: str) -> int:
    """Return where a section begins."""
    found = re.search(rf"^{section}:", text, re.MULTILINE)
    assert found is not None, "the template has every section"
    return found.start()


def labels_line(model_config: str) -> str:
    """Return the line `labels` for a model. MMAction2's configs of Kinetics-400 name no classes."""
    if "kinetics400" in model_config.lower():
        return f"labels: {KINETICS}  # the model's class names, in the order of its logits"
    return "# labels: classes.txt           # one class name per line; null: from the config or the checkpoint"


def line_of(text: str) -> str:
    """Return text from outside (labels) as one line of printable characters, for a comment."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _quoted(text: str) -> str:
    """Quote a string for YAML. A JSON string is also a YAML string."""
    return json.dumps(text, ensure_ascii=False)
