from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.helpers.tracked_things import track_row, tracks_table, videos_table
from vtcav_ray.clips.plan_table import PLAN
from vtcav_ray.clips.select import RANDOM_CLIPS_A_VIDEO, ClipPlan, plan_clips
from vtcav_ray.clips.span_filters import FILTERS, usable_spans
from vtcav_ray.clips.spans import iter_tracks
from vtcav_ray.config import ClipsConfig, ConceptConfig, MotionConfig, QualityConfig
from vtcav_ray.errors import ConfigError

CLASSES = ("lift", "put_down", "push_left")
CUP = ConceptConfig(name="cup", object="cup", kinds=("spatial", "spatiotemporal"), controls=("frozen", "shuffled"))
RIGHT = ConceptConfig(name="right", motion=MotionConfig(direction="right"), kinds=("context",))


@cache
def corpus(count: int) -> tuple[Any, list[Any]]:
    """Make videos of three classes. Each has a cup that moves right or up, and every third has a still ball."""
    labels: dict[str, str | None] = {f"{i:04d}.mp4": CLASSES[i % 3] for i in range(count)}
    tables = []
    for start in range(0, count, 7):
        rows = []
        for i in range(start, min(start + 7, count)):
            step = (2.0, 0.0) if i % 2 else (0.0, -1.0)
            rows.append(track_row(f"{i:04d}.mp4", 1, "cup", step=step, start=(20, 60)))
            if i % 3 == 0:
                rows.append(track_row(f"{i:04d}.mp4", 2, "ball", step=(0, 0)))
        tables.append(tracks_table(rows))
    return videos_table(labels), tables


def config(**changes: Any) -> ClipsConfig:
    small = {
        "frames": 8,
        "interval": 2,
        "size": 32,
        "per_class": 6,
        "min_per_class": 2,
        "per_concept": 8,
        "min_per_concept": 4,
        "random_pool": 40,
        "concepts": (CUP, RIGHT),
    }
    return ClipsConfig(**{**small, **changes})


@cache  # several tests read the same plan
def plan(count: int, seed: int = 0, **changes: Any) -> ClipPlan:
    videos, tracks = corpus(count)
    return plan_clips(videos, iter(tracks), [], config(**changes), seed)


def videos_by_use(result: ClipPlan) -> dict[str, set[str]]:
    found = defaultdict(set)
    for row in result.rows.to_pylist():
        found[row["set"]].add(row["video_id"])
    return found


@pytest.mark.parametrize("count", [8, 14, 20, 60, 200])
@pytest.mark.parametrize("concepts", [(CUP, RIGHT), "auto"])
def test_a_video_serves_one_use_only(count: int, concepts: Any) -> None:
    result = plan(count, concepts=concepts)
    use = videos_by_use(result)
    assert use["class"]
    assert use["concept"]
    assert use["random"]
    assert not use["class"] & use["concept"]
    assert not use["class"] & use["random"]
    assert not use["concept"] & use["random"]
    assert result.rows.schema == PLAN
    assert len(set(result.rows["clip_id"].to_pylist())) == result.rows.num_rows
    assert sum(result.counts["videos"].values()) == count


@pytest.mark.slow
def test_large_corpus_gets_all_that_was_asked_for() -> None:
    result = plan(200, random_pool=80)
    assert result.warnings == []
    sizes = Counter((r["set"], r["name"], r["kind"]) for r in result.rows.to_pylist())
    assert sizes == {
        **{("class", c, "full"): 6 for c in CLASSES},
        **{("concept", "cup", k): 8 for k in ("spatial", "spatiotemporal", "frozen", "shuffled")},
        ("concept", "right", "context"): 8,
        **{("random", f"random/{k}", k): 80 for k in ("spatial", "spatiotemporal", "frozen", "shuffled", "context")},
    }
    assert result.counts["concepts"]["cup"]["clips"] == 8
    assert result.counts["random"] == {"spatial": 80, "spatiotemporal": 80, "context": 80}


@pytest.mark.slow
def test_sets_smaller_than_the_number_of_labels_take_labels_by_chance() -> None:
    labels = [f"label {i:02d}" for i in range(40)]
    videos = videos_table({f"{i:03d}.mp4": labels[i % 40] for i in range(240)})
    tracks = tracks_table([track_row(f"{i:03d}.mp4", 1, "cup", step=(0.0, -1.0)) for i in range(240)])
    small = config(concepts=(CUP,), classes=labels[:2], per_class=2, per_concept=8, random_pool=20)
    label_of = dict(zip(videos["video_id"].to_pylist(), videos["label"].to_pylist(), strict=True))
    found: dict[str, Counter[str]] = {"concept": Counter(), "random": Counter()}
    for seed in range(12):
        use = videos_by_use(plan_clips(videos, iter([tracks]), [], small, seed))
        for set_name, count in found.items():
            chosen = [label_of[video_id] for video_id in use[set_name]]
            assert len(set(chosen)) == len(chosen), "one of each label before a second of any"
            count.update(chosen)
    # 96 and 240 draws of 40 labels: the later half of the alphabet gets its share.
    for count in found.values():
        late = sum(number for label, number in count.items() if label >= "label 20")
        assert 0.3 < late / count.total() < 0.7


@pytest.mark.slow
def test_a_class_video_gives_as_many_clips_as_views_and_counts_once() -> None:
    one, three = plan(60), plan(60, class_views=3)
    rows = [r for r in three.rows.to_pylist() if r["set"] == "class"]
    views = defaultdict(set)
    for r in rows:
        views[r["video_id"]].add((r["view"], r["clip_id"].rsplit("#")[-1]))
    assert set(views) == {r["video_id"] for r in one.rows.to_pylist() if r["set"] == "class"}
    assert all(found == {(0, "0"), (1, "1"), (2, "2")} for found in views.values())
    assert three.counts["videos"] == one.counts["videos"]


@pytest.mark.slow
def test_concepts_are_what_their_config_says() -> None:
    rows = plan(200).rows.to_pylist()
    assert {r["object"] for r in rows if r["name"] == "cup"} == {"cup"}
    assert {r["motion"] for r in rows if r["name"] == "right"} == {"right"}
    assert {r["kind"] for r in rows if r["set"] == "random"} == {
        "spatial",
        "spatiotemporal",
        "frozen",
        "shuffled",
        "context",
    }
    assert len({r["object"] for r in rows if r["name"] == "random/spatial"}) == 2
    for row in rows:
        if row["set"] == "class" or row["name"] == "random/context":
            assert row["frames"] is None
            assert row["boxes"] is None
        else:
            assert len(row["frames"]) == len(row["boxes"]) == 8
            assert np.all(np.diff(row["frames"]) == 2)
            assert 0 <= row["pick"] < 8


def test_controls_share_their_twins_track_and_span() -> None:
    rows = {r["clip_id"]: r for r in plan(100).rows.to_pylist()}
    controls = [r for r in rows.values() if r["control_of"]]
    assert {r["set"] for r in controls} == {"concept", "random"}
    for row in controls:
        twin = rows[row["control_of"]]
        assert twin["kind"] == "spatiotemporal"
        assert row["kind"] in ("frozen", "shuffled")
        for name in ("video_id", "track_id", "frames", "boxes", "pick"):
            assert row[name] == twin[name]
    twins = {r["clip_id"] for r in rows.values() if r["kind"] == "spatiotemporal"}
    assert Counter(r["control_of"] for r in controls) == dict.fromkeys(twins, 2)


@pytest.mark.slow
def test_the_seed_decides_and_nothing_else() -> None:
    videos, tracks = corpus(120)
    one = plan_clips(videos, tracks, [], config(), 0)
    again = plan_clips(videos.take(list(range(119, -1, -1))), tracks[::-1], [], config(), 0)
    other = plan_clips(videos, tracks, [], config(), 1)
    assert one.rows.equals(again.rows)
    assert one.counts == again.counts
    assert not one.rows.equals(other.rows)


@pytest.mark.slow
def test_random_clips_and_concepts_are_balanced_over_classes() -> None:
    rows = plan(200, random_pool=60).rows.to_pylist()
    by_class = Counter(r["label"] for r in rows if r["name"] == "random/spatial")
    assert max(by_class.values()) - min(by_class.values()) <= 1
    by_class = Counter(r["label"] for r in rows if r["name"] == "cup" and r["kind"] == "spatial")
    assert max(by_class.values()) - min(by_class.values()) <= 1


@pytest.mark.slow
def test_where_most_labels_are_rare_the_other_videos_fill_the_random_pool() -> None:
    """With as many labels as single videos, the unlabelled rest is not limited to one label's share."""
    labels = {f"{i:04d}.mp4": f"rare {i}" if i < 100 else None for i in range(400)}
    tracks = tracks_table([track_row(v, 1, "ball", step=(0, 0)) for v in labels])
    result = plan_clips(videos_table(labels), iter([tracks]), [], config(concepts="auto", random_pool=150), 0)
    random = [row for row in result.rows.to_pylist() if row["name"] == "random/spatial"]
    assert len({row["video_id"] for row in random}) == 150


def test_failed_videos_are_left_out() -> None:
    videos, tracks = corpus(60)
    failed = [f"{i:04d}.mp4" for i in range(0, 60, 2)]
    rows = plan_clips(videos, tracks, failed, config(), 0).rows
    assert not set(failed) & set(rows["video_id"].to_pylist())


def test_a_small_corpus_says_what_is_missing() -> None:
    result = plan(20)
    text = "\n".join(result.warnings)
    assert "Random clips (spatial)" in text
    assert "times the largest concept" in text
    assert "Fewer than the 8 clips wanted" in text
    counts = Counter((r["name"], r["video_id"]) for r in result.rows.to_pylist() if r["name"] == "random/context")
    assert max(counts.values()) <= RANDOM_CLIPS_A_VIDEO


def test_a_concept_without_enough_videos_is_dropped_and_reported() -> None:
    rare = ConceptConfig(name="plane", object="plane")
    result = plan(120, concepts=(CUP, rare))
    assert any("'plane'" in w and "0 source videos" in w for w in result.warnings)
    assert "plane" not in result.rows["name"].to_pylist()


@pytest.mark.slow
def test_auto_gives_motion_controls_to_moving_concepts_only() -> None:
    rows = plan(200, concepts="auto", min_per_concept=5, controls=("frozen",)).rows.to_pylist()
    controlled = {row["name"] for row in rows if row["set"] == "concept" and row["kind"] == "frozen"}
    moving = {row["name"] for row in rows if row["set"] == "concept" and row["kind"] == "spatiotemporal"}
    assert "ball still" in moving
    assert controlled == moving - {"ball still"}
    assert controlled


@pytest.mark.slow
def test_auto_proposes_objects_and_motions_by_rank() -> None:
    result = plan(200, concepts="auto", max_concepts=2)
    assert set(result.counts["concepts"]) == {"cup up", "cup right"}
    kinds = {r["kind"] for r in result.rows.to_pylist() if r["set"] == "concept"}
    assert kinds == {"spatial", "spatiotemporal", "frozen", "shuffled", "reversed", "padding"}
    everything = plan(200, concepts="auto", min_per_concept=5)
    assert set(everything.counts["concepts"]) == {"cup up", "cup right", "ball still"}


@pytest.mark.slow
def test_every_spatiotemporal_clip_has_its_controls_unless_configured_otherwise() -> None:
    plain = CUP.model_copy(update={"controls": None})
    for controls in (("frozen", "shuffled", "reversed", "padding"), ("reversed",), ()):
        rows = plan(100, concepts=(plain, RIGHT), controls=controls).rows.to_pylist()
        moving = {r["clip_id"] for r in rows if r["kind"] == "spatiotemporal"}
        found = Counter((r["control_of"], r["kind"]) for r in rows if r["control_of"])
        assert found == {(clip, control): 1 for clip in moving for control in controls}


@pytest.mark.slow
def test_labels_are_taken_as_the_model_spells_them() -> None:
    videos, tracks = corpus(60)
    result = plan_clips(videos, tracks, [], config(), 0, ["Lift", "push left", "juggling"])
    assert set(result.counts["classes"]) == {"Lift", "push left"}
    assert any("put_down" in w and "20 videos" in w for w in result.warnings)
    with pytest.raises(ConfigError, match="Did you mean 'push left'"):
        plan_clips(videos, tracks, [], config(classes=("push_lft",)), 0, ["Lift", "push left"])
    named = plan_clips(videos, tracks, [], config(classes=("LIFT",)), 0, ["Lift", "push left"])
    assert set(named.counts["classes"]) == {"Lift"}


def test_videos_without_labels_give_concepts_and_no_class() -> None:
    videos, tracks = corpus(60)
    bare = videos_table(dict.fromkeys(videos["video_id"].to_pylist()))
    result = plan_clips(bare, tracks, [], config(), 0)
    assert result.counts["classes"] == {}
    assert result.counts["concepts"]
    assert any("No class can be explained" in w for w in result.warnings)


def test_nothing_tracked_is_reported_with_the_filters_counts() -> None:
    videos, _ = corpus(30)
    result = plan_clips(videos, [], [], config(), 0)
    assert any("No concept could be built" in w and "track_length 0" in w for w in result.warnings)
    assert {r["set"] for r in result.rows.to_pylist()} == {"class"}


def test_clips_over_the_limit_a_video_are_counted() -> None:
    tables = [tracks_table([track_row(f"{i}.mp4", k, "cup", step=(2.0, 0.0)) for k in (1, 2, 3)]) for i in range(20)]
    videos = videos_table({f"{i}.mp4": CLASSES[i % 3] for i in range(20)})
    result = plan_clips(videos, iter(tables), [], config(concepts=(CUP,)), 0)
    offered = 20 - result.counts["videos"]["class"]
    assert result.counts["filters"]["clips_per_video"] == 2 * offered


def test_more_clips_than_one_a_video_when_allowed() -> None:
    labels = {f"{i}.mp4": None for i in range(12)}
    rows = [track_row(f"{i}.mp4", k, "cup", start=(20, 10 * k)) for i in range(12) for k in range(1, 4)]
    wide = config(concepts=(CUP,), quality=QualityConfig(max_clips_per_video=3), per_concept=12)
    result = plan_clips(videos_table(labels), [tracks_table(rows)], [], wide, 0)
    clips = [r for r in result.rows.to_pylist() if r["name"] == "cup" and r["kind"] == "spatial"]
    assert len(clips) == 12
    assert len({(r["video_id"], r["track_id"]) for r in clips}) == 12


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("track_length", {"n": 14}),
        ("gaps", {"frames": [*range(10), *range(20, 30)], "n": 20}),
        ("cut", {"shot": [0] * 10 + [1] * 10, "n": 20}),
        ("box_size", {"boxes": [(0.0, 0, 5, 90)] * 40}),
        ("confidence", {"confidence": [0.2] * 40}),
        ("blur", {"sharpness": [3.0] * 40}),
        (None, {}),
    ],
)
def test_each_filter_is_counted(reason: str | None, changes: dict[str, Any]) -> None:
    dropped: Counter[str] = Counter()
    (track,) = iter_tracks(tracks_table([track_row("v", **changes)]))
    spans = usable_spans(track, config(quality=QualityConfig(min_sharpness=10)), dropped)
    assert bool(spans) is (reason is None)
    assert dropped == ({} if reason is None else {reason: 1})
    assert reason is None or reason in FILTERS


def test_short_gaps_are_filled_in() -> None:
    frames = [0, 1, 2, 6, 7, *range(9, 21)]
    whole = np.stack([(10.0 * f, 40, 10 * f + 20, 60) for f in frames])
    row = track_row("v", n=len(frames), frames=frames, boxes=list(whole), width=900)
    (track,) = iter_tracks(tracks_table([row]))
    spans = usable_spans(track, config(interval=1, frames=16), Counter())
    assert spans
    for span in spans:
        assert np.allclose(span.boxes[:, 0], 10 * span.frames)
        assert span.frames[span.pick] in frames


def test_strided_tracks_have_no_gaps() -> None:
    frames = list(range(0, 80, 8))
    (track,) = iter_tracks(tracks_table([track_row("v", n=10, frames=frames)]))
    assert usable_spans(track, config(), Counter())


def test_a_shorter_track_is_used_only_where_it_is_allowed() -> None:
    (track,) = iter_tracks(tracks_table([track_row("v", n=11)]))
    assert not usable_spans(track, config(), Counter())
    spans = usable_spans(track, config(quality=QualityConfig(min_track_frames=8)), Counter())
    assert {s.interval for s in spans} == {1}
    assert all(np.all(np.diff(s.frames) == 1) for s in spans)


def test_best_frame_is_sharp_sure_and_whole() -> None:
    sharpness = np.full(40, 10.0)
    sharpness[[5, 20]] = 100, 50
    boxes = [(30.0, 40, 50, 60)] * 40
    boxes[5] = (0.0, 40, 20, 60)  # cut by the frame's edge
    (track,) = iter_tracks(tracks_table([track_row("v", sharpness=sharpness, boxes=boxes)]))
    spans = usable_spans(track, config(frames=32, interval=1), Counter())
    assert all(s.frames[s.pick] == 20 for s in spans)


def test_reserved_videos_give_random_clips_of_all_labels_alike() -> None:
    # As after a search that looked for a concept: many videos of `lift` that are not reserved.
    labels = {f"{label} {i:03d}.mp4": label for label in CLASSES for i in range(200 if label == "lift" else 40)}
    videos = videos_table(dict(labels))
    reserved = [int(video.split()[1][:3]) < 30 for video in videos["video_id"].to_pylist()]
    videos = videos.append_column("reserved", [reserved])
    tracks = [tracks_table([track_row(video, 1, "cup", step=(0, 0)) for video in labels])]
    result = plan_clips(videos, tracks, [], config(concepts=(CUP,), random_pool=30, per_class=2), 0)
    found = Counter(labels[row["video_id"]] for row in result.rows.to_pylist() if row["set"] == "random")
    assert len(set(found.values())) == 1
    assert set(found) == set(CLASSES)
