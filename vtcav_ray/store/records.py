"""The small JSON files of a run folder: sealed when they are written, checked when they are read.

`run.json`, manifests, commit records and pointers decide which rows a reader sees. Each holds the digest of its own
content (`sealed`), so a flipped bit, a file that was cut off, or an edit by hand is an error that names the file, and
never another run's rows or a `JSONDecodeError`. Files from before this check hold no digest and are read without it;
what readers rely on (`CommitRecord`, `Manifest`, `RunJson`) is checked by its types in any case.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypeVar

import pydantic
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # what pydantic wants before Python 3.12

from vtcav_ray.errors import StageError

SEAL = "sealed"
FORMAT = "file_format"  # says that there must be a seal, so that a flipped bit in the word `sealed` takes none off
SEALED_FORMAT = 2
COMMITS = "_commits"
MANIFEST = "manifest.json"
T = TypeVar("T")


class BrokenFile(StageError):
    """A file of a run is not what was written: it is cut off, changed, or not there. The message names it and the fix.

    Args:
        url: of the file.
        what: what is wrong with it: `it ends in the middle`.
        fix: a sentence that says what to do.
    """

    def __init__(self, url: str, what: str, fix: str) -> None:
        super().__init__(f"{url}: {what}. {fix}")
        self.url, self.what, self.fix = url, what, fix

    def __reduce__(self) -> tuple[type[BrokenFile], tuple[str, str, str]]:
        return type(self), (self.url, self.what, self.fix)


def canonical_digest(value: Any) -> str:
    """Hex SHA-256 of a JSON-like value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def sealed_bytes(value: Any) -> bytes:
    """A value as JSON; a mapping with the digest of its content under `sealed`."""
    plain = json.loads(json.dumps(value, default=str))  # as a reader will see it: lists for tuples, strings for keys
    if isinstance(plain, dict):
        plain[FORMAT] = SEALED_FORMAT
        plain[SEAL] = canonical_digest(plain)
    return json.dumps(plain, indent=1, sort_keys=True).encode()


def parse_sealed(data: bytes, url: str) -> Any:
    """The value of a JSON file, its seal checked and taken off.

    Args:
        data: the file's content.
        url: of the file, for the message.

    Raises:
        BrokenFile: it is no JSON, or its content does not have the digest that it names.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # no UTF-8 is a ValueError, too
        what = "it is empty" if not data.strip(b"\0 \n") else f"it is no whole JSON ({error})"
        raise BrokenFile(url, what, fix_of(url)) from error
    if isinstance(value, dict) and (SEAL in value or FORMAT in value):
        if value.pop(SEAL, None) != canonical_digest(value):
            raise BrokenFile(url, "its content is not what was written (its checksum differs)", fix_of(url))
        value.pop(FORMAT, None)
    return value


def fix_of(url: str) -> str:
    """What to do about a broken file of a run folder, by its name."""
    folder, _, name = url.rpartition("/")
    if name == "run.json":
        return f"Run `vtcav run CONFIG --out {folder}` again: it writes the file again, and keeps what is finished."
    if name == MANIFEST or folder.endswith(f"/{COMMITS}"):
        return "`vtcav run` on this folder makes it again; `vtcav verify` lists all that is broken."
    if name == "gradcam.json":
        return f"Remove it, or run `vtcav gradcam CONFIG --out {folder}` again."
    if name == "superseded.json":
        return "Remove it to go back to the output beside it, then run `vtcav retry-failed` again."
    return "Remove it and run the command again: it is written again."


def _part(name: str) -> str:
    """The name of one file or folder, and no way out of the folder that it is in."""
    if not re.fullmatch(r"[^/\\\x00-\x1f]+", name) or name in (".", ".."):
        raise ValueError("not the name of a file")
    return name


def _path(path: str) -> str:
    if not path.endswith(".parquet") or not all(_part(part) for part in path.split("/")):
        raise ValueError("not the path of a table's file")
    return path


Name = Annotated[str, AfterValidator(_part)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
_OPEN = ConfigDict(extra="allow", strict=True)


@with_config(_OPEN)
class FileEntry(TypedDict):
    """What a commit record says of one file.

    Attributes:
        rows, bytes: how many.
        sha256: of the whole file.
        blocks: SHA-256 of each of its blocks of `vtcav_ray.store.verified.BLOCK_BYTES` bytes; left out where it has
        only one,
            and in records of versions that did not write them.
    """

    rows: Count
    bytes: Count
    sha256: Sha256
    blocks: NotRequired[list[Sha256]]


Files = dict[Annotated[str, AfterValidator(_path)], FileEntry]


@with_config(_OPEN)
class CommitRecord(TypedDict):
    """`_commits/<shard>.json`: what a shard consists of."""

    shard: Name
    files: Files
    failures: Count
    metrics: dict[str, int | float]
    warnings: list[str]


@with_config(_OPEN)
class Manifest(TypedDict):
    """`manifest.json`: a complete stage. `shards` is its plan: each shard, and the files that it consists of."""

    stage: str
    key: str
    ingredients: dict[str, Any]
    shards: dict[Name, Files]
    rows: dict[str, Count]
    bytes: Count
    metrics: dict[str, int | float]
    warnings: list[str]
    notes: NotRequired[dict[str, Any]]
    seconds: NotRequired[float | int]


@with_config(_OPEN)
class RunJson(TypedDict):
    """`run.json`: the newest run of a folder."""

    config: dict[str, Any]
    keys: dict[Name, Name]
    previous: NotRequired[dict[Name, Name]]
    status: NotRequired[str]
    base: NotRequired[str]
    error: NotRequired[str]
    updated: NotRequired[float | int]
    retired: NotRequired[list[Annotated[list[Name], Field(min_length=2, max_length=2)]]]


@with_config(_OPEN)
class Pointer(TypedDict):
    """`superseded.json`: the key of the output that has taken an output's place."""

    by: Name


@with_config(_OPEN)
class BranchJson(TypedDict):
    """`gradcam.json`: the newest output of a branch, and the keys of the stages that it has read."""

    key: Name
    inputs: dict[Name, Name]


@with_config(_OPEN)
class Plan(TypedDict):
    """`plan.json`: how many shards a stage has, how many were there when it was begun, and when that was."""

    shards: Count
    done: Count
    started: float | int
    carried: NotRequired[dict[str, Any]]


COMMIT_RECORD = TypeAdapter(CommitRecord)
MANIFEST_RECORD = TypeAdapter(Manifest)
RUN_JSON = TypeAdapter(RunJson)
POINTER = TypeAdapter(Pointer)
BRANCH_JSON = TypeAdapter(BranchJson)
PLAN_JSON = TypeAdapter(Plan)


def checked(value: Any, kind: TypeAdapter[T], url: str) -> T:
    """A value of one of the kinds above.

    Raises:
        BrokenFile: it is something else; the message names the key that is wrong.
    """
    try:
        return kind.validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its content"
        raise BrokenFile(url, f"`{where}` is not as it was written ({first['msg']})", fix_of(url)) from error


def commit_record(value: Any, url: str) -> CommitRecord:
    """A commit record, also held against its own name.

    Raises:
        BrokenFile: it is none, or it is another shard's.
    """
    record = checked(value, COMMIT_RECORD, url)
    _of_one_shard(record["shard"], record["files"], url)
    if url.rsplit("/", 1)[-1] != f"{record['shard']}.json":
        raise BrokenFile(url, f"it is the record of another shard, {record['shard']}", fix_of(url))
    return record


def manifest_record(value: Any, url: str, stage: str, key: str) -> Manifest:
    """A manifest, also held against the stage and key that it should be of.

    Raises:
        BrokenFile: it is none, or another output's.
    """
    manifest = checked(value, MANIFEST_RECORD, url)
    if (manifest["stage"], manifest["key"]) != (stage, key):
        raise BrokenFile(url, f"it is the manifest of {manifest['stage']}/{manifest['key']}", fix_of(url))
    for shard, files in manifest["shards"].items():
        _of_one_shard(shard, files, url)
    return manifest


def _of_one_shard(shard: str, files: Mapping[str, Any], url: str) -> None:
    for path in files:
        if path.rsplit("/", 1)[-1] != f"{shard}.parquet":
            raise BrokenFile(url, f"it names a file of another shard, {path}", fix_of(url))
