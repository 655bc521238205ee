"""Measure the listing of 650,000 objects of a bucket: seconds, requests and memory.

    python benchmarks/listing.py --videos 650000 --out benchmarks/results/listing.json

The bucket is a stand-in in another process: it answers S3's ListObjectsV2 in pages of 1,000 names, with prefixes and
delimiters, each page after `--latency` seconds. The client is what a run uses: `list_all` through s3fs. Correctness
against a real server (SeaweedFS) is tested in tests/engine/test_object_storage.py. `one_by_one_seconds` is what the
pages take without parallel requests, by their number and the latency alone.
"""

from __future__ import annotations

import argparse
import bisect
import multiprocessing
import resource
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

from environment import show
from tables_at_scale import video_names

from vtcav_ray.config import VideosConfig
from vtcav_ray.videos.listing import list_all

PAGE = 1000
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'


class Bucket(ThreadingHTTPServer):
    """A bucket `kinetics` with these keys, which must be sorted."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, keys: list[str], latency: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys, self.latency, self.pages = keys, latency, 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bucket

    def do_HEAD(self) -> None:
        self._answer(200 if urlsplit(self.path).path.strip("/") == "kinetics" else 404, b"")

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if "list-type" not in query:
            self._answer(404, b"")
            return
        time.sleep(self.server.latency)
        self.server.pages += 1
        self._answer(200, self._page(query).encode())

    def _page(self, query: dict[str, str]) -> str:
        keys, prefix, delimiter = self.server.keys, query.get("prefix", ""), query.get("delimiter", "")
        place = max(int(query.get("continuation-token", 0)), bisect.bisect_left(keys, prefix))
        end = bisect.bisect_left(keys, prefix + "\U0010ffff")
        size, parts = min(int(query.get("max-keys", PAGE)), PAGE), []
        while place < end and len(parts) < size:
            key = keys[place]
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                common = prefix + rest[: rest.index(delimiter) + 1]
                parts.append(f"<CommonPrefixes><Prefix>{_coded(common)}</Prefix></CommonPrefixes>")
                place = bisect.bisect_left(keys, common + "\U0010ffff")
                continue
            parts.append(
                f"<Contents><Key>{_coded(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>&quot;{place:032x}&quot;</ETag><Size>{400_000 + place % 77_777}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
            place += 1
        more = place < end
        token = f"<NextContinuationToken>{place}</NextContinuationToken>" if more else ""
        return (
            f"{HEAD}<Name>kinetics</Name><Prefix>{_coded(prefix)}</Prefix><KeyCount>{len(parts)}</KeyCount>"
            f"<MaxKeys>{size}</MaxKeys><EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{''.join(parts)}</ListBucketResult>"
        )

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def _coded(key: str) -> str:
    return escape(quote(key, safe="/"))


def serve(videos: int, latency: float, pipe: Connection) -> None:
    """Serve until the pipe gets a message; then send the number of pages."""
    import threading

    bucket = Bucket(sorted(f"val/{name}" for name, _ in video_names(videos)), latency)
    threading.Thread(target=bucket.serve_forever, daemon=True).start()
    pipe.send(bucket.server_port)
    pipe.recv()
    pipe.send(bucket.pages)


def measure(videos: int, latency: float) -> dict[str, Any]:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(videos, latency, theirs), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    options = {"key": "a", "secret": "b", "endpoint_url": url}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    found = list_all(VideosConfig(uri="s3://kinetics/val", storage_options=options))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    ours.send(None)
    pages = ours.recv()
    process.join()
    assert found.videos.num_rows == videos, found.videos.num_rows
    assert len(found.videos["video_id"].unique()) == videos
    return {
        "objects": videos,
        "labels": len(found.videos["label"].unique()),
        "pages": pages,
        "latency": latency,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "one_by_one_seconds": round(pages * latency),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
        "peak_mb_before": round(before * 1024 / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=650_000)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds of a page")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(options.videos, options.latency)
    show(found, options.out)


if __name__ == "__main__":
    main()
