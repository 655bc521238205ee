"""The review server and its file: hostile bodies, false lengths, and several servers on one run."""

from __future__ import annotations

import gzip
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from vtcav_ray.clips.decisions import FILE, Decisions, Subject, change_decisions, read_decisions
from vtcav_ray.errors import ConfigError
from vtcav_ray.review import server as server_module
from vtcav_ray.review.server import MAX_BODY, ReviewServer
from vtcav_ray.review.session import Session
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.swap import _locked, swap


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "run"))


def session_on(run: Folder) -> Session:
    wall: Any = SimpleNamespace(groups=[], title="t", key="k", home=run)
    return Session(wall, run)


@pytest.fixture
def server(run: Folder) -> Iterator[ReviewServer]:
    with ReviewServer(session_on(run)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def heads(server: ReviewServer, **changes: str | None) -> dict[str, str]:
    given: dict[str, str | None] = {
        "Host": f"127.0.0.1:{server.port}",
        "Cookie": f"{server.cookie}={server.token}",
        "Origin": f"http://127.0.0.1:{server.port}",
        "Content-Type": "application/json",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return {name: value for name, value in given.items() if value is not None}


def ask(server: ReviewServer, headers: dict[str, str], sent: bytes = b"", method: str = "POST") -> bytes:
    """Return all that the server answers until it closes the connection, which it must do on its own."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(f"{method} /api/undo HTTP/1.1\r\n{head}\r\n".encode("latin-1") + sent)
        answer = b""
        while piece := connection.recv(2**16):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("length", "status"),
    [("\u00b2", 400), ("-1", 400), ("+2", 400), ("0x2", 400), ("1_0", 400), ("2 2", 400), ("", 400),
     ("9" * 30, 400), (str(MAX_BODY + 1), 413), (str(10**17), 413), (None, 411)],
)  # fmt: skip
def test_a_length_that_is_none_is_refused(server: ReviewServer, length: str | None, status: int) -> None:
    answer = ask(server, heads(server, Content_Length=length), b"{}")
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1") == 1  # the unread body does not count as a second request
    assert b"Traceback" not in answer


def test_a_body_in_chunks_or_with_two_lengths_is_refused(server: ReviewServer) -> None:
    chunked = heads(server, Transfer_Encoding="chunked", Content_Length="2")
    assert ask(server, chunked, b"2\r\n{}\r\n0\r\n\r\n").startswith(b"HTTP/1.1 411 ")
    smuggled = b"GET /?token=x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    twice = {**heads(server, Content_Length="0"), "content-length": str(len(smuggled))}
    answer = ask(server, twice, smuggled)
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"Cookie": None}, 403), ({"Origin": "http://evil.example"}, 403), ({"Host": "evil.example"}, 421),
     ({"Content_Type": "text/plain"}, 415)],
)  # fmt: skip
def test_nobody_has_a_body_read_who_may_not_ask(
    server: ReviewServer, changes: dict[str, str | None], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.Request, "read", lambda self: 1 / 0)
    # The announced body never arrives, but the answer does.
    answer = ask(server, heads(server, Content_Length=str(MAX_BODY), **changes))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


def test_the_body_of_a_get_is_no_second_request(server: ReviewServer) -> None:
    second = b"GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = ask(server, heads(server, Content_Length=str(len(second))), second, "GET")
    assert answer.count(b"HTTP/1.1") == 1


def test_lists_in_lists_are_no_request(server: ReviewServer) -> None:
    deep = b"[" * 200_000
    answer = ask(server, heads(server, Content_Length=str(len(deep)), Connection="close"), deep)
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 403), (b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n", 421),
     (b"GET / HTTP/1.1\r\n\r\n", 421), (b"PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
     (b"GET / HTTP/1.1\r\nHost: localhost\r\nno header\r\n\r\n", 400),
     (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400)],
)  # fmt: skip
def test_every_refusal_has_the_safe_headers(server: ReviewServer, sent: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        answer = connection.recv(2**16)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Security-Policy: default-src 'none'" in answer
    assert b"X-Content-Type-Options: nosniff" in answer
    assert b"Cache-Control: no-store" in answer
    assert b"aiohttp" not in answer


def test_bytes_outside_ascii_are_no_token(server: ReviewServer) -> None:
    answer = ask(server, heads(server, Cookie=f"{server.cookie}=\xff\xfe", Content_Length="2"), b"{}")
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_a_compressed_body_is_not_unpacked(server: ReviewServer) -> None:
    packed = gzip.compress(b"{}")
    sent = heads(server, Content_Length=str(len(packed)), Content_Encoding="gzip", Connection="close")
    assert ask(server, sent, packed).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_stops_arriving_is_refused(server: ReviewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_IDLE_SECONDS", 0.2)
    assert ask(server, heads(server, Content_Length="100"), b"{").startswith(b"HTTP/1.1 408 ")


def test_a_browser_that_disconnects_is_no_error(
    server: ReviewServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    handle_error = server_module._Connection.handle_error

    def ending(*given: Any, **named: Any) -> Any:
        try:
            return handle_error(*given, **named)
        finally:
            ended.set()

    monkeypatch.setattr(server_module._Connection, "handle_error", ending)
    head = "".join(f"{name}: {value}\r\n" for name, value in heads(server, Content_Length="100").items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(f"POST /api/undo HTTP/1.1\r\n{head}\r\n{{".encode())
    assert ended.wait(10)
    assert ask(server, heads(server, Content_Length="2", Connection="close"), b"{}").startswith(b"HTTP/1.1 200 ")
    assert caplog.text == ""


# Several on one file.

OTHER = """
import sys
from vtcav_ray.clips.decisions import Subject, change_decisions
from vtcav_ray.store.commits import Folder

url, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for i in range(count):
    change_decisions(Folder(url), lambda d: d.changed([(Subject("concept", "c", f"{who}-{i}"), "reject")]))
    print(i, flush=True)
"""


@pytest.mark.slow
def test_every_decision_of_several_processes_is_in_the_file(run: Folder) -> None:
    each, who = 60, "abc"
    others = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER, run.url, name, str(each)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in who
    ]  # fmt: skip
    try:
        for other in others:  # all begin at the same time
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
        for other in others:
            assert other.stdin is not None
            other.stdin.write("\n")
            other.stdin.flush()
        answered = [other.communicate(timeout=120)[0].split() for other in others]
        assert [len(numbers) for numbers in answered] == [each] * len(who)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert {d.subject.clip_id for d in read_decisions(run).rows()} == {f"{w}-{i}" for w in who for i in range(each)}


@pytest.mark.slow
def test_every_answered_decision_of_two_servers_is_in_the_file(run: Folder) -> None:
    each = 100
    sessions = [session_on(run), session_on(run)]
    answered: list[str] = []

    def decide(session: Session, who: int) -> None:
        for i in range(each):
            clip = f"{who}-{i}"
            session.decide({"changes": [{"set": "concept", "name": "c", "clip_id": clip, "verdict": "reject"}]})
            answered.append(clip)

    threads = [threading.Thread(target=decide, args=(s, n)) for n, s in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) == 2 * each
    assert {d.subject.clip_id for d in read_decisions(run).rows()} == set(answered)


def test_undo_leaves_what_another_server_decided(run: Folder) -> None:
    first, second = session_on(run), session_on(run)
    for session, clip in ((first, "a"), (second, "b"), (first, "c")):
        session.decide({"changes": [{"set": "concept", "name": "c", "clip_id": clip, "verdict": "reject"}]})
    first.undo()
    assert {d.subject.clip_id for d in read_decisions(run).rows()} == {"a", "b"}


def test_a_broken_file_is_not_written_over(run: Folder) -> None:
    run.write_bytes(FILE, b"set,name\nx\n")
    with pytest.raises(ConfigError):
        change_decisions(run, lambda found: found.changed([(Subject("class", "x"), "reject")]))
    assert run.read_bytes(FILE) == b"set,name\nx\n"


@pytest.mark.slow
def test_a_lock_of_a_process_that_was_killed_is_free(run: Folder) -> None:
    hold = (
        "import sys, time; from vtcav_ray.store.swap import _locked\n"
        "with _locked(sys.argv[1]):\n    print('held', flush=True); time.sleep(600)"
    )
    path = run.path(f".{FILE}.lock")
    other = subprocess.Popen([sys.executable, "-c", hold, path], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    done = threading.Thread(target=change_decisions, args=(run, lambda found: found), daemon=True)
    done.start()
    time.sleep(0.2)
    assert done.is_alive()
    assert not run.exists(FILE)
    other.kill()
    other.wait()
    done.join(30)
    assert read_decisions(run) == Decisions()
    assert run.exists(FILE)


def test_a_lock_that_stays_held_is_an_error_in_the_end(run: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtcav_ray.store.swap.LOCK_SECONDS", 0.1)
    run.write_bytes(FILE, b"before")
    with _locked(run.path(f".{FILE}.lock")), pytest.raises(TimeoutError, match="locked by another process"):
        swap(run, FILE, lambda data: b"after")
    assert run.read_bytes(FILE) == b"before"


def test_a_swap_in_memory_is_whole(tmp_path: Path) -> None:
    folder = Folder(f"memory://swap/{tmp_path.name}")
    threads = [
        threading.Thread(target=swap, args=(folder, "n", lambda d: b"%d" % (int(d or b"0") + 1))) for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folder.read_bytes("n") == b"40"
    assert list(itertools.islice(folder.names(""), 2)) == ["n"]
