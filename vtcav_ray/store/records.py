"""The small JSON files of a run folder, sealed when they are written and checked when they are read.

`run.json`, manifests, commit records and pointers decide which rows a reader sees. Each holds the digest of its own
content (`sealed`), so a flipped bit, a truncated file or an edit by hand raises an error that names the file, and never
leads to another run's rows or a `JSONDecodeError`. Files of older versions have no digest and are read without this
check. The types of what readers rely on (`CommitRecord`, `Manifest`, `RunJson`) are always checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NotRequired, TypeVar

import pydantic
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from vtcav_ray.errors import StageError

SEAL = "sealed"
FORMAT = "file_format"  # marks a sealed file, so that a flipped bit in the word `sealed` can't remove the check
SEALED_FORMAT = 2
COMMITS = "_commits"
MANIFEST = "manifest.json"
T = TypeVar("T")


class BrokenFile(StageError):
    """A file of a run is truncated, changed or missing. The message names the file and the fix.

    Args:
        url: of the file.
        what: what is wrong with the file: `it ends in the middle`.
        fix: a sentence that says what to do.
    """

    def __init__(self, url: str, what: str, fix: str) -> None:
        super().__init__(f"{url}: {what}. {fix}")
        self.url, self.what, self.fix = url, what, fix

    def __reduce__(self) -> tuple[type[BrokenFile], tuple[str, str, str]]:
        return type(self), (self.url, self.what, self.fix)


def canonical_digest(value: Any) -> str:
    """Return the hex SHA-256 of a JSON-like value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_lists(*lists: Iterable[Any]) -> str:
    """Return `canonical_digest` of a list of these lists, without holding their items or their JSON in memory."""
    digest, before = hashlib.sha256(b"["), ""
    for items in lists:
        digest.update(f"{before}[".encode())
        between = ""
        for item in items:
            digest.update(f"{between}{json.dumps(item, sort_keys=True, default=str)}".encode())
            between = ", "
        digest.update(b"]")
        before = ", "
    digest.update(b"]")
    return digest.hexdigest()


def sealed_bytes(value: Any) -> bytes:
    """Return a value as JSON. A mapping gets the digest of its content under `sealed`."""
    plain = json.loads(json.dumps(value, default=str))  # as a reader sees it: tuples become lists, keys become strings
    if isinstance(plain, dict):
        plain[FORMAT] = SEALED_FORMAT
        plain[SEAL] = canonical_digest(plain)
    return json.dumps(plain, indent=1, sort_keys=True).encode()


def parse_sealed(data: bytes, url: str) -> Any:
    """Parse a JSON file, check its seal and return the value without the seal.

    Args:
        data: the file's content.
        url: of the file, for the message.

    Raises:
        BrokenFile: not JSON, or the content does not match its digest.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # invalid UTF-8 is a ValueError, too
        what = "it is empty" if not data.strip(b"\0 \n") else f"it is not complete JSON ({error})"
        raise BrokenFile(url, what, fix_of(url)) from error
    if isinstance(value, dict) and (SEAL in value or FORMAT in value):
        if value.pop(SEAL, None) != canonical_digest(value):
            raise BrokenFile(url, "its content is not what was written (its checksum differs)", fix_of(url))
        value.pop(FORMAT, None)
    return value


def fix_of(url: str) -> str:
    """Return how to fix a broken file of a run folder, by the file's name."""
    folder, _, name = url.rpartition("/")
    if name == "run.json":
        return f"Run `vtcav run CONFIG --out {folder}` again: it rewrites the file and keeps finished work."
    if name == MANIFEST or folder.endswith(f"/{COMMITS}"):
        return "`vtcav run` on this folder repairs it; `vtcav verify` lists everything that is broken."
    if name == "gradcam.json":
        return f"Remove it, or run `vtcav gradcam CONFIG --out {folder}` again."
    if name == "patch.json":
        return f"Remove it, or run `vtcav patch {folder}` again."
    if name == "maps.json":
        return f"Remove it, or run `vtcav maps {folder}` again."
    if name == "superseded.json":
        return "Remove it to return to the output beside it, then run `vtcav retry-failed` again."
    return "Remove it and run the command again to rewrite it."


def _part(name: str) -> str:
    """Check that a name is that of one file or folder, and can't lead out of its folder."""
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
    """The entry of one file in a commit record.

    Attributes:
        rows, bytes: numbers of rows and bytes.
        sha256: of the whole file.
        blocks: SHA-256 of each block of `vtcav_ray.store.verified.BLOCK_BYTES` bytes; missing if there is only one
            block, and in records of older versions.
    """

    rows: Count
    bytes: Count
    sha256: Sha256
    blocks: NotRequired[list[Sha256]]


Files = dict[Annotated[str, AfterValidator(_path)], FileEntry]


@with_config(_OPEN)
class CommitRecord(TypedDict):
    """`_commits/<shard>.json`: the content of a shard."""

    shard: Name
    files: Files
    failures: Count
    metrics: dict[str, int | float]
    warnings: list[str]


@with_config(_OPEN)
class Manifest(TypedDict):
    """`manifest.json` of a complete stage. `shards` is its plan: each shard with its files."""

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
    """`superseded.json`: the key of the output that replaces this output."""

    by: Name


@with_config(_OPEN)
class BranchJson(TypedDict):
    """`gradcam.json`, `patch.json`, `maps.json`: key of a branch's newest output, and the keys of its inputs."""

    key: Name
    inputs: dict[Name, Name]


@with_config(_OPEN)
class PlanJson(TypedDict):
    """`plan.json`: number of shards of a stage, how many were done when it started, and the start time."""

    shards: Count
    done: Count
    started: float | int
    carried: NotRequired[dict[str, Any]]


COMMIT_RECORD = TypeAdapter(CommitRecord)
MANIFEST_RECORD = TypeAdapter(Manifest)
RUN_JSON = TypeAdapter(RunJson)
POINTER = TypeAdapter(Pointer)
BRANCH_JSON = TypeAdapter(BranchJson)
PLAN_JSON = TypeAdapter(PlanJson)


def checked(value: Any, kind: TypeAdapter[T], url: str) -> T:
    """Check that a value is of one of the kinds above, and return it.

    Raises:
        BrokenFile: the value is something else; the message names the wrong key.
    """
    try:
        return kind.validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its content"
        raise BrokenFile(url, f"`{where}` is damaged ({first['msg']})", fix_of(url)) from error


def commit_record(value: Any, url: str) -> CommitRecord:
    """Check a commit record, also against its file name, and return it.

    Raises:
        BrokenFile: not a commit record, or another shard's.
    """
    record = checked(value, COMMIT_RECORD, url)
    _of_one_shard(record["shard"], record["files"], url)
    if url.rsplit("/", 1)[-1] != f"{record['shard']}.json":
        raise BrokenFile(url, f"it is the record of another shard, {record['shard']}", fix_of(url))
    return record


def manifest_record(value: Any, url: str, stage: str, key: str) -> Manifest:
    """Check a manifest, also against the expected stage and key, and return it.

    Raises:
        BrokenFile: not a manifest, or another output's.
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
