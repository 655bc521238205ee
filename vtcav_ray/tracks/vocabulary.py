"""The words of `tracks.vocabulary` as vectors: computed once, in the driver, and kept beside the run as plain data.

An open-vocabulary detector (YOLO-World, YOLOE) compares what it sees with vectors of words. Workers get the vectors,
and neither the text encoder nor its file. Nothing is downloaded. What needs torch is imported where it is used: a
stage's key needs only the encoder's digest.
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, RefusedURL
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.reading import read_named
from vtcav_ray.store.records import BrokenFile, canonical_digest
from vtcav_ray.tracks.detector_files import MOST_WEIGHTS_BYTES

logger = logging.getLogger(__name__)
CLIP_FILE = "ViT-B-32.pt"
FOLDER = "vocabulary"  # in the run folder
_VERSION = 1  # raised when the encoder's code computes other vectors
_WHICH = (
    f"YOLO-World needs {CLIP_FILE} of OpenAI's CLIP, YOLOE mobileclip_blt.ts, and YOLOE-26 mobileclip2_b.ts: the files "
    "that Ultralytics uses. Nothing is downloaded here. Give the file with `tracks.text_encoder: PATH or URL`"
)


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """The words of a vocabulary as vectors.

    Attributes:
        vectors: float32 [n, d], of unit length, in the order of the words.
        encoder: the kind of encoder (`vtcav_ray.tracks.text_encoder`): `CLIP` or `TorchScript`.
    """

    vectors: np.ndarray
    encoder: str


def encoder_digest(config: TracksConfig) -> str:
    """Return the SHA-256 of the text encoder's file.

    Raises:
        ConfigError: there is no such file; the message says which, where it was looked for, and how to give it.
    """
    return hashlib.sha256(_encoder(config)[1]).hexdigest()


def text_features(config: TracksConfig, folder: Folder | None) -> TextFeatures:
    """Return the vectors of `config.vocabulary`, from the run folder or from the text encoder.

    Args:
        folder: the run folder, where they are kept; None: keep nothing.

    Raises:
        ConfigError: see `encoder_digest`; or the encoder is a program that may not be run.
        StageError: the file is not a text encoder.
    """
    words = list(config.vocabulary or ())
    where, data = _encoder(config)
    stated = {"version": _VERSION, "words": words, "text_encoder": hashlib.sha256(data).hexdigest()}
    name = f"{FOLDER}/{canonical_digest(stated)[:16]}.json"
    kept = _kept(folder, name, stated) if folder is not None else None
    if kept is not None:
        return kept
    from vtcav_ray.tracks.text_encoder import encode

    vectors, encoder = encode(words, data, config, where)
    if folder is not None:
        folder.write_json(name, {**stated, "encoder": encoder, "vectors": vectors.astype(float).tolist()})
    return TextFeatures(vectors, encoder)


def _kept(folder: Folder, name: str, stated: dict[str, Any]) -> TextFeatures | None:
    """Return what an earlier run kept; None if there is nothing, or the file was altered."""
    if not folder.exists(name):
        return None
    try:
        found = folder.read_json(name)
        vectors = np.array(found["vectors"], np.float32)
        fits = all(found[key] == value for key, value in stated.items()) and vectors.ndim == 2
        if fits and len(vectors) == len(stated["words"]) and np.isfinite(vectors).all():
            return TextFeatures(vectors, str(found["encoder"]))
    except (BrokenFile, KeyError, TypeError, ValueError) as error:
        logger.warning("%s in the run folder can't be read (%s), and is computed again.", name, error)
    return None


def _encoder(config: TracksConfig) -> tuple[str, bytes]:
    """Return the place and the content of the text encoder's file."""
    beside = posixpath.join(posixpath.dirname(config.weights), CLIP_FILE)
    if config.weights.startswith("asset:"):
        beside = CLIP_FILE
    where = config.text_encoder or beside
    try:
        return where, read_named(where, config.storage_options, MOST_WEIGHTS_BYTES)
    except RefusedURL as error:
        raise ConfigError(f"`tracks.text_encoder`: {error} Check its path or URL.") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        if config.text_encoder is not None:
            raise ConfigError(f"`tracks.text_encoder`: {where} does not exist. {_WHICH}.") from error
        raise ConfigError(
            f"`tracks.vocabulary` needs the detector's text encoder, and {where} (beside `tracks.weights`) does not "
            f"exist. {_WHICH}."
        ) from error
