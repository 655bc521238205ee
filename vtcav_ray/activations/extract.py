"""Activations and gradients of several layers, from one forward pass per clip and one backward pass per (clip, class).

Parameters need no gradient, so autograd records nothing until the first hooked layer, whose output becomes a leaf: the
graph starts there, and everything before it costs a plain forward pass. Only projected vectors are kept (see
`vtcav_ray.activations.projections` for why they suffice).

The classes of a clip are differentiated one after the other, from one forward pass. PyTorch could batch these products
over classes (`is_grads_batched`): the gradients are the same, but on a CPU it takes as long (convolutions) or longer
(attention), and the fused attention blocks have no rule for it. See `benchmarks/many_classes.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Literal

import numpy as np
import torch

from vtcav_ray.activations.batch_size import LARGEST, Memory, batch_size_by_trial, memory_of
from vtcav_ray.activations.extraction import CallResults, Extraction, joined, nothing_read
from vtcav_ray.activations.prefetch import batches_ahead
from vtcav_ray.activations.projections import Projection, layer_and_projection, make_projection
from vtcav_ray.activations.targets import Target, target_values
from vtcav_ray.errors import InputError
from vtcav_ray.models.base import Recogniser, Views
from vtcav_ray.models.compiled import compile_blocks
from vtcav_ray.models.layers import Form, find_forms, resolve_layer, watched

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "float16"]
# float16 loses numbers below 6e-8, and gradients of a mean over thousands of positions are that small. So the target is
# scaled up for the backward pass, and the gradients are scaled down again in float32. A power of two, so it is exact.
FLOAT16_SCALE = 2.0**12


class Extractor:
    """An extractor of layers' activations and gradients. Created once per actor, called with batches of clips.

    Args:
        recogniser: the model, on its device.
        layers: aliases or names, in the desired order; `early@moving` gives a layer its own projection. The results are
            keyed by these strings. The same layer with several projections costs one pass.
        projection: of layers without their own: `mean`, `time`, `space`, `flat`, `moving`, `still`, `grid:n` or
            `sketch:k`.
        sketch_seed: of `sketch:k`.
        target: the differentiated quantity.
        views: `center`, or the config's own `test` crops, averaged.
        precision: of the forward and backward pass (autocast); vectors are float32 in any case.
        batch_size: views per model call; None: 4, or 16 on a GPU. Halved if it does not fit in the GPU's memory.
        compile: compile the model's blocks; faster after some hundreds of clips of one size.
        threads: number of threads that read clips ahead of the model.

    Raises:
        ConfigError: a layer that the model does not have.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        layers: Sequence[str],
        projection: str = "mean",
        *,
        sketch_seed: int = 0,
        target: Target = "logit",
        views: Views = "center",
        precision: Precision = "float32",
        batch_size: int | None = None,
        compile: bool = False,
        threads: int = 2,
    ) -> None:
        self.recogniser = recogniser
        words = {layer: layer_and_projection(layer, projection) for layer in layers}
        self.paths = {layer: resolve_layer(recogniser, name) for layer, (name, _) in words.items()}
        self.projections = {layer: spec for layer, (_, spec) in words.items()}
        self.sketch_seed = sketch_seed
        self.target: Target = target
        self.views: Views = views
        self.precision: Precision = precision
        self.batch_size = batch_size or (16 if recogniser.device.type == "cuda" else 4)
        self.compile = compile
        self.threads = threads
        self._forms: dict[tuple[int, ...], dict[str, tuple[Form, Projection]]] = {}

    def extract(
        self, clips: Sequence[np.ndarray], classes: Sequence[Sequence[int] | None] | None = None, *, top: int = 0
    ) -> Extraction:
        """Compute the activations of all clips, and the gradients of the given classes.

        Args:
            clips: `uint8 [T, H, W, 3]`, RGB, all of one T. Read by index, in threads, a few batches ahead of the
                model: a sequence that decodes on access never holds all clips at once.
            classes: for each clip, the classes to differentiate; None, for a clip or for all: no gradients.
            top: also differentiate the k likeliest classes of each clip whose `classes` is not None.

        Raises:
            ConfigError: the model does not take clips of this length, or a layer's form cannot be determined.
        """
        given = classes if classes is not None else [None] * len(clips)
        assert len(given) == len(clips), f"{len(clips)} clips, {len(given)} lists of classes"
        asked = [tuple(c) if c is not None else () for c in given]
        wants = [c is not None and bool(len(c) or top) for c in given]
        step = self.clips_a_batch
        # Clips with and without gradients go into separate batches: the latter keep no graph.
        groups = []
        for with_gradients in (True, False):
            members = [i for i, wanted in enumerate(wants) if wanted == with_gradients]
            groups += [members[start : start + step] for start in range(0, len(members), step)]
        parts: list[CallResults] = []
        unreadable: dict[int, InputError] = {}
        for batch in batches_ahead(
            lambda i: self.recogniser.pixels(clips[i], self.views), groups, self.recogniser.device, self.threads
        ):
            unreadable |= batch.errors
            if batch.pixels is not None:
                x = self.recogniser.to_input(batch.pixels)
                of = batch.members
                parts += self._fitting(x, of, [asked[i] for i in of] if wants[of[0]] else None, top)
        if not parts:
            return nothing_read(tuple(self.paths), unreadable)
        return joined(parts, tuple(self.paths), len(clips), unreadable)

    def choose_batch_size(self, clip: np.ndarray, *, gradients: bool, memory: Memory | None = None) -> int:
        """Find the batch size by trial on one clip, set it, and return it. See `vtcav_ray.activations.batch_size`.

        Args:
            clip: `uint8 [T, H, W, 3]`, of the size of the clips to extract.
            gradients: whether clips will be differentiated.
            memory: memory for batches; None: the whole device, or one core's share of this machine's memory.

        Raises:
            torch.OutOfMemoryError: not even one view fits.
        """
        each = self._views_each()
        pixels = torch.from_numpy(self.recogniser.pixels(clip, self.views)[None])

        def call(views: int) -> None:
            clips = max(1, views // each)
            x = self.recogniser.to_input(pixels.to(self.recogniser.device)).expand(clips, *[-1] * 5).contiguous()
            self._run(x, list(range(clips)), [(0,)] * clips if gradients else None, 0)

        device = self.recogniser.device
        self.batch_size = batch_size_by_trial(call, memory or memory_of(device), largest=LARGEST.get(device.type, 32))
        return self.batch_size

    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """Return layer -> T', H', W', C. Call `extract` first."""
        assert self._forms, "call extract() first"
        return {layer: form.shape for layer, (form, _) in next(iter(self._forms.values())).items()}

    @property
    def clips_a_batch(self) -> int:
        """Clips per model call."""
        return max(1, self.batch_size // self._views_each())

    def _views_each(self) -> int:
        crop = self.recogniser.preprocessor.crop
        if self.views == "center" or crop is None:
            return 1
        return {"center": 1, "three": 3, "ten": 10}[crop.kind]

    def _maps(self, x: torch.Tensor) -> dict[str, tuple[Form, Projection]]:
        """Return the form and projection that turn each layer's tensor into its vector, for inputs of x's size."""
        size = tuple(x.shape[1:])
        if size not in self._forms:
            forms = find_forms(self.recogniser, list(dict.fromkeys(self.paths.values())), x[:1])
            self._forms[size] = {
                layer: (forms[path], make_projection(self.projections[layer], forms[path].shape, self.sketch_seed))
                for layer, path in self.paths.items()
            }
            if self.compile:  # only now: finding the forms hooks into the blocks, which would compile them again
                compile_blocks(self.recogniser.module)
        return self._forms[size]

    def _fitting(
        self, x_views: torch.Tensor, members: list[int], asked: list[tuple[int, ...]] | None, top: int
    ) -> list[CallResults]:
        """Make one model call, or two halves if the GPU's memory is too small. Later calls are then smaller, too."""
        try:
            return [self._run(x_views, members, asked, top)]
        except torch.OutOfMemoryError:
            if len(members) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(members) // 2
        self.batch_size = half * self._views_each()
        logger.warning("out of GPU memory with %d clips per batch: continuing with %d", len(members), half)
        first = self._fitting(x_views[:half], members[:half], asked[:half] if asked else None, top)
        return first + self._fitting(x_views[half:], members[half:], asked[half:] if asked else None, top)

    def _run(
        self, x_views: torch.Tensor, members: list[int], asked: list[tuple[int, ...]] | None, top: int
    ) -> CallResults:
        """Run one forward pass over `[B, V, C, T, H, W]`, and as many backward passes as a clip has classes."""
        b, v = x_views.shape[:2]
        x = x_views.flatten(0, 1)  # B·V C T H W
        maps = self._maps(x)
        here: dict[str, Projection] = {}  # the projections at these clips: gradients use the same ones

        def see(layer: str, raw: torch.Tensor) -> torch.Tensor:
            form, projection = maps[layer]
            here[layer] = projection.at(form.present(raw))
            return vectors(layer, raw)

        def vectors(layer: str, raw: torch.Tensor) -> torch.Tensor:
            return here[layer].apply(maps[layer][0].present(raw)).reshape(b, v, -1).mean(1).float()

        logits, leaves, taken = self._forward(x, see, with_gradients=asked is not None)
        activations = {layer: vector.cpu().numpy() for layer, vector in taken.items()}
        mean_logits = logits.detach().reshape(b, v, -1).mean(1)
        classes: list[list[int]] = [[] for _ in range(b)]
        if asked is not None:
            likeliest = mean_logits.topk(min(top, mean_logits.shape[1]), 1).indices.tolist() if top else [[]] * b
            classes = [list(dict.fromkeys([*own, *best])) for own, best in zip(asked, likeliest, strict=True)]
        slots = max(len(c) for c in classes)
        gradients = {layer: np.zeros((b, slots, maps[layer][1].d), np.float32) for layer in self.paths}
        values = np.zeros((b, slots), np.float32)
        scale = FLOAT16_SCALE if self.precision == "float16" else 1.0
        for slot in range(slots):
            # Clips do not interact, so the gradient of a sum over clips is each clip's own. A clip with fewer classes
            # gets weight zero.
            index = torch.tensor([c[slot] if len(c) > slot else 0 for c in classes], device=x.device)
            weight = torch.tensor([float(len(c) > slot) for c in classes], device=x.device)
            target = target_values(logits, index.repeat_interleave(v), self.target)
            found = torch.autograd.grad(
                (target * weight.repeat_interleave(v)).sum() * scale,
                [leaves[layer] for layer in self.paths],
                retain_graph=slot < slots - 1,
                materialize_grads=True,
            )
            with torch.no_grad():
                for layer, raw in zip(self.paths, found, strict=True):
                    gradients[layer][:, slot] = (vectors(layer, raw) / scale).cpu().numpy()
                values[:, slot] = target.reshape(b, v).mean(1).cpu().numpy()
        pairs = [(i, slot) for i, c in enumerate(classes) for slot in range(len(c))]
        clip_rows, slot_rows = [i for i, _ in pairs], [slot for _, slot in pairs]
        return CallResults(
            members=members,
            views=v,
            activations=activations,
            logits=mean_logits.float().cpu().numpy(),
            gains={layer: one.gains(b * v).reshape(b, v).mean(1).cpu().numpy() for layer, one in here.items()},
            gradients={layer: g[clip_rows, slot_rows] for layer, g in gradients.items()},
            gradient_clips=[members[i] for i in clip_rows],
            gradient_classes=[classes[i][slot] for i, slot in pairs],
            gradient_values=values[clip_rows, slot_rows],
        )

    def _forward(
        self, x: torch.Tensor, vectors: Callable[[str, torch.Tensor], torch.Tensor], *, with_gradients: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return logits `[B·V, K]`, each layer's own tensor (only with gradients), and each layer's vectors `[B, d]`.

        The graph starts at the first layer. Vectors are computed immediately: a later module may work in place, and
        without a graph a layer's tensor can be freed at once.
        """
        leaves: dict[str, torch.Tensor] = {}
        taken: dict[str, torch.Tensor] = {}

        def take(layer: str, raw: torch.Tensor) -> torch.Tensor | None:
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                taken[layer] = vectors(layer, raw)
            if not with_gradients:
                return None
            leaves[layer] = raw if raw.requires_grad else raw.detach().requires_grad_()
            return leaves[layer].clone()  # the leaf must keep the layer's output, even if a later module works in place

        half = self.precision != "float32"
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(with_gradients))
            for layer, path in self.paths.items():
                stack.enter_context(watched(self.recogniser.module, path, partial(take, layer)))
            with torch.autocast(x.device.type, dtype=getattr(torch, self.precision), enabled=half):
                logits = self.recogniser.logits(x)
        return logits.float() if half else logits, leaves, taken
