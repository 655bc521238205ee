"""Text encoders of open-vocabulary detectors: words in, vectors out.

Two kinds of file are known.

- OpenAI's CLIP (`ViT-B-32.pt`, or a state dict of it), which YOLO-World was trained with. Only its weights are read, as
  plain data (`vtcav_ray.store.torch_files`), although the published file is a TorchScript archive: the programs in it
  are not run. The network is built here.
- A TorchScript program (`mobileclip_blt.ts`, `mobileclip2_b.ts`), which YOLOE was trained with. It has to be run, so it
  is treated like a TensorRT engine: see `vtcav_ray.tracks.programs`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import StageError
from vtcav_ray.store.pickle_data import Record, RefusedPickle
from vtcav_ray.store.torch_files import DamagedTorchFile, RefusedFile, TorchFile, is_program
from vtcav_ray.tracks.clip_tokens import tokenize
from vtcav_ray.tracks.programs import check_may_run

CLIP, PROGRAM = "CLIP", "TorchScript"
_HEAD_WIDTH = 64  # of CLIP's attention
_MOST_LAYERS = 64
_MOST_DEPTH = 16
_PROGRAM_MODULE = "__torch__."
_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


def encode(words: Sequence[str], data: bytes, config: TracksConfig, where: str) -> tuple[np.ndarray, str]:
    """Encode words.

    Args:
        words: each is one text.
        data: of the encoder's file.
        config: says which programs may be run.
        where: the file's name, for messages.

    Returns:
        (float32 [n, d], each of unit length; `CLIP` or `PROGRAM`, by the kind of file).

    Raises:
        ConfigError: the file is a program, and may not be run.
        StageError: the file is not a text encoder, is damaged, or does not work.
    """
    tokens = torch.from_numpy(tokenize(words))
    weights = _clip_weights(data, where)
    try:
        with torch.inference_mode():
            if weights is not None:
                vectors, kind = clip_text(tokens.long(), weights), CLIP
            else:
                check_may_run(config, "tracks.text_encoder", where, "a TorchScript program", "CLIP's weights")
                vectors, kind = _run(data, tokens), PROGRAM
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise StageError(
            f"The text encoder {where} does not work: {type(error).__name__}: {first} Give the file that Ultralytics "
            "uses (`tracks.text_encoder`)."
        ) from error
    if not isinstance(vectors, torch.Tensor) or vectors.ndim != 2 or len(vectors) != len(words):
        raise StageError(f"The text encoder {where} does not return one vector per text (`tracks.text_encoder`).")
    vectors = functional.normalize(vectors.float(), dim=-1)
    if not bool(torch.isfinite(vectors).all()):
        raise StageError(f"The text encoder {where} returns numbers that are not finite (`tracks.text_encoder`).")
    return vectors.numpy(), kind


def clip_text(tokens: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Run CLIP's text transformer.

    Args:
        tokens: int64 [n, 77].
        weights: float32, by OpenAI's names.

    Returns:
        float32 [n, d], not normalised: the projected activation at the end token, which has the largest number.
    """
    x = weights["token_embedding.weight"][tokens] + weights["positional_embedding"][: tokens.shape[1]]
    count, length, width = x.shape
    for layer in range(_layers(weights)):
        name = f"transformer.resblocks.{layer}."
        inner = _norm(x, weights, f"{name}ln_1")
        qkv = functional.linear(inner, weights[f"{name}attn.in_proj_weight"], weights[f"{name}attn.in_proj_bias"])
        heads = width // _HEAD_WIDTH
        query, key, value = qkv.view(count, length, 3, heads, _HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        inner = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + _linear(inner.transpose(1, 2).reshape(count, length, width), weights, f"{name}attn.out_proj")
        inner = _linear(_norm(x, weights, f"{name}ln_2"), weights, f"{name}mlp.c_fc")
        x = x + _linear(inner * torch.sigmoid(1.702 * inner), weights, f"{name}mlp.c_proj")
    x = _norm(x, weights, "ln_final")
    return x[torch.arange(count), tokens.argmax(-1)] @ weights["text_projection"]


def _norm(x: torch.Tensor, weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def _linear(x: torch.Tensor, weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _layers(weights: dict[str, torch.Tensor]) -> int:
    count = 0
    while f"transformer.resblocks.{count}.ln_1.weight" in weights and count < _MOST_LAYERS:
        count += 1
    return count


def _clip_weights(data: bytes, where: str) -> dict[str, torch.Tensor] | None:
    """Return the weights of CLIP's text transformer, as float32; None if the file is another program."""
    try:
        program = is_program(data)
        file = TorchFile(data, _check_program_name if program else _check_name, program=program)
        held = dict(_tensors(file.content, file))
    except RefusedFile as error:
        raise StageError(f"{where} is refused: {error} (`tracks.text_encoder`).") from error
    except DamagedTorchFile as error:
        raise StageError(f"{where} is not a readable file of torch: {error} (`tracks.text_encoder`).") from error
    # Another program may have a text transformer of the same names and other activations. CLIP also has pictures.
    if program and not {"logit_scale", "visual.proj"} <= held.keys():
        return None
    if "token_embedding.weight" not in held or "text_projection" not in held or not _layers(held):
        raise StageError(
            f"{where} is not CLIP's text encoder: it has no `token_embedding.weight`, `text_projection` or "
            "`transformer.resblocks`. Give ViT-B-32.pt of OpenAI's CLIP (`tracks.text_encoder`)."
        )
    return {name: tensor.float() for name, tensor in held.items() if name.startswith(_TEXT)}


def _tensors(
    value: Any, file: TorchFile, name: str = "", seen: frozenset[int] = frozenset()
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a state dict or of a program's modules, with dotted names."""
    if len(seen) > _MOST_DEPTH or id(value) in seen:
        raise RefusedFile("its modules are nested too deeply, or contain themselves")
    tensor = file.tensor(value)
    if tensor is not None:
        yield name, tensor
        return
    held = value.state if isinstance(value, Record) else value
    if isinstance(held, dict):
        for key, inner in held.items():
            if isinstance(key, str) and isinstance(inner, Record | dict):
                yield from _tensors(inner, file, f"{name}.{key}" if name else key, seen | {id(value)})


def _check_name(name: str, called: bool) -> None:
    raise RefusedPickle(f"it holds `{name}`, which is no weight")


def _check_program_name(name: str, called: bool) -> None:
    """Allow the classes of a program's modules. They are not looked up, and nothing of the program is run."""
    if called or not name.startswith(_PROGRAM_MODULE):
        raise RefusedPickle(f"it holds `{name}`, which is no module of TorchScript")


def _run(data: bytes, tokens: torch.Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.jit.load(io.BytesIO(data), map_location="cpu")
        return program(tokens)
