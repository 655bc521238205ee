"""URLs as text: find credentials in a URL, and show the URL without them.

Credentials are found by structure, not by a list of names: the part before the host, the query and the fragment, in
every part of a chain (`a::b`). This module imports nothing from the package, so that errors and logs can use it.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

HTTP = ("http", "https")
_BUCKETS = ("s3", "s3a", "gs", "gcs")  # their URLs have a bucket name instead of a host
_CONTAINER_AT_ACCOUNT = ("abfs", "abfss", "az")  # abfs://container@account.dfs.core.windows.net/path
# A plain query selects something and grants no access: `?x=1`, `?version=3&download=true`.
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z_-]{0,31}")
_PLAIN_VALUE = re.compile(r"[0-9]{1,9}|true|false|yes|no|on|off", re.IGNORECASE)
# Names that suggest a credential even if the value is a short number. This list only extends the rule above.
_NEVER_PLAIN = re.compile(r"key|pass|pin|pwd|sas|secret|sig|token|auth", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"<>]+")
_PAIR_IN_TEXT = re.compile(r"([?&#])([\w.%~\[\]-]{1,64})=([^\s\"'<>,;)&#]+)")


def is_url(text: str) -> bool:
    """Return whether each part of a path, URL or chain can be parsed: `http://[::1/x`, `http://host:port/x` can't."""
    return all(_split(part) is not None for part in _parts(text) if "://" in part)


def is_chain(url: str) -> bool:
    """Return whether fsspec would read it as several URLs (`zip://a::s3://b`). `http://[::1]/x` is a single URL."""
    return len(_parts(url)) > 1


def holds_credentials(url: str) -> bool:
    """Return whether a URL or part of a chain has a user, a password, or a query or fragment that may be secret."""
    return any(_part_holds_credentials(part) for part in _parts(url))


def shown(url: str) -> str:
    """Return a URL that is safe to show: without users, passwords, queries and fragments. Return a path unchanged."""
    if "://" not in url:
        return url
    return "::".join(_shown_part(part) if "://" in part else part for part in _parts(url))


def cleaned(text: str) -> str:
    """Apply `shown` to every URL in a text, such as a library's error."""
    if "://" in text:
        text = _URL_IN_TEXT.sub(lambda found: _shown_in_text(found[0]), text)
    return _PAIR_IN_TEXT.sub(lambda found: found[0] if _is_plain(found[2], found[3]) else f"{found[1]}...", text)


def _shown_in_text(found: str) -> str:
    url = found.rstrip(".,:;)]}'")  # punctuation of the sentence around the URL
    return shown(url) + found[len(url) :]


def _parts(url: str) -> list[str]:
    """Split a chain into its parts. `::` inside brackets belongs to an IPv6 address and does not separate parts."""
    return re.split(r"::(?![^\[\]/]*\])", url)


def _split(part: str) -> SplitResult | None:
    """Return the components of a URL; None if it is not a URL."""
    try:
        pieces = urlsplit(part)
        port = pieces.port if pieces.scheme in HTTP else None
        # In an object store's URL, what looks like a port is part of a name (arn:aws:s3:...).
        return pieces if port is None or port > 0 else None
    except ValueError:
        return None


def _part_holds_credentials(part: str) -> bool:
    if "://" not in part or (pieces := _split(part)) is None:  # invalid URLs are never opened
        return False
    user, at, host = pieces.netloc.rpartition("@")
    if at and (pieces.scheme not in _CONTAINER_AT_ACCOUNT or ":" in user):
        return True
    # `s3://KEY:SECRET/WITH/SLASHES@bucket`: bucket names have no colon.
    if pieces.scheme in _BUCKETS and ":" in host and not host.startswith("arn:"):
        return True
    if pieces.scheme in HTTP:
        return bool(pieces.fragment) or not _is_plain_query(pieces.query)
    # In a bucket, `?` and `#` may belong to a file name; signatures are written `name=value`.
    pairs = [*_pairs(pieces.query), *_pairs(pieces.fragment)]
    return any("=" in pair and not _is_plain(*pair.split("=", 1)) for pair in pairs)


def _pairs(query: str) -> list[str]:
    return [pair for pair in re.split("[&;]", query) if pair]


def _is_plain_query(query: str) -> bool:
    pairs = parse_qsl(query.replace(";", "&"), keep_blank_values=True)
    return all(_is_plain(name, value) for name, value in pairs) and (bool(pairs) or not query)


def _is_plain(name: str, value: str) -> bool:
    if not _PLAIN_NAME.fullmatch(name) or not _PLAIN_VALUE.fullmatch(value):
        return False
    return not _NEVER_PLAIN.search(name)


def _shown_part(part: str) -> str:
    pieces = _split(part)
    if pieces is None:  # a password could be anywhere in it
        return f"{part.split('://', 1)[0]}://..." if re.search("[@?#]", part) else part
    user, at, host = pieces.netloc.rpartition("@")
    if at and pieces.scheme in _CONTAINER_AT_ACCOUNT and ":" not in user:
        host = pieces.netloc
        at = ""
    if pieces.scheme in _BUCKETS and ":" in host and not host.startswith("arn:"):
        return f"{pieces.scheme}://..."
    scheme = part.split("://", 1)[0]
    hidden = f"{'?...' if pieces.query else ''}{'#...' if pieces.fragment else ''}"
    return f"{scheme}://{'...@' if at else ''}{host}{pieces.path}{hidden}"
