"""The preflight of a run: all checks, in the order in which the run would meet their faults."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.config import Config
from vtcav_ray.errors import VtcavError
from vtcav_ray.preflight.checks import Check, LabelRow, Preflight
from vtcav_ray.preflight.corpus import corpus_checks
from vtcav_ray.preflight.detector import detector_checks
from vtcav_ray.preflight.given import given_checks
from vtcav_ray.preflight.model import model_checks
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.opencv_builds import mixture

Together = Callable[[Sequence[Callable[[], Any]]], list[Any]]


def in_turn(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call functions in this process, one after another, and return their results."""
    return [call() for call in calls]


def preflight(
    config: Config,
    videos: pa.Table | None,
    folder: Folder,
    stages: Collection[str],
    *,
    keep: bool = True,
    given: pa.Table | None = None,
    together: Together = in_turn,
) -> Preflight:
    """Check what can be known before any video is decoded. Takes seconds; reads the weights, and no video.

    Args:
        config: of the run, with its layers filled in.
        videos: VIDEOS table; None: not known yet, so labels and counts are not checked.
        folder: the run folder, where models that passed are remembered.
        stages: names of the stages that the run has to do. Without `tracks`, the detector is not checked; without
            `activations`, model and labels are not.
        given: the own clips of concepts (table `given`); None: there are none, or they are not known yet.
        keep: whether to write to `folder`; False for a dry run, which also checks that it could.
        together: calls functions without arguments and returns their results. The checks of the detector and of the
            model import packages for seconds, so a caller with other processes can make them there at the same time.

    Returns:
        The rows. `Preflight.stop` raises the errors among them.
    """
    checks = [] if keep else [output_check(folder)]
    checks += opencv_checks()
    labels: list[LabelRow] = []
    calls: dict[str, Callable[[], Any]] = {}
    if "tracks" in stages:
        calls["tracks"] = functools.partial(detector_checks, config, folder if keep else None)
    if "activations" in stages:
        calls["activations"] = functools.partial(model_checks, config, folder, keep=keep)
    made = dict(zip(calls, together(list(calls.values())), strict=True))
    checks += made.get("tracks", ())
    if given is not None:
        checks += given_checks(given, config)
    if "activations" in stages:
        found, classes = made["activations"]
        checks += found
        if classes is not None and videos is not None and videos.num_rows:
            found, labels = corpus_checks(videos, config, classes.names, classes.described)
            checks += found
    return Preflight(tuple(checks), tuple(labels))


def opencv_checks() -> list[Check]:
    """Return a warning if builds of OpenCV of several versions are installed, whose files overwrite each other."""
    mixed = mixture()
    return [Check("opencv", "warn", mixed)] if mixed is not None else []


def output_check(folder: Folder) -> Check:
    """Check, without writing, that the run folder can be written. On object storage: that it can be listed."""
    try:
        folder.check()
    except VtcavError as error:
        return Check.of("output", error)
    if not isinstance(folder.fs, LocalFileSystem):
        return Check("output", "ok", f"{folder.url} can be reached")
    place = folder.root
    while not os.path.lexists(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    fix = "Choose another folder with --out."
    if not os.path.isdir(place):
        return Check("output", "stop", f"{folder.url} can't be a folder: {place} is a file. {fix}")
    if not os.access(place, os.W_OK | os.X_OK):
        return Check("output", "stop", f"{folder.url} can't be written: no permission to write in {place}. {fix}")
    return Check("output", "ok", f"{folder.url} can be written")
