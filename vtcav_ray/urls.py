"""Which URLs are opened at all. What a config, a manifest or a command line names may come from somebody else."""

from __future__ import annotations

from collections.abc import Collection

from vtcav_ray.errors import ConfigError

SCHEMES = ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")
LOCAL = ("file", "local")


def scheme_of(url: str) -> str:
    """The scheme, lower case; a plain path is `file`. Of a chain (`zip://a::s3://b`) the first."""
    head = url.split("::", 1)[0]
    return head.split("://", 1)[0].lower() if "://" in head else "file"


def check_url(url: str, what: str, allowed: Collection[str] = SCHEMES) -> str:
    """The URL, if it may be opened.

    fsspec knows many more schemes, among them some that run commands elsewhere (`ssh`, `sftp`, `dask`), reach into
    other services (`github`, `hdfs`), or wrap another URL (`simplecache::`, `reference::`). None of those is needed.

    Args:
        what: the config key or argument, for the message.
        allowed: schemes.

    Raises:
        ConfigError: names the key, the scheme and what is allowed.
    """
    if not url.isprintable():
        raise ConfigError(f"`{what}`: {url!r} has control characters in it.")
    if "::" in url:
        raise ConfigError(f"`{what}`: {url} is a chain of URLs (`::`), which is not opened. Give the file's own URL.")
    scheme = scheme_of(url)
    if scheme not in allowed:
        raise ConfigError(
            f"`{what}`: `{scheme}` URLs are not opened ({url}). Allowed: a path, or {', '.join(allowed)}."
        )
    return url
