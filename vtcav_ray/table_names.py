"""The tables of a run by name, and the stage that writes each.

Apart from their columns (`vtcav_ray.tables`), so that `vtcav --help` does not wait for Arrow.
"""

# Table -> the stage that writes it. `failures` comes from all of them, `interventions` from `vtcav intervene`.
STAGE_OF = {
    "videos": "videos",
    "tracks": "tracks",
    "clips": "clips",
    "activations": "activations",
    "gradients": "activations",
    "cavs": "cavs",
    "curves": "cavs",
    "entanglement": "cavs",
    "scores": "scores",
    "sensitivities": "scores",
    "nulls": "scores",
}
# Of stages that `vtcav run` does not run, but keeps: they come by their own command.
OPTIONAL_STAGE_OF = {"gradcam": "gradcam", "gradcam_summary": "gradcam"}
NAMES = (*STAGE_OF, "failures")
ALL_NAMES = (*NAMES, *OPTIONAL_STAGE_OF)
