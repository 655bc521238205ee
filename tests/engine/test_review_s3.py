"""Review decisions on an object store, where several people decide at once."""

from __future__ import annotations

import threading

import pytest

from tests.helpers.seaweed import Seaweed
from vtcav_ray.clips.decisions import FILE, Subject, change_decisions, read_decisions
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.swap import swap


@pytest.mark.slow
def test_every_decision_is_in_the_file(s3: Seaweed) -> None:
    folder = Folder(f"{s3.bucket('review-together')}/run", s3.storage_options)
    each, people = 15, 4

    def decide(who: int) -> None:
        for i in range(each):
            change_decisions(folder, lambda d: d.changed([(Subject("concept", "c", f"{who}-{i}"), "reject")]))  # noqa: B023

    threads = [threading.Thread(target=decide, args=(who,)) for who in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = {f"{who}-{i}" for who in range(people) for i in range(each)}
    assert {d.subject.clip_id for d in read_decisions(folder).rows()} == wanted


@pytest.mark.slow
def test_a_file_that_changed_since_it_was_read_is_not_written_over(s3: Seaweed) -> None:
    folder = Folder(f"{s3.bucket('review-raced')}/run", s3.storage_options)
    seen: list[bytes | None] = []

    def change(data: bytes | None) -> bytes:
        seen.append(data)
        if len(seen) <= 2:  # another process writes between this read and its write: first a new file, then another
            folder.write_bytes(FILE, b"theirs %d" % len(seen))
        return (data or b"") + b", mine"

    swap(folder, FILE, change)
    assert seen == [None, b"theirs 1", b"theirs 2"]
    assert folder.read_bytes(FILE) == b"theirs 2, mine"


@pytest.mark.slow
def test_a_file_that_changes_each_time_is_an_error_in_the_end(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtcav_ray.store.swap.ROUNDS", 3)
    folder = Folder(f"{s3.bucket('review-lost')}/run", s3.storage_options)
    calls: list[bytes | None] = []

    def change(data: bytes | None) -> bytes:
        calls.append(data)
        folder.write_bytes(FILE, b"theirs %d" % len(calls))
        return b"mine"

    with pytest.raises(ConnectionError, match="changed by another process 3 times"):
        swap(folder, FILE, change)
    assert calls == [None, b"theirs 1", b"theirs 2"]
    assert folder.read_bytes(FILE) == b"theirs 3"
