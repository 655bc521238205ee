"""A run on another checkpoint of the same model: it reuses videos, tracks and clips of an existing run."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtcav_ray import pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import apply_overrides, parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.record import RECORD
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import SHARED, TRACKS
from vtcav_ray.store.folder import Folder

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Saving:
    """Time saved by reuse, in seconds of wall time, from the manifests.

    Attributes:
        reused: seconds that the shared stages took when they were computed.
        spent: seconds that the stages of this checkpoint took.
    """

    reused: float
    spent: float

    @property
    def fraction(self) -> float:
        """Share of a full run's time that was saved."""
        whole = self.reused + self.spent
        return self.reused / whole if whole else 0.0

    @property
    def sentence(self) -> str:
        return (
            f"Videos, tracks and clips were re-used: they took {self.reused:.1f} s when they were made. This "
            f"checkpoint's own stages took {self.spent:.1f} s, so {self.fraction:.0%} of a full run was saved."
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
    """Compute the stages that depend on the checkpoint: activations, CAVs, scores, report.

    Args:
        run_url: a run whose clips are complete.
        checkpoint: a .pth, or a folder of `save_pretrained`, on any URL.
        out: the new run's folder; None: `RUN/checkpoints/<name>-<digest>`.
        overrides: `key=value` for the config, for example `model.storage_options={...}`.
        progress: see `vtcav_ray.pipeline.run`.
        fresh: recompute the output of an earlier attempt of this rerun.
        storage_options: for the run folder and the new one.
        verify, take_over: see `vtcav_ray.pipeline.run`.
        trust_code: see `reopened`.

    Raises:
        ConfigError: no run, no clips in it, no such checkpoint, or untrusted code in the run's config.
        StageError: the checkpoint does not load, or a stage could not be completed.
    """
    from vtcav_ray.models import checkpoint_digest

    run, config, base = reopened(run_url, overrides, storage_options, trust_code=trust_code)
    base = base or run
    for name in SHARED:
        if name == TRACKS.name and not config.clips.need_tracks:
            continue
        base.manifest(name)  # raises an error that explains what to do if the stage is not complete
    digest = checkpoint_digest(config.model.model_copy(update={"checkpoint": checkpoint}))
    url = out or run_folder(base.folder, checkpoint, digest).url
    place = Folder(url, config.out_storage_options)
    if place.same_as(run.folder) or place.same_as(base.folder):
        raise ConfigError(f"--out {url} is the run itself. Give another folder, or omit --out.")
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
    """Open a run. Return it, its config with overrides and its folder as `out`, and the run that it reruns, if any.

    Args:
        run_url: URL of the run folder.
        overrides: `key=value` for the config. Those of `out_storage_options` also open the run: run.json has none.
        storage_options: for the run folder.
        trust_code: run the programs that run.json names, wherever they are. Otherwise run only those that `overrides`
            name, on this machine: another user may have written run.json.

    Raises:
        ConfigError: no run at `run_url`, or an invalid override.
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
    """Trust programs on this machine that the caller's overrides name, but not those that run.json names."""
    keys = {override.partition("=")[0] for override in overrides}
    if keys & {"model", "model.config"}:
        config = config.model_copy(update={"model": config.model.trusting("here")})
    if "tracks" in keys or (keys & {"tracks.weights", "tracks.text_encoder"} and _named_all_programs(config, keys)):
        config = config.model_copy(update={"tracks": config.tracks.trusting("here")})
    return config


def _named_all_programs(config: Config, keys: Collection[str]) -> bool:
    """Return whether run.json alone names no program in the section `tracks`: no engine, and no text encoder."""
    engine = config.tracks.weights.lower().endswith(".engine")
    return ("tracks.weights" in keys or not engine) and (
        "tracks.text_encoder" in keys or config.tracks.text_encoder is None
    )


def with_checkpoint(config: Config, checkpoint: str, out: str) -> Config:
    """Return the same config with another checkpoint and folder."""
    model = config.model.model_copy(update={"checkpoint": checkpoint})
    return config.model_copy(update={"model": model, "out": out})


def run_folder(base: Folder, checkpoint: str, digest: str) -> Folder:
    """Return the folder for a rerun of `base`: the checkpoint's name, and its digest to separate equal names."""
    return base.below(CHECKPOINTS, f"{stem(checkpoint)}-{digest[:10]}")


def stem(url: str) -> str:
    """Return a checkpoint's file name without its suffix, safe as a folder name."""
    name = url.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return re.sub(r"[^A-Za-z0-9._=-]+", "_", name).strip(".")[:80] or "checkpoint"  # the digest separates equal names


def saving(run: Run) -> Saving:
    """Return the time that a finished rerun saved."""
    seconds = {name: float(run.manifest(name)["seconds"]) for name in run.keys}
    reused = sum(s for name, s in seconds.items() if name in SHARED)
    return Saving(reused, sum(seconds.values()) - reused)
