"""A run on another checkpoint of the same model: videos, tracks and clips are taken from the run that is there."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtcav_ray import pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import apply_overrides, parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.record import RECORD
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import SHARED
from vtcav_ray.store.files import sha256_of
from vtcav_ray.store.folder import Folder

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Saving:
    """What re-use was worth, in seconds of wall clock, from the manifests.

    Attributes:
        reused: what the shared stages took when they were made.
        spent: what the stages of this checkpoint took.
    """

    reused: float
    spent: float

    @property
    def fraction(self) -> float:
        """Of a run from nothing, the share that was saved."""
        whole = self.reused + self.spent
        return self.reused / whole if whole else 0.0

    @property
    def sentence(self) -> str:
        return (
            f"Videos, tracks and clips were re-used: they had taken {self.reused:.1f} s, and this checkpoint's own "
            f"stages took {self.spent:.1f} s, so {self.fraction:.0%} of a run from nothing was saved."
        )


@dataclass(frozen=True)
class Rerun:
    """A finished rerun."""

    run: Run
    saving: Saving


def rerun(
    run_url: str,
    checkpoint: str,
    out: str | None = None,
    overrides: Sequence[str] = (),
    *,
    progress: pipeline.Progress | None = None,
    fresh: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    verify: bool = True,
    take_over: bool = False,
    trust_code: bool = False,
) -> Rerun:
    """Do for `checkpoint` what has to be done anew: activations, CAVs, scores, report.

    Args:
        run_url: a run that has come to its clips at least.
        checkpoint: a .pth on any URL.
        out: the new run's folder; None: `RUN/checkpoints/<name>-<digest>`.
        overrides: `key=value` for the config, for example `model.storage_options={...}`.
        progress: see `vtcav_ray.pipeline.run`.
        fresh: make again what an earlier try of this rerun has left.
        storage_options: of the run folder, and of the new one.
        verify, take_over: see `vtcav_ray.pipeline.run`.
        trust_code: see `reopened`.

    Raises:
        ConfigError: no run, no clips in it, no such checkpoint, or code in the run's config that is not trusted.
        StageError: the checkpoint does not load, or a stage could not be completed.
    """
    run, config, base = reopened(run_url, overrides, storage_options, trust_code=trust_code)
    base = base or run
    for name in SHARED:
        base.manifest(name)  # says what to do where it is not complete
    url = out or run_folder(base.folder, checkpoint, sha256_of(checkpoint, config.model.storage_options)).url
    place = Folder(url, config.out_storage_options)
    if place.same_as(run.folder) or place.same_as(base.folder):
        raise ConfigError(f"--out {url} is the run itself. Give a folder of its own, or leave --out away.")
    result = pipeline.run(
        with_checkpoint(config, checkpoint, url),
        progress,
        base=base,
        fresh=fresh,
        verify=verify,
        take_over=take_over,
    )
    return Rerun(result, saving(result))


def reopened(
    run_url: str,
    overrides: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
    *,
    trust_code: bool = False,
) -> tuple[Run, Config, Run | None]:
    """A run, its config with overrides and with its own folder as `out`, and the run that it is a rerun of, if any.

    Args:
        overrides: those of `out_storage_options` serve to open the run, too: run.json has none.
        storage_options: of the run folder.
        trust_code: the programs that run.json names are run, wherever they are. Without it only those that `overrides`
            name, on this machine: somebody else may have written run.json.

    Raises:
        ConfigError: no run there, or an override that is not valid.
    """
    given: dict[str, Any] = {"out_storage_options": dict(storage_options or {})}
    apply_overrides(given, overrides)
    options = given["out_storage_options"]
    run = Run(run_url, options if isinstance(options, dict) else None)
    data = {**copy.deepcopy(run.record["config"]), "out": run_url, "out_storage_options": dict(storage_options or {})}
    apply_overrides(data, overrides)
    config = parse_config(data, where=f"{run_url}/{RECORD}").trusting("anywhere" if trust_code else "nowhere")
    if not trust_code:
        config = _trusting_named(config, overrides)
    return run, config, run.base_run()


def _trusting_named(config: Config, overrides: Sequence[str]) -> Config:
    """Allow programs on this machine that the person who calls has named, and not run.json."""
    keys = {override.partition("=")[0] for override in overrides}
    if keys & {"model", "model.config"}:
        config = config.model_copy(update={"model": config.model.trusting("here")})
    if keys & {"tracks", "tracks.weights"}:
        config = config.model_copy(update={"tracks": config.tracks.trusting("here")})
    return config


def with_checkpoint(config: Config, checkpoint: str, out: str) -> Config:
    """The same experiment on another checkpoint, in another folder."""
    model = config.model.model_copy(update={"checkpoint": checkpoint})
    return config.model_copy(update={"model": model, "out": out})


def run_folder(base: Folder, checkpoint: str, digest: str) -> Folder:
    """Where a rerun of `base` on a checkpoint goes: its name for people, its digest to tell it from its namesakes."""
    return base.below(CHECKPOINTS, f"{stem(checkpoint)}-{digest[:10]}")


def stem(url: str) -> str:
    """A checkpoint's file name without its ending, safe as the name of a folder."""
    name = url.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return re.sub(r"[^A-Za-z0-9._=-]+", "_", name).strip(".")[:80] or "checkpoint"  # the digest keeps namesakes apart


def saving(run: Run) -> Saving:
    """What a finished rerun saved."""
    seconds = {name: float(run.manifest(name)["seconds"]) for name in run.keys}
    reused = sum(s for name, s in seconds.items() if name in SHARED)
    return Saving(reused, sum(seconds.values()) - reused)
