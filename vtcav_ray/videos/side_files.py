"""Which files a manifest found in a folder of videos may name: files inside that folder."""

from __future__ import annotations

from urllib.parse import unquote

from vtcav_ray.store.urls import scheme_of
from vtcav_ray.text.url_text import HTTP
from vtcav_ray.videos.links import leads_out


def why_outside(uri: str, full: str, folder: str, follow_links: bool) -> str:
    """Return why a row lies outside the folder of its manifest; empty if it is inside.

    Args:
        uri: the row's value. `full` is the same file as a full path or URL.
        folder: path or URL.
        follow_links: whether a local file may be a link out of the folder.
    """
    outside = (
        f"names a file outside {folder}. A manifest that lies in the folder names files inside it; to use others, "
    )
    outside += "give the manifest's own path as `videos.uri`."
    # Servers decode `%2e`, and some file systems treat a backslash as a slash.
    path = unquote(uri) if scheme_of(full) in HTTP else uri
    if ".." in path.replace("\\", "/").split("/"):
        return outside
    if not full.startswith(folder.rstrip("/") + "/"):
        return outside
    if scheme_of(full) == "file" and not follow_links and leads_out(full, folder):
        return "is a link out of the folder. Set `videos.follow_links: true` if you trust it."
    return ""
