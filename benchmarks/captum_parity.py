"""Compare our TCAV scores with Captum's on the same model, activations, gradients, concepts and random sets.

    python benchmarks/captum_parity.py

Captum trains scikit-learn's SGDClassifier on a shuffled two thirds of each pair of sets; ours splits by source video
with another seed. So the scores of a run are two draws from one distribution. Their mean difference is compared with
its sampling error over the R runs, which share their sets. Given Captum's own CAVs, our scores must equal Captum's
exactly.

Legend: K classes, J concepts, R random sets, n clips of a set, V class clips, d numbers of an activation.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from captum.concept import TCAV, Concept
from numpy.typing import NDArray
from torch import nn

from vtcav_ray.cavs import train_cavs
from vtcav_ray.cavs.train import Solver
from vtcav_ray.tcav import score

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """Mean sign counts over R runs for one class and concept.

    Attributes:
        captum, sgd, logistic: the means.
        sgd_error, logistic_error: standard errors of the mean per-run difference from Captum.
        given_cavs: largest difference between our scores of Captum's CAVs and Captum's scores.
    """

    target: int
    concept: str
    captum: float
    sgd: float
    sgd_error: float
    logistic: float
    logistic_error: float
    given_cavs: float


@dataclass(frozen=True)
class Parity:
    """All rows, and the seconds of Captum and ours (Captum's include its own forward passes)."""

    rows: list[Row]
    captum_s: float
    sgd_s: float
    logistic_s: float


class Model(nn.Module):
    """Two layers, so the gradients at the first differ between clips."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.trunk = nn.Linear(dim, dim)
        self.head = nn.Sequential(nn.Tanh(), nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.head(self.trunk(x))


def compare(*, runs: int = 20, n: int = 40, clips: int = 40, dim: int = 24, seed: int = 0) -> Parity:
    """Run both on planted concepts: two along a logit's gradient, up and down, and one of random clips."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Model(dim, 2).eval()
    inputs = torch.randn(clips, dim)
    lifted = inputs.clone().requires_grad_()
    (along,) = torch.autograd.grad(model(lifted)[:, 0].sum(), lifted)
    axis = along.mean(0) / along.mean(0).norm()
    concepts = {
        "towards class 0": torch.randn(n, dim) + 1.0 * axis,
        "away from class 0": torch.randn(n, dim) - 0.6 * axis,
        "random clips": torch.randn(n, dim),
    }
    randoms = [torch.randn(n, dim) for _ in range(runs)]

    started = time.perf_counter()
    theirs, their_cavs = _captum(model, inputs, concepts, randoms, seed)
    captum_s = time.perf_counter() - started

    everything = torch.cat((*concepts.values(), *randoms))
    with torch.no_grad():
        pool = model.trunk(everything).numpy()
    rows = np.arange(len(pool)).reshape(-1, n)
    gradients = [_gradients(model, inputs, target) for target in (0, 1)]
    ours, seconds = {}, {}
    solvers: tuple[Solver, ...] = ("sgd", "logistic")
    for solver in solvers:
        started = time.perf_counter()
        positives = np.repeat(rows[: len(concepts)], runs, axis=0)
        negatives = np.tile(rows[len(concepts) :], (len(concepts), 1))
        # Captum's order of clips in a run is random: its runs differ from ours only in the seed.
        cavs = train_cavs(pool, positives, negatives, solver=solver, seed=int(rng.integers(2**31)))
        ours[solver] = [score(g, cavs.vectors).sign_count.reshape(len(concepts), runs) for g in gradients]
        seconds[solver] = time.perf_counter() - started
    found = []
    for target in (0, 1):
        for j, name in enumerate(concepts):
            captum = theirs[target][j]
            sgd, logistic = ours["sgd"][target][j], ours["logistic"][target][j]
            given = score(gradients[target], their_cavs[j]).sign_count
            found.append(
                Row(
                    target,
                    name,
                    captum=float(captum.mean()),
                    sgd=float(sgd.mean()),
                    sgd_error=float((sgd - captum).std(ddof=1) / np.sqrt(runs)),
                    logistic=float(logistic.mean()),
                    logistic_error=float((logistic - captum).std(ddof=1) / np.sqrt(runs)),
                    given_cavs=float(np.abs(given - captum).max()),
                )
            )
    return Parity(found, captum_s, seconds["sgd"], seconds["logistic"])


def _gradients(model: Model, inputs: torch.Tensor, target: int) -> Array:
    activation = model.trunk(inputs).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(activation)[:, target].sum(), activation)
    return np.asarray(gradient.numpy())


def _captum(
    model: Model, inputs: torch.Tensor, concepts: dict[str, torch.Tensor], randoms: list[torch.Tensor], seed: int
) -> tuple[list[NDArray[np.float64]], Array]:
    """Return Captum's sign counts, [K] of [J, R], and its CAVs, [J, R, d]."""
    random.seed(seed)  # shuffles Captum's split
    np.random.seed(seed)  # used by scikit-learn's SGDClassifier
    own = [Concept(j, f"concept_{j}", _loader(data)) for j, data in enumerate(concepts.values())]
    others = [Concept(len(own) + r, f"random_{r}", _loader(data)) for r, data in enumerate(randoms)]
    sets = [[concept, other] for concept in own for other in others]
    out = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tcav = TCAV(model, ["trunk"], save_path=folder)
        for target in (0, 1):
            scores = tcav.interpret(inputs, sets, target=target)
            counts = [float(scores[f"{a.id}-{b.id}"]["trunk"]["sign_count"][0]) for a, b in sets]
            out.append(np.array(counts).reshape(len(own), len(others)))
        vectors = []
        for concept, other in sets:
            stats = tcav.cavs[f"{concept.id}-{other.id}"]["trunk"].stats
            assert stats is not None, "it was trained just now"
            vectors.append(stats["weights"][list(stats["classes"]).index(concept.id)].numpy())
    return out, np.stack(vectors).reshape(len(own), len(others), -1).astype(np.float32)


def _loader(data: torch.Tensor) -> torch.utils.data.DataLoader[torch.Tensor]:
    return torch.utils.data.DataLoader(list(data), batch_size=len(data))  # type: ignore[arg-type]


def markdown(parity: Parity) -> str:
    """Format the rows as a table."""
    lines = [
        "| class | concept | Captum | ours, `sgd` (difference ± its error) | ours, `logistic` | with Captum's CAVs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in parity.rows:
        cells = " | ".join(
            f"{mean:.3f} ({mean - row.captum:+.3f} ± {error:.3f})"
            for mean, error in ((row.sgd, row.sgd_error), (row.logistic, row.logistic_error))
        )
        same = "the same" if row.given_cavs == 0 else f"up to {row.given_cavs:.3f} off"
        lines.append(f"| {row.target} | {row.concept} | {row.captum:.3f} | {cells} | {same} |")
    lines.append(
        f"\nSeconds in all: Captum {parity.captum_s:.1f}, `sgd` {parity.sgd_s:.2f}, `logistic` {parity.logistic_s:.2f}."
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "captum_parity.json")
    options = parser.parse_args(arguments)
    parity = compare(runs=options.runs, seed=options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(asdict(parity), indent=1) + "\n")
    print(markdown(parity))


if __name__ == "__main__":
    main()
