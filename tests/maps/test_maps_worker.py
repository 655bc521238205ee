"""The worker of concept maps on clips of one red square: the map of `red` is the square."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.colour_squares import (
    FRAMES,
    SIDE,
    SQUARE,
    clip_row,
    clips_of,
    config_of,
    square_clip,
    square_track,
    tracks_of,
)
from vtcav_ray import tables
from vtcav_ray.errors import StageError
from vtcav_ray.heatmaps.examples import plan
from vtcav_ray.maps.summary import ABSENT, CHANCE, NOT_LOCALISED, ONE_PLACE, finished, summarise
from vtcav_ray.maps.worker import MapsWorker
from vtcav_ray.rows import MapRow, table_of
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tcav.directions import Directions
from vtcav_ray.video.mp4 import decode_mp4

RED = CellKey("red", "early", "red things/spatial", "random")
LESS = CellKey("red", "early", "less red/spatial", "random")
OTHER = CellKey("blue", "early", "red things/spatial", "random")
SHARE = SQUARE**2 / SIDE**2  # of a frame's pixels, that are red


def directions(sign: float = 1.0) -> Directions:
    """Return the direction of red, from black, beside a random direction: of green."""
    red, green, _ = np.eye(3, dtype=np.float32)
    return Directions(sign * red, green[None], np.zeros(3, np.float32))


FOUND = {
    ("early", RED.concept, "random"): directions(),
    ("early", LESS.concept, "random"): directions(-1.0),
}


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[StageFolder, StageFolder]:
    """Two clips with tracks, one without, one that is broken, and one of another class."""
    folder = Folder(str(tmp_path))
    rows = [clip_row(f"red/{v}", v, "red", square_clip(start)) for v, start in (("a", 2), ("b", 0), ("c", 5))]
    rows.append(clip_row("red/d", "d", "red", b"no clip at all, but long enough"))
    rows.append(clip_row("blue/e", "e", "blue", square_clip(fading=20)))
    return clips_of(folder, rows), tracks_of(folder, [square_track("a", 2), square_track("b", 0)])


def made(
    inputs: tuple[StageFolder, StageFolder], folder: Folder, cells: Sequence[CellKey], overlays: int = 0, rows: int = 5
) -> ShardOutput:
    worker = MapsWorker(config_of(), *inputs, cells, FOUND, folder)
    return worker(plan(*inputs, "maps", most=None, overlays=overlays, seed=0).slice(0, rows))


def test_the_map_of_red_lies_on_the_square(inputs: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    output = made(inputs, Folder(str(tmp_path)), [RED])
    table = output.tables["maps"]
    assert table.schema == tables.MAPS
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    assert set(rows) == {"red/a", "red/b", "red/c"}
    apart = 1 / np.sqrt(SHARE * (1 - SHARE))  # a map of 1 on the square and 0 elsewhere, in standard deviations
    for clip, row in rows.items():
        assert (row["class"], row["layer"], row["concept"], row["against"]) == RED
        assert row["presence"] == pytest.approx(SHARE)
        np.testing.assert_allclose(row["timeline"], [SHARE] * FRAMES, rtol=1e-5)
        np.testing.assert_allclose(row["timeline_random"], [(1 - SHARE) * 30 / 255] * FRAMES, rtol=1e-5)
        assert row["deletion"] > 0.9
        if clip == "red/c":
            assert row["pointing"] is row["inside"] is None
            continue
        assert (row["pointing"], row["pointing_random"]) == (1, 0)
        assert row["inside"] == pytest.approx(apart, rel=1e-4)
        assert row["inside_random"] == pytest.approx(-apart, rel=1e-4)
        assert row["timing"] is None, "the speed does not change"
    assert [(failure.clip_id, failure.error_kind) for failure in output.failures] == [("red/d", "decode")]
    assert output.metrics == {"clips": 4, "overlays": 0}
    assert "map_overlays" not in output.tables


def test_a_clip_is_examined_for_the_cells_of_its_class(inputs: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    rows = made(inputs, Folder(str(tmp_path)), [RED, LESS, OTHER]).tables["maps"].to_pylist()
    cells = {clip: [(r["class"], r["concept"]) for r in rows if r["clip_id"] == clip] for clip in ("red/a", "blue/e")}
    assert cells == {
        "red/a": [(RED.class_, RED.concept), (LESS.class_, LESS.concept)],
        "blue/e": [(OTHER.class_, OTHER.concept)],
    }
    fading = next(row for row in rows if row["clip_id"] == "blue/e")
    np.testing.assert_allclose(fading["timeline"], SHARE * (1 - 20 / 255 * np.arange(FRAMES)), rtol=1e-4)
    less = next(row for row in rows if row["concept"] == LESS.concept)
    assert less["presence"] == pytest.approx(-SHARE)
    assert less["deletion"] is less["pointing"] is None, "there is nothing to point at"


@pytest.mark.slow
def test_an_overlay_is_a_film_beside_the_tables(inputs: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "drawn"))
    output = made(inputs, folder, [RED], overlays=4, rows=1)
    (row,) = output.tables["map_overlays"].to_pylist()
    assert output.tables["map_overlays"].schema == tables.MAP_OVERLAYS
    assert (row["clip_id"], row["class"], row["layer"], row["concept"], row["against"]) == ("red/a", *RED)
    film = decode_mp4(folder.read_bytes(row["mp4"]))
    assert film.shape == (FRAMES, row["height"], row["width"], 3)
    assert np.abs(np.diff(film.astype(int), axis=0)).max() > 30  # the square moves
    assert folder.read_bytes(row["webp"])[8:12] == b"WEBP"


def test_the_last_shard_says_what_is_localised(inputs: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    output = stage_folder(folder, "maps", "k")
    with pytest.raises(StageError, match="every clip failed"):
        finished([RED], output)
    output.commit("0", made(inputs, folder, [RED, LESS]))
    last = finished([LESS, RED, OTHER], output)
    less, red = last.tables["maps_summary"].to_pylist()
    assert last.tables["maps_summary"].schema == tables.MAPS_SUMMARY
    assert last.metrics == {"localised": 1}
    assert (red["concept"], red["localised"], red["note"]) == (RED.concept, True, "")
    assert (red["clips"], red["n_present"]) == (3, 3)
    assert red["deletion"] >= red["deletion_low"] > CHANCE
    assert red["pointing"] == pytest.approx(1)
    assert red["inside"] == pytest.approx(2 / np.sqrt(SHARE * (1 - SHARE)), rel=1e-4)
    assert red["timing"] is None
    assert (less["concept"], less["localised"], less["note"], less["n_present"]) == (LESS.concept, None, ABSENT, 0)


def rows_of(deletions: Sequence[float | None], **figures: float) -> list[MapRow]:
    """Return one row of `maps` per source video."""
    given: Mapping[str, Any] = {"presence": 1.0, "pointing": 0.5, "pointing_random": 0.25, **figures}
    names = ("inside", "inside_random", "timing", "timing_random")
    return [
        MapRow(
            clip_id=f"c{i}",
            video_id=f"v{i}",
            class_=RED.class_,
            layer=RED.layer,
            concept=RED.concept,
            against=RED.against,
            timeline=[0.0],
            timeline_random=[0.0],
            model="m@1",
            deletion=deletion,
            **dict.fromkeys(names),
            **given,
        )
        for i, deletion in enumerate(deletions)
    ]


@pytest.mark.parametrize(
    ("deletions", "presence", "localised", "note"),
    [
        ([0.9, 0.95, 0.92, 0.97], 1.0, True, ""),
        ([0.4, 0.6, 0.5, 0.55], 1.0, False, NOT_LOCALISED),
        ([0.9], 1.0, None, ABSENT),
        ([None, None], 1.0, None, ONE_PLACE),
        ([None, None], -1.0, None, ABSENT),
    ],
)
def test_the_note_follows_the_deletions(
    deletions: Sequence[float | None], presence: float, localised: bool | None, note: str
) -> None:
    (row,) = summarise([OTHER, RED], table_of(rows_of(deletions, presence=presence), MapRow))
    assert (row.localised, row.note) == (localised, note)
    assert row.pointing == pytest.approx(0.25)
    known = [one for one in deletions if one is not None]
    assert row.n_present == len(known)
    assert row.deletion == (pytest.approx(np.mean(known)) if known else None)
    assert (row.inside, row.timing, row.clips) == (None, None, len(deletions))
