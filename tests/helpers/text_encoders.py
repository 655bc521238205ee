"""Small text encoders with random weights, as other people publish theirs."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

WIDTH, TOKENS, CONTEXT = 64, 49408, 77


class QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """A block of CLIP's transformer, in OpenAI's words."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        parts = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.full((len(x), len(x)), float("-inf")).triu(1)
        inner = self.ln_1(x)
        x = x + self.attn(inner, inner, inner, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width) for _ in range(layers)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resblocks(x)


class Visual(nn.Module):
    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        self.proj = nn.Parameter(torch.rand(width, numbers))


class Clip(nn.Module):
    """OpenAI's CLIP, without what it does to pictures; `forward` encodes texts."""

    def __init__(self, numbers: int = 512, layers: int = 2, width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.visual = Visual(width, numbers)
        self.transformer = Transformer(width, layers)
        self.token_embedding = nn.Embedding(TOKENS, width)
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, numbers))
        self.logit_scale = nn.Parameter(torch.ones([]))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding
        x = self.ln_final(self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2))
        found: torch.Tensor = x[torch.arange(len(x)), tokens.argmax(-1)] @ self.text_projection
        return found


class Mobile(nn.Module):
    """A text encoder that is published as a TorchScript program; its vectors have unit length."""

    def __init__(self, numbers: int = 512) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embedding, self.layer = nn.Embedding(TOKENS, 32, padding_idx=0), nn.Linear(32, numbers)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.layer(torch.tanh(self.embedding(tokens).sum(1))), dim=-1)


def saved_program(model: nn.Module, path: Path) -> str:
    """Save a traced model, as torch.jit does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model.eval(), torch.zeros(2, CONTEXT, dtype=torch.int32)), str(path))
    return str(path)


def saved_weights(model: nn.Module, path: Path) -> str:
    torch.save(model.half().state_dict(), path)
    model.float()
    return str(path)
