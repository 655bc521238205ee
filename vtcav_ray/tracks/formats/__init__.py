"""Readers of tracks that other programs wrote, one file per format. `vtcav_ray.registry.TRACK_FORMATS` names them."""
