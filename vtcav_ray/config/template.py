"""`vtcav init`: write a valid, commented config for the user's model and bucket."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError

TEMPLATE = """\
# Video-TCAV for your own model and videos. Check it: vtcav run {file} --dry-run
# What it would take: vtcav plan {file} --rate gpu=2.50   Run it: vtcav run {file}
name: {name}
seed: 0
# The run folder, any fsspec URL. A run that was stopped goes on there; a new checkpoint re-uses tracks and clips.
out: {out}

videos:
  # A folder with one folder a class, a glob, or a CSV or Parquet manifest with the columns uri and label;
  # a local path, s3://, gs:// and so on. Credentials come from the environment, as for every other tool.
  uri: {videos}
  # labels: labels.csv            # video_id or uri, and label; where the folders don't say it
  # limit: 200                    # the first so many videos only
  # storage_options: {{endpoint_url: "http://localhost:9000"}}   # for fsspec, for example another S3 server

tracks:
  # Ultralytics' YOLO weights (.pt, .onnx): what concepts are made of. `asset:detector.pt` only knows the planted world.
  weights: {weights}
  image_size: 640
  confidence: 0.1
  frame_stride: 2                 # detect in every second frame

clips:
  frames: 32                      # T, as your recogniser takes them
  interval: 2                     # source frames from one to the next
  size: 224                       # pixels
  per_class: 30                   # class examples, each from a video of its own
  per_concept: 30
  random_pool: 300                # random clips a kind; ten times per_concept or more
  # classes: [playing tennis, arm wrestling]   # null: every class with enough videos
  concepts: auto                  # proposed from the tracks. Or name your own:
  # concepts:
  #   - {{name: racket, object: tennis racket, kinds: [spatial, spatiotemporal], controls: [frozen, reversed]}}
  #   - {{name: moving up, motion: {{direction: up, min_speed: 0.2}}, kinds: [context]}}

model:
  framework: mmaction2            # or torchvision, or an entry point of your own: docs/models.md
  config: {model_config}
  # A run without a checkpoint has to be asked for by this name, and says so on every page.
  checkpoint: {checkpoint}
  # labels: classes.txt           # one class name a line; null: from the config or the checkpoint

activations:
  layers: [early, middle, late, head]   # or names of your model's modules; early@moving: with a projection of its own
  projection: mean                # or time, space, flat, moving, still, grid:4, sketch:4096: which when, docs/models.md

cavs:
  random_sets: 50                 # R; under 20 the p of the sign count can't decide much

scores:
  alpha: 0.05
  correction: holm                # or bh (false discovery rate), or none

resources:
  # address: ray://head:10001     # null: RAY_ADDRESS, or a Ray started on this machine
  detect: {{cpus: 1}}              # of one actor; with a GPU: {{cpus: 4, gpus: 1}}
  extract: {{cpus: 1}}
  # rates: {{gpu_hour: 2.50, cpu_hour: 0.04, currency: EUR}}   # then plans and reports name a price
"""


def write_config(
    file: str, *, videos: str, weights: str, model_config: str, checkpoint: str, out: str | None, force: bool
) -> Path:
    """Write a commented config, checked against the schema first.

    Args:
        file: to write.
        videos, weights, model_config, checkpoint: as in the config.
        out: run folder; None: `runs/<file name>`.
        force: overwrite an existing file.

    Raises:
        ConfigError: the file exists already, or its folder is not writable.
    """
    path = Path(file)
    if path.exists() and not force:
        raise ConfigError(f"{file} is there already. Name another file, or write over it with --force.")
    text = TEMPLATE.format(
        file=file,
        name=json.dumps(path.stem, ensure_ascii=False),
        out=_quoted(out or f"runs/{path.stem}"),
        videos=_quoted(videos),
        weights=_quoted(weights),
        model_config=_quoted(model_config),
        checkpoint=_quoted(checkpoint),
    )
    parse_config(yaml.safe_load(text), where=file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error}. Name another file.") from error
    return path


def _quoted(text: str) -> str:
    """Quote a string for YAML. A JSON string is also a YAML string."""
    return json.dumps(text, ensure_ascii=False)
