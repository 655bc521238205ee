"""Hostile URLs: where they lead, and what they would reveal."""

from __future__ import annotations

import io
import logging
import os
import string
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.answering import Answering, answering, body, redirect
from tests.helpers.examples import examples
from vtcav_ray.config import VideosConfig
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError, InputError, RefusedURL
from vtcav_ray.rows import Failure
from vtcav_ray.runs import logs
from vtcav_ray.store import guarded_http
from vtcav_ray.store.access import open_url
from vtcav_ray.store.commits import failure_table
from vtcav_ray.store.guarded_http import is_public, names_private_host
from vtcav_ray.store.urls import READ_LIMITS, ReadLimits, check_url
from vtcav_ray.text.url_text import cleaned, holds_credentials, is_url, shown
from vtcav_ray.video.fetch import fetch
from vtcav_ray.video.rehearse import Limits, _Child
from vtcav_ray.videos.listing import list_videos

SECRET = "PASSW0RD"


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Answering]:
    with answering() as server:
        yield server


def allowing(*hosts: str, **limits: Any) -> dict[str, Any]:
    return {READ_LIMITS: ReadLimits(hosts, **limits)}


HIDDEN = [
    f"simplecache::https://u:{SECRET}@h/a.mp4",
    f"zip://a.mp4::simplecache::s3://key:{SECRET}@bucket/a.zip",
    f"https://{SECRET}@h/a.mp4",
    f"HTTPS://u:{SECRET}@h/a.mp4",
    f"https://u%3A{SECRET}@h/a.mp4",
    f"s3://key:half/{SECRET}@bucket/a.mp4",
    f"gs://u:{SECRET}@bucket/a.mp4",
    f"abfs://container:{SECRET}@account.dfs.core.windows.net/a.mp4",
    f"https://h/a.mp4?se=2030&unheard-of={SECRET}",
    f"https://h/a.mp4?{SECRET}",
    f"https://h/a.mp4?a=1&b=2;c={SECRET}",
    f"https://h/a.mp4#access={SECRET}",
    f"https://h/a.mp4#{SECRET}",
    f"s3://bucket/a.mp4?X-New-Signature={SECRET}",
    "https://h/a.mp4?pin=123456",
]


@pytest.mark.parametrize("url", HIDDEN)
def test_a_credential_is_found_by_where_it_stands(url: str, tmp_path: Path) -> None:
    assert holds_credentials(url)
    for text in (shown(url), cleaned(f"could not open '{url}', sorry"), cleaned(f"URL({url!r})")):
        assert SECRET not in text
        assert "123456" not in text
    with pytest.raises(ConfigError) as caught:
        parse_config({"videos": {"uri": url}})
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        open_url(url)
    assert SECRET not in str(caught.value)
    (tmp_path / "m.csv").write_text(f"uri\n{url}\n")
    videos, failures = list_videos(VideosConfig(uri=str(tmp_path / "m.csv")))
    assert (videos.num_rows, [f.error_kind for f in failures]) == (0, ["manifest"])
    assert SECRET not in str(failures)


@pytest.mark.parametrize(
    "url",
    ["https://h/a.mp4", "https://h/a.mp4?x=1", "https://h/get?id=12345&download=true", "s3://b/Take #3?.mp4",
     "abfs://container@account.dfs.core.windows.net/a.mp4", "s3://arn:aws:s3:eu-1:1:accesspoint/n/a.mp4",
     "https://h/@user/a.mp4", "http://[2606:4700::1111]:80/a.mp4", "/videos/a?b=c#d@e.mp4"],
)  # fmt: skip
def test_what_opens_nothing_is_allowed(url: str) -> None:
    assert check_url(url, "videos.uri") == url


def test_a_sentence_around_a_url_stays_as_it_is() -> None:
    for url in ("s3://bucket", "s3://bucket/run", "https://h:8080/a.mp4", "gs://bucket"):
        for text in (f"{url}: access is refused.", f"({url}), '{url}'.", f"see {url}."):
            assert cleaned(text) == text


def test_storage_options_hold_no_url_with_a_password() -> None:
    options = {"client_kwargs": {"endpoint_url": f"http://u:{SECRET}@127.0.0.1:9000"}}
    with pytest.raises(ConfigError, match=r"client_kwargs\.endpoint_url") as caught:
        open_url("s3://bucket/a", options)
    assert SECRET not in str(caught.value)


SIGNED = f"https://h/a.mp4?X-Amz-Signature={SECRET}"


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_log_tells_a_credential(form: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter() if form == "json" else logs.TextFormatter())
    logger = logging.Logger("vtcav_ray.hostile")
    logger.addHandler(handler)
    try:
        raise ConnectionError(f"GET {SIGNED}") from ValueError(yarl.URL(SIGNED))
    except ConnectionError:
        logger.exception("while reading %s", SIGNED, extra={"video": SIGNED})
    assert "X-Amz" not in stream.getvalue()
    assert SECRET not in stream.getvalue()
    assert "https://h/a.mp4?..." in stream.getvalue()


def test_no_error_and_no_failure_tells_a_credential() -> None:
    for error in (ConfigError(SIGNED), InputError("decode", f"x {SIGNED}"), RefusedURL("refused", SIGNED)):
        assert SECRET not in f"{error} {error!r} {getattr(error, 'message', '')}"
    row = Failure(uri="a", video_id="a", error_kind="x", message=f"ClientError: {SIGNED} /b?token={SECRET}")
    assert SECRET not in str(failure_table("videos", [row]).to_pylist())


# Where URLs lead.


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "::1", "::", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
     "2002:7f00:1::", "ff02::1"],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    assert names_private_host(f"http://{host}/latest/meta-data")
    assert names_private_host(f"https://{host}:8443/")


def test_public_addresses_and_what_is_no_address() -> None:
    assert all(is_public(a) for a in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"))
    assert not names_private_host("https://example.org/a.mp4")
    for host in ("localhost", "LOCALHOST", "a.localhost", "127.1", "2130706433"):
        assert names_private_host(f"http://{host}/")


def test_a_manifest_does_not_reach_this_machine_or_its_network(server: Answering, tmp_path: Path) -> None:
    server.answers["/a.mp4"] = body(b"video")
    uris = [server.url("/a.mp4"), "http://169.254.169.254/latest", "http://[::1]/x", "http://localhost:1/x"]
    (tmp_path / "m.csv").write_text("uri\n" + "\n".join(uris) + "\n")
    config = VideosConfig(uri=str(tmp_path / "m.csv"))
    videos, failures = list_videos(config)
    assert videos.num_rows == 0
    assert all("videos.private_addresses" in f.message for f in failures)
    with pytest.raises(InputError, match="private network") as caught:  # also if a table names it
        fetch(server.url("/a.mp4"), config.read_options)
    assert caught.value.kind == "refused"
    assert server.asked == []
    trusting = config.model_copy(update={"private_addresses": True})
    assert list_videos(trusting)[0].num_rows == len(uris)
    assert fetch(server.url("/a.mp4"), trusting.read_options) == b"video"


def test_a_host_that_the_config_names_may_be_private(server: Answering) -> None:
    server.answers |= {"/m.csv": body(b"uri\na.mp4\n"), "/a.mp4": body(b"video")}
    config = VideosConfig(uri=server.url("/m.csv"))
    videos, failures = list_videos(config)
    assert (videos["uri"].to_pylist(), failures) == ([server.url("/a.mp4")], [])
    assert fetch(server.url("/a.mp4"), config.read_options) == b"video"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_into_the_network_is_refused(server: Answering, other: Answering, status: int) -> None:
    server.answers["/a.mp4"] = redirect(other.url("/secret"), status)
    server.answers["/twice.mp4"] = redirect(server.url("/a.mp4"), status)
    other.answers["/secret"] = body(b"secret")
    for path in ("/a.mp4", "/twice.mp4"):
        with pytest.raises(InputError, match="private network") as caught:
            fetch(server.url(path), allowing(server.host))
        assert caught.value.kind == "refused"
        with pytest.raises(RefusedURL):  # the same holds for labels, configs and weights
            open_url(server.url(path))[0].cat_file(server.url(path))
        with pytest.raises(RefusedURL):
            open_url(server.url(path))[0].info(server.url(path))
    assert other.asked == []
    assert fetch(server.url("/a.mp4"), allowing(server.host, other.host)) == b"secret"


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://h/a", f"http://u:{SECRET}@h/a", "http://[bad", "gopher://h", "data:,x", "/loop"]
)
def test_a_redirect_to_what_is_not_opened_is_refused(server: Answering, to: str) -> None:
    server.answers |= {"/a.mp4": redirect(to), "/loop": redirect("/loop")}
    with pytest.raises(InputError, match="redirects") as caught:
        fetch(server.url("/a.mp4"), allowing(server.host))
    assert caught.value.kind == "refused"
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_redirect_does_not_give_up_the_encryption() -> None:
    with pytest.raises(RefusedURL, match="encryption"):
        guarded_http._check_redirect(yarl.URL("https://h/a"), "http://h/a")
    guarded_http._check_redirect(yarl.URL("http://h/a"), "https://cdn/a?signature=x")


class Resolver:
    """A resolver that looks names up in a table; connections use no other resolver."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table = table

    async def resolve(self, host: str, port: int, family: Any) -> list[dict[str, Any]]:
        found = {"hostname": host, "host": self.table[host], "port": port, "family": 2, "proto": 0, "flags": 0}
        return [found]

    async def close(self) -> None: ...


def test_a_name_that_leads_into_the_network_is_refused(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/a.mp4"] = body(b"inner")
    monkeypatch.setattr(guarded_http, "ThreadedResolver", lambda: Resolver({"rebound.example": "127.0.0.1"}))
    url = f"http://rebound.example:{server.server_port}/a.mp4"
    with pytest.raises(InputError, match="private network"):
        fetch(url, allowing(max_bytes=10**6))
    assert server.asked == []
    # The connection goes to the checked address: only this table knows the name.
    assert fetch(url, allowing(f"rebound.example:{server.server_port}", max_bytes=10**6)) == b"inner"


def test_headers_of_the_options_stay_with_the_first_host(server: Answering, other: Answering) -> None:
    server.answers |= {"/a.mp4": redirect(other.url("/b.mp4")), "/c.mp4": redirect("/d.mp4"), "/d.mp4": body(b"d")}
    other.answers["/b.mp4"] = body(b"b")
    options = {**allowing(server.host, other.host), "headers": {"Authorization": SECRET, "X-Api-Key": SECRET}}
    assert fetch(server.url("/a.mp4"), options) == b"b"
    assert fetch(server.url("/c.mp4"), options) == b"d"
    assert all(headers["X-Api-Key"] == SECRET for _, headers in server.asked)
    assert SECRET not in str(other.asked)


def test_a_redirect_to_a_signed_url_is_followed_and_not_reported(server: Answering, other: Answering) -> None:
    path = f"/b.mp4?X-Amz-Signature={SECRET}"
    server.answers["/a.mp4"] = redirect(other.url(path))
    other.answers[path] = body(b"expired", 403)
    fs, url = open_url(server.url("/a.mp4"), allowing(server.host, other.host))
    for call in (fs.cat_file, fs.info):
        with pytest.raises((FileNotFoundError, aiohttp.ClientResponseError)) as caught:
            call(url)
        assert "403" in "".join(traceback.format_exception(caught.value))
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    other.answers[path] = body(b"video")
    assert fs.cat_file(url) == b"video"


def test_a_query_that_is_plain_is_sent(server: Answering) -> None:
    server.answers["/get?x=1"] = body(b"video")
    assert fetch(server.url("/get?x=1"), allowing(server.host)) == b"video"


@pytest.mark.slow
def test_the_process_that_decodes_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GITHUB_TOKEN", "MY_DB_URL", "WANDB_API_KEY", "RAY_AUTH"):
        monkeypatch.setenv(name, SECRET)
    child = _Child(Limits(10, 10**6, 5.0, 5.0, 400 * 2**20))
    try:
        environment = Path(f"/proc/{child.process.pid}/environ").read_bytes()
    finally:
        child.close()
    assert SECRET.encode() not in environment
    assert {item.split(b"=")[0].decode() for item in environment.split(b"\0") if item} <= {
        "PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "VIRTUAL_ENV",
        "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX",
    }  # fmt: skip
    assert os.environ["HF_TOKEN"] == SECRET


# Fuzz, bounded by the number of examples.

SECRETS = st.text(string.ascii_uppercase, min_size=12, max_size=20)
WORDS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=6)


@st.composite
def urls_with_a_secret(draw: st.DrawFn) -> tuple[str, str]:
    secret = draw(SECRETS)
    scheme = draw(st.sampled_from(["http", "https", "s3", "gs", "HTTPS"]))
    host, name, word = draw(WORDS), draw(WORDS), draw(WORDS)
    marks = draw(st.text("!$&'()*+,-.~%", max_size=3))
    url = draw(
        st.sampled_from(
            [
                f"{scheme}://{word}:{marks}{secret}@{host}/{name}",
                f"{scheme}://{secret}{marks}@{host}/{name}",
                f"{scheme}://{word}:{marks}{secret}:{secret}@{host}/{name}?{word}=1",
                f"{scheme}://{host}/{name}?{word}=1&{name}={secret}{marks}",
                f"{scheme}://{host}/{name}?{secret}=1&{secret}={secret}",
                f"{scheme}://{host}/{name}#{name}={secret}",
            ]
        )
    )
    chain = draw(st.sampled_from(["", "simplecache::", "zip://x::filecache::", f"https://{host}/y::"]))
    return chain + url, secret


@pytest.mark.slow
@examples(400)
@given(urls_with_a_secret())
def test_fuzz_a_secret_is_found_and_hidden_wherever_it_stands(case: tuple[str, str]) -> None:
    url, secret = case
    assert holds_credentials(url)
    for text in (shown(url), cleaned(url), cleaned(f"cannot connect to {url}: refused"), cleaned(f"<URL('{url}')>")):
        assert secret not in text


@pytest.mark.slow
@examples(400)
@given(st.text(max_size=60) | st.builds("{}://{}".format, WORDS, st.text(max_size=40)))
def test_fuzz_any_text_is_taken_or_refused(text: str) -> None:
    assert isinstance(shown(text), str)
    assert isinstance(cleaned(text), str)
    assert isinstance(holds_credentials(text), bool)
    try:
        check_url(text, "videos.uri")
    except ConfigError:
        return
    assert is_url(text)
    assert text.isprintable()
