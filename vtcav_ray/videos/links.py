"""What leads out of a folder of videos: symbolic links, and rows of a manifest in it. No video counts twice."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from vtcav_ray.store.urls import scheme_of
from vtcav_ray.text.url_text import HTTP


@dataclass(frozen=True)
class Links:
    """Files to leave out of a listing.

    Attributes:
        outside: files that are reached through a link and lie outside the folder.
        aliases: further names of files that the listing already has, including everything a loop of links repeats.
    """

    outside: frozenset[str]
    aliases: frozenset[str]


def find_links(root: str, files: Iterable[str]) -> Links:
    """Resolve where the files of a local folder really are.

    Args:
        root: the folder; it may itself be reached through a link.
        files: paths below `root`, from a listing that follows links.
    """
    real_root = os.path.realpath(root)
    real = {file: os.path.realpath(file) for file in files}
    linked = {f: path for f, path in real.items() if path != os.path.join(real_root, os.path.relpath(f, root))}
    outside = {file for file, path in linked.items() if not path.startswith(real_root.rstrip("/") + "/")}
    aliases = set()
    seen = {path for file, path in real.items() if file not in linked}
    for file in sorted(linked.keys() - outside, key=lambda f: (f.count("/"), f)):
        if linked[file] in seen:
            aliases.add(file)
        seen.add(linked[file])
    return Links(frozenset(outside), frozenset(aliases))


def leads_out(file: str, folder: str) -> bool:
    """Return whether a local file lies outside a local folder because it, or a folder on its path, is a link."""
    return not os.path.realpath(file).startswith(os.path.realpath(folder).rstrip("/") + "/")


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
