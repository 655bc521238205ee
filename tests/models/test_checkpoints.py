from __future__ import annotations

import functools
import hashlib
import http.server
import io
import pickle
import threading
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError, EnvironmentFault, StageError
from vtcav_ray.models import Recogniser, load_recogniser, model_digest
from vtcav_ray.models.checkpoints import load_weights, read_checkpoint
from vtcav_ray.store import access
from vtcav_ray.store.assets import resolve_asset


@pytest.fixture(scope="module")
def weights(swin: Recogniser) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in swin.module.state_dict().items()}


def published(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Make a checkpoint as MMEngine's runner saves it: weights, the run's record of losses, and more."""
    from mmengine.logging import HistoryBuffer

    return {
        "meta": {
            "epoch": 30,
            "iter": 6000,
            "cfg": "model = dict()",
            "seed": 0,
            "dataset_meta": {"classes": ["a", "b", "c", "d"]},
            "time": "20220930_230303",
            "mean_accuracy": np.float64(0.78),
        },
        "state_dict": weights,
        "message_hub": {
            "log_scalars": {"train/loss": HistoryBuffer([0.5, 0.25], [1, 1])},
            "runtime_info": {"iter": 6000, "loss": np.array(0.25)},
            "resumed_keys": {},
        },
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "param_schedulers": [{"last_step": 30}],
    }


def saved(content: Any, path: str) -> str:
    with fsspec.open(path, "wb") as file:
        torch.save(content, file)
    return path


def assert_same(recogniser: Recogniser, weights: dict[str, torch.Tensor]) -> None:
    state = recogniser.module.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[k], weights[k]) for k in weights)


@pytest.mark.slow
def test_published_format_from_a_url(weights: dict[str, torch.Tensor]) -> None:
    url = saved(published(weights), "memory://checkpoints/published.pth")
    recogniser = load_recogniser(ModelConfig(checkpoint=url), "cpu")
    assert_same(recogniser, weights)
    assert not recogniser.untrained
    # the config's class names override those of the checkpoint
    assert recogniser.class_names == ("lift", "put_down", "push_left", "push_right")
    assert read_checkpoint(url).class_names == ("a", "b", "c", "d")


@pytest.mark.slow
def test_published_format_over_http(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local server acts as download.openmmlab.com: weights, the digest in the name, and errors."""
    plain = Path(saved(published(weights), str(tmp_path / "plain.pth")))
    digits = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    named = plain.rename(tmp_path / f"swin_rgb_20220930-{digits}.pth")
    (tmp_path / f"swin_rgb_20220930-{int(digits, 16) ^ 1:08x}.pth").write_bytes(named.read_bytes())

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Silent, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        recogniser = load_recogniser(ModelConfig(checkpoint=f"{base}/{named.name}"), "cpu")
        assert_same(recogniser, weights)
        # The digest in the stage's key depends on the bytes, not on their place.
        assert recogniser.digest == model_digest(ModelConfig(checkpoint=str(named)))
        with pytest.raises(StageError, match="damaged"):
            read_checkpoint(f"{base}/swin_rgb_20220930-{int(digits, 16) ^ 1:08x}.pth")
        with pytest.raises(ConfigError, match="No checkpoint at http"):
            read_checkpoint(f"{base}/absent.pth")
        server.shutdown()
    monkeypatch.setattr(access, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(EnvironmentFault, match=r"can't be read: .* could not be reached"):
        read_checkpoint(f"{base}/{named.name}")  # the server has stopped


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {f"module.{k}": v for k, v in w.items()},
        lambda w: {"state_dict": {f"module.model.{k}": v for k, v in w.items()}},
        lambda w: {"model_ema": {"module": 1, **{f"module.{k}": v for k, v in w.items()}}},
        lambda w: {"ema_state_dict": {"steps": torch.tensor(5), **{f"module.{k}": v for k, v in w.items()}}},
        lambda w: {k: v for k, v in w.items() if "relative_position_index" not in k},
        lambda w: {**w, "data_preprocessor.mean": torch.zeros(3, 1, 1, 1)},
    ],
    ids=["plain", "module", "lightning", "model_ema", "mmengine_ema", "no_indices", "with_mean"],
)
def test_other_formats(swin: Recogniser, weights: dict[str, torch.Tensor], tmp_path: Path, wrap: Any) -> None:
    path = saved(wrap(weights), str(tmp_path / "weights.pth"))
    read = read_checkpoint(path).weights
    for weight in swin.module.parameters():
        weight.data.add_(1.0)
    load_weights(swin.module, read, path)
    assert_same(swin, weights)


class Attack:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.canary,)


def test_a_malicious_pickle_is_refused_and_nothing_in_it_is_run(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    canary = tmp_path / "executed"
    in_meta = saved({"state_dict": weights, "meta": Attack(canary)}, str(tmp_path / "attack.pth"))
    bare = tmp_path / "bare.pth"
    bare.write_bytes(pickle.dumps(Attack(canary)))
    for path in (in_meta, str(bare)):
        with pytest.raises(StageError, match="refused"):
            read_checkpoint(path)
        with pytest.raises(StageError, match="refused"):
            load_recogniser(ModelConfig(checkpoint=path), "cpu")
    assert not canary.exists()
    pickle.loads(bare.read_bytes())  # read in the ordinary way, the same file runs code
    assert canary.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "mmengine.config.config.Config.fromfile", "numpy.load", "torch.load"]
)
def test_names_that_are_not_on_the_list_are_refused(name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "weights.pth"
    path.write_bytes(b"c" + f"{module}\n{attribute}\n".encode() + b"(S'x'\ntR.")
    with pytest.raises(StageError, match="refused"):
        read_checkpoint(str(path))


@pytest.mark.slow
def test_missing_unexpected_and_misshapen_keys_are_listed(
    swin: Recogniser, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    wrong = dict(weights)
    del wrong["backbone.norm3.bias"]
    wrong["backbone.extra.weight"] = torch.zeros(1)
    wrong["cls_head.fc_cls.weight"] = torch.zeros(400, 256)
    path = saved(wrong, str(tmp_path / "wrong.pth"))
    with pytest.raises(StageError) as caught:
        load_weights(swin.module, read_checkpoint(path).weights, path)
    text = str(caught.value)
    assert "missing: backbone.norm3.bias" in text
    assert "not in the model: backbone.extra.weight" in text
    assert "cls_head.fc_cls.weight [400, 256] (model: [4, 256])" in text
    assert_same(swin, weights)  # loaded completely or not at all


def test_files_that_are_no_checkpoint(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(StageError):
        read_checkpoint(str(truncated))
    empty = tmp_path / "empty.pth"
    empty.write_bytes(b"")
    with pytest.raises(StageError):
        read_checkpoint(str(empty))
    with pytest.raises(StageError, match="no weights"):
        read_checkpoint(saved({"epoch": 3}, str(tmp_path / "none.pth")))
    with pytest.raises(StageError, match="list"):
        read_checkpoint(saved([1, 2], str(tmp_path / "list.pth")))
    with pytest.raises(ConfigError, match="No checkpoint"):
        read_checkpoint(str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match="folder"):
        read_checkpoint(str(tmp_path))


def test_digest_in_a_published_name_is_checked(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    plain = Path(saved(published(weights), str(tmp_path / "plain.pth")))
    digits = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    named = plain.rename(tmp_path / f"swin_rgb_20220930-{digits}.pth")
    assert read_checkpoint(str(named)).weights.keys() == weights.keys()
    damaged = named.rename(tmp_path / f"swin_rgb_20220930-{int(digits, 16) ^ 1:08x}.pth")
    with pytest.raises(StageError, match="damaged"):
        read_checkpoint(str(damaged))


@pytest.mark.slow
def test_untrained_weights_come_from_the_seed() -> None:
    states = [
        load_recogniser(ModelConfig(checkpoint="untrained"), "cpu", seed=seed).module.state_dict() for seed in (0, 0, 1)
    ]
    key = "backbone.layers.0.blocks.0.attn.qkv.weight"
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])


@pytest.mark.slow
def test_the_shipped_recogniser_loads() -> None:
    resolve_asset("asset:recogniser.pth")
    recogniser = load_recogniser(ModelConfig(), "cpu")
    assert recogniser.class_names == ("lift", "put_down", "push_left", "push_right")
    assert recogniser.description.tag.startswith("recogniser.pth@")


def test_storage_that_does_not_answer_is_not_the_checkpoints_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(self: MemoryFileSystem, path: str, *_: object, **__: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(access, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(MemoryFileSystem, "open", no_answer)
    with pytest.raises(EnvironmentFault, match="nobody there"):
        read_checkpoint("memory://models/epoch_1.pth")
