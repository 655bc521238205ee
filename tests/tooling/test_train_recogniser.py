"""`tools/train_recogniser.py`: groups stay together, and what it writes is what `vtcav` takes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tools import train_recogniser
from tools.recognisers.clips import DataError, LabelledClip, decode_clips, list_clips, split
from tools.recognisers.head_norm import add_norm, fold_norm
from tools.recognisers.measures import CHANGES, accuracy_interval
from vtcav_ray.models.mmaction_import import is_installed
from vtcav_ray.video.mp4 import encode_mp4

# Not `importorskip`, which imports it without the repairs of `import_mmaction`.
pytestmark = pytest.mark.skipif(not is_installed(), reason="MMAction2 is not installed")


def _render(folder: Path, people: int = 4, frames: int = 12) -> Path:
    """Write a bright square that moves right (`right`) or left (`left`), for each of several people."""
    for person in range(people):
        for trial in range(2):
            clip = np.full((frames, 40, 40, 3), 20 + 5 * person, np.uint8)
            for t in range(frames):
                clip[t, 12 + trial : 22 + trial, 2 * t : 2 * t + 10] = 220
            for label, shown in (("right", clip), ("left", clip[::-1])):
                path = folder / label / f"s{person}_t{trial}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode_mp4(np.ascontiguousarray(shown), 25))
    return folder


def _train(videos: Path, out: Path, *more: str) -> int:
    size = ("--frames", "4", "--interval", "2", "--side", "32", "--batch", "8", "--threads", "1", "--folds", "4")
    return train_recogniser.main([str(videos), "--out", str(out), "--group-pattern", "^s[0-9]+", *size, *more])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["swin", pytest.param("resnet3d", marks=pytest.mark.full)])
def test_vtcav_takes_what_the_tool_writes(tmp_path: Path, architecture: str) -> None:
    """The config and the checkpoint give the logits that the report was computed from."""
    import torch

    from vtcav_ray.config.model import ModelConfig
    from vtcav_ray.models.mmaction import load_mmaction
    from vtcav_ray.video.decode import decode_frames
    from vtcav_ray.video.sample import spread_clips

    videos, out = _render(tmp_path / "videos"), tmp_path / "run"
    assert _train(videos, out, "--architecture", architecture, "--epochs", "1", "--cut-rows", "0.1") == 0
    report = json.loads((out / "report.json").read_text())
    assert report["classes"] == ["left", "right"]
    assert report["trained_clips"] == 12
    assert report["held_out"]["clips"] == 4
    model = load_mmaction(
        ModelConfig(config=str(out / "config.py"), checkpoint=str(out / "recogniser.pth")), torch.device("cpu"), 0
    )
    assert model.class_names == ("left", "right")
    with (out / "held_out.csv").open() as file:
        held_out = list(csv.DictReader(file))
    with (out / "trained.csv").open() as file:
        assert not {row["group"] for row in held_out} & {row["group"] for row in csv.DictReader(file)}
    own = []
    for row in held_out:
        frames, _ = decode_frames(row["uri"])
        clip = decode_clips(videos, [LabelledClip(_uri(row["uri"]), "", "")], 32, tmp_path / "one")[0]
        clip = np.asarray(clip[spread_clips(len(frames), 4, 2, 1)[0]])
        with torch.no_grad():
            logits = model.logits(model.preprocessor([clip], "center", torch.device("cpu"))[:, 0])
        own.append(float(logits[0, model.class_names.index(row["label"])]))
    classes = report["held_out"]["changes"]["forward"]["classes"].values()
    assert np.mean(own) == pytest.approx(np.mean([c["logit"] for c in classes]), abs=1e-4)


def _uri(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


@pytest.mark.full
def test_a_bad_video_is_left_out_and_named(tmp_path: Path) -> None:
    videos = _render(tmp_path / "videos")
    (videos / "left" / "s9_t0.mp4").write_bytes(b"no video")
    assert _train(videos, tmp_path / "run", "--epochs", "1", "--architecture", "resnet3d") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert list(report["left_out"]) == ["left/s9_t0.mp4"]


@pytest.mark.slow
def test_start_takes_only_weights_that_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    videos = _render(tmp_path / "videos")
    torch.save({"state_dict": {"other.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    assert _train(videos, tmp_path / "run", "--start", str(tmp_path / "other.pth")) == 2
    assert "No tensor of" in capsys.readouterr().err


@pytest.mark.full
def test_training_continues_from_the_start_weights(tmp_path: Path) -> None:
    """At a learning rate of 0, the backbone keeps the weights that it started from."""
    from vtcav_ray.models.checkpoints import read_checkpoint
    from vtcav_ray.world import asset

    videos, start = _render(tmp_path / "videos"), str(asset("recogniser.pth"))
    assert _train(videos, tmp_path / "run", "--epochs", "1", "--rate", "0", "--start", start) == 0
    before, after = (read_checkpoint(path).weights for path in (start, str(tmp_path / "run" / "recogniser.pth")))
    backbone = [name for name in before if name.startswith("backbone")]
    assert len(backbone) > 50
    for name in backbone:
        np.testing.assert_array_equal(after[name].numpy(), before[name].numpy(), err_msg=name)


def test_groups_from_a_csv_stay_on_one_side(tmp_path: Path) -> None:
    videos = _render(tmp_path / "videos")
    with (tmp_path / "groups.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("uri", "scene"))
        for path in sorted(videos.glob("*/*.mp4")):
            writer.writerow((f"{path.parent.name}/{path.name}", f"scene {path.name[1]}"))
    clips = list_clips(videos, tmp_path / "groups.csv", "scene")
    for fold in range(4):
        train, held_out = split(clips, 4, fold, seed=0)
        assert {clips[i].group for i in train}.isdisjoint({clips[i].group for i in held_out})
        assert sorted([*train, *held_out]) == list(range(len(clips)))


def test_errors_name_the_fault_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one folder per class"):
        list_clips(tmp_path)
    videos = _render(tmp_path / "videos", people=1)
    with pytest.raises(DataError, match=r"is not in the name of left/s0_t0\.mp4"):
        list_clips(videos, pattern="person[0-9]")
    (tmp_path / "groups.csv").write_text("uri,group\nleft/s0_t0.mp4,a\n")
    with pytest.raises(DataError, match="no column 'scene'"):
        list_clips(videos, tmp_path / "groups.csv", "scene")
    with pytest.raises(DataError, match=r"no line for left/s0_t1\.mp4 \(3 of 4"):
        list_clips(videos, tmp_path / "groups.csv")
    with pytest.raises(DataError, match="Use fewer folds"):
        split(list_clips(videos, pattern="^s[0-9]+"), 4, 0, seed=0)
    with pytest.raises(DataError, match="give 0 to 1"):
        split(list_clips(videos), 2, 2, seed=0)


def test_frames_are_decoded_again_when_a_file_changes(tmp_path: Path) -> None:
    videos = _render(tmp_path / "videos", people=1)
    clips = list_clips(videos)
    first = np.array(decode_clips(videos, clips, 20, tmp_path / "cache")[0])
    assert first.shape == (12, 20, 20, 3)
    white = encode_mp4(np.full((9, 40, 40, 3), 255, np.uint8), 25)
    (videos / clips[0].uri).write_bytes(white)
    again = decode_clips(videos, clips, 20, tmp_path / "cache")[0]
    assert again.shape == (9, 20, 20, 3)
    assert again.min() > 240


def test_the_folded_norm_gives_the_same_logits() -> None:
    import torch
    from mmaction.models.heads import I3DHead

    torch.manual_seed(0)
    head = I3DHead(num_classes=3, in_channels=8, dropout_ratio=0.0)
    plain = list(head.state_dict())
    add_norm(head)
    for _ in range(20):
        head(torch.randn(6, 8, 2, 2, 2) * 3 + 5)
    torch.nn.init.normal_(head.avg_pool[1].weight)
    torch.nn.init.normal_(head.avg_pool[1].bias)
    head.eval()
    x = torch.randn(4, 8, 2, 2, 2) * 3 + 5
    before = head(x).detach()
    fold_norm(head)
    torch.testing.assert_close(head(x).detach(), before, rtol=1e-4, atol=1e-4)
    assert list(head.state_dict()) == plain


def test_changes_of_time() -> None:
    frames = np.arange(5)
    assert CHANGES["reversed"](frames).tolist() == [4, 3, 2, 1, 0]
    assert CHANGES["frozen"](frames).tolist() == [2] * 5
    assert CHANGES["forward"](frames).tolist() == [0, 1, 2, 3, 4]


def test_the_interval_grows_when_a_group_stands_or_falls_together() -> None:
    right = [True] * 50 + [False] * 50
    single = accuracy_interval(right, [str(i) for i in range(100)])
    grouped = accuracy_interval(right, [str(i // 10) for i in range(100)])
    assert single == pytest.approx((0.40, 0.60), abs=0.01)
    assert grouped[1] - grouped[0] > 2.5 * (single[1] - single[0])
    low, high = accuracy_interval([True] * 20, ["a", "b"] * 10)
    assert low == pytest.approx(0.84, abs=0.01)  # Wilson's; the variance between groups is 0
    assert high == 1.0
