"""Concept folders of the planted world: their files, what they show, and that complete ones are kept."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtcav_ray.video.mp4 import decode_mp4
from vtcav_ray.world.concepts import RECORD, write_concepts

FILES = {"moving up": 1, "moving down": 1, "cup": 1, "random": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("concepts")
    assert write_concepts(str(root), clips=1, random=1) == FILES
    return root


def way(film_THW3: np.ndarray) -> float:
    """Return how far the bright part of what changes moves down, in rows from the first to the last frame."""
    frames = film_THW3.astype(float).mean(-1)
    changes = np.abs(frames - np.median(frames, axis=0))
    centres = [(change.sum(1) @ np.arange(len(change))) / change.sum() for change in (changes[0], changes[-1])]
    return centres[1] - centres[0]


def test_the_folders_hold_the_files_that_are_named(folders: Path) -> None:
    names = sorted(str(path.relative_to(folders)) for path in folders.rglob("*") if path.is_file())
    assert names == [
        RECORD, "cup/000.png", "moving down/000.mp4", "moving up/000.mp4", "random/000.mp4", "random/000.png"
    ]  # fmt: skip
    record = json.loads((folders / RECORD).read_text())
    assert record["files"] == FILES
    assert (record["recipe"]["clips"], record["recipe"]["random"], record["recipe"]["seed"]) == (1, 1, 0)


def test_clips_move_as_their_folder_says(folders: Path) -> None:
    up, down = (decode_mp4((folders / name / "000.mp4").read_bytes()) for name in ("moving up", "moving down"))
    assert way(up) < -3 < 3 < way(down)


def test_images_are_pictures_of_scenes_of_their_own(folders: Path) -> None:
    pictures = [Image.open(io.BytesIO((folders / name).read_bytes())) for name in ("cup/000.png", "random/000.png")]
    for picture in pictures:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert min(picture.size) >= 64
        assert np.asarray(picture).std() > 5
    assert pictures[0].tobytes() != pictures[1].tobytes()


@pytest.mark.slow
def test_the_same_folders_are_kept_and_others_are_rendered_again(folders: Path) -> None:
    path = folders / "moving up/000.mp4"
    before = path.read_bytes()
    path.write_bytes(b"kept")
    assert write_concepts(str(folders), clips=1, random=1) == FILES
    assert path.read_bytes() == b"kept"
    (folders / RECORD).unlink()  # as after a write that was stopped
    assert write_concepts(str(folders), clips=1, random=1) == FILES
    assert path.read_bytes() == before
    assert write_concepts(str(folders), clips=1, random=0, seed=1) == {"moving up": 1, "moving down": 1, "cup": 1}
    assert path.read_bytes() != before, "another seed gives another scene"
