"""`vtcav review`: serve the page until Ctrl-C, or write the contact sheet."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.clips.decisions import FILE, read_decisions
from vtcav_ray.errors import ConfigError
from vtcav_ray.review.clip_groups import ClipGroups
from vtcav_ray.review.contact_sheet import sheet_parts
from vtcav_ray.review.session import Session
from vtcav_ray.runs.run import Run
from vtcav_ray.store.access import open_url
from vtcav_ray.store.urls import WRITTEN, check_url


def serve(run: Run, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the review page until interrupted.

    Raises:
        ConfigError: the run has no clips yet, `review.csv` is malformed, or the address is not available.
    """
    from vtcav_ray.review.server import ReviewServer  # aiohttp, which the contact sheet does not need

    groups = ClipGroups(run)
    with ReviewServer(Session(groups, groups.home), host, port) as server:
        if not is_loopback(host):
            say(
                f"WARNING: listening on {host}: anyone who can reach this machine and has the address below can see "
                "the clips and change the decisions. Nothing is encrypted. An SSH tunnel to loopback is safer."
            )
        say(f"Review: {server.url}")
        say(f"Decisions go to {groups.home.url.rstrip('/')}/{FILE} at once. Stop with Ctrl-C, then `vtcav run` again.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("Stopped. All decisions are kept.")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address. A name other than `localhost` may be any host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def export(run: Run, file: str, clips: int) -> str:
    """Write the contact sheet to any fsspec URL, with at most `clips` clips per concept. Return a line for the user.

    Raises:
        ConfigError: the run has no clips yet, or the file can't be written.
    """
    fs, path = open_url(check_url(file, "--export", WRITTEN), run.folder.storage_options)
    groups = ClipGroups(run)
    decisions = read_decisions(groups.home)
    try:
        if isinstance(fs, LocalFileSystem):
            fs.makedirs(fs._parent(path), exist_ok=True)
        with fs.open(path, "w", encoding="utf-8") as sink:
            for part in sheet_parts(groups, decisions, groups.home.url, clips):
                sink.write(part)
    except (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise ConfigError(f"The contact sheet can't be written to {file}: {error}. Choose another --export.") from error
    return f"Contact sheet of {len(groups.groups)} concepts, classes and random sets: {file}"
