"""Hostile detector weights and checkpoints: nothing in them runs, and reading them takes no more than their size."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.weight_files import LAYERS, Calls, network, refused, saved
from vtcav_ray.store.assets import resolve_asset
from vtcav_ray.tracks.detector_weights import load_pt
from vtcav_ray.tracks.ultralytics_import import import_ultralytics

import_ultralytics()
from ultralytics.nn.modules.conv import Conv, RepConv  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402


def test_a_constructor_is_not_called_so_its_arguments_are_not_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "ran"
    yaml = {"nc": 1, "backbone": LAYERS[:2], "head": LAYERS[2:], "scales": {}}
    evaluated = {**yaml, "activation": f"__import__('os').mkdir({str(canary)!r}) or torch.nn.SiLU()"}
    refused(saved({"model": Calls(DetectionModel, evaluated, 3, None, False)}), tmp_path, "calls", "DetectionModel")
    assert not canary.exists()
    with pytest.raises(TypeError, match="blocked"):  # by Ultralytics' own switch, which is also on
        DetectionModel(dict(evaluated), verbose=False)
    monkeypatch.setattr("ultralytics.nn.tasks.SAFE_LOAD", False)
    DetectionModel(dict(evaluated), verbose=False)  # an ordinary constructor runs it
    assert canary.exists()


def test_a_second_file_is_not_loaded_by_a_layer_of_that_name(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    (tmp_path / "other.pt").write_bytes(pickle.dumps(Calls(os.mkdir, str(canary))))
    layer = [-1, 1, "torch_safe_load", [f"'{tmp_path}/other.pt'"]]
    hostile = {"nc": 1, "backbone": [layer], "head": LAYERS[2:], "scales": {}}
    refused(saved({"model": Calls(DetectionModel, hostile)}), tmp_path, "calls")
    assert not canary.exists()


@pytest.mark.parametrize("function", [Conv, RepConv, torch.nn.Linear, torch.nn.Sequential, torch.nn.Upsample])
def test_no_layer_may_be_made_by_a_call_wherever_it_lies(function: Any, tmp_path: Path) -> None:
    model = network()
    model.model[0].__dict__["act"] = Calls(function, 3, 4)
    for content in (
        {"model": model},
        {"model": network(), "train_args": Calls(function, 3, 4)},
        Calls(function, 100_000, 100_000),
    ):
        refused(saved(content), tmp_path, "calls")


@pytest.mark.slow
def test_hooks_methods_and_what_could_be_called_are_refused(tmp_path: Path) -> None:
    def with_state(change: Callable[[Any], None]) -> bytes:
        model = network()
        change(model)
        return saved({"model": model})

    def put(layer: int, **attributes: Any) -> Callable[[Any], None]:
        return lambda model: model.model[layer].__dict__.update(attributes)

    for change, word in (
        (put(0, _forward_hooks=OrderedDict({1: "x"})), "_forward_hooks"),
        (put(0, _forward_pre_hooks=OrderedDict({1: 2})), "_forward_pre_hooks"),
        (put(0, _my_hooks={1: 2}), "_my_hooks"),
        (put(0, fuse_convs=1, forward_fuse=2), "forward_fuse"),
        (put(0, eval=3), "'eval'"),
        (put(0, __class__="x"), "__class__"),
        (put(0, forward=torch.nn.SiLU()), "forward"),
        (put(0, _secret=1), "_secret"),
        (put(0, **{"a.b": 1}), "a.b"),
        (put(0, act=torch.nn.LSTM(2, 2)), "LSTM"),
        (put(0, note="x" * 5000), "note"),
        (put(0, count=1 << 40), "count"),
        (put(0, _modules=OrderedDict({"conv": "text"})), "conv"),
        (put(0, _parameters=OrderedDict({"w": 1})), "'w'"),
        (put(1, what=torch.float32, more=Path("/etc/passwd")), "more"),
        (lambda m: m.__dict__.update(stride=torch.tensor([float("nan")])), "stride"),
        (lambda m: m.__dict__.update(stride=torch.tensor([1e9])), "stride"),
        (lambda m: m.__dict__.update(names={0: ["x"]}), "names"),
        (lambda m: m._modules.pop("model"), "sequence"),
        (lambda m: m.model._modules.clear(), "sequence"),
    ):
        refused(with_state(change), tmp_path, word)


@pytest.mark.parametrize(
    "names",
    [{7: "a", 9: "b"}, {-1: "a", 0: "b"}, {}, {0: "a\x1b[2J", 1: "b"}, {i: str(i) for i in range(90_000)}, {0: 1}],
    ids=["sparse", "negative", "none", "control", "many", "number"],
)  # fmt: skip
def test_names_that_the_network_does_not_have_are_reported(tmp_path: Path, names: dict[int, Any]) -> None:
    model = network()
    model.names = names
    refused(saved({"model": model}), tmp_path, "names")


@pytest.mark.slow
def test_networks_that_do_not_work_are_reported(tmp_path: Path) -> None:
    def without(name: str) -> Callable[[Any], Any]:
        return lambda model: model.model[0]._modules.pop(name)

    def put(layer: int, **attributes: Any) -> Callable[[Any], Any]:
        return lambda model: model.model[layer].__dict__.update(attributes)

    def activation(layer: torch.nn.Module) -> Callable[[Any], Any]:
        return lambda model: model.model[0]._modules.update(act=layer)

    for change in (
        without("act"), without("conv"), put(2, nc=1 << 20), put(2, reg_max=1 << 20), put(2, nl=1 << 20),
        put(2, stride=3), put(2, one2one_cv2=1, one2one_cv3=2, _end2end=True), lambda m: setattr(m, "save", 5),
        activation(torch.nn.Upsample(scale_factor=256)), activation(torch.nn.Upsample(size=(1 << 20, 1 << 20))),
        activation(torch.nn.AdaptiveAvgPool2d((1 << 15, 1 << 15))), activation(torch.nn.ZeroPad2d(1 << 17)),
        activation(torch.nn.MaxPool2d(3, stride=1 << 10)),
    ):  # fmt: skip
        model = network()
        change(model)
        refused(saved({"model": model}), tmp_path)


def test_another_objects_forward_is_not_taken_for_a_layers_own(tmp_path: Path) -> None:
    model = network()
    model.model[0].forward = model.model[1].forward
    refused(saved({"model": model}), tmp_path, "forward")


def test_what_is_evaluated_later_is_left_out() -> None:
    model = network()
    model.yaml = {"activation": "__import__('os').abort()", "yaml_file": "x"}
    model.args = {"model": "x"}
    model.criterion = torch.nn.BCEWithLogitsLoss()
    model.transforms = None
    loaded = load_pt(saved({"model": model}), "x.pt")
    for name in ("yaml", "args", "criterion", "transforms"):
        assert name not in vars(loaded)
    assert loaded.names == {0: "cup", 1: "ball"}


def test_a_network_that_contains_itself_or_repeats_itself_without_end_is_refused(tmp_path: Path) -> None:
    model = network()
    model.model[0]._modules["act"] = model.model[0]
    refused(saved({"model": model}), tmp_path, "contains itself")
    many: Any = torch.nn.SiLU()
    for _ in range(12):
        many = torch.nn.Sequential(*[many] * 10)
    model = network()
    model.model[0]._modules["act"] = many
    refused(saved({"model": model}), tmp_path, "repeat")
    deep: Any = torch.nn.SiLU()
    for _ in range(100):
        deep = torch.nn.Sequential(deep)
    model = network()
    model.model[0]._modules["act"] = deep
    refused(saved({"model": model}), tmp_path, "deep")


@pytest.mark.slow
def test_what_a_layer_says_of_its_size_is_held_to_its_weights(tmp_path: Path) -> None:
    def lying(**attributes: Any) -> bytes:
        model = network()
        model.model[0].conv.__dict__.update(attributes)
        return saved({"model": model})

    for attributes in (
        {"in_channels": 1_000_000}, {"out_channels": 9}, {"groups": 0}, {"padding": (10_000, 10_000)},
        {"kernel_size": (5, 5)}, {"stride": (-1, 1)}, {"groups": "x"},
    ):  # fmt: skip
        refused(lying(**attributes), tmp_path, "Conv2d")
    model = network()
    model.model[0].bn.num_features = 1_000_000
    refused(saved({"model": model}), tmp_path, "BatchNorm2d")
    model = network()
    model.model[0].f = 17  # an earlier layer that does not exist
    refused(saved({"model": model}), tmp_path, "does not work")


@pytest.mark.slow
def test_ultralytics_own_switch_is_on() -> None:
    program = (
        "from vtcav_ray.tracks.ultralytics_import import import_ultralytics as i; i(); "
        "import ultralytics.nn.tasks as t; print(t.SAFE_LOAD)"
    )
    reported = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ULTRALYTICS_SAFE_LOAD": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert reported.stdout.strip() == "True"


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


@pytest.mark.parametrize("which", ["packaged", "shared", "fresh", "half"])
@pytest.mark.filterwarnings("ignore")
def test_a_good_file_gives_the_network_that_torch_gives(which: str, request: pytest.FixtureRequest) -> None:
    """Weights, buffers and outputs equal those of an ordinary, trusting load to the bit."""
    if which == "shared":
        data = (request.getfixturevalue("shared_data") / "weights" / "yolov8n_dequant_coco.pt").read_bytes()
    elif which == "packaged":
        data = Path(resolve_asset("asset:detector.pt")).read_bytes()
    else:
        data = saved({"model": network().half() if which == "half" else network(), "ema": None})
    theirs = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)["model"].float().eval()
    ours = load_pt(data, "good.pt")
    assert type(ours) is type(theirs)
    assert [type(m) for m in ours.modules()] == [type(m) for m in theirs.modules()]
    assert state_of(ours).keys() == state_of(theirs).keys()
    for name, weight in state_of(ours).items():
        assert torch.equal(weight, state_of(theirs)[name]), name
    pixels = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answers = [model.fuse(verbose=False)(pixels)[0] for model in (ours, theirs)]
    assert torch.equal(*answers)
