"""A person looks at the clips: a local page to accept or reject them, and a static contact sheet.

The decisions themselves, and what they mean for the stages, are in `vtcav_ray.clips.decisions` and `.accepted`.
"""
