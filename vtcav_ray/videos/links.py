"""Symbolic links in a folder of videos: none leaves the folder unless allowed, and no video counts twice."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass


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
