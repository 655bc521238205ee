"""Review of the clips by a person: a local page to accept or reject them, and a static contact sheet.

The decisions and their effect on the stages are in `vtcav_ray.clips.decisions` and `.accepted`.
"""
