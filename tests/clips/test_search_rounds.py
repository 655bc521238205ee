"""The rounds of `videos.enough`, chosen and counted from tables of tracks whose content is known."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.tracked_things import track_row, tracks_table, videos_table
from vtcav_ray import tables
from vtcav_ray.clips.search import EXHAUSTED, FULL, LIMIT, Search, round_size, sentence
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import InputError
from vtcav_ray.rows import Failure
from vtcav_ray.runs.stage import Shard
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks.copies import NUMBERS, signature_table

LABELS = ("lift", "put_down", "push_left", "push_right")
COUNT = 160


def name_of(number: int) -> str:
    return f"{LABELS[number % 4]}/{number:03d}"


def corpus() -> pa.Table:
    return videos_table({name_of(i): LABELS[i % 4] for i in range(COUNT)})


def has_cup(video: str) -> bool:
    """Whether a video of the corpus shows a cup: half of each label's do."""
    return int(video[-3:]) // 4 % 2 == 0


def config_of(concepts: Collection[str] = ("cup",), distance: float | None = None, **videos: Any) -> Config:
    listed = [{"name": name, "object": name, "kinds": ["spatial"]} for name in concepts]
    counts = {"per_class": 4, "min_per_class": 2, "per_concept": 10, "min_per_concept": 4, "random_pool": 10}
    clips = {"frames": 8, "interval": 1, "concepts": listed, "quality": {"copy_distance": distance}, **counts}
    return parse_config({"videos": {"uri": "videos", "round": 16, **videos}, "shard_videos": 8, "clips": clips})


def tracked(shard: Shard) -> dict[str, pa.Table]:
    """Return a shard's tracks: a still box in every video, and the cups."""
    rows = []
    for video in shard.rows["video_id"].to_pylist():
        rows.append(track_row(video, 1, "box", step=(0.0, 0.0)))
        if has_cup(video):
            rows.append(track_row(video, 2, "cup"))
    return {"tracks": tracks_table(rows)}


def committed(output: StageFolder, shard: Shard, failures: Collection[Failure] = (), **more: pa.Table) -> None:
    output.commit(shard.name, ShardOutput({**tracked(shard), **more}, list(failures)))


@pytest.fixture
def output(tmp_path: Path) -> StageFolder:
    return stage_folder(Folder(str(tmp_path)), "tracks", "k")


def searched(search: Search, output: StageFolder) -> list[list[Shard]]:
    """Run a search to its end; return the shards of each round."""
    rounds = []
    for _ in range(COUNT):
        shards = search.choose()
        rounds.append(shards)
        for shard in shards:
            committed(output, shard)
            search.look(output, shard)
        if search.end_round(output):
            return rounds
    raise AssertionError("the search has no end")


def names(search: Search) -> list[str]:
    found: list[str] = search.looked_at()["video_id"].to_pylist()
    return found


def test_a_round_is_a_whole_number_of_shards() -> None:
    assert round_size(config_of()) == 16
    assert round_size(config_of(round=17)) == 24
    assert round_size(config_of(round=3)) == 8


def test_it_ends_with_full_sets_and_counts_them(output: StageFolder) -> None:
    search = Search(config_of(), corpus(), LABELS)
    rounds = searched(search, output)
    assert search.ended == FULL
    looked = names(search)
    assert len(looked) == len(set(looked)) == search.looked == 16 * len(rounds) < COUNT
    assert [len(shard.rows) for one in rounds for shard in one] == [8] * (2 * len(rounds))
    assert [shard.name for shard in search.shards_so_far()] == [shard.name for one in rounds for shard in one]
    assert [shard.name[:6] for one in rounds for shard in one] == [f"{i:05d}-" for i in range(2 * len(rounds))]
    assert [sum(v.startswith(label) for v in looked[:16]) for label in LABELS] == [4] * 4  # labels take turns
    notes = search.notes()
    assert (notes["looked_at"], notes["of"], notes["source_videos"]) == (len(looked), COUNT, COUNT)
    assert (notes["rounds"], notes["ended"], notes["shard_videos"]) == (len(rounds), FULL, 8)
    sets = {one["set"]: one for one in notes["sets"]}
    assert list(sets) == [*(f"class/{label}" for label in sorted(LABELS)), "concept/cup", "random"]
    assert all(one["full"] for one in sets.values())
    for label in LABELS:  # the first round has four of each
        assert sets[f"class/{label}"] == {"set": f"class/{label}", "found": 4, "wanted": 4, "full": True,
                                          "looked_at": 4, "of": COUNT // 4}  # fmt: skip
    assert sets["concept/cup"]["wanted"] == sets["random"]["wanted"] == 11
    kept = search.looked_at()
    reserved = {row["video_id"] for row in kept.to_pylist() if row["reserved"]}
    assert 11 <= sets["random"]["found"] <= len(reserved)
    assert 11 <= sets["concept/cup"]["found"] <= sum(has_cup(v) and v not in reserved for v in looked)
    text = sentence(notes)
    assert f"{len(looked)} of 160 videos were looked at, in {len(rounds)} rounds; then every set of clips" in text
    assert "Not filled" not in text


def test_what_a_video_shows_is_what_its_tracks_show(output: StageFolder) -> None:
    search = Search(config_of(), corpus(), LABELS)
    searched(search, output)
    for video, look in search.looks.items():
        assert (look.label, look.moving, look.usable) == (video.split("/")[0], True, True)
        assert look.concepts == ({"cup"} if has_cup(video) else set())


def test_a_limit_cuts_the_last_round_and_keeps_the_order(tmp_path: Path, output: StageFolder) -> None:
    limited = Search(config_of(limit=24), corpus(), LABELS)
    rounds = searched(limited, stage_folder(Folder(str(tmp_path / "limited")), "tracks", "k"))
    assert [sum(len(shard.rows) for shard in one) for one in rounds] == [16, 8]
    assert limited.ended == LIMIT
    assert "reserved" not in limited.looked_at().column_names
    search = Search(config_of(), corpus(), LABELS)
    searched(search, output)
    assert names(limited) == names(search)[:24]
    text = sentence(limited.notes())
    assert "24 of 160 videos were looked at, in 2 rounds; then videos.limit was reached. Not filled: " in text
    assert "random" in text


@pytest.mark.slow
def test_a_concept_that_nothing_shows_takes_every_video(output: StageFolder) -> None:
    search = Search(config_of(("cup", "owl")), corpus(), LABELS)
    searched(search, output)
    assert search.ended == EXHAUSTED
    assert sorted(names(search)) == sorted(name_of(i) for i in range(COUNT))
    assert search.choose() == []
    assert sentence(search.notes()).endswith("in 10 rounds; which are all there are. Not filled: concept/owl.")


def test_a_failed_video_is_not_usable_but_one_that_lacks_a_segment_is(output: StageFolder) -> None:
    search = Search(config_of(), corpus(), LABELS)
    shard = search.choose()[0]
    lost, part = shard.rows["video_id"].to_pylist()[:2]
    failures = [
        Failure.of_video({"video_id": lost}, InputError("decode", "broken")),
        Failure.of_video({"video_id": part}, InputError("segment", "it ends before the segment")),
    ]
    seconds = pa.Table.from_pylist([{"video_id": part, "seconds": np.arange(40) / 25}], schema=tables.TIMES)
    committed(output, shard, failures, times=seconds)
    search.look(output, shard)
    assert not search.looks[lost].usable
    assert not search.looks[lost].moving
    assert search.looks[part].usable
    assert search.looks[part].moving
    assert sum(look.usable for look in search.looks.values()) == 7


def test_the_files_of_a_source_video_are_looked_at_together(output: StageFolder) -> None:
    """Each source video has two files, of which one shows a cup."""
    videos = corpus()
    sources = [f"{name_of(int(v[-3:]) % 4)}/{int(v[-3:]) // 8}" for v in videos["video_id"].to_pylist()]
    search = Search(config_of(), videos.append_column("source", pa.array(sources)), LABELS)
    shards = search.choose()
    for shard in shards:
        committed(output, shard)
        search.look(output, shard)
    search.end_round(output)
    seen = search.looked_at()["source"].to_pylist()
    assert len(seen) == 16
    assert sorted(seen) == sorted([*set(seen), *set(seen)])
    assert set(search.looks) == set(seen)
    assert all(look.concepts == {"cup"} for look in search.looks.values())
    assert search.notes()["source_videos"] == COUNT / 2


def test_sources_of_own_clips_are_not_searched(output: StageFolder) -> None:
    own = {name_of(i) for i in range(0, COUNT, 4)}  # all videos of `lift`
    search = Search(config_of(), corpus(), LABELS, own)
    searched(search, output)
    assert not own & set(names(search))
    assert search.notes()["source_videos"] == COUNT * 3 // 4


def test_a_copy_fills_no_set(output: StageFolder) -> None:
    """Of two files with the same signature, one counts."""
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(COUNT // 2, NUMBERS)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)

    def content(video: str) -> int:
        """Of each label, the videos 2k and 2k + 1 are copies."""
        return int(video[-3:]) // 8 * 4 + int(video[-3:]) % 4

    search = Search(config_of(distance=0.2), corpus(), LABELS)
    while not search.ended:
        for shard in search.choose():
            signatures = signature_table({v: unit[content(v)] for v in shard.rows["video_id"].to_pylist()})
            committed(output, shard, signatures=signatures)
            search.look(output, shard)
        search.end_round(output)
    assert search.ended == FULL
    usable = [content(video) for video, look in search.looks.items() if look.usable]
    assert len(usable) < len(search.looks)
    assert sorted(usable) == sorted({content(video) for video in search.looks})
