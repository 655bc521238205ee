"""Which URLs are opened at all. What a config, a manifest or a command line names may come from somebody else."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import parse_qsl, urlsplit

from vtcav_ray.errors import ConfigError

SCHEMES = ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")
LOCAL = ("file", "local")
# Names of query parameters that make a URL a credential: AWS (versions 4 and 2), GCS, CloudFront, Azure, and tokens.
_SIGNATURES = frozenset({
    "x-amz-signature", "x-amz-credential", "x-amz-security-token", "signature", "awsaccesskeyid", "x-goog-signature",
    "x-goog-credential", "googleaccessid", "key-pair-id", "sig", "sas", "token", "access_token", "auth", "api_key",
    "apikey", "key", "secret", "password",
})  # fmt: skip
NO_CREDENTIALS = (
    "holds a credential (a password, or the signature of a presigned URL), and tables repeat URLs. Give the "
    "plain URL, and the credential by environment, profile or `storage_options`."
)


def scheme_of(url: str) -> str:
    """The scheme, lower case; a plain path is `file`. Of a chain (`zip://a::s3://b`) the first."""
    head = url.split("::", 1)[0]
    return head.split("://", 1)[0].lower() if "://" in head else "file"


def holds_credentials(url: str) -> bool:
    """Whether a URL is itself a credential: a password before the host, or a signature or token in its query."""
    head = url.split("::", 1)[0]
    if "://" not in url or not is_url(head):  # what is no URL is not opened at all
        return False
    parts = urlsplit(head)
    if parts.password is not None or (parts.username and parts.scheme in ("s3", "s3a", "http", "https")):
        return True
    return any(name.lower() in _SIGNATURES for name, _ in parse_qsl(parts.query, keep_blank_values=True))


def shown(url: str) -> str:
    """A URL as it may be told: without what would be a credential."""
    if not is_url(url):  # nobody knows where in it a password would be
        return f"{scheme_of(url)}://..." if "@" in url or "?" in url else url
    if not holds_credentials(url):
        return url
    parts = urlsplit(url.split("::", 1)[0])
    user = "...@" if "@" in parts.netloc else ""
    return f"{parts.scheme}://{user}{parts.netloc.rpartition('@')[2]}{parts.path}{'?...' if parts.query else ''}"


def is_url(text: str) -> bool:
    """Whether a path or URL can be taken apart: `http://[::1/x` and `http://host:port/x` can't."""
    if "://" not in text:
        return True
    try:
        parts = urlsplit(text)
        # Of an object store, what looks like a port is a part of a name (arn:aws:s3:...).
        return parts.scheme not in ("http", "https") or parts.port is None or parts.port > 0
    except ValueError:
        return False


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
    if "::" in url:
        raise ConfigError(f"`{what}`: {url} is a chain of URLs (`::`), which is not opened. Give the file's own URL.")
    scheme = scheme_of(url)
    if scheme not in allowed:
        raise ConfigError(
            f"`{what}`: `{scheme}` URLs are not opened ({url}). Allowed: a path, or {', '.join(allowed)}."
        )
    return url


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
