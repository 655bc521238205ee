"""Errors are attributed to a video or to its storage, with real servers, real files and real refusals."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.helpers.bad_server import ALL, BadServer
from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import ConfigError, EnvironmentFault, InputError
from vtcav_ray.store import access
from vtcav_ray.store.access import AccessError
from vtcav_ray.store.files import read_bytes, sha256_of
from vtcav_ray.store.urls import ANY_ADDRESS, READ_LIMITS, ReadLimits
from vtcav_ray.tables import VIDEOS
from vtcav_ray.video.fetch import CUT_OFFS, fetch
from vtcav_ray.video.ffmpeg_errors import raise_unless_bad_video
from vtcav_ray.video.neighbours import ASKED, neighbours_of, with_neighbours
from vtcav_ray.videos.listing import list_videos

NAMES = [f"{i}.mp4" for i in range(6)]
CONTENT = b"0123456789" * 20_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(access, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(access, "LONGEST_WAIT_SECONDS", 0.01)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may read, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        for name in NAMES:
            (Path(made) / name).write_bytes(CONTENT)
        yield Path(made)


@pytest.fixture
def server(folder: Path) -> Iterator[BadServer]:
    with BadServer(folder) as running:
        yield running


# The servers are on this machine, where only URLs that a config names may lead.
ANY_HOST = {READ_LIMITS: ReadLimits(private=(ANY_ADDRESS,))}


@contextmanager
def as_nobody() -> Iterator[None]:
    """Act as an unprivileged user, since tests may run as root, to whom no file is refused."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def table(where: str, names: Sequence[str] = NAMES) -> pa.Table:
    rows = [dict.fromkeys(VIDEOS.names) | {"video_id": name, "uri": f"{where}/{name}"} for name in names]
    return pa.Table.from_pylist(rows, schema=VIDEOS)


def outcomes(where: str, names: Sequence[str] = NAMES, options: dict[str, Any] | None = None) -> dict[str, str]:
    """Return video -> `read` or the kind of its failure. The neighbours are those of the whole table."""
    videos = table(where, names)
    found = {}
    for name, video in with_neighbours(videos, neighbours_of(videos)).items():
        try:
            data = fetch(video, {**ANY_HOST, **(options or {})})
            assert data == CONTENT or isinstance(data, str)
            found[name] = "read"
        except InputError as error:
            found[name] = error.kind if f"{where}/{name}" in error.message else f"not named: {error.message}"
    return found


def all_read_but(name: str, kind: str) -> dict[str, str]:
    return dict.fromkeys(NAMES, "read") | {name: kind}


# --- http -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 5])  # at any place in the list
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("404", "missing"),
        ("410", "missing"),
        ("401", "permission"),
        ("403", "permission"),
        ("400", "unreadable"),
        ("416", "unreadable"),
        ("451", "unreadable"),
        ("cut", "unreadable"),
        ("reset", "unreadable"),
        ("length", "unreadable"),
    ],
)
def test_one_bad_object_is_a_row_and_the_others_are_read(server: BadServer, place: int, fault: str, kind: str) -> None:
    server.faults = {NAMES[place]: fault}
    assert outcomes(server.url) == all_read_but(NAMES[place], kind)


@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "504", "599"])
@pytest.mark.parametrize("whose", [NAMES[2], ALL])
def test_an_answer_of_the_service_is_nobodys_failure(server: BadServer, fault: str, whose: str) -> None:
    server.faults = {whose: fault}
    with pytest.raises(ConnectionError, match=f"could not be reached for 0 s; the last answer: HTTP {fault}"):
        outcomes(server.url)
    assert server.asked.count(NAMES[2] if whose != ALL else NAMES[0]) > 2


@pytest.mark.parametrize(("fault", "error"), [("401", AccessError), ("403", AccessError), ("416", EnvironmentFault),
                                              ("cut", EnvironmentFault), ("reset", EnvironmentFault)])  # fmt: skip
def test_what_is_so_for_every_object_is_the_hosts_fault(
    server: BadServer, fault: str, error: type[EnvironmentFault]
) -> None:
    server.faults = {ALL: fault}
    with pytest.raises(error, match=rf"No other video of {server.url} that was tried"):
        outcomes(server.url)


def test_every_object_absent_is_what_the_host_says(server: BadServer) -> None:
    server.faults = {ALL: "404"}
    assert outcomes(server.url) == dict.fromkeys(NAMES, "missing")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_a_host_that_does_not_answer_is_nobodys_failure(url: str) -> None:
    with pytest.raises(ConnectionError, match=f"{url}/0.mp4 could not be reached"):
        outcomes(url)


def test_a_wait_that_the_server_asks_for_is_kept(server: BadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setattr(access, "PATIENCE_SECONDS", 60.0)
    server.faults = {NAMES[1]: "retry"}
    # fsspec asks twice for a size, so the one bad answer is not always seen here.
    assert outcomes(server.url) == dict.fromkeys(NAMES, "read")
    server.faults = {NAMES[1]: "later"}
    waits.clear()
    with pytest.raises(ConnectionError, match="it asks for a wait of 3600 s"):
        outcomes(server.url)
    assert waits == []


def test_an_object_alone_on_its_host_has_no_neighbour_to_ask(server: BadServer) -> None:
    server.faults = {ALL: "403"}
    assert outcomes(server.url, NAMES[:1]) == {NAMES[0]: "permission"}


def test_an_object_that_breaks_off_is_asked_for_a_few_times_and_no_more(server: BadServer) -> None:
    server.faults = {NAMES[3]: "cut"}
    assert outcomes(server.url) == all_read_but(NAMES[3], "unreadable")
    # One request per try, and one more try after a neighbour could be read.
    assert server.asked.count(NAMES[3]) == CUT_OFFS + 1


def test_trouble_that_ends_while_the_neighbours_are_asked_is_nobodys_failure(
    server: BadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults = {NAMES[0]: "cut"}
    before = server.asked.count

    def mended(*_: object) -> str:
        if before(NAMES[0]) >= CUT_OFFS:
            server.faults.clear()
        return ""

    monkeypatch.setattr("vtcav_ray.video.neighbours._place", lambda uri: mended() or "here")
    assert outcomes(server.url)[NAMES[0]] == "read"


def test_few_neighbours_are_kept_and_the_same_ones_in_any_order() -> None:
    rows = table("http://h", [f"{i}.mp4" for i in range(500)])
    (near,) = neighbours_of(rows).values()
    assert len(near) == ASKED + 1
    assert neighbours_of(rows.take(list(reversed(range(500))))) == {"http://h": near}
    both = neighbours_of(pa.concat_tables([rows, table("s3://b/x"), table("/disk"), table("http://h:81")]))
    assert sorted(both) == ["http://h", "http://h:81", "s3://b", "this disk"]


# --- files of a run that are not videos -------------------------------------------------------------------------------


@pytest.mark.slow
def test_model_files_over_http_say_what_is_wrong(server: BadServer) -> None:
    uri = f"{server.url}/{NAMES[0]}"
    for fault, error, words in (
        ("404", ConfigError, "No checkpoint at"),
        ("403", AccessError, r"access is refused \(HTTP 403\)"),
        ("401", AccessError, r"access is refused \(HTTP 401\)"),
        ("503", EnvironmentFault, "could not be reached"),
        ("429", EnvironmentFault, "could not be reached"),
        ("cut", EnvironmentFault, "breaks off each time"),
    ):
        server.faults = {NAMES[0]: fault}
        for use in (read_bytes, sha256_of):
            with pytest.raises(error, match=words):
                use(uri, what="checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["videos.csv", "one.mp4"])
def test_a_manifest_that_the_server_does_not_give_now_is_not_absent(server: BadServer, folder: Path, name: str) -> None:
    (folder / name).write_text("uri,label\n0.mp4,lift\n")
    config = VideosConfig(uri=f"{server.url}/{name}")
    assert list_videos(config)[0].num_rows == 1
    server.faults = {name: "503"}
    with pytest.raises(ConnectionError, match="could not be reached"):
        list_videos(config)
    server.faults = {name: "403"}
    with pytest.raises(AccessError, match="access is refused"):
        list_videos(config)
    server.faults = {name: "404"}
    with pytest.raises(ConfigError, match="does not exist"):
        list_videos(config)
    server.faults = {"labels.csv": "403"}  # the config does not name it, and it does not exist
    assert list_videos(config)[0].num_rows == 1
    server.faults = {"labels.csv": "503"} if name == "one.mp4" else {}
    if name == "one.mp4":
        with pytest.raises(ConnectionError, match="could not be reached"):
            list_videos(config)


def test_labels_that_the_server_does_not_give_now_are_not_absent(server: BadServer, folder: Path) -> None:
    (folder / "l.csv").write_text("video_id,label\n0.mp4,lift\n")
    (folder / "videos.csv").write_text("uri\n0.mp4\n")
    config = VideosConfig(uri=f"{server.url}/videos.csv", labels=f"{server.url}/l.csv")
    assert list_videos(config)[0]["label"].to_pylist() == ["lift"]
    server.faults = {"l.csv": "500"}
    with pytest.raises(ConnectionError, match="could not be reached"):
        list_videos(config)


# --- local disks ------------------------------------------------------------------------------------------------------


def test_a_local_file_that_may_not_be_read_is_a_row(folder: Path) -> None:
    (folder / NAMES[2]).chmod(0)
    with as_nobody():
        assert outcomes(str(folder)) == all_read_but(NAMES[2], "permission")


def test_no_local_file_may_be_read(folder: Path) -> None:
    for name in NAMES:
        (folder / name).chmod(0)
    with as_nobody(), pytest.raises(AccessError, match="No other video of this disk"):
        outcomes(str(folder))


def test_a_file_whose_blocks_cannot_be_read_is_a_row(folder: Path) -> None:
    """The kernel returns EIO for the first page of a process's memory."""
    (folder / NAMES[4]).unlink()
    (folder / NAMES[4]).symlink_to("/proc/self/mem")
    assert outcomes(str(folder)) == all_read_but(NAMES[4], "unreadable")
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("/proc/self/mem")
    with pytest.raises(EnvironmentFault, match="No other video of this disk"):
        outcomes(str(folder))


def test_a_disk_that_fails_while_a_video_is_decoded_is_a_row() -> None:
    with pytest.raises(InputError, match="can't be read to its end") as caught:
        raise_unless_bad_video("/proc/self/mem", OSError(errno.EIO, "FFmpeg says so of bad data, too"))
    assert caught.value.kind == "unreadable"


def test_a_stale_handle_is_opened_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, stale = os.stat, [OSError(errno.ESTALE, "Stale file handle")] * 2

    def falters(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith(NAMES[0]) and stale:
            raise stale.pop()
        return real(path, **options)

    monkeypatch.setattr(os, "stat", falters)
    assert outcomes(str(folder)) == dict.fromkeys(NAMES, "read")
    assert stale == []


def test_a_full_disk_is_not_a_videos_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Any, **_: Any) -> os.stat_result:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr("vtcav_ray.video.fetch.os.stat", full)
    with pytest.raises(OSError, match="No space left"):
        outcomes(str(folder))


def test_a_folder_that_is_gone_is_not_mounted_and_a_file_that_is_gone_is_missing(folder: Path) -> None:
    (folder / NAMES[1]).unlink()
    assert outcomes(str(folder)) == all_read_but(NAMES[1], "missing")
    with pytest.raises(EnvironmentFault, match="Mount their disk"):
        outcomes(str(folder / "away"))
    assert outcomes(str(folder / "away"), NAMES[:1]) == {NAMES[0]: "missing"}


def test_a_sub_folder_that_may_not_be_listed_is_a_row(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir()
    (closed / "x.mp4").write_bytes(CONTENT)
    closed.chmod(0)
    with as_nobody():
        videos, failures = list_videos(VideosConfig(uri=str(folder)))
    assert videos["video_id"].to_pylist() == NAMES
    assert [(f.uri, f.error_kind) for f in failures] == [(str(closed), "permission")]
    with as_nobody(), pytest.raises(AccessError, match=r"closed\b.*: Permission denied"):
        list_videos(VideosConfig(uri=str(closed)))


def test_rows_of_a_manifest_in_a_closed_folder(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir()
    (closed / "x.mp4").write_bytes(CONTENT)
    manifest = folder / "videos.csv"
    manifest.write_text("uri\n" + "\n".join([*NAMES, "closed/x.mp4"]))
    closed.chmod(0)
    with as_nobody():
        videos, failures = list_videos(VideosConfig(uri=str(manifest)))
    assert videos["video_id"].to_pylist() == NAMES
    assert [(f.video_id, f.error_kind) for f in failures] == [("closed/x.mp4", "permission")]
