"""Own clips in pairs (`pairs: by_name`): which files are pairs, which clips are planned, and what leaves with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.helpers.drawn import encode, numbered_frames
from vtcav_ray.clips.cut import cut_files
from vtcav_ray.clips.decisions import Decisions, Subject
from vtcav_ray.clips.pairs import source_of_pairs
from vtcav_ray.clips.pools import is_paired, is_unmatched, own_pool, pair_pool, pool_of, shared_pool
from vtcav_ray.clips.select import ClipPlan, plan_clips
from vtcav_ray.clips.usable import HEAD_COLUMNS, leave_out
from vtcav_ray.config import ClipsConfig, Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.planning.counts import clip_range, concepts_of
from vtcav_ray.store.folder import Folder
from vtcav_ray.tables import VIDEOS
from vtcav_ray.videos.given import Given, list_given


def put(place: Path, *names: str) -> None:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())


def corpus(count: int = 0, uri: str = "/corpus/{}.mp4") -> pa.Table:
    rows = [{"video_id": f"{i}.mp4", "uri": uri.format(i), "label": f"class {i % 2}"} for i in range(count)]
    return pa.Table.from_pylist([{**r, "size_bytes": 1, "fingerprint": "f"} for r in rows], schema=VIDEOS)


def config(concepts: Any, **clips: Any) -> Config:
    sizes = {"frames": 8, "interval": 1, "size": 32, "min_per_concept": 2, "per_concept": 4, "min_per_class": 2}
    return parse_config({"videos": {"uri": "/corpus"}, "clips": {**sizes, **clips, "concepts": concepts}})


def concept(place: Path, own: str = "with", other: str = "without", name: str = "mark") -> dict[str, str]:
    return {"name": name, "clips": str(place / own), "negatives": str(place / other), "pairs": "by_name"}


def listed(*concepts: dict[str, str], videos: pa.Table | None = None) -> Given:
    return list_given(config(list(concepts)), corpus() if videos is None else videos, Folder("/nowhere"))


def pairs_of(found: Given) -> set[tuple[str, str]]:
    """Return the file names of both clips of each pair."""
    uri = {(row["clip"], row["negative"]): Path(row["uri"]).name for row in found.table.to_pylist()}
    return {(uri[clip, False], uri[clip, True]) for clip, negative in uri if negative}


# -- which files are pairs


def test_files_of_one_name_are_a_pair_whatever_their_extension_and_folder(tmp_path: Path) -> None:
    put(tmp_path, "with/a.mp4", "with/b.avi", "with/sub/a.mp4", "with/c.1.mp4")
    put(tmp_path, "without/a.mp4", "without/b.mp4", "without/sub/a.mkv", "without/c.1.mp4")
    found = listed(concept(tmp_path))
    assert pairs_of(found) == {("a.mp4", "a.mp4"), ("b.avi", "b.mp4"), ("a.mp4", "a.mkv"), ("c.1.mp4", "c.1.mp4")}
    assert {row["clip"] for row in found.rows} == {
        f"given/with/{n}" for n in ("a.mp4", "b.avi", "sub/a.mp4", "c.1.mp4")
    }


def test_in_manifests_the_video_id_or_the_file_s_name_and_part_are_the_name(tmp_path: Path) -> None:
    put(tmp_path, "x/a.mp4", "y/a.mp4", "x/long.mp4", "y/p.mp4", "x/edit.mp4", "y/edit.mp4")
    (tmp_path / "own.csv").write_text(
        "uri,video_id,start,end,source\nx/a.mp4,,,,s1\nx/long.mp4,p,10,12,s2\nx/edit.mp4,,0,2,s3\nx/edit.mp4,,4,6,s3\n"
    )
    (tmp_path / "other.csv").write_text(
        "uri,start,end,source\ny/a.mp4,,,s1\ny/p.mp4,,,s2\ny/edit.mp4,0,2,s3\ny/edit.mp4,4,6,s3\n"
    )
    found = listed(concept(tmp_path, "own.csv", "other.csv"))
    rows = {(r["clip"], r["negative"]): (Path(r["uri"]).parts[-2:], r["start"]) for r in found.rows}
    of = {clip: (rows[clip, False], rows[clip, True]) for clip, negative in rows if negative}
    assert set(of.values()) == {
        ((("x", "a.mp4"), None), (("y", "a.mp4"), None)),
        ((("x", "long.mp4"), 10.0), (("y", "p.mp4"), None)),
        ((("x", "edit.mp4"), 0.0), (("y", "edit.mp4"), 0.0)),
        ((("x", "edit.mp4"), 4.0), (("y", "edit.mp4"), 4.0)),
    }
    assert {row["video_id"] for row in found.rows} == {"s1", "s2", "s3"}


def test_a_file_without_a_partner_stops_the_run_and_names_both_places_and_the_key(tmp_path: Path) -> None:
    put(tmp_path, "with/a.mp4", "with/b.mp4", "without/a.mp4", "without/c.mp4")
    with pytest.raises(ConfigError) as error:
        listed(concept(tmp_path))
    for part in ("`clips.concepts.0.pairs: by_name`", str(tmp_path / "with"), str(tmp_path / "without")):
        assert part in str(error.value)
    assert "1 of the files of `clips`" in str(error.value)
    assert ": b.mp4." in str(error.value)
    assert "1 of the files of `negatives`" in str(error.value)
    assert ": c.mp4." in str(error.value)


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        (["a.mp4", "a.avi"], ["a.mp4"], r"`clips` \(.*\) has several clips of the name 'a'"),
        (["a.mp4"], ["a.jpg"], "an image and a video"),
    ],
)
def test_what_is_no_pair_is_an_error(tmp_path: Path, own: list[str], other: list[str], message: str) -> None:
    put(tmp_path, *(f"with/{name}" for name in own), *(f"without/{name}" for name in other))
    with pytest.raises(ConfigError, match=message):
        listed(concept(tmp_path))


def test_a_file_is_not_its_own_partner(tmp_path: Path) -> None:
    put(tmp_path, "with/a.mp4")
    with pytest.raises(ConfigError, match="would be compared with itself"):
        listed(concept(tmp_path, "with", "with"))


def test_pairs_need_clips_and_negatives(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`pairs` needs both `clips` and `negatives`"):
        config([{"name": "mark", "clips": "x", "pairs": "by_name"}])
    with pytest.raises(ConfigError, match="by_name"):
        config([{**concept(tmp_path), "pairs": "by_date"}])


def test_a_file_that_cannot_be_listed_takes_its_partner_with_it_and_no_more(tmp_path: Path) -> None:
    put(tmp_path, "x/a.mp4", "x/b.mp4", "y/a.mp4")
    (tmp_path / "own.csv").write_text("uri\nx/a.mp4\nx/b.mp4\n")
    (tmp_path / "other.csv").write_text("uri\ny/a.mp4\ny/b.mp4\n")
    found = listed(concept(tmp_path, "own.csv", "other.csv"))
    assert pairs_of(found) == {("a.mp4", "a.mp4")}
    assert [(f.error_kind, Path(str(f.uri)).name) for f in found.failures] == [("missing", "b.mp4")]
    assert any("1 clip is left out" in warning and ": b." in warning for warning in found.warnings)


def test_a_config_without_pairs_has_no_such_key() -> None:
    own = {"name": "a", "clips": "x", "negatives": "y"}
    assert config([own]).clips.model_dump(mode="json")["concepts"][0].keys() == {"name", "clips", "negatives", "object",
        "motion", "kinds", "controls"}  # fmt: skip
    paired = config([{**own, "pairs": "by_name"}]).clips
    assert paired.model_dump(mode="json")["concepts"][0]["pairs"] == "by_name"
    assert paired.in_pairs == {"a"}


# -- source videos


def test_pairs_that_share_a_clip_are_one_source_video_and_that_of_the_corpus_if_it_has_one() -> None:
    pairs = [("bold/a", "plain/a"), ("thin/a", "plain/a"), ("bold/b", "plain/b"), ("left", "right"), ("z", "0.mp4")]
    assert source_of_pairs(pairs, {"0.mp4", "right"}) == {
        **dict.fromkeys(("bold/a", "plain/a", "thin/a"), "bold/a"),
        **dict.fromkeys(("bold/b", "plain/b"), "bold/b"),
        **dict.fromkeys(("left", "right"), "right"),
        **dict.fromkeys(("z", "0.mp4"), "0.mp4"),
    }


def planned(found: Given, *concepts: dict[str, str], videos: pa.Table | None = None, **clips: Any) -> ClipPlan:
    made = config(list(concepts), random_pool=6, **clips).clips
    return plan_clips(corpus(24) if videos is None else videos, [], set(), made, 0, given=found.table)


def many(place: Path, count: int, *folders: str) -> None:
    put(place, *(f"{folder}/{i}.mp4" for folder in folders for i in range(count)))


def test_each_clip_is_planned_with_its_partner_and_both_are_of_one_source_video(tmp_path: Path) -> None:
    many(tmp_path, 6, "with", "without")
    one = concept(tmp_path)
    plan = planned(listed(one), one, controls=["frozen"], per_concept=4)
    rows = plan.rows.to_pylist()
    by_id = {row["clip_id"]: row for row in rows}
    own = [row for row in rows if row["set"] == "concept"]
    assert len(own) == 8
    for row in own:
        partner = by_id[row["clip_id"].replace("concept/mark/", "random/mark/").replace(
            f"/{row['kind']}/", f"/{row['kind']} in pairs/")]  # fmt: skip
        assert Path(partner["uri"]).name == Path(row["uri"]).name
        assert (Path(row["uri"]).parent.name, Path(partner["uri"]).parent.name) == ("with", "without")
        assert partner["video_id"] == row["video_id"]
    pools = {row["name"] for row in rows if row["set"] == "random"}
    assert pools == {pair_pool("mark", "given"), pair_pool("mark", "given_frozen")}
    assert sum(row["set"] == "random" for row in rows) == 8, "no partner of a clip that is not used"
    assert not any(word in warning for warning in plan.warnings for word in ("UNMATCHED", "Random clips of"))
    assert plan.counts["concepts"]["mark/given"] == {"videos_available": 6, "videos": 4, "clips": 4}


def test_a_corpus_video_in_a_pair_serves_no_other_use(tmp_path: Path) -> None:
    many(tmp_path, 4, "with", "without")
    one = concept(tmp_path)
    videos = pa.concat_tables([corpus(4, str(tmp_path / "without/{}.mp4")), corpus(24).slice(4)])
    found = planned(listed(one, videos=videos), one, videos=videos).rows.to_pylist()
    assert {row["video_id"] for row in found if row["set"] == "concept"} == {f"{i}.mp4" for i in range(4)}
    others = {row["video_id"] for row in found if row["name"] != "mark" and not is_paired(row["name"])}
    assert others
    assert not others & {f"{i}.mp4" for i in range(4)}


def test_two_concepts_on_the_same_clips_share_their_source_videos(tmp_path: Path) -> None:
    many(tmp_path, 4, "bold", "thin", "without")
    both = concept(tmp_path, "bold", name="bold"), concept(tmp_path, "thin", name="thin")
    rows = planned(listed(*both), *both, controls=[]).rows.to_pylist()
    videos = {name: {r["video_id"] for r in rows if r["name"] == name} for name in ("bold", "thin")}
    assert videos["bold"] == videos["thin"]


def test_pools_of_pairs() -> None:
    paired = pair_pool("a", "given")
    assert pool_of("a/given", "given", {paired, own_pool("a", "given"), shared_pool("given")}) == paired
    assert pool_of("b/given", "given", {paired, shared_pool("given")}) == "random/given"
    assert is_paired(paired)
    assert not is_paired(own_pool("a", "given"))
    assert not is_unmatched(paired)


# -- what leaves with what


def heads(*rows: tuple[str, str, str, str, str, str | None]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(HEAD_COLUMNS, row, strict=True)) for row in rows],
                                schema=pa.schema([(name, pa.string()) for name in HEAD_COLUMNS]))  # fmt: skip


def clip(side: str, number: int, kind: str = "given") -> str:
    return f"{f'concept/mark/{kind}' if side == 'own' else pair_pool('mark', kind)}/s{number}"


def both_sides(numbers: int, missing: tuple[tuple[str, int], ...] = ()) -> pa.Table:
    rows = []
    for number in range(numbers):
        for side, role, name in (("own", "concept", "mark"), ("other", "random", "")):
            for kind in ("given", "given_frozen"):
                if (side, number) not in missing:
                    of = None if kind == "given" else clip(side, number)
                    rows.append(
                        (clip(side, number, kind), role, name or pair_pool("mark", kind), kind, f"s{number}", of)
                    )
    return heads(*rows)


@pytest.mark.parametrize("failed", ["own", "other"])
def test_a_clip_that_failed_takes_its_pair_with_it_and_no_more(failed: str) -> None:
    found = leave_out(both_sides(4, ((failed, 2),)), {}, Decisions(), in_pairs={"mark"})
    left = "other" if failed == "own" else "own"
    assert found.reasons == dict.fromkeys((clip(left, 2), clip(left, 2, "given_frozen")), "no_partner")
    assert "2 of 14 clips are left out: 2 without their partner." in found.warnings
    assert leave_out(both_sides(4), {}, Decisions(), in_pairs={"mark"}).reasons == {}


def test_a_rejected_clip_or_a_duplicate_leaves_with_its_partner() -> None:
    decisions = Decisions().changed([(Subject("random", pair_pool("mark", "given"), clip("other", 1)), "reject")])
    found = leave_out(both_sides(4), {clip("own", 3): clip("own", 0)}, decisions, in_pairs={"mark"})
    expected = {clip(side, n, kind): reason for n, reason in ((1, "rejected"), (3, "duplicate"))
                for side in ("own", "other") for kind in ("given", "given_frozen")}  # fmt: skip
    assert found.reasons == expected


def test_if_every_partner_failed_no_clip_is_compared_with_others() -> None:
    table = both_sides(3, tuple(("other", n) for n in range(3)))
    assert set(leave_out(table, {}, Decisions(), in_pairs={"mark"}).reasons) == set(table["clip_id"].to_pylist())


@pytest.mark.slow
def test_both_files_of_a_pair_are_cut_and_a_damaged_one_is_one_failure(tmp_path: Path) -> None:
    many(tmp_path, 3, "with", "without")
    for file in tmp_path.glob("*/*.mp4"):
        file.write_bytes(encode(numbered_frames(12)))
    (tmp_path / "without" / "1.mp4").write_bytes(b"no video" * 20)
    one = concept(tmp_path)
    plan = planned(listed(one), one, videos=corpus(), controls=[])
    found = cut_files(plan.rows, None, ClipsConfig(frames=8, interval=1, size=32))
    assert [Path(str(f.uri)).parts[-2:] for f in found.failures] == [("without", "1.mp4")]
    assert found.clips.num_rows == 5
    left = leave_out(found.clips.select(list(HEAD_COLUMNS)), {}, Decisions(), in_pairs={"mark"})
    assert left.reasons == {"concept/mark/given/given/with/1.mp4": "no_partner"}


def test_a_plan_counts_random_clips_that_are_own_clips(tmp_path: Path) -> None:
    many(tmp_path, 6, "with", "without", "other", "negatives")
    pairs = concept(tmp_path)
    apart = {"name": "other", "clips": str(tmp_path / "other"), "negatives": str(tmp_path / "negatives")}
    for concepts, expected in (([pairs], 2 * 4), ([pairs, apart], 2 * (4 + 6))):  # each with its frozen twin
        made = config(concepts, controls=["frozen"], random_pool=6)
        table = list_given(made, corpus(), Folder("/nowhere")).table
        plan = plan_clips(corpus(24), [], set(), made.clips, 0, given=table)
        random = sum(role == "random" for role in plan.rows["set"].to_pylist())
        assert random == expected
        whole = clip_range(made, 24, {}, concepts_of(made, table), table)
        assert whole.high == random + sum(role == "concept" for role in plan.rows["set"].to_pylist())
