"""A person's own clips: what is listed, which are chosen, how they are cut, and which copies are found."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.helpers.drawn import encode, number_of, numbered_frames
from vtcav_ray.clips.cut import cut_files
from vtcav_ray.clips.plan_table import GIVEN_PLAN
from vtcav_ray.clips.pools import UNMATCHED, corpus_pool, is_unmatched, own_pool, pool_of, shared_pool
from vtcav_ray.clips.select import ClipPlan, plan_clips
from vtcav_ray.clips.signed import repeated_clips
from vtcav_ray.config import ClipsConfig, Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.preflight.given import given_checks
from vtcav_ray.store.folder import Folder
from vtcav_ray.tables import VIDEO_OPTIONS, VIDEOS
from vtcav_ray.video.codec import decode_clip
from vtcav_ray.videos.given import Given, list_given

T = 8


def picture(colour: int, size: tuple[int, int] = (48, 32)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (colour, 40, 90)).save(file, "PNG")
    return file.getvalue()


def put(place: Path, *names: str, data: bytes = b"x") -> None:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)


def corpus(count: int = 0, uri: str = "/corpus/{}.mp4") -> pa.Table:
    rows = [{"video_id": f"{i}.mp4", "uri": uri.format(i), "label": f"class {i % 2}"} for i in range(count)]
    return pa.Table.from_pylist([{**r, "size_bytes": 1, "fingerprint": "f"} for r in rows], schema=VIDEOS)


def config(concepts: Any, **clips: Any) -> Config:
    sizes = {"frames": T, "interval": 1, "size": 32, "min_per_concept": 2, "per_concept": 4, "min_per_class": 2}
    return parse_config({"videos": {"uri": "/corpus"}, "clips": {**sizes, **clips, "concepts": concepts}})


def listed(concepts: Any, videos: pa.Table | None = None) -> Given:
    return list_given(config(concepts), corpus() if videos is None else videos, Folder("/nowhere"))


# -- listing


def test_a_folder_of_folders_is_one_concept_a_folder_and_random_folders_are_none(tmp_path: Path) -> None:
    put(tmp_path / "c", "striped/a.jpg", "striped/b.PNG", "spinning/x/a.mp4", "random_0/a.png", "random500_1/b.mp4")
    put(tmp_path / "c", "beside.mp4", "striped/notes.txt", "random walk/a.mp4")
    found = listed({"from": str(tmp_path / "c")})
    rows = {(r["concept"], r["negative"], r["kind"], r["video_id"]) for r in found.rows}
    assert rows == {
        ("striped", False, "still", "given/c/striped/a.jpg"),
        ("striped", False, "still", "given/c/striped/b.PNG"),
        ("spinning", False, "given", "given/c/spinning/x/a.mp4"),
        ("random walk", False, "given", "given/c/random walk/a.mp4"),
        (None, True, "still", "given/c/random_0/a.png"),
        (None, True, "given", "given/c/random500_1/b.mp4"),
    }
    assert all(row["label"] is None for row in found.rows), "a concept's name is no class"
    assert "1 file is in no folder" in found.warnings[1]
    assert ".txt" in found.warnings[0]


def test_a_manifest_names_sources_and_parts(tmp_path: Path) -> None:
    put(tmp_path, "long.mp4", "b.mp4")
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "uri,source,start,end,label\n"
        "long.mp4,game 1,12.5,00:00:14,serve\n"
        "long.mp4,game 1,1:02:03,,\n"
        "long.mp4,,5,4,\n"
        "b.mp4,0.mp4,,,\n"
        "b.mp4,,soon,,\n"
        "c.mp4,,,,\n"
    )
    found = listed([{"name": "a", "clips": str(manifest)}], corpus(1))
    rows = [(r["clip"], r["video_id"], r["start"], r["end"], r["label"]) for r in found.rows]
    assert rows == [
        (f"game 1#{tmp_path.name}/long.mp4@12.5-14", "game 1", 12.5, 14.0, "serve"),
        (f"game 1#{tmp_path.name}/long.mp4@3723-", "game 1", 3723.0, None, None),
        (f"0.mp4#{tmp_path.name}/b.mp4", "0.mp4", None, None, "class 0"),
    ]
    messages = sorted(failure.message for failure in found.failures)
    assert len(messages) == 3
    assert any("line 4" in m and "not after its start" in m for m in messages)
    assert any("line 6" in m and "'soon'" in m for m in messages)
    assert any("c.mp4" in m for m in messages)


def test_a_file_of_the_corpus_is_that_video_and_other_ids_never_are(tmp_path: Path) -> None:
    put(tmp_path, "x/0.mp4", "x/1.mp4", "one/y/0.mp4", "two/y/0.mp4")
    videos = corpus(2, str(tmp_path / "x" / "{}.mp4"))
    both = [{"name": "a", "clips": str(tmp_path / "x/0*")}, {"name": "b", "clips": str(tmp_path / "one/y")},
            {"name": "c", "clips": str(tmp_path / "two/y")}]  # fmt: skip
    ids = {row["concept"]: row["video_id"] for row in listed(both, videos).rows}
    assert ids["a"] == "0.mp4"
    # Two folders of one name: the ids are the whole addresses, and the files stay apart.
    assert ids["b"] == f"given/{str(tmp_path / 'one/y/0.mp4').lstrip('/')}"
    assert ids["c"] != ids["b"]


def test_what_cannot_be_listed_names_its_key(tmp_path: Path) -> None:
    put(tmp_path, "random/a.mp4", "m.csv", data=b"name\nx\n")
    for concepts, message in (
        ([{"name": "a", "clips": str(tmp_path / "absent")}], "`clips.concepts.0.clips`: .*absent does not exist"),
        ([{"name": "a", "clips": str(tmp_path / "m.csv")}], "`clips.concepts.0.clips`: .*no column `uri`"),
        ({"from": str(tmp_path)}, "`clips.concepts.from`: .*has no folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            listed(concepts)


# -- which are chosen


def given_table(**sets: list[str]) -> pa.Table:
    """Own clips: `name`, or `name__negative` -> video ids."""
    given = Given()
    for key, ids in sets.items():
        name, _, negative = key.partition("__")
        for i, video in enumerate(ids):
            row = dict.fromkeys(("label", "start", "end", "size_bytes", "fingerprint"))
            given.rows.append(
                {**row, "clip": f"{video}#{i}", "concept": name or None, "negative": bool(negative), "kind": "given",
                 "video_id": video, "uri": f"/{video}"}
            )  # fmt: skip
    return given.table


def planned(given: pa.Table, concepts: Any, videos: int = 24, **clips: Any) -> ClipPlan:
    made = config(concepts, random_pool=6, **clips).clips
    return plan_clips(corpus(videos), [], set(), made, 0, given=given)


OWN = [{"name": "a", "clips": "a"}, {"name": "b", "clips": "b", "negatives": "n"}]
IDS = [f"s{i}" for i in range(6)]


def names(plan: ClipPlan, set_: str) -> set[str]:
    return {r["name"] for r in plan.rows.to_pylist() if r["set"] == set_}


def test_own_negatives_take_the_corpus_s_place_and_the_rest_is_marked() -> None:
    plan = planned(given_table(a=IDS, b=IDS[:3], b__negative=[f"n{i}" for i in range(5)]), OWN, controls=["frozen"])
    assert names(plan, "random") == {
        "random/given of the corpus",
        "random/given_frozen of the corpus",
        "random/b/given",
        "random/b/given_frozen",
    }
    marks = [w for w in plan.warnings if w.startswith("UNMATCHED")]
    assert len(marks) == 1
    assert "'a'" in marks[0]
    of_b = [r for r in plan.rows.to_pylist() if r["name"] == "random/b/given"]
    assert {r["video_id"] for r in of_b} == {f"n{i}" for i in range(5)}
    assert plan.counts["concepts"]["a/given"] == {"videos_available": 6, "videos": 4, "clips": 4}
    assert plan.counts["random"] == {"given of the corpus": 6}
    # The concept's twin has its id but for the kind, and is cut from the same frames.
    rows = {r["clip_id"]: r for r in plan.rows.to_pylist()}
    for row in rows.values():
        if row["control_of"] is not None:
            twin = rows[row["control_of"]]
            assert (twin["seed"], twin["uri"], twin["kind"]) == (row["seed"], row["uri"], "given")


@pytest.mark.slow
def test_a_source_of_the_corpus_serves_no_other_use() -> None:
    sources = [f"{i}.mp4" for i in range(4)]
    plan = planned(given_table(a=sources), OWN[:1], per_concept=4)
    used = {r["video_id"] for r in plan.rows.to_pylist() if r["set"] != "concept"}
    assert used
    assert not used & set(sources)
    assert names(plan, "random") == {"random/a/given"} | {
        f"random/a/given_{c}" for c in ("frozen", "shuffled", "reversed")
    }
    assert not [w for w in plan.warnings if w.startswith("UNMATCHED")], "its random clips are of the same corpus"
    other = planned(given_table(a=IDS), OWN[:1])
    assert {r["video_id"] for r in other.rows.to_pylist()} & set(sources), "they would have been drawn"


def long_files(count: int, per_file: int = 3) -> pa.Table:
    """Long files of the corpus, each of a source video `game<i>`, with segments of one second."""
    rows = [
        {
            "video_id": f"{i}.mp4", "uri": f"/corpus/{i}.mp4", "label": f"class {i % 2}", "size_bytes": 1,
            "fingerprint": "f", "source": f"game{i}",
            "segments": [{"start": 2.0 * k, "end": 2.0 * k + 1, "label": f"class {i % 2}"} for k in range(per_file)],
        }
        for i in range(count)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=pa.schema([*VIDEOS, *VIDEO_OPTIONS]))


def test_own_clips_beside_a_corpus_of_segments(tmp_path: Path) -> None:
    given = given_table(a=[f"game{i}" for i in range(4)], b=IDS)
    both = [OWN[0], {"name": "b", "clips": "b"}]
    made = config(both, random_pool=6, controls=["frozen"]).clips
    plan = plan_clips(long_files(24), [], set(), made, 0, given=given)
    assert plan.rows.schema == GIVEN_PLAN
    rows = plan.rows.to_pylist()
    assert len({row["clip_id"] for row in rows}) == len(rows)
    others = [row for row in rows if not row["given"]]
    # The source videos of own clips serve no other use, and the rest is cut from segments alone.
    assert not {row["video_id"] for row in others} & {f"game{i}" for i in range(4)}
    assert {row["video_id"] for row in others} <= {f"game{i}" for i in range(24)}
    assert all((row["start"], row["end"]) in [(0, 1), (2, 3), (4, 5)] for row in others)
    assert names(plan, "random") == {
        "random/a/given", "random/a/given_frozen", "random/given of the corpus", "random/given_frozen of the corpus",
    }  # fmt: skip
    by_id = {row["clip_id"]: row for row in rows}
    twins = [row for row in others if row["control_of"] is not None]
    assert twins
    for row in twins:
        twin = by_id[row["control_of"]]
        assert [twin[name] for name in ("seed", "uri", "start", "end")] == [
            row[name] for name in ("seed", "uri", "start", "end")
        ]
    marks = [w for w in plan.warnings if w.startswith("UNMATCHED")]
    assert len(marks) == 1
    assert "'b'" in marks[0]


def test_a_clip_of_a_corpus_file_is_of_that_file_s_source_video(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    put(tmp_path, "0.mp4", "x.mp4")
    manifest.write_text("uri,source,start,end\n0.mp4,,1,\nx.mp4,1.mp4,,00:00:04\n")
    videos = long_files(2)
    videos = videos.set_column(1, "uri", pa.array([str(tmp_path / "0.mp4"), "/corpus/1.mp4"]))
    rows = listed([{"name": "a", "clips": str(manifest)}], videos).rows
    assert [(r["clip"], r["video_id"], r["start"], r["end"], r["label"]) for r in rows] == [
        ("game0@1-", "game0", 1.0, None, "class 0"),
        (f"game1#{tmp_path.name}/x.mp4@0-4", "game1", 0.0, 4.0, "class 1"),
    ]


@pytest.mark.slow
def test_one_clip_of_a_source_counts_unless_more_are_allowed() -> None:
    table = given_table(a=["s0", "s0", "s1", "s2"])
    once = [r["video_id"] for r in planned(table, OWN[:1], controls=[]).rows.to_pylist() if r["set"] == "concept"]
    assert sorted(once) == ["s0", "s1", "s2"]
    more = planned(table, OWN[:1], controls=[], quality={"max_clips_per_video": 2})
    assert len([1 for r in more.rows.to_pylist() if r["set"] == "concept"]) == 4


def test_random_clips_of_a_concept_s_own_source_are_left_out() -> None:
    table = given_table(b=IDS[:3], b__negative=["s0", *(f"n{i}" for i in range(4))])
    plan = planned(table, OWN[1:])
    assert {r["video_id"] for r in plan.rows.to_pylist() if r["name"] == "random/b/given"} == {
        f"n{i}" for i in range(4)
    }
    assert any("1 of 5 are left out" in w for w in plan.warnings)


def test_too_few_are_said_before_the_run() -> None:
    few = given_checks(given_table(a=IDS, b=IDS[:1]), config(OWN))
    assert [c.verdict for c in few] == ["ok", "warn"]
    assert "Left out: b/given" in few[1].message
    assert [c.verdict for c in given_checks(given_table(a=IDS[:1]), config(OWN))] == ["stop"]


def test_pools() -> None:
    pools = {own_pool("a", "given"), shared_pool("given"), corpus_pool("still")}
    assert pool_of("a/given", "given", pools) == "random/a/given"
    assert pool_of("b/given", "given", pools) == "random/given"
    assert pool_of("b/still", "still", pools) == "random/still of the corpus"
    assert [is_unmatched(pool) for pool in sorted(pools)] == [False, False, True]
    assert "footage" in UNMATCHED


# -- how they are cut


@pytest.fixture(scope="module")
def video() -> bytes:
    return encode(numbered_frames(60))


def own_row(kind: str, uri: str, **changes: Any) -> dict[str, Any]:
    base = {"clip_id": f"{kind}/{uri}", "set": "concept", "name": "a", "kind": kind, "video_id": "s", "uri": uri,
            "pick": 0, "view": 0, "seed": 7, "given": True}  # fmt: skip
    return {**base, **changes}


def cut(rows: list[dict[str, Any]], sources: dict[str, bytes]) -> Any:
    table = pa.Table.from_pylist(rows, schema=GIVEN_PLAN)
    return cut_files(table, sources, ClipsConfig(frames=T, interval=2, size=32), sign=lambda row: row["given"])


def shown(clips: pa.Table) -> dict[str, list[int]]:
    return {r["clip_id"]: [number_of(f) for f in decode_clip(r["encoding"], r["encoded"])] for r in clips.to_pylist()}


def test_an_own_clip_is_sampled_like_a_class_example_and_its_controls_from_the_same_frames(video: bytes) -> None:
    rows = [own_row("given", "v.mp4")]
    rows += [own_row(f"given_{c}", "v.mp4", control_of="given/v.mp4") for c in ("frozen", "shuffled", "reversed")]
    found = cut(rows, {"v.mp4": video})
    frames = shown(found.clips)
    middle = list(range(22, 38, 2))
    assert frames["given/v.mp4"] == middle
    assert frames["given_reversed/v.mp4"] == middle[::-1]
    assert frames["given_frozen/v.mp4"] == [22] * T
    assert sorted(frames["given_shuffled/v.mp4"]) == middle
    assert frames["given_shuffled/v.mp4"] not in (middle, middle[::-1])
    assert found.signatures["clip_id"].to_pylist() == ["given/v.mp4"], "once a clip, not for its controls"


def test_a_part_stays_inside_its_seconds_and_one_bad_part_is_one_failure(video: bytes) -> None:
    fps = 25
    rows = [
        own_row("given", "v.mp4", clip_id="part", start=10 / fps, end=26 / fps),
        own_row("given", "v.mp4", clip_id="late", start=50.0, end=60.0),
    ]
    found = cut(rows, {"v.mp4": video})
    frames = shown(found.clips)["part"]
    assert min(frames) >= 10
    assert max(frames) < 26
    assert [(f.clip_id, f.error_kind) for f in found.failures] == [("late", "segment")]


def test_own_clips_and_segments_of_one_file_are_cut_and_signed_by_part(video: bytes) -> None:
    of_corpus = {"given": None, "set": "random", "name": "random/given of the corpus"}
    rows = [
        own_row("given", "v.mp4", clip_id="own", start=None, end=0.8),
        own_row("given", "v.mp4", clip_id="first", start=0.0, end=0.8, **of_corpus),
        own_row("given", "v.mp4", clip_id="second", start=1.2, end=2.0, **of_corpus),
        own_row("given_reversed", "v.mp4", clip_id="back", start=1.2, end=2.0, control_of="second", **of_corpus),
        own_row("given", "v.mp4", clip_id="again", start=1.2, end=2.0, **of_corpus),
    ]
    table = pa.Table.from_pylist(rows, schema=GIVEN_PLAN)
    found = cut_files(table, {"v.mp4": video}, ClipsConfig(frames=T, interval=1, size=32), sign=lambda row: True)
    frames = shown(found.clips)
    assert frames["own"] == list(range(6, 14))
    for name in ("second", "back", "again"):
        assert min(frames[name]) >= 30
        assert max(frames[name]) < 50
    assert frames["back"] == frames["second"][::-1]
    signatures = {row["clip_id"]: row["signature"] for row in found.signatures.to_pylist()}
    assert signatures.keys() == {"own", "first", "second", "again"}
    assert signatures["own"] == signatures["first"]
    assert signatures["second"] == signatures["again"] != signatures["first"]
    assert repeated_clips([found.signatures], [], {}, 0.05) == {}, "parts of one source video are no copies"
    # As another source video, the own clip is a copy of the first segment alone.
    ids = pa.array(["t", "s", "s", "s"])
    other = found.signatures.set_column(1, "video_id", ids)
    assert repeated_clips([other], [], {}, 0.05) == {"first": "own"}


def test_an_image_is_shown_t_times_and_a_damaged_file_is_one_failure(video: bytes) -> None:
    rows = [own_row("still", "a.png"), own_row("still", "b.jpg"), own_row("given", "c.mp4"), own_row("given", "d.mp4")]
    found = cut(rows, {"a.png": picture(200), "b.jpg": b"no image", "c.mp4": b"no video" * 30, "d.mp4": video})
    assert found.clips["clip_id"].to_pylist() == ["still/a.png", "given/d.mp4"]
    (still, _) = found.clips.to_pylist()
    frames = decode_clip(still["encoding"], still["encoded"])
    assert frames.shape == (T, 32, 48, 3)
    assert (frames == np.array([200, 40, 90])).all()
    assert sorted((f.uri, f.error_kind) for f in found.failures) == [("b.jpg", "not_image"), ("c.mp4", "not_video")]


# -- copies


@pytest.mark.slow
def test_a_copy_in_another_set_is_left_out_and_the_concept_s_clip_is_kept(video: bytes) -> None:
    other = encode(numbered_frames(60)[::-1] // 2 + 60)
    rows = [
        own_row("given", "v.mp4", clip_id="concept clip", video_id="s"),
        own_row("given", "w.mp4", clip_id="random clip", video_id="t", set="random", name="random/a/given"),
        own_row("given", "x.mp4", clip_id="other", video_id="u", set="random", name="random/a/given"),
    ]
    found = cut(rows, {"v.mp4": video, "w.mp4": video, "x.mp4": other})
    assert repeated_clips([found.signatures], [], {}, 0.2) == {"random clip": "concept clip"}
    one = found.signatures.to_pylist()[0]["signature"]
    of_corpus = pa.table({"video_id": ["7.mp4", "8.mp4"], "signature": [one, one]})
    planned_clips = {"7.mp4": [("class/7", "class"), ("concept/7", "concept")]}
    repeats = repeated_clips([found.signatures], [of_corpus], planned_clips, 0.2)
    assert repeats == {"random clip": "concept clip", "class/7": "concept clip"}
