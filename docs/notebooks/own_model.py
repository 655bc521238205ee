# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Your own model
#
# Any `torch.nn.Module` that turns a video into logits can be explained. It needs a short description: its classes, the
# size and normalisation of its input, and names for the layers that you want to look at.

# %%
import os

import pyarrow.parquet as pq
import torch
from torch import nn

import vtcav_ray
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.world import write_world

SMALL = bool(os.environ.get("VTCAV_SMALL"))  # the tests run this notebook with fewer videos

# %% [markdown]
# ## A model
#
# Here: the trained network of the planted world, as a plain module. Yours is whatever you train.


# %%
class MyModel(nn.Module):
    """`[B, 3, T, H, W]` -> logits `[B, 4]`."""

    def __init__(self) -> None:
        super().__init__()
        trained = load_recogniser(ModelConfig(), "cpu").module
        self.backbone, self.head = trained.backbone, trained.cls_head

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(video))


model = MyModel()
[name for name, _ in model.named_modules() if name.count(".") == 2][:8]

# %% [markdown]
# ## Describe it
#
# `mean` and `std` are those of RGB values in [0, 1]. `layer_aliases` gives paths of submodules short names. A path with
# `:in` is the input of a submodule. The same description serves a whole run: `model.framework: python`.

# %%
spec = vtcav_ray.NetworkSpec(
    class_names=["lift", "put_down", "push_left", "push_right"],
    input_size=64,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    layer_aliases={"early": "backbone.layers.0", "late": "backbone.layers.2"},
)

# %% [markdown]
# ## Clips

# %%
world = "runs/notebook-world"
write_world(world, videos=120 if SMALL else 400, seed=3)
files = {}
for row in pq.read_table(f"{world}/videos.parquet").to_pylist():
    files.setdefault(row["label"], []).append(f"{world}/{row['uri']}")
n = 8 if SMALL else 20
examples = {label: vtcav_ray.read_clips(files[label][:n]) for label in ("push_left", "push_right")}
concepts = {
    "to the left": vtcav_ray.read_clips(files["push_left"][n : 2 * n]),
    "to the right": vtcav_ray.read_clips(files["push_right"][n : 2 * n]),
}
random = vtcav_ray.read_clips([file for label in files for file in files[label][2 * n :]])

# %% [markdown]
# ## Ask
#
# The model runs on the device of its weights: `model.cuda()` moves the work to a GPU. Afterwards the model is as it
# was, with its own modes and `requires_grad`.

# %%
found = vtcav_ray.explain(
    model,
    concepts,
    random,
    examples,
    spec=spec,
    movements=concepts,
    random_sets=10 if SMALL else 50,
    permutations=1000 if SMALL else 100_000,
)
print(found.summary())

# %%
found.plot("push_left")

# %%
late = found.table.query("layer == 'late' and against == 'random' and `class` == 'push_left'").set_index("concept")
assert late["effect"]["to the left/given"] > 1 > late["effect"]["to the right/given"]
