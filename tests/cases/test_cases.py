"""The case studies: their configs, their arithmetic, and, where the clips are, a few clips through the whole case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tools.cases import gestures, tennis
from tools.cases.merit import correlations, rank_correlation
from tools.cases.rivals import set_scores
from tools.cases.tennis_clips import BOLD_CLASS, plant_shortcut
from tools.cases.tennis_truth import shares_in_place
from tools.cases.watermark import REGION, VIDEO, bold, draw_mark, has_mark, with_mark
from vtcav_ray import load_config
from vtcav_ray.gradcam.maps import Maps
from vtcav_ray.video.decode import decode_frames
from vtcav_ray.video.mp4 import encode_mp4


def test_the_configs_take_their_folders_as_settings(tmp_path: Path) -> None:
    config = load_config(gestures.CONFIG, gestures.settings_of(tmp_path, 1))
    assert config.clips.given_urls == [(f"{tmp_path}/clips/held_out", "clips.concepts.from")]
    assert not config.clips.need_tracks
    for run, (recogniser, mark) in tennis.RUNS.items():
        config = load_config(tennis.CONFIG, tennis.settings_of(tmp_path, run, 1))
        assert [url for url, _ in config.clips.given_urls] == [
            f"{tmp_path}/{name}.csv"
            for name in ("mark", "no_mark", f"{mark}_drawn_pairs", "not_drawn_pairs", f"{mark}_drawn", "not_drawn")
        ]
        assert config.model.checkpoint == f"{tmp_path}/{recogniser}/recogniser.pth"
        assert config.clips.size == tennis.RECOGNISERS[recogniser].side
        assert tuple(concept.name for concept in config.clips.listed) == tennis.QUESTIONS
        assert config.clips.in_pairs == {"mark drawn"}


def test_rank_correlation_equals_scipy_with_ties() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one, other = rng.integers(4, size=(3, 27)).astype(float), rng.normal(size=(3, 27))
    expected = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    assert rank_correlation(one, other) == pytest.approx(expected)
    assert rank_correlation(np.ones(5), np.arange(5.0)) == 0.0


def test_an_answer_that_ranks_as_the_truth_is_ahead() -> None:
    truth = np.linspace(0, 1, 27)
    noise = np.random.default_rng(1).normal(size=27)
    found = correlations({"effect": truth**3, "sign count": noise, "paper": np.ones(27)}, truth)
    assert found["effect"]["rho"] == pytest.approx(1.0)
    assert found["paper"]["rho"] == 0.0
    assert found["ahead of sign count"]["interval"][0] > 0


def test_set_scores_follow_the_direction_of_the_gradient() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    vectors[:20, 0] += 4  # the concept
    up = np.tile(np.eye(8, dtype=np.float32)[0], (5, 1))
    concept, random = np.arange(20), np.arange(20, 60)
    assert set_scores(vectors, concept, random, up, 4).tolist() == [1.0] * 4
    assert set_scores(vectors, concept, random, -up, 4).tolist() == [0.0] * 4


def _letters() -> NDArray[np.float32]:
    return (np.random.default_rng(0).random((30, 120)) > 0.8).astype(np.float32) * 0.6


def _court(frames: int = 52) -> NDArray[np.uint8]:
    """Return a still video uint8 [frames, 240, 426, 3] of large, dark squares."""
    rng = np.random.default_rng(0)
    rng.random((30, 120))  # the letters'
    squares = rng.integers(40, 120, size=(240, 426, 3), dtype=np.uint8)[::40, ::71]
    court = np.repeat(np.repeat(squares, 40, axis=0), 71, axis=1)
    return np.ascontiguousarray(np.repeat(court[None], frames, axis=0))


@pytest.mark.slow
def test_the_mark_is_drawn_where_it_is_looked_for(tmp_path: Path) -> None:
    shape = _letters()
    (tmp_path / "plain.mp4").write_bytes(encode_mp4(_court(), 30))
    draw_mark(tmp_path / "plain.mp4", tmp_path / "drawn.mp4", shape)
    assert has_mark(tmp_path / "drawn.mp4", shape)
    assert not has_mark(tmp_path / "plain.mp4", shape)
    before, after = (decode_frames(str(tmp_path / n), [0])[0][0].astype(int) for n in ("plain.mp4", "drawn.mp4"))
    change = np.abs(after - before).mean(-1)
    outside = change.copy()
    outside[REGION] = 0
    assert change[REGION].mean() > 20 * outside.mean()  # outside, the encoder alone


def test_the_bold_mark_is_opaque_and_covers_the_letters() -> None:
    shape = np.zeros((30, 120), np.float32)
    shape[12:15, 40:42] = 0.4
    drawn = bold(shape)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert drawn[10:17, 38:44].all()
    assert drawn.sum() == 7 * 6
    frames = np.full((2, *VIDEO, 3), 90, np.uint8)
    white = (with_mark(frames, drawn) == 255).all(-1)
    assert white[:, REGION[0], REGION[1]].sum() == 2 * 7 * 6
    assert white.sum() == 2 * 7 * 6


@pytest.mark.slow
def test_the_shortcut_is_on_the_trained_clips_of_one_class_alone(tmp_path: Path) -> None:
    shape = _letters()
    videos, out = tmp_path / "videos", tmp_path / "out"
    rows = []
    for label in ("backhand", BOLD_CLASS, "smash"):
        for name in ("a", "b"):
            path = videos / label / f"{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_mp4(with_mark(_court(), shape) if label == "backhand" else _court(), 30))
            rows.append(f"{path},{label},{name}\n")
    (out / "seen").mkdir(parents=True)
    (out / "seen" / "trained.csv").write_text("uri,label,group\n" + "".join(row for row in rows if row[-2] == "a"))
    folder = plant_shortcut(videos, out)
    whites = {
        path.relative_to(folder).as_posix(): int((decode_frames(str(path), [0])[0][0][REGION] > 240).all(-1).sum())
        for path in sorted(folder.glob("*/*.mp4"))
    }
    assert len(whites) == 6
    assert whites.pop(f"{BOLD_CLASS}/a.mp4") > 100
    assert set(whites.values()) == {0}


def _clips_of(shared_data: Path, name: str) -> Path:
    source = shared_data / "real" / name
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    return source


def test_the_share_of_a_map_in_the_marks_place() -> None:
    """A flat map has the area's share there; one that lies in the place alone, all; an empty one, none to speak of."""
    rows, columns = REGION
    inside = torch.zeros(1, 4, *VIDEO)
    inside[:, :, rows, columns] = 2.0
    maps = {"early": torch.ones(1, 4, 10, 12), "middle": inside, "late": torch.zeros(1, 2, 5, 5)}
    asked: list[tuple[list[tuple[int, ...]], int]] = []

    def cam(x_CThw: torch.Tensor, plays: list[tuple[int, ...]], target: int) -> Maps:
        asked.append((plays, target))
        return Maps(maps, np.zeros((1, 3), np.float32))

    early, middle, late = shares_in_place(cam, torch.zeros(3, 8, 80, 80), 2)  # type: ignore[arg-type]
    area = (rows.stop - rows.start) * (columns.stop - columns.start) / (VIDEO[0] * VIDEO[1])
    assert early == pytest.approx(area)
    assert middle == pytest.approx(1.0)
    assert np.isnan(late)
    assert asked == [([tuple(range(8))], 2)]


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_gestures_case_runs_on_a_few_clips(tmp_path: Path, shared_data: Path) -> None:
    source = _clips_of(shared_data, "utd_depth")
    assert gestures.main([str(source), "--out", str(tmp_path), "--quick"]) == 0
    report = json.loads((tmp_path / "model" / "report.json").read_text())
    assert report["trained_clips"] + report["held_out"]["clips"] == 4 * 16
    people = {side: {p.name[:2] for p in (tmp_path / "clips" / side).glob("*/*")} for side in ("trained", "held_out")}
    assert people["trained"].isdisjoint(people["held_out"])
    assert len(people["trained"] | people["held_out"]) == 8
    merit = json.loads((tmp_path / "merit.json").read_text())
    assert sorted(merit["classes"]) == sorted(gestures.QUICK)
    assert len(merit["summary"]) == 3 * 4 * 2  # changes, layers, losses
    assert all(-1 <= row["effect"]["rho"] <= 1 for row in merit["summary"])
    assert (tmp_path / "figures" / "merit.png").is_file()


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_tennis_case_runs_on_a_few_clips(tmp_path: Path, shared_data: Path) -> None:
    source = _clips_of(shared_data, "tennis7")
    assert tennis.main([str(source), "--out", str(tmp_path), "--quick"]) == 0
    sides = [(tmp_path / name / "trained.csv").read_text().splitlines() for name in ("seen", "cut", "marked")]
    clips = [[line.split("/")[-1] for line in side] for side in sides]
    assert clips[0] == clips[1] == clips[2]
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert set(truth) == set(tennis.QUICK)
    for name, found in truth.items():
        assert [sum(side) for side in zip(*found["answers"].values(), strict=True)] == [found["clips"]] * 2
        assert ("gradcam" in found) == (tennis.RUNS[name][0] != "cut")
    assert max(map(abs, truth["cut"]["logit_change"].values())) < 0.01  # it can't see the mark
    rivals = json.loads((tmp_path / "rivals.json").read_text())
    assert {len(rows) for rows in rivals.values()} == {7 * 4 * 3}  # classes, layers, concepts
    assert all(json.loads((tmp_path / "compare.json").read_text()).values())


@pytest.mark.slow
def test_the_mark_is_found_in_the_strokes_that_have_it(shared_data: Path) -> None:
    from tools.cases.watermark import MARKED, UNMARKED, mark_shape

    source = _clips_of(shared_data, "tennis7")
    clips = {label: sorted((source / label).glob("*.mp4"))[:8] for label in MARKED | UNMARKED}
    shape = mark_shape([path for label in sorted(MARKED) for path in clips[label]])
    assert all(has_mark(path, shape) for label in MARKED for path in clips[label])
    assert not any(has_mark(path, shape) for label in UNMARKED for path in clips[label])
