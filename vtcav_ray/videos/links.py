"""Symbolic links in a folder of videos: none leads out of it unless asked for, and none counts a video twice."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    """What is to be left out of a listing.

    Attributes:
        outside: files that are reached by a link and lie outside the folder.
        aliases: second names of files that the listing has already, and all that a loop of links repeats.
    """

    outside: frozenset[str]
    aliases: frozenset[str]


def find_links(root: str, files: Iterable[str]) -> Links:
    """Look where the files of a local folder really are.

    Args:
        root: the folder; it may be reached by a link itself.
        files: paths below `root`, as a listing that follows links gives them.
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
    """Whether a local file really lies outside a local folder, by a link of its own or of a folder on the way."""
    return not os.path.realpath(file).startswith(os.path.realpath(folder).rstrip("/") + "/")
