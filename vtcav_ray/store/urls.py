"""Which URLs are opened at all. What a config, a manifest or a command line names may come from somebody else."""

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
WRITTEN = tuple(scheme for scheme in SCHEMES if scheme not in HTTP)  # of what is made here
LOCAL = ("file", "local")
ANY_ADDRESS = "*"
MAX_OBJECT_BYTES = 4 * 2**30  # of a remote video, which is read whole
MAX_OBJECT_SECONDS = 1800.0
READ_LIMITS = "vtcav_read_limits"  # the key among storage options under which a `ReadLimits` travels
PRIVATE = (
    "leads to this machine or a private network, which only URLs that the config names may do. Set "
    "`videos.private_addresses: true` if you trust all that the manifest and its servers name."
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
NO_CREDENTIALS = (
    "holds a credential, or what may be one: a user or password, a fragment, or a query with more in it than short "
    "numbers (the signature of a presigned URL, say). Tables repeat URLs. Give the plain URL, and the credential by "
    "environment, profile or `storage_options`."
)


@dataclass(frozen=True)
class ReadLimits:
    """What reading a remote file may cost, and where it may lead.

    Attributes:
        private: `host:port` of the http(s) hosts that may have an address which is not public; `ANY_ADDRESS`: all.
        max_bytes: of one file.
        seconds: of reading one file.
    """

    private: tuple[str, ...] = ()
    max_bytes: int = MAX_OBJECT_BYTES
    seconds: float = MAX_OBJECT_SECONDS


def scheme_of(url: str) -> str:
    """The scheme, lower case; a plain path is `file`. Of a chain (`zip://a::s3://b`) the first."""
    head = url.split("::", 1)[0]
    return head.split("://", 1)[0].lower() if "://" in head else "file"


def origin_of(url: str) -> str | None:
    """`host:port` of an http(s) URL, lower case; None for everything else."""
    if scheme_of(url) not in HTTP or not is_url(url):
        return None
    parts = urlsplit(url)
    return f"{parts.hostname or ''}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def check_scheme(url: str, what: str = "url", allowed: Collection[str] = SCHEMES) -> str:
    """The URL, if it is one, of a kind that is opened, and no credential. For what `check_url` has not seen yet.

    fsspec knows many more schemes, among them some that run commands elsewhere (`ssh`, `sftp`, `dask`), reach into
    other services (`github`, `hdfs`), or wrap another URL (`simplecache::`, `reference::`). None of those is needed.

    Raises:
        ConfigError: as `check_url`.
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
    """Refuse a user or password in a URL among storage options: libraries repeat such URLs in their errors.

    Raises:
        ConfigError: names the option.
    """
    for name, value in options.items():
        if isinstance(value, Mapping):
            check_options(value, f"{where}.{name}")
        elif isinstance(value, str) and "://" in value and (not is_url(value) or "@" in urlsplit(value).netloc):
            raise ConfigError(
                f"`{where}.{name}`: {shown(value)} is not a URL, or has a user or password in it. Give the plain URL, "
                "and the credential by the option that is for it (`key`, `secret`, `token`, `headers`)."
            )


def check_url(url: str, what: str, allowed: Collection[str] = SCHEMES) -> str:
    """The URL, if it may be opened.

    Args:
        what: the config key or argument, for the message.
        allowed: schemes.

    Raises:
        ConfigError: names the key, and what is wrong: not a URL, a credential, a control character, a chain of URLs, or
            a scheme that is not allowed.
    """
    if not url.isprintable():
        raise ConfigError(f"`{what}`: {shown(url)!r} has control characters in it.")
    return check_scheme(url, what, allowed)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet's, also where IPv6 wraps an IPv4 address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def names_private_host(url: str, allowed: tuple[str, ...] = ()) -> bool:
    """Whether an http(s) URL says by itself, without a look-up, that it leads to a host that is not public."""
    origin = origin_of(url)
    if origin is None or ANY_ADDRESS in allowed or origin in allowed:
        return False
    host = origin.rpartition(":")[0]
    try:
        return not is_public(host)
    except ValueError:
        # `127.1` and `2130706433` are addresses to some resolvers, and never a public host's name.
        return host == "localhost" or host.endswith(".localhost") or host.replace(".", "").isdigit()
