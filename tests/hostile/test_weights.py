"""Hostile detector weights and checkpoints: nothing in them runs, and reading them takes no more than their size."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.models.checkpoints import read_checkpoint
from vtcav_ray.store.assets import resolve_asset
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.detector_weights import load_pt
from vtcav_ray.tracks.ultralytics_import import import_ultralytics

import_ultralytics()
from ultralytics.nn.modules.conv import Conv, RepConv  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402

LAYERS = [[-1, 1, "Conv", [8, 3, 4]], [-1, 1, "Conv", [16, 3, 2]], [[1], 1, "Detect", ["nc"]]]


def network() -> Any:
    torch.manual_seed(0)
    model = DetectionModel({"nc": 2, "backbone": LAYERS[:2], "head": LAYERS[2:], "scales": {}}, verbose=False)
    model.names = {0: "cup", 1: "ball"}
    return model


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def packed(pickled: bytes, storages: dict[str, bytes] | None = None, *, compress: int = zipfile.ZIP_STORED) -> bytes:
    """Make a torch file from a hand-made pickle and storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3")
        archive.writestr("a/byteorder", "little")
        for key, content in (storages or {}).items():
            archive.writestr(f"a/data/{key}", content)
    return buffer.getvalue()


class Calls:
    """An object that pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def refused(data: bytes, tmp_path: Path, *words: str) -> str:
    """Check that `load_pt` and a run's detector refuse a file with a clear error."""
    path = tmp_path / "hostile.pt"
    path.write_bytes(data)
    config = TracksConfig(weights=str(path), image_size=64, batch_size=1)
    with pytest.raises((StageError, ConfigError)) as told:
        Detector(config, "cpu")(np.zeros((1, 64, 64, 3), np.uint8))
    assert told.value.exit_status in (2, 3)
    assert "hostile.pt" in str(told.value)
    for word in words:
        assert word in str(told.value)
    return str(told.value)


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
def test_names_that_the_network_does_not_have_are_told(tmp_path: Path, names: dict[int, Any]) -> None:
    model = network()
    model.names = names
    refused(saved({"model": model}), tmp_path, "names")


def test_networks_that_do_not_work_are_told(tmp_path: Path) -> None:
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


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu%btQ%b%b%b\x89}tR."
)


def number(n: int) -> bytes:
    width = (n.bit_length() + 8) // 8
    return b"\x8a" + bytes([width]) + n.to_bytes(width, "little", signed=True)


def tensor_file(stored: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], content: bytes) -> bytes:
    """Write a checkpoint {"w": tensor} with any claims about its storage and tensor."""

    def whole(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(number(n) for n in numbers) + b"t"

    tensor = TENSOR % (number(stored), number(offset), whole(size), whole(stride))
    return packed(b"\x80\x02}X\x01\x00\x00\x00w" + tensor[:-1] + b"s.", {"0": content})


@pytest.mark.parametrize(
    ("stored", "offset", "size", "stride"),
    [
        (4, 0, (1 << 32,), (0,)), (4, 0, (5,), (1,)), (4, 3, (2,), (1,)), (4, 0, (2,), (-1,)), (4, -1, (2,), (1,)),
        (1 << 32, 0, (1 << 32,), (1,)), (4, 0, (2, 2), (1 << 40, 1)), (4, 0, (1 << 31, 1 << 31), (0, 0)),
        (4, 1 << 50, (0,), (1,)), (3, 0, (3,), (1,)), (4, 0, (-1,), (1,)), (4, 0, (2,) * 40, (0,) * 40),
    ],
)  # fmt: skip
def test_a_tensor_takes_no_more_than_the_file_holds(
    tmp_path: Path, stored: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    path = tmp_path / "hostile.pth"
    path.write_bytes(tensor_file(stored, offset, size, stride, bytes(16)))
    assert path.stat().st_size < 1500
    tracemalloc.start()
    try:
        with pytest.raises(StageError, match="refused"):
            read_checkpoint(str(path))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_tensor_that_fits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fits.pth"
    path.write_bytes(tensor_file(4, 0, (2, 2), (1, 2), np.arange(4, dtype=np.float32).tobytes()))
    assert read_checkpoint(str(path)).weights["w"].tolist() == [[0, 2], [1, 3]]


def test_many_views_of_one_storage_may_not_add_up_to_more_than_the_file(tmp_path: Path) -> None:
    flat = torch.zeros(1000)
    views = {str(i): torch.as_strided(flat, (900,), (1,), i) for i in range(100)}
    (tmp_path / "views.pth").write_bytes(saved(views))
    with pytest.raises(StageError, match="together are larger"):
        read_checkpoint(str(tmp_path / "views.pth"))
    tied = {str(i): flat for i in range(100)}  # the same weights under many names take no more memory
    (tmp_path / "tied.pth").write_bytes(saved(tied))
    assert len(read_checkpoint(str(tmp_path / "tied.pth")).weights) == 100


def test_zips_that_grow_are_refused(tmp_path: Path) -> None:
    bomb = packed(b"\x80\x02}.", {"0": bytes(50_000_000)}, compress=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    (tmp_path / "bomb.pth").write_bytes(bomb)
    with pytest.raises(StageError, match="compressed"):
        read_checkpoint(str(tmp_path / "bomb.pth"))
    refused(bomb, tmp_path, "compressed")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"\x80\x02}.")
    refused(buffer.getvalue(), tmp_path, "one name")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    data = bytearray(packed(b"\x80\x02}.", {"0": bytes(4000), "1": b""}))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        size = archive.getinfo("a/data/0").file_size
    entry = data.rindex(b"a/data/1") - 46  # its directory entry, which then claims the bytes of the whole file
    data[entry + 20 : entry + 28] = (size * 2).to_bytes(4, "little") * 2
    refused(bytes(data), tmp_path, "more bytes")


@pytest.mark.parametrize(
    ("pickled", "word"),
    [
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "SHORT_BINUNICODE"),
        (b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R.", "os.system"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "model"),  # a memo of 2**31 places
        (b"\x80\x02" + b"(" * 100_000 + b".", "damaged"),
        (b"\x80\x02)" + b"\x85" * 200_000 + b".", "model"),
        (b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.", "model"),  # hashing it would overflow the stack
        (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".", "63 bits"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02cposix\nsystem\n.", "posix.system"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02cultralytics.nn.tasks\nattempt_load_weights\n.", "attempt_load_weights"),
        (b"\x80\x02cultralytics.nn.modules.block\ntorch.load\n.", "torch.load"),
        (b"\x80\x02ctorch.nn.modules.module\n__builtins__\n.", "__builtins__"),
        (b"N.", "model"),
        (b"", "damaged"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
        (b"\x80\x02]q\x00h\x00a.", "model"),
        (b"\x80\x02cbuiltins\ngetattr\nctorch.nn.modules.module\nModule\nX\x04\x00\x00\x00load\x86R.", "model"),
    ],
)  # fmt: skip
def test_pickles_that_torch_never_writes(tmp_path: Path, pickled: bytes, word: str) -> None:
    refused(packed(pickled), tmp_path, word)
    (tmp_path / "hostile.pth").write_bytes(packed(pickled))
    with pytest.raises(StageError):
        read_checkpoint(str(tmp_path / "hostile.pth"))


def test_a_key_that_repeats_itself_without_end_is_not_printed(tmp_path: Path) -> None:
    laughs = b"\x80\x02})" + b"".join(b"q%c" % i + (b"h%c" % i) * 1 + b"\x86" for i in range(60)) + b"Ns."
    (tmp_path / "hostile.pth").write_bytes(packed(laughs))
    with pytest.raises(StageError) as told:
        read_checkpoint(str(tmp_path / "hostile.pth"))
    assert len(str(told.value)) < 2000


def test_other_containers_are_refused(tmp_path: Path) -> None:
    refused(pickle.dumps({"model": network()}), tmp_path, "zip format")
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(scripted, str(tmp_path / "script.pt"))
    refused((tmp_path / "script.pt").read_bytes(), tmp_path, "refused")
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pth").write_bytes(buffer.getvalue())
    with pytest.raises(StageError, match=r"torch\.save"):
        read_checkpoint(str(tmp_path / "old.pth"))


def test_ultralytics_own_switch_is_on() -> None:
    program = (
        "from vtcav_ray.tracks.ultralytics_import import import_ultralytics as i; i(); "
        "import ultralytics.nn.tasks as t; print(t.SAFE_LOAD)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ULTRALYTICS_SAFE_LOAD": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "True"


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


def small_checkpoint() -> bytes:
    return saved({"state_dict": OrderedDict(w=torch.arange(6.0).view(2, 3)), "meta": {"classes": ["a"]}})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_a_checkpoint_is_told_in_a_sentence(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small_checkpoint())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 3))] = data.draw(st.binary(max_size=6))
    (tmp_path / "f.pth").write_bytes(content)
    with contextlib.suppress(StageError):  # no other error is allowed
        read_checkpoint(str(tmp_path / "f.pth"))


@settings(max_examples=300, deadline=None)
@given(
    pickled=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                [b"(", b")", b"}", b"]", b"t", b"s", b"u", b"a", b"e", b"R", b"\x81", b"b", b"Q", b"0", b"N", b"\x88",
                 b"\x85", b"\x86", b"\x87", b"q\x00", b"h\x00", b"K\x05", b"X\x05\x00\x00\x00model",
                 b"X\x01\x00\x00\x000",
                 b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n",
                 b"cultralytics.nn.tasks\nDetectionModel\n", b"ctorch.nn.modules.container\nSequential\n",
                 b"c__builtin__\nset\n", b"c__builtin__\ngetattr\n", b"ctorch\nSize\n",
                 b"X\x08\x00\x00\x00_modules", b"X\x05\x00\x00\x00names", b"X\x07\x00\x00\x00storage"]
            ),
            max_size=40,
        ).map(b"".join),
    )
)  # fmt: skip
def test_any_pickle_is_read_or_told_in_a_sentence(pickled: bytes) -> None:
    data = packed(b"\x80\x02" + pickled + b".", {"0": bytes(64)})
    with pytest.raises(StageError, match=r"f\.pt"):
        load_pt(data, "f.pt")
