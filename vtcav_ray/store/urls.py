"""Rules for the URLs that may be opened. URLs in a config, a manifest or a command line may come from other people."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vtcav_ray.errors import ConfigError
from vtcav_ray.text.url_text import HTTP, holds_credentials, is_chain, is_url, shown

__all__ = ["check_scheme", "check_url", "holds_credentials", "is_chain", "is_url", "origin_of", "scheme_of", "shown"]

SCHEMES = ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")
WRITTEN = tuple(scheme for scheme in SCHEMES if scheme not in HTTP)  # of files that vtcav writes
LOCAL = ("file", "local")
ANY_ADDRESS = "*"
MAX_OBJECT_BYTES = 4 * 2**30  # per remote video, which is read whole
MAX_OBJECT_SECONDS = 1800.0
READ_LIMITS = "vtcav_read_limits"  # the key of a `ReadLimits` in storage options
PRIVATE = (
    "leads to this machine or a private network, which only URLs that the config names may do. Set "
    "`videos.private_addresses: true` if you trust all URLs that the manifest and its servers name."
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
NO_CREDENTIALS = (
    "holds a credential, or something that may be one: a user or password, a fragment, or a query with more than short "
    "numbers (such as the signature of a presigned URL). Tables repeat URLs. Give the plain URL, and the credential by "
    "environment, profile or `storage_options`."
)


@dataclass(frozen=True)
class ReadLimits:
    """Limits on reading a remote file: its cost, and the hosts it may come from.

    Attributes:
        private: `host:port` of the http(s) hosts that may have an address which is not public; `ANY_ADDRESS`: all.
        max_bytes: per file.
        seconds: to read one file.
    """

    private: tuple[str, ...] = ()
    max_bytes: int = MAX_OBJECT_BYTES
    seconds: float = MAX_OBJECT_SECONDS


def scheme_of(url: str) -> str:
    """Return the scheme in lower case; `file` for a plain path, the first scheme of a chain (`zip://a::s3://b`)."""
    head = url.split("::", 1)[0]
    return head.split("://", 1)[0].lower() if "://" in head else "file"


def origin_of(url: str) -> str | None:
    """Return `host:port` of an http(s) URL, in lower case; None for everything else."""
    if scheme_of(url) not in HTTP or not is_url(url):
        return None
    parts = urlsplit(url)
    return f"{parts.hostname or ''}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def check_scheme(url: str, what: str = "url", allowed: Collection[str] = SCHEMES) -> str:
    """Return the URL if it is valid, has an allowed scheme and no credential. For URLs that `check_url` has not seen.

    fsspec supports many more schemes. Some run commands elsewhere (`ssh`, `sftp`, `dask`), access other services
    (`github`, `hdfs`), or wrap another URL (`simplecache::`, `reference::`). None of these is needed.

    Raises:
        ConfigError: as in `check_url`.
    """
    if not is_url(url):
        raise ConfigError(f"`{what}`: {shown(url)!r} is not a URL. Check its brackets and its port.")
    if holds_credentials(url):
        raise ConfigError(f"`{what}`: {shown(url)} {NO_CREDENTIALS}")
    if is_chain(url):
        raise ConfigError(
            f"`{what}`: {shown(url)} is a chain of URLs (`::`), which is not opened. Give the file's own URL."
        )
    scheme = scheme_of(url)
    if scheme not in allowed:
        raise ConfigError(
            f"`{what}`: `{scheme}` URLs are not opened ({shown(url)}). Allowed: a path, or {', '.join(allowed)}."
        )
    return url


def check_options(options: Mapping[str, Any], where: str = "storage_options") -> None:
    """Refuse a user or password in a URL in storage options: libraries repeat such URLs in their errors.

    Raises:
        ConfigError: the message names the option.
    """
    for name, value in options.items():
        if isinstance(value, Mapping):
            check_options(value, f"{where}.{name}")
        elif isinstance(value, str) and "://" in value and (not is_url(value) or "@" in urlsplit(value).netloc):
            raise ConfigError(
                f"`{where}.{name}`: {shown(value)} is not a URL, or has a user or password in it. Give the plain URL, "
                "and the credential in its own option (`key`, `secret`, `token`, `headers`)."
            )


def check_url(url: str, what: str, allowed: Collection[str] = SCHEMES) -> str:
    """Return the URL if it may be opened.

    Args:
        what: the config key or argument, for the message.
        allowed: schemes.

    Raises:
        ConfigError: not a URL, a credential, a control character, a chain of URLs, or a scheme that is not allowed. The
            message names the key and the problem.
    """
    if not url.isprintable():
        raise ConfigError(f"`{what}`: {shown(url)!r} contains control characters.")
    return check_scheme(url, what, allowed)


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet, also if IPv6 wraps an IPv4 address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def names_private_host(url: str, allowed: tuple[str, ...] = ()) -> bool:
    """Return whether an http(s) URL names a host that is not public. The host name is not resolved."""
    origin = origin_of(url)
    if origin is None or ANY_ADDRESS in allowed or origin in allowed:
        return False
    host = origin.rpartition(":")[0]
    try:
        return not is_public(host)
    except ValueError:
        # Some resolvers treat `127.1` and `2130706433` as addresses; no public host has such a name.
        return host == "localhost" or host.endswith(".localhost") or host.replace(".", "").isdigit()
