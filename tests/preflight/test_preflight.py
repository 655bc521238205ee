"""The preflight: what a run needs is checked before its hours, and no video is read."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.helpers.small_runs import without_ray
from vtcav_ray import cli, models, pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.planning.dry_run import check
from vtcav_ray.preflight.checks import Check, LabelRow, Preflight
from vtcav_ray.preflight.corpus import corpus_checks, label_rows
from vtcav_ray.preflight.detector import detector_checks, object_checks
from vtcav_ray.preflight.model import model_checks
from vtcav_ray.preflight.run import output_check, preflight
from vtcav_ray.store.folder import Folder
from vtcav_ray.tables import VIDEOS
from vtcav_ray.world import write_world

CLASSES = ("lift", "put_down", "push_left", "push_right")
SMALL = {"frames": 16, "interval": 1, "size": 64, "controls": []}


def config(**sections: Any) -> Config:
    found: dict[str, Any] = {"videos": {"uri": "videos"}, **sections}
    found["clips"] = {**SMALL, **found.get("clips", {})}
    found.setdefault("activations", {"layers": ["late"]})
    return parse_config(found)


def videos(**labels: int) -> pa.Table:
    """Return a VIDEOS table with this number of videos of each label; `none`: without one."""
    rows = []
    for label, count in labels.items():
        for i in range(count):
            name = f"{label}/{i}.mp4"
            rows.append({"video_id": name, "uri": f"/v/{name}", "label": None if label == "none" else label})
    return pa.Table.from_pylist(rows, schema=VIDEOS)


def verdicts(checks: list[Check]) -> dict[str, str]:
    return {check.subject: check.verdict for check in checks}


def of(checks: list[Check], subject: str) -> Check:
    return next(check for check in checks if check.subject == subject)


def concepts(*objects: str | None) -> dict[str, Any]:
    return {"concepts": [{"name": f"c{i}", "object": name, "kinds": ["spatial"]} for i, name in enumerate(objects)]}


def test_labels_are_compared_with_the_classes_as_a_table() -> None:
    labels = ["Put-Down"] * 3 + ["gestures"] * 20 + ["push_lef"] * 2 + ["lift", None]
    rows = label_rows(labels, CLASSES, CLASSES)
    assert [row.sentence for row in rows] == [
        "gestures: 20 videos, no such class",
        "push_lef: 2 videos, no such class, nearest 'push_left'",
        "(no label): 1 video",
        "Put-Down: 3 videos, matched to 'put_down'",
        "lift: 1 video, matched",
    ]


def test_numbers_are_places_among_classes_that_are_known_without_the_checkpoint() -> None:
    assert [row.match for row in label_rows(["0", "3"], CLASSES, CLASSES)] == ["lift", "push_right"]
    assert [row.match for row in label_rows(["0", "3"], CLASSES, None)] == [None, None]  # as the stage `clips` does


def test_a_corpus_that_is_large_enough_passes() -> None:
    settings = config(clips={"per_class": 10, "min_per_concept": 10})
    checks, _ = corpus_checks(videos(lift=30, put_down=30), settings, CLASSES, CLASSES)
    assert verdicts(checks) == {"labels": "ok", "classes": "ok", "videos": "ok"}
    assert "60 videos: 20 class examples, 20 for concepts, 20 for random sets" in of(checks, "videos").message


@pytest.mark.parametrize(
    ("given", "subject", "words"),
    [
        ({"none": 30}, "labels", ["No video has a label", "videos.labels=FILE.csv"]),
        ({"gestures": 30}, "labels", ["No label is a class", "gestures: 30 videos", "4 classes: lift", "model.labels"]),
        ({"lift": 1, "gestures": 30}, "classes", ["the largest class has 1 video,", "Add videos"]),
        ({"lift": 3}, "videos", ["need 2 each", "Add 3 or more videos"]),
    ],
)
def test_a_corpus_that_can_score_no_class_stops_the_run(given: dict[str, int], subject: str, words: list[str]) -> None:
    checks, rows = corpus_checks(videos(**given), config(), CLASSES, CLASSES)
    found = of(checks, subject)
    assert found.verdict == "stop"
    assert all(word in found.message for word in words), found.message
    assert sum(row.videos for row in rows) == sum(given.values())


def test_the_advice_on_the_number_of_videos_is_enough() -> None:
    """Follow the advice of the message: with as many more videos, the run is no longer stopped."""
    for lift in range(2, 8):
        checks, _ = corpus_checks(videos(lift=lift), config(), CLASSES, CLASSES)
        found = of(checks, "videos")
        if found.verdict == "stop":
            more = int(found.message.split("Add ")[1].split()[0])
            again, _ = corpus_checks(videos(lift=lift, other=more), config(), CLASSES, CLASSES)
            assert of(again, "videos").verdict != "stop"


def test_a_model_whose_classes_are_numbers_asks_for_names() -> None:
    numbers = tuple(str(i) for i in range(400))
    checks, _ = corpus_checks(videos(arm_wrestling=30), config(), numbers, numbers)
    assert "only numbers" in of(checks, "labels").message
    assert "--set model.labels=asset:kinetics400.txt" in of(checks, "labels").message


def test_labels_without_a_class_are_a_warning_while_others_have_one() -> None:
    checks, _ = corpus_checks(videos(lift=30, gestures=30), config(), CLASSES, CLASSES)
    assert of(checks, "labels").verdict == "warn"
    assert "1 of 2 labels" in of(checks, "labels").message


@pytest.mark.parametrize("known", [CLASSES, None])  # None: only the checkpoint has the names
def test_a_wanted_class_that_the_model_does_not_have_stops_the_run(known: tuple[str, ...] | None) -> None:
    settings = config(clips={"classes": ["lift", "yoga", "push_lft"]})
    checks, _ = corpus_checks(videos(lift=30), settings, CLASSES, known)
    assert of(checks, "classes").verdict == "stop"
    message = of(checks, "classes").message
    assert "the model has no class 'yoga'; the model has no class 'push_lft', nearest 'push_left'" in message
    assert "It has: lift, put_down" in message


def test_classes_that_only_the_checkpoint_knows_do_not_pass_for_scored_ones() -> None:
    """The stage `clips` takes every label if it does not know the classes; the model scores only its own."""
    settings = config(clips={"per_class": 5})
    checks, _ = corpus_checks(videos(gestures=30, lift=1), settings, CLASSES, None)
    assert of(checks, "classes").verdict == "stop"


def test_objects_are_compared_with_what_the_detector_finds() -> None:
    names = ["person", "sports ball", "cup"]
    assert verdicts(object_checks(config(clips=concepts("cup", None)), names)) == {"concepts": "ok"}
    found = object_checks(config(clips=concepts("Person", "cup", "yacht")), names)
    assert [check.verdict for check in found] == ["warn", "warn"]
    assert "write `object: person`" in found[0].message
    assert "it has: person, sports ball, cup" in found[1].message
    (none,) = object_checks(config(clips=concepts("Person", "sport ball")), names)
    assert none.verdict == "stop"
    assert "write `object: sports ball`" in none.message
    kept = config(clips=concepts("cup"), tracks={"classes": ["person"]})
    assert "`tracks.classes` drops 'cup'" in object_checks(kept, names)[0].message


def test_an_unreadable_detector_stops_the_run(tmp_path: Path) -> None:
    text = tmp_path / "detector.pt"
    text.write_text("# README")
    for weights in (str(text), str(tmp_path / "none.pt"), str(tmp_path / "a.txt")):
        (found,) = detector_checks(config(tracks={"weights": weights}))
        assert (found.subject, found.verdict) == ("detector", "stop")
        assert weights in found.message
    passed = detector_checks(config(clips=concepts("cup")))
    assert verdicts(passed) == {"detector": "ok", "concepts": "ok"}


def test_every_wrong_layer_is_named(tmp_path: Path) -> None:
    settings = config(activations={"layers": ["lat", "backbone.layers.9", "head"]})
    rows, classes = model_checks(settings, Folder(str(tmp_path)), keep=True)
    assert classes is None
    assert [row.subject for row in rows] == ["layers", "layers"]
    assert "no layer `lat`" in rows[0].message
    assert "Nearest: late" in rows[0].message
    assert "--set activations.layers=auto" in rows[0].message
    assert not list(tmp_path.iterdir())  # only models that passed are remembered


@pytest.mark.parametrize("what", ["text", "missing", "of another model"])
def test_weights_that_do_not_fit_stop_the_run(what: str, tmp_path: Path) -> None:
    import torch

    file = tmp_path / "weights.pth"
    if what == "text":
        file.write_text("# README")
    elif what == "of another model":
        torch.save({"fc.weight": torch.zeros(3, 3)}, file)
    settings = config(model={"checkpoint": str(file)})
    rows, classes = model_checks(settings, Folder(str(tmp_path / "run")), keep=True)
    assert classes is None
    assert [(row.subject, row.verdict) for row in rows] == [("model", "stop")]
    assert str(file) in rows[0].message
    with pytest.raises(ConfigError if what == "missing" else StageError):
        Preflight(tuple(rows)).stop()


@pytest.mark.slow
def test_the_model_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    load = models.load_recogniser

    def counted(*arguments: Any, **named: Any) -> Any:
        built.append("")
        return load(*arguments, **named)

    monkeypatch.setattr(models, "load_recogniser", counted)
    folder = Folder(str(tmp_path))
    first, classes = model_checks(config(), folder, keep=True)
    assert classes is not None
    assert set(classes.names) == set(classes.described or ()) == set(CLASSES)
    assert verdicts(first) == {"model": "ok", "layers": "ok"}
    assert model_checks(config(), folder, keep=True) == (first, classes)
    assert len(built) == 1
    model_checks(config(clips={"frames": 8}), folder, keep=True)  # other clips
    assert len(built) == 2
    for file in (tmp_path / "preflight").iterdir():
        file.write_text("{")
    assert model_checks(config(), folder, keep=True) == (first, classes)  # a damaged file is computed again
    assert len(built) == 3


@pytest.mark.slow
def test_a_layer_in_which_nothing_can_move_is_named(tmp_path: Path) -> None:
    """Of 2 frames, the patch embedding leaves one time step."""
    layers = {"layers": ["early@moving", "early@still", "early"]}
    folder = Folder(str(tmp_path))
    for _ in range(2):  # the second time, the model is not built
        rows, _ = model_checks(config(activations=layers, clips={"frames": 2}), folder, keep=True)
        warnings = [row.message for row in rows if (row.subject, row.verdict) == ("layers", "warn")]
        assert len(warnings) == 1
        assert warnings[0].startswith("early@moving, early@still: of a clip of 2 frames")
        assert "clips.frames" in warnings[0]
    rows, _ = model_checks(config(activations=layers), folder, keep=True)
    assert verdicts(rows) == {"model": "ok", "layers": "ok"}


def test_warnings_say_what_to_type(tmp_path: Path) -> None:
    rows, _ = model_checks(config(model={"checkpoint": "untrained"}), Folder(str(tmp_path)), keep=False)
    assert [row.message for row in rows if row.verdict == "warn" and "--set model.checkpoint" in row.message]
    assert not list(tmp_path.iterdir())


def test_the_output_is_checked_without_writing(tmp_path: Path) -> None:
    assert output_check(Folder(str(tmp_path / "a" / "b"))).verdict == "ok"
    (tmp_path / "file").write_text("")
    for place in ("file", "file/run"):
        found = output_check(Folder(str(tmp_path / place)))
        assert found.verdict == "stop"
        assert "--out" in found.message
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_several_faults_are_reported_together() -> None:
    Preflight((Check("model", "warn", "w"), Check("model", "ok", "o"))).stop()
    one = Preflight((Check.of("model", StageError("broken")),))
    with pytest.raises(StageError, match="broken"):
        one.stop()
    assert (one.exit_status, Preflight(()).exit_status) == (3, 0)
    two = Preflight((Check("labels", "stop", "first"), Check.of("detector", StageError("second"))))
    with pytest.raises(ConfigError, match="2 reasons:\n- labels: first\n- detector: second"):
        two.stop()


def folder_of(place: Path, **labels: int) -> Path:
    """Write files that are listed, but are no videos: whoever decodes one fails."""
    for label, count in labels.items():
        for i in range(count):
            file = place / "videos" / label / f"{i}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"no video %d" % i)
    return place / "videos"


def written(place: Path, **sections: Any) -> str:
    data = {"videos": {"uri": str(place / "videos")}, "out": str(place / "run"), "clips": SMALL, **sections}
    data.setdefault("activations", {"layers": ["late"]})
    (place / "c.yaml").write_text(json.dumps(data))
    return str(place / "c.yaml")


@pytest.mark.slow
def test_a_run_that_can_score_no_class_stops_before_the_tracks(tmp_path: Path) -> None:
    folder_of(tmp_path, gestures=12, push_lef=3)
    settings = parse_config(json.loads(Path(written(tmp_path)).read_text()))
    with without_ray(), pytest.raises(ConfigError, match="No label is a class of the model") as error:
        pipeline.run(settings)
    assert "push_lef: 3 videos, no such class, nearest 'push_left'" in str(error.value)
    assert not (tmp_path / "run" / "tracks").exists()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "stopped: tracks"
    assert "No label is a class" in record["error"]


@pytest.mark.slow
def test_its_checks_can_be_made_in_other_processes(tmp_path: Path) -> None:
    """Functions, rows and errors survive pickling, and the result is that of this process."""
    calls: list[int] = []

    def elsewhere(functions: Sequence[Callable[[], Any]]) -> list[Any]:
        calls.append(len(functions))
        return [pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))())) for function in functions]

    folder, needed, corpus = Folder(str(tmp_path / "run")), ("tracks", "activations"), videos(lift=20, put_down=20)
    for settings in (config(), config(model={"checkpoint": "no.pth"}, tracks={"weights": "no.pt"})):
        found = preflight(settings, corpus, folder, needed, together=elsewhere)
        here = preflight(settings, corpus, folder, needed)
        assert found == here
        assert [(type(c.error), str(c.error)) for c in found.stops] == [
            (type(c.error), str(c.error)) for c in here.stops
        ]
    assert calls == [2, 2]
    assert len(found.stops) == 2


def test_a_run_that_ends_at_the_clips_needs_no_class(tmp_path: Path) -> None:
    """It stops later, at the clips: these files are no videos."""
    folder_of(tmp_path, gestures=4)
    settings = parse_config(json.loads(Path(written(tmp_path)).read_text()))
    with without_ray(), pytest.raises(StageError, match="No clip could be planned"):
        pipeline.run(settings, until="clips")
    assert (tmp_path / "run" / "tracks").exists()


def test_a_dry_run_prints_the_preflight(tmp_path: Path) -> None:
    folder_of(tmp_path, gestures=12, lift=6)
    file = written(tmp_path, activations={"layers": ["lat"]}, tracks={"weights": str(tmp_path / "no.pt")})
    result = CliRunner().invoke(cli.app, ["run", file, "--dry-run"])
    assert result.exit_code == 2
    assert "stop detector" in result.output
    assert "The run can't start" in result.output
    assert "Nearest: late" in result.output
    shown = CliRunner().invoke(cli.app, ["run", written(tmp_path), "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(next(line for line in shown.stdout.splitlines() if line.startswith("{")))
    assert found["labels"][0] == {"label": "gestures", "videos": 12, "class": None, "nearest": None}
    assert {c["subject"]: c["verdict"] for c in found["checks"]}["labels"] == "warn"
    assert [stage["state"] for stage in found["stages"]][1] == "to do"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_labels_of_a_world_that_is_not_rendered_are_checked(tmp_path: Path) -> None:
    """A dry run knows them without rendering, and they are those that the world will have."""
    settings = parse_config(
        {
            "videos": {"world": {"videos": 40, "seed": 3}},
            "clips": {**SMALL, "per_class": 4, "min_per_class": 3, "classes": ["lift", "yoga"]},
            "out": str(tmp_path / "run"),
        }
    )
    found = check(settings)
    assert not (tmp_path / "run").exists()
    write_world(str(tmp_path / "world"), videos=40, seed=3)
    labels = pq.read_table(tmp_path / "world" / "videos.parquet")["label"].to_pylist()
    assert {row.label: row.videos for row in found.labels} == Counter(labels)
    assert [(c.subject, c.message.split(". Change")[0]) for c in found.stops] == [
        ("classes", "`clips.classes`: the model has no class 'yoga'. It has: lift, put_down, push_left, push_right")
    ]


def test_progress_without_the_method_is_left_alone() -> None:
    found = Preflight((Check("model", "ok", "o"),), (LabelRow("a", 1, "a"),))
    seen: list[Preflight] = []

    class Receiver:
        def checked(self, found: Preflight) -> None:
            seen.append(found)

    pipeline.tell_checked(object(), found)  # type: ignore[arg-type]
    pipeline.tell_checked(Receiver(), found)  # type: ignore[arg-type]
    assert seen == [found]
