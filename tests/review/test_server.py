"""The requests that the review server accepts and refuses, and the decisions that it keeps."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.helpers.review_run import CLIPS_EACH, NASTY, all_rows
from vtcav_ray.cli.review import export, is_loopback
from vtcav_ray.clips.decisions import FILE, read_decisions
from vtcav_ray.errors import ConfigError
from vtcav_ray.review.clip_groups import ClipGroups
from vtcav_ray.review.server import ReviewServer
from vtcav_ray.review.session import Session
from vtcav_ray.runs.run import Run
from vtcav_ray.store.folder import Folder

FIRST = next(r["clip_id"] for r in all_rows() if (r["name"], r["kind"]) == ("ball", "spatial"))


class Client:
    """A client that acts like a browser at the printed address; headers can be changed or left out (None)."""

    def __init__(self, server: ReviewServer) -> None:
        self.server = server
        self.headers = {
            "Host": f"127.0.0.1:{server.port}",
            "Cookie": f"{server.cookie}={server.token}",
            "Origin": f"http://127.0.0.1:{server.port}",
            "Content-Type": "application/json",
        }

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in {**self.headers, **changed}.items() if value is not None}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.putrequest(method, path, skip_host=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(data or b"")))
        connection.endheaders(data)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def decide(self, *changes: tuple[str, str, str, str | None]) -> dict[str, Any]:
        rows = [dict(zip(("set", "name", "clip_id", "verdict"), row, strict=True)) for row in changes]
        status, _, content = self.ask("POST", "/api/decide", {"changes": rows})
        assert status == 200, content
        return dict(json.loads(content))


@pytest.fixture
def server(run: Run) -> Iterator[ReviewServer]:
    with ReviewServer(Session(ClipGroups(run), run.folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: ReviewServer) -> Client:
    return Client(server)


def test_it_listens_on_loopback_alone(server: ReviewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.1.2.3", "box")] == [
        *[True] * 3,
        *[False] * 3,
    ]


def test_the_token_becomes_a_cookie_and_leaves_the_address(client: Client) -> None:
    status, headers, _ = client.ask("GET", f"/?token={client.server.token}", Cookie=None, Origin=None)
    assert (status, headers["Location"]) == (303, "/")
    assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
    status, headers, page = client.ask("GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"drawn &lt;run&gt;" in page


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"Cookie": None}, 403),
        ("GET", "/?token=guess", {"Cookie": None}, 403),
        ("GET", "/api/state", {"Cookie": "vtcav_review_1=x"}, 403),
        ("GET", "/preview/" + quote(FIRST, safe=""), {"Cookie": None}, 403),
        ("GET", "/api/state", {"Host": "evil.example"}, 421),  # DNS rebinding
        ("GET", "/api/state", {"Host": "evil.example:80", "Cookie": None}, 421),
        ("GET", "/api/state", {"Host": None}, 421),
        ("GET", "/api/state", {"Host": "localhost:9"}, 200),  # an SSH tunnel on another port
        ("POST", "/api/undo", {"Origin": "http://evil.example"}, 403),
        ("POST", "/api/undo", {"Origin": None}, 403),
        ("POST", "/api/undo", {"Origin": "http://127.0.0.1:1"}, 403),  # another server on this machine
        ("POST", "/api/undo", {"Cookie": None}, 403),
        ("POST", "/api/undo", {"Content_Type": "text/plain"}, 415),  # a form on another page could send this
        ("POST", "/api/undo", {"Host": "evil.example", "Origin": "http://evil.example"}, 421),
        ("POST", "/api/undo", {}, 200),
        ("GET", "/assets/../page.py", {}, 404),
        ("GET", "/assets/review.html", {}, 404),
        ("GET", "/preview/no%20such", {}, 404),
        ("GET", "/run.json", {}, 404),
    ],
)
def test_who_may_ask(
    client: Client, method: str, path: str, headers: dict[str, str | None], status: int, run: Run
) -> None:
    assert client.ask(method, path, b"" if method == "POST" else None, **headers)[0] == status
    assert not run.folder.exists(FILE)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"changes": []}', b'{"changes": [{"set": "concept"}]}', b'{"changes": "x"}', b'{"changes": [3]}',
     b'{"changes": [{"set": "concept", "name": "a", "clip_id": "", "verdict": "maybe"}]}',
     b'{"changes": [{"set": "other", "name": "a", "clip_id": "", "verdict": "accept"}]}'],
)  # fmt: skip
def test_nonsense_is_refused_and_nothing_kept(client: Client, body: bytes, run: Run) -> None:
    assert client.ask("POST", "/api/decide", body)[0] == 400
    assert not run.folder.exists(FILE)


def test_the_state_has_every_clip_but_the_controls(client: Client) -> None:
    state = json.loads(client.ask("GET", "/api/state")[2])
    assert [(g["set"], g["name"], len(g["clips"])) for g in state["groups"]] == [
        ("concept", f"{NASTY}/spatial", CLIPS_EACH),
        ("concept", f"{NASTY}/spatiotemporal", CLIPS_EACH),
        ("concept", "ball/spatial", CLIPS_EACH),
        ("concept", "ball/spatiotemporal", CLIPS_EACH),
        ("class", "lift", 3),
        ("random", "random/spatial", 4),
    ]
    assert state["siblings"][FIRST] == [FIRST.replace("/spatial/", "/spatiotemporal/")]


def test_previews_are_moving_pictures_made_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/preview/" + quote(FIRST.replace("/spatial/", "/spatiotemporal/"), safe="") + "?key=k1"
    status, headers, image = client.ask("GET", path)
    assert (status, headers["Content-Type"]) == (200, "image/webp")
    assert image[:4] == b"RIFF"
    assert b"ANIM" in image
    monkeypatch.setattr("vtcav_ray.review.clip_groups.make_preview", lambda *_: 1 / 0)
    assert client.ask("GET", path)[2] == image


def test_decisions_are_kept_at_once_and_undone_one_by_one(client: Client, run: Run) -> None:
    client.decide(("concept", "ball/spatial", FIRST, "reject"))
    client.decide(("concept", "ball/spatial", "", "accept"), ("concept", "ball/spatial", FIRST, "accept"))
    assert read_decisions(run.folder).verdict("concept", "ball/spatial", FIRST) == "accept"
    assert json.loads(client.ask("POST", "/api/undo", {})[2])["undo"] == 1
    decisions = read_decisions(run.folder)
    assert (len(decisions), decisions.verdict("concept", "ball/spatial", FIRST)) == (1, "reject")
    client.ask("POST", "/api/undo", {})
    assert len(read_decisions(run.folder)) == 0
    assert json.loads(client.ask("POST", "/api/undo", {})[2])["undo"] == 0
    again = Session(ClipGroups(run), run.folder).state()
    assert again["decisions"] == []


def test_what_is_written_by_hand_meanwhile_is_kept_and_shown(client: Client, run: Run) -> None:
    client.decide(("concept", "ball/spatial", FIRST, "reject"))
    text = run.folder.read_bytes(FILE) + b"class,lift,,reject,by hand\n"
    run.folder.write_bytes(FILE, text)
    answer = client.decide(("random", "random/spatial", "", "accept"))
    assert ["class", "lift", "", "reject"] in answer["decisions"]
    assert b"by hand" in run.folder.read_bytes(FILE)
    run.folder.write_bytes(FILE, text + b"class,lift,,maybe,\n")
    body = {"changes": [{"set": "class", "name": "lift", "clip_id": "", "verdict": "accept"}]}
    status, _, message = client.ask("POST", "/api/decide", body)
    assert status == 409
    assert b"line 4" in message
    assert b"maybe" in run.folder.read_bytes(FILE)  # a broken file is not overwritten


def test_decisions_from_many_threads_are_all_kept(client: Client, run: Run) -> None:
    clips = [f"c{i}" for i in range(24)]
    threads = [
        threading.Thread(target=client.decide, args=(("concept", "ball/spatial", clip, "reject"),)) for clip in clips
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {d.subject.clip_id for d in read_decisions(run.folder).rows()} == set(clips)


def test_a_slow_decision_delays_no_other_request_and_is_answered_at_the_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go = threading.Event(), threading.Event()

    def undo() -> dict[str, Any]:
        began.set()
        assert go.wait(20)
        return {"undo": 0}

    answers: list[int] = []
    with ReviewServer(Session(ClipGroups(run), run.folder)) as server:
        monkeypatch.setattr(server.session, "undo", undo)
        client = Client(server)
        serving = threading.Thread(target=server.serve_forever)
        asking = threading.Thread(target=lambda: answers.append(client.ask("POST", "/api/undo", {})[0]))
        serving.start()
        asking.start()
        assert began.wait(20)
        assert client.ask("GET", "/favicon.ico")[0] == 204
        server.shutdown()
        go.set()
        asking.join()
        serving.join()
    assert answers == [200]


def test_on_all_addresses_the_machine_is_known_by_its_addresses_and_name(run: Run) -> None:
    with ReviewServer(Session(ClipGroups(run), run.folder), "0.0.0.0") as server:
        hosts = ["10.1.2.3:80", "localhost", "[::1]:9", socket.gethostname(), "evil.example", "", "[", "10.1.2"]
        assert [server.knows_host(host) for host in hosts] == [True] * 4 + [False] * 4
        assert server.url.startswith("http://127.0.0.1:")


CTRL_C = """
import sys
from vtcav_ray.cli.review import serve
from vtcav_ray.runs.run import Run

serve(Run(sys.argv[1]), "127.0.0.1", 0, lambda line: print(line, flush=True))
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_server(run: Run) -> None:
    process = subprocess.Popen([sys.executable, "-c", CTRL_C, run.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().decode().removeprefix("Review: ").strip())
        assert process.stdout.readline()
        kept = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        kept.request("GET", f"/?{address.query}")
        assert kept.getresponse().status == 303  # this connection stays open
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (0, b"")
    assert b"Stopped." in out


def test_runs_that_share_clips_share_their_review(run: Run, tmp_path: Any) -> None:
    later = Folder(str(tmp_path / "later"))
    config = {"videos": {"uri": "x"}}
    later.write_json("run.json", {"config": config, "keys": run.keys, "base": "../run"})
    assert ClipGroups(Run(later.url)).home.url == run.folder.url


def test_a_busy_port_and_a_run_without_clips_are_reported(server: ReviewServer, run: Run, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="--port"):
        ReviewServer(server.session, "127.0.0.1", server.port)
    folder = Folder(str(tmp_path / "young"))
    folder.write_json("run.json", {"config": {"videos": {"uri": "x"}}, "keys": {"clips": "k2"}})
    with pytest.raises(ConfigError, match="--until clips"):
        ClipGroups(Run(folder.url))


def test_the_contact_sheet_has_every_clip_with_its_decision(run: Run, tmp_path: Any) -> None:
    run.folder.write_bytes(FILE, f"set,name,clip_id,decision\n,,{FIRST},reject\n".encode())
    line = export(run, str(tmp_path / "sheet.html"), 4)
    assert "sheet.html" in line
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("data:image/webp;base64,") == 4 * 4 + 3 + 4
    assert page.count(">rejected<") == 1
    assert "the first 4 are shown" in page
    assert NASTY not in page
    assert "<script" not in page
    with pytest.raises(ConfigError, match="--export"):
        export(run, str(tmp_path), 4)
