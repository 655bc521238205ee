"""Log a run's figures to an experiment tracker with the tracker's own client, an optional extra."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType

from vtcav_ray.errors import ConfigError
from vtcav_ray.report.score_cells import read_cells
from vtcav_ray.runs.run import Run
from vtcav_ray.text.file_names import distinct_names

Figures = Mapping[str, float]
MLFLOW_NAME = 200  # characters; with a digest, names stay below MLflow's limit of 250
MLFLOW_BATCH = 1000  # maximum number of metrics that MLflow's stores accept at a time


def log_run(run: Run, tracker: str, *, destination: str, step: int = 0) -> int:
    """Log a run's figures.

    Args:
        run: with scores.
        tracker: one of TRACKERS.
        destination: TensorBoard: a folder; MLflow: a tracking URI; W&B: a project.
        step: training step, so the checkpoints of one training form a curve.

    Returns:
        The number of logged figures.

    Raises:
        ConfigError: no such tracker, or its client is not installed.
    """
    if tracker not in TRACKERS:
        raise ConfigError(f"No tracker {tracker!r}: choose from {', '.join(TRACKERS)}.")
    figures = figures_of(run)
    TRACKERS[tracker](figures, run, destination, step)
    return len(figures)


def figures_of(run: Run) -> dict[str, float]:
    """Return `effect/<class>/<concept>/<layer>` and `tcav_score/...` of cells against random clips, and counts."""
    scores = run.table("scores")
    cells = read_cells(scores, list(dict.fromkeys(scores["layer"].to_pylist())))
    found: dict[str, float] = {"significant_cells": float(cells.significant_N.sum()), "cells": float(len(cells))}
    for i in cells.contrast("random").nonzero()[0]:
        column = cells.columns[cells.column_N[i]]
        place = f"{cells.classes[cells.class_N[i]]}/{column.concept}/{cells.layers[cells.layer_N[i]]}"
        for name in ("effect", "tcav_score"):
            value = float(cells.numbers[name][i])
            if value == value:  # a tracker's curve can't hold NaN
                found[f"{name}/{place}"] = value
    return found


def _client(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"The client of this tracker is not installed ({error}). Install it with: pip install 'vtcav-ray[{extra}]'"
        ) from error


def _tensorboard(figures: Figures, run: Run, destination: str, step: int) -> None:
    writer = _client("torch.utils.tensorboard", "tensorboard").SummaryWriter(destination)
    with writer:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.add_text("run", run.url, step)


def _mlflow(figures: Figures, run: Run, destination: str, step: int) -> None:
    mlflow = _client("mlflow", "mlflow")
    # MLflow's names may contain letters, digits, and a few other characters.
    names = distinct_names(figures, also=".-/ ", most=MLFLOW_NAME)
    metrics = [(names[name], value) for name, value in figures.items()]
    try:
        mlflow.set_tracking_uri(destination)
        mlflow.set_experiment("video-tcav")
        with mlflow.start_run(run_name=run.config.name):
            mlflow.set_tag("vtcav_run", run.url)
            for start in range(0, len(metrics), MLFLOW_BATCH):
                mlflow.log_metrics(dict(metrics[start : start + MLFLOW_BATCH]), step=step)
    except mlflow.exceptions.MlflowException as error:
        raise ConfigError(
            f"MLflow did not accept figures at {destination} (--to): {_one_line(error)} Give the tracking URI of a "
            "server or of a database there, such as sqlite:///mlflow.db."
        ) from error


def _wandb(figures: Figures, run: Run, destination: str, step: int) -> None:
    wandb = _client("wandb", "wandb")
    try:
        with wandb.init(project=destination, name=run.config.name, config=run.record["config"]) as started:
            started.log(dict(figures), step=step)
    except wandb.errors.Error as error:
        raise ConfigError(
            f"W&B did not accept figures for the project {destination} (--to): {_one_line(error)} Log in with `wandb "
            "login`, or set WANDB_MODE=offline to keep them on this machine."
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."


TRACKERS: Mapping[str, Callable[[Figures, Run, str, int], None]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
