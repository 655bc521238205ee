# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Quickstart
#
# What does a video recogniser look at: the object, or the way it moves? This notebook renders a small world whose
# classes are defined by motion alone, runs all stages on it, and reads the answer. It downloads nothing. On two CPU
# cores it takes a few minutes.
#
# To open this file as a notebook: `jupytext --to notebook quickstart.py`.

# %%
import os

import vtcav_ray

# The tests run this notebook with fewer videos.
SMALL = bool(os.environ.get("VTCAV_SMALL"))
settings = (
    ["videos.world.videos=96", "clips.per_class=8", "clips.per_concept=8", "clips.min_per_concept=6",
     "clips.random_pool=24", "cavs.random_sets=10", "scores.permutations=500"]
    if SMALL
    else []
)  # fmt: skip

# %% [markdown]
# ## Run
#
# `run` takes a config: a path, a packaged name, or a mapping. A second call computes only what is missing.

# %%
run = vtcav_ray.run("asset:quickstart.yaml", overrides=settings, out="runs/notebook")
run

# %% [markdown]
# ## Read the answer
#
# One verdict per class, in words. The planted truth: `lift` is defined by moving up, not by the cup or the ball.

# %%
print(run.summary())

# %% [markdown]
# ## Look at the figures
#
# `scores` has one row per class, layer and concept. `effect` is the change of the class's logit, to first order, when
# the activation moves from random clips to the concept's. `q` is its corrected p.

# %%
cells = run.scores.query("against == 'random' and layer == 'late'")
cells[["class", "concept", "effect", "ci_low", "ci_high", "q", "significant"]].sort_values("effect")

# %%
run.plot("lift")

# %% [markdown]
# ## Go on
#
# `run.report` is the URL of the page with all results and clips. `run.table(name)` reads any table: see the list with
# `vtcav table runs/notebook`.

# %%
print(run.report)
