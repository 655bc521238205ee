# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Your own clips
#
# Bring clips that show what YOU mean by a concept. `vtcav_ray.explain` takes them as arrays. It needs no config, no
# detector and no cluster, and gives the figures that a run gives.

# %%
import os
from pathlib import Path

import pyarrow.parquet as pq

import vtcav_ray
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.world import write_world

SMALL = bool(os.environ.get("VTCAV_SMALL"))  # the tests run this notebook with fewer videos

# %% [markdown]
# ## Collect videos
#
# Here: videos of the planted world. With your own, `read_clips` takes a folder or a list of files. The clips need one
# number of frames; any height and width.

# %%
folder = Path("runs/notebook-world")
write_world(str(folder), videos=120 if SMALL else 400, seed=3)
rows = pq.read_table(folder / "videos.parquet").to_pylist()
by_label = {}
for row in rows:
    by_label.setdefault(row["label"], []).append(folder / row["uri"])
{label: len(files) for label, files in by_label.items()}

# %% [markdown]
# ## Choose the sets
#
# - **Examples** of the classes that you ask about: there, the gradients are taken.
# - **Concepts**: clips that show it. Here `rising` and `falling`.
# - **Random**: clips that are like the concepts' in everything but the concept. Here: videos of all labels.
#
# A source video may be in one of the three only. If several clips come from one video, name it in `groups`: the video
# is the unit of all tests.

# %%
n = 8 if SMALL else 20
classes = ("lift", "put_down")
examples = {label: vtcav_ray.read_clips(by_label[label][:n]) for label in classes}
concepts = {
    "rising": vtcav_ray.read_clips(by_label["lift"][n : 2 * n]),
    "falling": vtcav_ray.read_clips(by_label["put_down"][n : 2 * n]),
}
others = [file for label in by_label for file in by_label[label][2 * n :]]
random = vtcav_ray.read_clips(others)
len(random)

# %% [markdown]
# ## Ask
#
# `movements` only tells the verdicts that these concepts are movements.

# %%
model = load_recogniser(ModelConfig(), "cpu")  # the planted world's own recogniser
found = vtcav_ray.explain(
    model,
    concepts,
    random,
    examples,
    layers=["early", "late"],
    movements=concepts,
    random_sets=10 if SMALL else 50,
    permutations=1000 if SMALL else 100_000,
)
found

# %% [markdown]
# ## Read the answer

# %%
print(found.summary())

# %%
found.table[["class", "layer", "concept", "against", "effect", "ci_low", "ci_high", "q", "significant"]]

# %%
found.plot("lift")

# %% [markdown]
# A warning says what the clips do not allow, such as too few random clips for disjoint random sets.

# %%
for sentence in found.warnings:
    print("-", sentence)

# %%
late = found.table.query("layer == 'late' and against == 'random' and `class` == 'lift'").set_index("concept")["effect"]
assert late["rising/given"] > 1 > late["falling/given"]  # what lifts, rises
