"""The store that keeps objects in an S3 bucket, or on any compatible server with conditional writes.

Address, region and credentials are found as the AWS tools find them (AWS_ENDPOINT_URL, AWS_REGION, profiles, roles).
Requests are retried with growing, jittered pauses. Large objects are uploaded in parts. A commit record is always one
small put with `If-None-Match: *`.
"""

import io
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BrokenConnection

from storage.errors import Conflict, Corrupt, NotFound, StoreError
from storage.objects.stores import ChecksFirstPut, ObjectInfo, Unfinished

_T = TypeVar("_T")
_PIECE_BYTES = 8 << 20  # one range request of a stream
_IN_MEMORY_BYTES = 16 << 20  # an object larger than this is prepared on the local disk
_PARTS = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=32 << 20, max_concurrency=4)
_PAGE = 1000  # keys in one answer of a listing
_TRIES = 8
_LONGEST_PAUSE_S = 20.0
_MISSING = {"NoSuchKey", "NotFound", "404"}
_REFUSED = {
    "AccessDenied",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "403",
}
_TAKEN = {"PreconditionFailed", "412"}
_RACING = {"ConditionalRequestConflict", "OperationAborted", "409"}  # another write of the key is in flight: ask again


class S3Store(ChecksFirstPut):
    """A store of objects below `s3://bucket/prefix`."""

    needs_sync = False

    def __init__(self, uri: str) -> None:
        address = urlsplit(uri)
        self.bucket, self.prefix = address.netloc, address.path.strip("/")
        if not self.bucket or address.query or address.fragment:
            raise ValueError(f"dataset address {uri}: expected s3://bucket/prefix")
        self.uri = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self._session = boto3.Session()
        self._client = self._make_client()

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    @property
    def place(self) -> str:
        return f"{self.uri} at {self._client.meta.endpoint_url}"

    def get(self, key: str) -> bytes:
        return self._read(key, {})

    def get_range(self, key: str, offset: int, nbytes: int) -> bytes:
        if nbytes == 0:
            return b""
        data = self._read(key, {"Range": f"bytes={offset}-{offset + nbytes - 1}"})
        if len(data) != nbytes:
            raise Corrupt(f"{self.uri}/{key}: {len(data)} bytes at {offset}, expected {nbytes}; run `gigamask verify`")
        return data

    def open(self, key: str) -> BinaryIO:
        stream = _Stream(self, key, self.head(key).nbytes)
        return cast("BinaryIO", io.BufferedReader(stream, buffer_size=_PIECE_BYTES))

    def write(self, key: str, fill: Callable[[BinaryIO], object]) -> ObjectInfo:
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            try:
                fill(cast("BinaryIO", file))
            except OSError as error:
                raise StoreError(f"{self.uri}/{key}: could not be prepared on the local disk ({error})") from error
            nbytes = file.tell()
            file.seek(0)
            with self._explained(key):
                self._client.upload_fileobj(file, self.bucket, self._name(key), Config=_PARTS)
        return ObjectInfo(nbytes=nbytes)

    def put(self, key: str, data: bytes) -> ObjectInfo:
        with self._explained(key):
            self._client.put_object(Bucket=self.bucket, Key=self._name(key), Body=data)
        return ObjectInfo(nbytes=len(data))

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        with path.open("rb") as source:
            return self.write(key, lambda file: shutil.copyfileobj(source, file, _PIECE_BYTES))

    def put_if_absent(self, key: str, data: bytes) -> None:
        def put() -> object:
            return self._client.put_object(Bucket=self.bucket, Key=self._name(key), Body=data, IfNoneMatch="*")

        self._check_first_put()
        with self._explained(key):
            _retry(put, lambda error: isinstance(error, ClientError) and _code(error) in _RACING)

    def overwrite_with_zeros(self, key: str, ranges: Sequence[tuple[int, int]]) -> None:
        """Overwrite parts of an object with zeros: read it, change it and put it, if nobody else has changed it."""
        for attempt in range(_TRIES):
            try:
                return self._overwrite_once(key, ranges)
            except Conflict:  # another process overwrote other parts of it: begin with its bytes
                time.sleep(random.uniform(0, 0.1 * 2**attempt))
        raise StoreError(
            f"{self.uri}/{key}: changed {_TRIES} times while parts were overwritten; run the command again"
        )

    def _overwrite_once(self, key: str, ranges: Sequence[tuple[int, int]]) -> None:
        """Overwrite parts of an object.

        Raises:
            Conflict: Another process has changed the object meanwhile.
        """
        with self._explained(key):
            head = self._client.head_object(Bucket=self.bucket, Key=self._name(key))
        tag = head["ETag"].strip('"')  # radosgw compares it without the quotes, the other servers either way
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            with self.open(key) as stream:
                shutil.copyfileobj(stream, file, _PIECE_BYTES)
            nbytes, changed = file.tell(), False
            for start, length in ranges:
                file.seek(start)
                there = file.read(max(0, min(length, nbytes - start)))
                changed = changed or there.count(0) != len(there)
                file.seek(start)
                file.write(bytes(len(there)))
            if not changed:
                return

            def put() -> object:
                file.seek(0)
                return self._client.put_object(Bucket=self.bucket, Key=self._name(key), Body=file, IfMatch=tag)

            with self._explained(key):
                _retry(put, lambda error: isinstance(error, ClientError) and _code(error) in _RACING)

    def head(self, key: str) -> ObjectInfo:
        with self._explained(key):
            answer = self._client.head_object(Bucket=self.bucket, Key=self._name(key))
        return ObjectInfo(nbytes=answer["ContentLength"])

    def list(self, prefix: str) -> Iterator[str]:
        start = len(self._name("x")) - 1
        with self._explained(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._place(prefix), PaginationConfig={"PageSize": _PAGE}
            ):
                yield from (entry["Key"][start:] for entry in page.get("Contents", ()))

    def delete(self, key: str) -> None:
        with self._explained(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def unfinished(self) -> Iterator[Unfinished]:
        start = len(self._name("x")) - 1
        with self._explained(""):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self._place("")
            ):
                for upload in page.get("Uploads", ()):
                    yield Unfinished(key=upload["Key"][start:], handle=upload["UploadId"])

    def remove_unfinished(self, unfinished: Unfinished) -> None:
        name = self._name(unfinished.key)
        with suppress(NotFound), self._explained(unfinished.key):
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=unfinished.handle)

    def make_durable(self, keys: Iterable[str]) -> None:
        """Do nothing, because an object that the server has acknowledged is durable."""

    def remove_torn(self, key: str, is_torn: Callable[[bytes], bool]) -> bool:
        """Return False: no power cut tears an object of a server."""
        return False

    def make_names_durable(self, keys: Iterable[str]) -> None:
        """Do nothing, because an object that the server has acknowledged is durable."""

    def table_uri(self, folder: str, name: str) -> str:
        return f"{self.uri}/{folder}/{name}"

    def table_options(self) -> dict[str, str]:
        """Return this store's server and credentials as options of the Delta library."""
        found = self._session.get_credentials()
        if found is None:
            raise StoreError(_no_credentials(self.uri))
        credentials = found.get_frozen_credentials()
        options = {
            "aws_conditional_put": "etag",
            "aws_access_key_id": credentials.access_key,
            "aws_secret_access_key": credentials.secret_key,
            "aws_region": self._client.meta.region_name,
        }
        if credentials.token:
            options["aws_session_token"] = credentials.token
        endpoint = self._client.meta.endpoint_url
        if not endpoint.endswith(".amazonaws.com"):
            options |= {"aws_endpoint": endpoint, "aws_virtual_hosted_style_request": "false"}
            options["aws_allow_http"] = "true" if endpoint.startswith("http://") else "false"
        return options

    def _make_client(self) -> Any:  # boto3 makes its classes at run time
        region = self._session.region_name or "us-east-1"
        config = Config(
            retries={"mode": "standard", "total_max_attempts": _TRIES},
            max_pool_connections=32,
            connect_timeout=10,
            read_timeout=60,
            # Servers other than AWS know no trailing checksums; every object's SHA-256 is read back anyway.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = self._session.client("s3", region_name=region, config=config)
        if client.meta.endpoint_url.endswith(".amazonaws.com"):
            return client
        return self._session.client(
            "s3", region_name=region, config=config.merge(Config(s3={"addressing_style": "path"}))
        )

    def _read(self, key: str, extra: dict[str, str]) -> bytes:
        def read() -> bytes:
            body: bytes = self._client.get_object(Bucket=self.bucket, Key=self._name(key), **extra)["Body"].read()
            return body

        with self._explained(key):
            return _retry(read, lambda error: isinstance(error, BrokenConnection | HTTPClientError))

    def _name(self, key: str) -> str:
        if not key or any(part in ("", ".", "..") for part in key.split("/")) or "\0" in key:
            raise ValueError(f"object key {key!r}: expected a relative path such as data/plan/shard/attempt.tar")
        return self._place(key)

    def _place(self, prefix: str) -> str:
        return f"{self.prefix}/{prefix}" if self.prefix else prefix

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn an error of boto3 into an error of storage with a one-line message."""
        where = f"{self.uri}/{key}"
        try:
            yield
        except ClientError as error:
            raise self._of_code(_code(error), where, error) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StoreError(_no_credentials(self.uri)) from error
        except EndpointConnectionError as error:
            endpoint = self._client.meta.endpoint_url
            raise StoreError(
                f"{where}: {endpoint} cannot be reached; check AWS_ENDPOINT_URL and the network"
            ) from error
        except (BotoCoreError, Boto3Error) as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, ClientError):
                raise self._of_code(_code(cause), where, cause) from error
            raise StoreError(f"{where}: {' '.join(str(error).split())}; run the same command again") from error

    def _of_code(self, code: str, where: str, error: ClientError) -> StoreError:
        if code in _TAKEN:
            return Conflict(f"{where} is already there")
        if code == "NoSuchBucket":
            return StoreError(f"{where}: there is no bucket {self.bucket!r}; create it, or correct the address")
        if code in _MISSING or code == "NoSuchUpload":
            return NotFound(f"{where}: no such object")
        if code == "InvalidRange":
            return Corrupt(f"{where}: shorter than its record says; run `gigamask verify`")
        if code in _REFUSED:
            return StoreError(f"{where}: the server refuses these credentials ({code}); check keys and rights")
        if code == "NotImplemented":
            return StoreError(
                f"{where}: the server lacks a function this needs ({code}): conditional or multipart writes"
            )
        return StoreError(
            f"{where}: the server answered {code} ({' '.join(str(error).split())}); run the command again"
        )


class _Stream(io.RawIOBase):
    """A stream that reads an object with successive range requests, so that a broken connection costs one piece."""

    def __init__(self, store: S3Store, key: str, nbytes: int) -> None:
        self.name = f"{store.uri}/{key}"
        self._store, self._key, self._nbytes, self._at = store, key, nbytes, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        nbytes = min(len(buffer), self._nbytes - self._at)
        if nbytes:
            buffer[:nbytes] = self._store.get_range(self._key, self._at, nbytes)
            self._at += nbytes
        return nbytes

    def readall(self) -> bytes:
        pieces = []
        while piece := self.read(_PIECE_BYTES):  # the inherited one asks for 8 KiB at a time
            pieces.append(piece)
        return b"".join(pieces)


def _retry(call: Callable[[], _T], passing: Callable[[Exception], bool]) -> _T:
    """Retry what boto3 does not retry: bodies that break off, and writes refused because of a concurrent write."""
    for attempt in range(_TRIES - 1):
        try:
            return call()
        except (BotoCoreError, ClientError) as error:
            if not passing(error):
                raise
        time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.1 * 2**attempt)))
    return call()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _no_credentials(uri: str) -> str:
    return f"{uri}: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
