"""Words for open-vocabulary detectors: tokens, text encoders, vectors beside the run, and the boxes of `predict()`."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.text_encoders import Clip, Mobile, saved_program, saved_weights
from tests.helpers.ultralytics_networks import (
    network,
    picture,
    predicted,
    pt_of,
    saved_pt,
    tracks_config,
)
from vtcav_ray.config import Config, TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.preflight.detector import detector_checks
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks import text_encoder, vocabulary
from vtcav_ray.tracks.clip_tokens import tokenize
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.sources import Ultralytics
from vtcav_ray.tracks.vocabulary import TextFeatures, text_features

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("no_warm_up")]
WORLD, YOLOE = "v8/yolov8-worldv2.yaml", "v8/yoloe-v8-seg.yaml"
WORDS = ("red card", "stretcher", "goal keeper")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Text encoders on disk: CLIP's archive and state dict, and a program."""
    folder = tmp_path_factory.mktemp("encoders")
    return {
        "archive": saved_program(Clip().half().float(), folder / "ViT-B-32.pt"),
        "weights": saved_weights(Clip(), folder / "clip_state.pt"),
        "program": saved_program(Mobile(), folder / "mobileclip_blt.ts"),
    }


def tracks(weights: str, **options: Any) -> TracksConfig:
    return tracks_config(weights, **{"vocabulary": WORDS, **options})


def run_config(settings: TracksConfig, **sections: Any) -> Config:
    stated = settings.model_dump(exclude_none=True)
    return Config.model_validate({"videos": {"uri": "x"}, "out": "y", "tracks": stated, **sections})


def test_tokens_are_those_of_clip() -> None:
    """The figures are of OpenAI's tokeniser."""
    wanted = {
        "a photo of a cat": [320, 1125, 539, 320, 2368],
        "Red  card": [736, 2601],
        "Diagonal  Stretcher's 12": [6851, 918, 12265, 3466, 568, 272, 273],
        "naïve e\u0301clair 🏀 basketball!!!": [1097, 35689, 563, 3459, 14039, 8813, 3835, 995],
        "don't--'s it’s": [847, 713, 2154, 262, 338, 585, 568],
        "日本語のテキスト": [39121, 44353, 34002, 252, 21575, 2429, 228, 47121, 32421],
    }
    for text, row in zip(wanted, tokenize(list(wanted)), strict=True):
        inner = wanted[text]
        assert row[: len(inner) + 1].tolist() == [49406, *inner]
    (long,) = tokenize(["word " * 100])
    assert len(long) == 77
    assert long[[0, 1, 75, 76]].tolist() == [49406, 2653, 2653, 49407]
    assert tokenize(["red card"])[0].tolist() == [49406, 736, 2601, 49407] + [0] * 73


@pytest.mark.slow
def test_clip_is_computed_as_openai_does(encoders: dict[str, str]) -> None:
    tokens = torch.from_numpy(tokenize(WORDS)).long()
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(Clip().half().float()(tokens), dim=-1).numpy()
    for kind in ("archive", "weights"):
        found = text_features(tracks("x.pt", text_encoder=encoders[kind]), None)
        assert found.encoder == "CLIP"
        assert np.abs(found.vectors - wanted).max() < 1e-5
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01, "words that all encode alike show nothing"


@pytest.mark.slow
def test_the_program_in_clips_archive_is_not_run(encoders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a program was run")

    monkeypatch.setattr(torch.jit, "load", never)
    settings = tracks("x.pt", text_encoder=encoders["archive"]).trusting("nowhere")
    assert text_features(settings, None).vectors.shape == (3, 512)


def test_another_program_runs_only_if_it_may(encoders: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    settings = tracks("x.pt", text_encoder=encoders["program"])
    tokens = torch.from_numpy(tokenize(WORDS))
    with torch.no_grad():
        wanted = Mobile()(tokens).numpy()
    with caplog.at_level(logging.INFO, logger="vtcav_ray"):
        found = text_features(settings, None)
    assert "is a TorchScript program, and is run" in caplog.text
    assert found.encoder == "TorchScript"
    assert np.allclose(found.vectors, wanted, atol=1e-6)
    with pytest.raises(ConfigError, match=r"`tracks\.text_encoder`.*TorchScript program.*--trust-code"):
        text_features(settings.trusting("nowhere"), None)


@pytest.mark.parametrize(
    ("content", "message"),
    [({"a": torch.zeros(2)}, "not CLIP's text encoder"), ({"f": len}, "refused: it holds `builtins.len`")],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(StageError, match=message):
        text_features(tracks("x.pt", text_encoder=str(path)), None)
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(StageError, match=r"other\.pt.*tracks\.text_encoder"):
        text_features(tracks("x.pt", text_encoder=str(path)), None)


def test_weights_of_the_wrong_size_are_a_clear_error(tmp_path: Path) -> None:
    state = Clip().state_dict()
    state["text_projection"] = torch.zeros(7, 5)
    path = tmp_path / "cut.pt"
    torch.save(state, path)
    with pytest.raises(StageError, match=r"cut\.pt does not work"):
        text_features(tracks("x.pt", text_encoder=str(path)), None)


def test_without_an_encoder_the_error_says_which_file_and_how_to_give_it(tmp_path: Path) -> None:
    weights = pt_of(WORLD, tmp_path)
    config = run_config(tracks(weights))
    with pytest.raises(ConfigError) as caught:
        Ultralytics.ingredients(config)
    for words in (str(tmp_path / "ViT-B-32.pt"), "mobileclip_blt.ts", "`tracks.text_encoder: PATH or URL`"):
        assert words in str(caught.value)
    (check,) = detector_checks(config)
    assert check.verdict == "stop"
    with pytest.raises(ConfigError, match=r"`tracks\.text_encoder`: .*none\.pt does not exist"):
        Ultralytics.ingredients(run_config(tracks(weights, text_encoder=str(tmp_path / "none.pt"))))


def test_vectors_are_computed_once_and_kept_beside_the_run(
    tmp_path: Path, encoders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, folder = tracks("x.pt", text_encoder=encoders["archive"]), Folder(str(tmp_path / "run"))
    first = text_features(settings, folder)
    (kept,) = (tmp_path / "run" / "vocabulary").iterdir()
    computed: list[str] = []
    encode = text_encoder.encode
    monkeypatch.setattr(text_encoder, "encode", lambda *given: computed.append("again") or encode(*given))
    again = text_features(settings, folder)
    assert computed == []
    assert np.array_equal(first.vectors, again.vectors)
    assert again.encoder == "CLIP"
    # Other words, another encoder and an altered file are computed.
    text_features(settings.model_copy(update={"vocabulary": ("ball",)}), folder)
    text_features(settings.model_copy(update={"text_encoder": encoders["weights"]}), folder)
    assert len(computed) == 2
    kept.write_text(kept.read_text().replace("0.0", "0.1"))
    assert np.array_equal(text_features(settings, folder).vectors, first.vectors)
    assert len(computed) == 3


def test_the_key_covers_words_and_encoder_but_not_their_place(tmp_path: Path, encoders: dict[str, str]) -> None:
    weights = pt_of(WORLD, tmp_path)
    (tmp_path / "ViT-B-32.pt").write_bytes(Path(encoders["archive"]).read_bytes())
    named = Ultralytics.ingredients(run_config(tracks(weights, text_encoder=encoders["archive"])))
    assert named == Ultralytics.ingredients(run_config(tracks(weights)))
    assert named != Ultralytics.ingredients(run_config(tracks(weights, text_encoder=encoders["weights"])))
    assert "text_encoder" not in Ultralytics.ingredients(run_config(TracksConfig(weights=weights)))


def with_words(model: Any, features: TextFeatures) -> Any:
    """Set the classes as Ultralytics does, with these features in the place of its own encoder's."""
    model, vectors = copy.deepcopy(model), torch.from_numpy(features.vectors)[None]
    if hasattr(model.model[-1], "reprta"):
        model.set_classes(list(WORDS), model.model[-1].get_tpe(vectors).detach())
    else:
        model.get_text_pe = lambda *_, **__: vectors
        model.set_classes(list(WORDS))
        del model.get_text_pe
    model.names = dict(enumerate(WORDS))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("name", "encoder"), [(WORLD, "archive"), (YOLOE, "program")])
def test_the_boxes_are_those_of_predict_with_these_classes(
    tmp_path: Path, encoders: dict[str, str], name: str, encoder: str
) -> None:
    model = network(name)
    for part in model.model[-1].cv4:  # three words score lower than eighty: raise the scores
        part.bias.data.fill_(0.0)
        part.logit_scale.data.fill_(2.5)
    weights = saved_pt(model, tmp_path, name)
    settings = tracks(weights, text_encoder=encoders[encoder])
    features = text_features(settings, None)
    detector = Detector(settings, "cpu", features=features)
    assert detector.names == dict(enumerate(WORDS))
    (tmp_path / "set").mkdir()
    wanted = predicted(saved_pt(with_words(model, features), tmp_path / "set", name), name, picture())
    assert len(wanted) > 5
    (found,) = detector([picture()])
    # Weights are saved as float16, so the reference's vectors are rounded: the last bits of the scores differ.
    order = np.lexsort((wanted[:, 0].round(), wanted[:, 1].round(), wanted[:, 5]))
    mine = np.lexsort((found.boxes[:, 0].round(), found.boxes[:, 1].round(), found.classes))
    assert len(found.boxes) == len(wanted)
    assert found.classes[mine].tolist() == wanted[order, 5].tolist()
    assert np.abs(found.boxes[mine] - wanted[order, :4]).max() < 1
    assert np.abs(found.confidence[mine] - wanted[order, 4]).max() < 0.01


@pytest.mark.slow
def test_weights_that_take_no_words_are_refused_by_their_head(tmp_path: Path, encoders: dict[str, str]) -> None:
    name = "v8/yolov8.yaml"
    settings = tracks(pt_of(name, tmp_path), text_encoder=encoders["archive"])
    features = text_features(settings, None)
    with pytest.raises(ConfigError, match=r"`tracks\.vocabulary`.*`Detect`, whose classes are fixed"):
        Detector(settings, "cpu", features=features)
    with pytest.raises(ConfigError, match=r"fixed when it was exported"):
        Detector(tracks("any.onnx"), "cpu", features=features)
    world = tracks(pt_of(WORLD, tmp_path), text_encoder=encoders["program"])
    with pytest.raises(ConfigError, match=r"`tracks\.text_encoder`.*ViT-B-32\.pt.*TorchScript"):
        Detector(world, "cpu", features=text_features(world, None))
    fused = network(YOLOE)
    fused.model[-1].fuse(fused.pe)
    fused = tracks(saved_pt(fused, tmp_path, YOLOE), text_encoder=encoders["program"])
    with pytest.raises(ConfigError, match=r"classes were fused"):
        Detector(fused, "cpu", features=text_features(fused, None))


@pytest.mark.slow
def test_the_preflight_knows_the_words(tmp_path: Path, encoders: dict[str, str]) -> None:
    weights = pt_of(WORLD, tmp_path)
    settings = tracks(weights, text_encoder=encoders["archive"])
    concepts = [{"name": "card", "object": "red card"}, {"name": "cup", "object": "cup"}]
    checks = detector_checks(run_config(settings, clips={"concepts": concepts}), Folder(str(tmp_path / "run")))
    assert [check.verdict for check in checks] == ["ok", "warn"]
    assert "3 classes: red card, stretcher, goal keeper" in checks[0].message
    assert "'cup'" in checks[1].message
    assert len(list((tmp_path / "run" / vocabulary.FOLDER).iterdir())) == 1


def test_config_errors() -> None:
    for section, message in (
        ({"vocabulary": []}, "at least 1"),
        ({"vocabulary": ["cup", "cup"]}, "twice: cup"),
        ({"vocabulary": [" "]}, "vocabulary"),
        ({"text_encoder": "a.pt"}, "Set both, or neither"),
        ({"vocabulary": ["cup"], "names": "n.txt"}, "Set one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            TracksConfig.model_validate(section)
