"""A dataset's files by key, in a folder or a bucket, and how Delta tables are read from them without a library.

What else lies in a dataset's folders is told apart by its name: a stranger's file is no file of the dataset.
"""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import boto3
import pyarrow.parquet as pq

OWN = {
    "plans/": re.compile(r"plans/[A-Za-z0-9_-]+\.json"),
    "commits/": re.compile(r"commits/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+\.g\d+\.json"),
    "folds/": re.compile(r"folds/\d{8,}(\.done|\.tables-\d{8,}-[0-9a-f]{8})?\.json"),
    "snapshots/": re.compile(r"snapshots/[A-Za-z0-9_-]+\.json"),
}
"""What the names of a dataset's own files look like, by folder."""


class Files(Protocol):
    """A dataset's files by key."""

    def get(self, key: str) -> bytes:
        """Raises KeyError."""

    def put(self, key: str, data: bytes) -> None:
        """Writes a file, whatever is there."""

    def delete(self, key: str) -> None:
        """Deletes a file that is there."""

    def keys(self, prefix: str) -> list[str]:
        """All keys below a folder ("commits/"), sorted."""


class FolderFiles:
    """Files of a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError as error:
            raise KeyError(key) from error

    def put(self, key: str, data: bytes) -> None:
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).write_bytes(data)

    def delete(self, key: str) -> None:
        (self.root / key).unlink()

    def keys(self, prefix: str) -> list[str]:
        found = (path.relative_to(self.root).as_posix() for path in (self.root / prefix).rglob("*.*") if path.is_file())
        return sorted(key for key in found if not key.rpartition("/")[2].startswith("."))


class BucketFiles:
    """Files below a prefix of a bucket."""

    def __init__(self, endpoint: str, bucket: str, prefix: str) -> None:
        self.client = boto3.client("s3", endpoint_url=endpoint)
        self.bucket, self.prefix = bucket, prefix

    def get(self, key: str) -> bytes:
        try:
            return self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}")["Body"].read()
        except self.client.exceptions.NoSuchKey as error:
            raise KeyError(key) from error

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}", Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}")

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{self.prefix}/{prefix}"
        )
        return sorted(entry["Key"][len(self.prefix) + 1 :] for page in pages for entry in page.get("Contents", ()))


def own_keys(files: Files, prefix: str) -> list[str]:
    """The keys below a folder that are the dataset's own, sorted."""
    return [key for key in files.keys(prefix) if OWN[prefix].fullmatch(key)]


def delta_rows(get: Callable[[str], bytes], folder: str, name: str, version: int) -> list[dict[str, Any]]:
    """A Delta table at a version: its log read line by line, its Parquet files one by one."""
    files = [get(key) for key in live_files(get, folder, name, version)]
    return [row for data in files for row in parquet_rows(data)]


def live_files(get: Callable[[str], bytes], folder: str, name: str, version: int) -> list[str]:
    """Keys of the Parquet files whose rows are in a Delta table at a version."""
    live: dict[str, dict[str, Any]] = {}
    for each in range(version + 1):
        for line in get(f"{folder}/{name}/_delta_log/{each:020d}.json").splitlines():
            action = json.loads(line)
            if "add" in action:
                assert not action["add"].get("deletionVector"), "this reader knows no deletion vectors"
                live[action["add"]["path"]] = action["add"]
            if "remove" in action:
                del live[action["remove"]["path"]]
    return [f"{folder}/{name}/{unquote(path)}" for path in live]


def parquet_rows(data: bytes) -> list[dict[str, Any]]:
    return pq.ParquetFile(io.BytesIO(data)).read(use_threads=False).to_pylist()
