"""Measure how fast a report of 400 classes x 160 concepts x 4 layers is, in headless Chromium, from disk.

    python benchmarks/report.py [--classes 400] [--concepts 160] [--videos 30] [--repeats 5]

First paint is Chromium's `first-contentful-paint`. Ready: every part is built and accepts input. Filter: the time from
a key press in the matrix's field until the frame after the change is on the screen.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from playwright.sync_api import Page, sync_playwright

from vtcav_ray import tables
from vtcav_ray.report import ReportData, build_report
from vtcav_ray.report.data import ConceptFacts, Entanglement, StageSummary
from vtcav_ray.report.previews import MANY_CLIPS_PER_CONCEPT, MANY_MAX_SIDE, make_preview
from vtcav_ray.tcav.null_histograms import EFFECT_BINS, EFFECT_REACH, SCORE_BINS

LAYERS = ("early", "middle", "late", "head")
KINDS = ("spatiotemporal", "spatial", "frozen", "reversed")
# Resolves after the next frame is painted.
FILTER = """async ([label, text]) => {
  const field = [...document.querySelectorAll('#matrix input[type=search]')]
    .find((f) => f.parentElement.textContent.includes(label));
  const start = performance.now();
  field.value = text;
  field.dispatchEvent(new Event('input', {bubbles: true}));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - start;
}"""


def large_data(classes: int, concepts: int, videos: int) -> ReportData:
    """Make random figures in every column. They compress worse than real ones."""
    rng = np.random.default_rng(0)
    class_names = [f"class number {k:03d}" for k in range(classes)]
    names = [f"concept {c // len(KINDS):03d}/{KINDS[c % len(KINDS)]}" for c in range(concepts)]
    k, c, la = (x.ravel() for x in np.meshgrid(range(classes), range(concepts), range(len(LAYERS)), indexing="ij"))
    n = len(k)
    columns: dict[str, object] = {}
    for field in tables.SCORES:
        if pa.types.is_floating(field.type):
            columns[field.name] = rng.normal(0, 0.4, n)
        elif pa.types.is_boolean(field.type):
            columns[field.name] = rng.random(n) < 0.1
        elif pa.types.is_integer(field.type):
            columns[field.name] = np.full(n, 30, np.int32)
        else:
            columns[field.name] = [""] * n
    columns |= {
        "class": np.array(class_names)[k], "layer": np.array(LAYERS)[la], "concept": np.array(names)[c],
        "kind": np.array(KINDS)[c % len(KINDS)], "against": ["random"] * n, "learnable": rng.random(n) < 0.9,
        "decided_by": ["effect"] * n, "model": ["model.pth@0123456789ab"] * n,
        "note": np.array(["", "about 40 more clips would decide", "about 400 more clips would decide"])[
            rng.integers(0, 3, n)],
    }  # fmt: skip
    scores = pa.table({f.name: pa.array(columns[f.name], f.type) for f in tables.SCORES}, schema=tables.SCORES)
    clip = rng.integers(0, 255, (16, 8, 8, 3)).astype(np.uint8).repeat(14, 1).repeat(14, 2)
    preview = make_preview("clip", "video", clip, MANY_MAX_SIDE)
    unit = rng.normal(size=(concepts, 16))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept = rng.choice(n, min(n, 400_000 // videos + 1), replace=False).repeat(videos)
    return ReportData(
        title="400 classes",
        scores=scores,
        concepts={name: ConceptFacts(30, 28, (preview,) * MANY_CLIPS_PER_CONCEPT) for name in names},
        class_clips=dict.fromkeys(class_names, 30),
        accuracies=_accuracies(names, rng),
        entanglement=[Entanglement(layer, names, unit @ unit.T) for layer in LAYERS],
        sensitivities=pa.table(
            {
                **{name: scores[name].take(pa.array(kept)) for name in ("class", "layer", "concept")},
                "video_id": np.char.add("video_", np.arange(len(kept)).astype(str))[np.arange(len(kept)) % 12_000],
                "sensitivity": rng.normal(size=len(kept)).astype(np.float32),
            }
        ),
        nulls=_nulls(scores, rng),
        stages=[StageSummary("scores", "0a1b", 2.0, {"scores": n}, 1_000_000)],
        config={"activations": {"layers": list(LAYERS)}},
    )


def _nulls(scores: pa.Table, rng: np.random.Generator, permutations: int = 2000, random_pairs: int = 1225) -> pa.Table:
    """Make nulls of 1,000 random effects, each with its own permutations; those of scores by class, layer and kind."""
    t = rng.standard_t(40, (1000, permutations)) + 0.1 * rng.normal(size=(1000, 1))
    effects = np.array([np.histogram(one, EFFECT_BINS, (-EFFECT_REACH, EFFECT_REACH))[0] for one in t], np.int32)
    keys = [scores[name].to_numpy(zero_copy_only=False).astype(str) for name in ("class", "layer", "kind")]
    _, of = np.unique(np.char.add(np.char.add(*keys[:2]), keys[2]), return_inverse=True)
    shares = [np.histogram(rng.beta(0.8, 0.8, random_pairs), SCORE_BINS, (0, 1))[0] for _ in range(of.max() + 1)]
    lists = [
        pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1], values.ravel())
        for values in (effects[rng.integers(0, len(effects), len(of))], np.array(shares, np.int32)[of])
    ]
    columns = [scores[name].combine_chunks() for name in ("class", "layer", "concept", "against")]
    unit = pa.array(np.abs(rng.normal(size=len(of))).astype(np.float32))
    return pa.table([*columns, unit, *lists], schema=tables.NULLS)


def _accuracies(names: list[str], rng: np.random.Generator, random_sets: int = 50) -> pa.Table:
    layer, concept, run = (x.ravel() for x in np.meshgrid(LAYERS, [*names, *KINDS], range(random_sets), indexing="ij"))
    null = np.isin(concept, KINDS)
    kind = np.where(null, concept, np.char.rpartition(concept.astype(str), "/")[:, 2])
    return pa.table(
        {
            "layer": layer.astype(str),
            "concept": concept.astype(str),
            "negatives": np.char.add(np.char.add("random/", kind.astype(str)), "#0"),
            "is_null": null,
            "held_out_accuracy": rng.uniform(0.4, 1, len(run)).astype(np.float32),
        }
    )


def measure(page: Page, url: str) -> dict[str, float]:
    """Return the milliseconds of one visit."""
    page.goto(url)
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    ready = page.evaluate("performance.now()")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    found = {"first_paint_ms": paint, "ready_ms": ready}
    classes, concepts = "Find classes", "Find concepts"
    typed = [(classes, "1"), (classes, "12"), (classes, ""), (concepts, "concept 0"), (concepts, "")]
    times = [page.evaluate(FILTER, list(one)) for one in typed]
    found |= {"filter_ms": statistics.median(times), "slowest_filter_ms": max(times)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--concepts", type=int, default=160)
    parser.add_argument("--videos", type=int, default=30, help="class videos a cell, as far as the report keeps them")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    begun = time.perf_counter()
    html = build_report(large_data(chosen.classes, chosen.concepts, chosen.videos))
    built = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        file.write_text(html, encoding="utf-8")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        visits = []
        for _ in range(chosen.repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            visits.append(measure(page, file.as_uri()))
            page.close()
        browser.close()
        size = file.stat().st_size
    result = {
        "cells": chosen.classes * chosen.concepts * len(LAYERS),
        "file_mb": round(size / 1e6, 2),
        "build_s": round(built, 2),
        **{f"{name}_median": round(statistics.median(v[name] for v in visits), 1) for name in visits[0]},
        **{f"{name}_worst": round(max(v[name] for v in visits), 1) for name in visits[0]},
    }
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
