"""Contents of a shard: samples in a tar and, beside it, the same shard's table rows as Parquet.

An image shard's sample is `<key>.jpg|png` and `<key>.json` (the image and its ingest record). A mask shard's sample is
`<key>.json`, exactly SA-1B's annotation file.
"""

import hashlib
import io
import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from storage import rle
from storage.errors import Corrupt, NotFound, StoreError
from storage.formats.sa1b import parse_sa1b, sa1b_json
from storage.formats.tar_shards import Member, MemberSpan, read_shard, write_shard
from storage.objects.stores import ObjectStore, sha256_of
from storage.protocol.commits import Attempt, Commit, ErasedObject, Part, PartRole, read_commits
from storage.protocol.erasures import Erasures, ZeroedDigest, is_expected, is_whole, read_erasures
from storage.protocol.inputs import ShardAddress
from storage.records import FORMATS, ImageRecord, MaskRecord, Provenance, image_id_of, image_key
from storage.tables.columns import ANNOTATIONS, REPEATED
from storage.tables.rows import image_rows, mask_rows
from storage.tables.samples import checked, read_image

_READS_AT_ONCE = 16
"""Objects read at a time; over a network each answer takes some milliseconds."""


def put_images(attempt: Attempt, images: Iterable[tuple[ImageRecord, bytes]], inherited: Commit | None = None) -> None:
    """Write the tar and the table rows of an image shard, with the images in the order of their keys.

    Raises:
        ValueError: A record contradicts its bytes, or `inherited` already holds one of `images`.
    """
    samples = sorted(images, key=lambda sample: sample[0].key)
    for image, data in samples:
        _check_image(image, data)
    _check_new(attempt, [image for image, _ in samples], inherited)
    members = (Member(key=image.key, parts={image.format: data, "json": _image_json(image)}) for image, data in samples)
    part, spans = _put_tar(attempt, members, images=len(samples), masks=0)
    records = [image for image, _ in samples]
    rows = image_rows(records, attempt.plan, attempt.shard, part.key, spans)
    put_rows(attempt, rows, images=part.images, masks=0)


def put_masks(
    attempt: Attempt, images: Iterable[tuple[ImageRecord, Sequence[MaskRecord]]], inherited: Commit | None = None
) -> None:
    """Write the tar and the table rows of a mask shard, with the images in the order of their keys.

    Raises:
        ValueError: A mask contradicts its image, or `inherited` already holds one of `images`.
    """
    samples = sorted(images, key=lambda sample: sample[0].key)
    for image, masks in samples:
        _check_masks(image, masks)
    _check_new(attempt, [image for image, _ in samples], inherited)
    members = (Member(key=image.key, parts={"json": _json(sa1b_json(image, masks))}) for image, masks in samples)
    num_masks = sum(len(masks) for _, masks in samples)
    part, spans = _put_tar(attempt, members, images=len(samples), masks=num_masks)
    rows = mask_rows(samples, attempt.plan, attempt.shard, part.key, spans)
    put_rows(attempt, rows, images=part.images, masks=part.masks)


def read_images(store: ObjectStore, commit: Commit) -> Iterator[tuple[ImageRecord, bytes]]:
    """Stream the images of a shard; erased images are left out.

    Raises:
        Corrupt: The bytes of an image or of the tar do not have the recorded SHA-256.
        StoreError: Images of the shard were erased meanwhile.
    """
    erasures = read_erasures(store)
    for part in commit.tars():
        with _erased_meanwhile(store, part, erasures):
            for member in read_part(store, part, erasures):
                image = _image_from_json(member, f"{store.uri}/{part.key}")
                yield image, checked(image, member.parts[image.format], f"{store.uri}/{part.key}")


def read_images_at(store: ObjectStore, commit: Commit, places: Sequence[int]) -> Iterator[tuple[ImageRecord, bytes]]:
    """Stream some images of a shard, and read only the bytes of these images; erased images are left out.

    Args:
        store: The store of the dataset.
        commit: Commit record of the shard.
        places: Indices of the images in the shard, ascending; erased images keep their indices.

    Raises:
        ValueError: The shard has no image at one of the places.
        Corrupt: The bytes of an image do not have the recorded SHA-256.
        Erased: An image was erased meanwhile.
    """
    erasures = read_erasures(store)
    if places and not 0 <= places[0] <= places[-1] < commit.images:
        raise ValueError(f"images {places[0]} to {places[-1]} of shard {commit.address}, which has {commit.images}")
    first = 0
    for part in commit.rows():
        own = [place - first for place in places if first <= place < first + part.images]
        rows = read_rows(store, part).take(own).to_pylist() if own else []
        for row in rows:
            if row["image_id"] not in erasures.images:
                yield read_image(store, row)
        first += part.images


def read_masks(
    store: ObjectStore, commit: Commit, withdrawn: Container[tuple[int, int]] = ()
) -> Iterator[tuple[ImageRecord, list[MaskRecord]]]:
    """Stream the images of a mask shard, each with its masks; withdrawn masks and erased images are left out.

    The image records hold only what the annotation file states: id, key, size and format.

    Args:
        store: The store of the dataset.
        commit: Commit record of the shard.
        withdrawn: Pairs (image_id, mask_id) of the withdrawn masks.

    Raises:
        Corrupt: Stored bytes are damaged, or a mask is not where the shard's rows say.
        StoreError: Images of the shard were erased meanwhile.
    """
    erasures = read_erasures(store)
    for part, rows_part in zip(commit.tars(), commit.rows(), strict=True):
        every = read_rows(store, rows_part).to_pylist()
        rows = iter(row for row in every if row["image_id"] not in erasures.images)
        with _erased_meanwhile(store, part, erasures):
            for member in read_part(store, part, erasures):
                image, masks = parse_sa1b(json.loads(member.parts["json"]))
                placed = [_with_provenance(mask, next(rows, None), f"{store.uri}/{part.key}") for mask in masks]
                yield image, [mask for mask in placed if (mask.image_id, mask.mask_id) not in withdrawn]


def have_rows(store: ObjectStore, commits: Sequence[Commit]) -> set[ShardAddress]:
    """Return the addresses of those shards whose table rows are all stored with the SHA-256 that the record states."""
    if len(commits) < _READS_AT_ONCE:
        return {commit.address for commit in commits if _are_whole(store, _folded_parts(commit))}
    with ThreadPoolExecutor(max_workers=_READS_AT_ONCE) as pool:
        found = pool.map(lambda commit: _are_whole(store, _folded_parts(commit)), commits)
        return {commit.address for commit, whole in zip(commits, found, strict=True) if whole}


def newest_with_rows(store: ObjectStore, commits: Sequence[Commit]) -> list[Commit]:
    """Replace each record whose table rows are lost by that of the newest generation before it whose rows are stored.

    A shard without such a generation is left out.
    """
    readable = have_rows(store, commits)
    kept = [commit for commit in commits if commit.address in readable]
    lost = [commit.address for commit in commits if commit.address not in readable]
    before = read_commits(store, [address.before for address in lost if address.generation])
    return [*kept, *newest_with_rows(store, before)] if before else kept


def is_there(store: ObjectStore, commit: Commit) -> bool:
    """Whether all objects of a shard are stored with the SHA-256 that the shard's record, or an erasure, states."""
    erasures = read_erasures(store)
    return all(is_whole(store, part, erasures) for part in commit.parts)


def _folded_parts(commit: Commit) -> list[Part]:
    """Return the parts whose rows a fold reads."""
    return [part for part in commit.parts if part.role is not PartRole.TAR]


def _are_whole(store: ObjectStore, parts: Iterable[Part]) -> bool:
    try:
        return all(sha256_of(store, part.key) == part.sha256 for part in parts)
    except NotFound:
        return False


def read_part(
    store: ObjectStore,
    part: Part,
    erasures: Erasures,
    *,
    on_erased: Callable[[Member], None] = lambda member: None,
) -> Iterator[Member]:
    """Stream the samples of one tar, without those of erased images.

    Args:
        store: The store of the dataset.
        part: The tar.
        erasures: The dataset's erasures.
        on_erased: Function that is called with the samples of erased images, whether they are overwritten or not.

    Raises:
        Corrupt: Size or SHA-256 differ from the record. The error may be raised only after the last sample.
    """
    with store.open(part.key) as stream:
        checked = _Checked(stream, f"{store.uri}/{part.key}", erasures.objects.get(part.key, ()))
        for member in read_shard(cast("BinaryIO", checked)):
            if member.key in erasures.keys:
                on_erased(member)
            else:
                yield member
        checked.finish(part)


@contextmanager
def _erased_meanwhile(store: ObjectStore, part: Part, erasures: Erasures) -> Iterator[None]:
    """Tell an erasure that began while a tar was read from damage.

    Raises:
        StoreError: Images of the tar were erased after `erasures` were read.
    """
    try:
        yield
    except (Corrupt, ValueError) as error:
        if read_erasures(store).objects.get(part.key, ()) != erasures.objects.get(part.key, ()):
            raise StoreError(f"{store.uri}/{part.key}: images of it were erased meanwhile; read it again") from error
        raise


def read_rows(store: ObjectStore, part: Part) -> pa.Table:
    """Read the table rows of one part of a shard. Texts that repeat are dictionary-encoded.

    Raises:
        Corrupt: The SHA-256 differs from the record, or there are more rows than the record states. In the second case
        no row is unpacked.
    """
    data = store.get(part.key)
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise Corrupt(f"{store.uri}/{part.key}: not the bytes that were committed; run `gigamask verify`")
    metadata = pq.read_metadata(pa.BufferReader(data))
    groups = sum(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
    rows, counted = max(metadata.num_rows, groups), part.masks if "mask_id" in metadata.schema.names else part.images
    if rows > counted:
        raise Corrupt(f"{store.uri}/{part.key}: {rows} rows, the record counts {counted}; run `gigamask verify`")
    repeated = [name for name in metadata.schema.names if name in REPEATED]
    file = pq.ParquetFile(pa.BufferReader(data), metadata=metadata, read_dictionary=repeated)
    return file.read(use_threads=False)  # small: threads cost more than they give


def _put_tar(attempt: Attempt, members: Iterable[Member], *, images: int, masks: int) -> tuple[Part, list[MemberSpan]]:
    spans: list[MemberSpan] = []
    part = attempt.put_part(
        PartRole.TAR, "tar", lambda file: spans.extend(write_shard(file, members)), images=images, masks=masks
    )
    return part, spans


def put_rows(attempt: Attempt, rows: pa.Table, *, images: int, masks: int) -> None:
    """Write table rows as a Parquet part of an attempt."""
    _put_parquet(attempt, PartRole.ROWS, "parquet", rows, images=images, masks=masks)


def put_withdrawn(attempt: Attempt, rows: pa.Table) -> None:
    """Write the masks that an amendment withdraws as a Parquet part, with the columns of WITHDRAWALS."""
    _put_parquet(attempt, PartRole.WITHDRAWN, "withdrawn.parquet", rows, images=0, masks=rows.num_rows)


def _put_parquet(attempt: Attempt, role: PartRole, extension: str, rows: pa.Table, *, images: int, masks: int) -> None:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    attempt.put_part(role, extension, lambda file: file.write(buffer.getvalue()), images=images, masks=masks)


def put_annotations(attempt: Attempt, rows: pa.Table) -> None:
    """Write rows of the table `annotations` as a Parquet part of an attempt.

    Raises:
        ValueError: The rows have other columns.
    """
    if rows.schema != ANNOTATIONS:
        raise ValueError(f"annotations: columns {rows.schema.names}, expected {ANNOTATIONS.names} with their types")
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    images = len(set(rows["image_id"].to_pylist()))
    attempt.put_part(
        PartRole.ANNOTATIONS,
        "annotations.parquet",
        lambda file: file.write(buffer.getvalue()),
        images=images,
        masks=rows.num_rows,
    )


def _image_json(image: ImageRecord) -> bytes:
    return _json({"image": sa1b_json(image, [])["image"], "ingest": {**asdict(image), "image_id": str(image.image_id)}})


def _image_from_json(member: Member, where: str) -> ImageRecord:
    try:
        facts = json.loads(member.parts["json"])["ingest"]
        image = ImageRecord(**{**facts, "image_id": int(facts["image_id"])})
        member.parts[image.format]
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            f"{where}: sample {member.key} is no image of a dataset ({type(error).__name__}: {error})"
        ) from error
    return image


def _with_provenance(mask: MaskRecord, row: dict[str, Any] | None, where: str) -> MaskRecord:
    if row is None or row["mask_id"] != mask.mask_id or row["image_id"] != mask.image_id:
        raise Corrupt(f"{where}: mask {mask.mask_id} is not where the shard's rows say; run `gigamask verify`")
    return replace(mask, provenance=Provenance.from_row(row))


def _check_new(attempt: Attempt, images: Sequence[ImageRecord], inherited: Commit | None) -> None:
    """Check that a redo which inherits parts adds only new images to them.

    Raises:
        ValueError: `inherited` is not the replaced record, or holds one of the images.
    """
    if inherited is None:
        return
    if inherited.record_sha256 != attempt.shard.previous:
        raise ValueError(f"shard {inherited.address} is not the one that {attempt.shard.name} was planned to replace")
    kept: set[str] = set()
    erasures = read_erasures(attempt.store)
    for part in inherited.tars():
        with _erased_meanwhile(attempt.store, part, erasures):
            kept |= {member.key for member in read_part(attempt.store, part, erasures)}
    twice = sorted(kept & {image.key for image in images})
    if twice:
        raise ValueError(f"image {twice[0]} is in {inherited.address} already; redo the shard without inheriting")


def _check_image(image: ImageRecord, data: bytes) -> None:
    if image.key != image_key(image.image_id) or image.image_id != image_id_of(image.source_sha256):
        raise ValueError(
            f"image {image.source}: id {image.image_id} and key {image.key} do not follow from its SHA-256"
        )
    if image.format not in FORMATS:
        raise ValueError(f"image {image.source}: format {image.format!r}, a shard holds {' or '.join(FORMATS)}")
    if image.nbytes != len(data) or image.stored_sha256 != hashlib.sha256(data).hexdigest():
        raise ValueError(f"image {image.source}: the {len(data)} bytes given are not those of its record")


def _check_masks(image: ImageRecord, masks: Sequence[MaskRecord]) -> None:
    if len({mask.mask_id for mask in masks}) != len(masks):
        raise ValueError(f"image {image.key}: two of its {len(masks)} masks have the same id")
    for mask in masks:
        if mask.image_id != image.image_id or (mask.rle.height, mask.rle.width) != (image.height, image.width):
            raise ValueError(
                f"mask {mask.mask_id}: image {mask.image_id}, {mask.rle.height} x {mask.rle.width}; expected image "
                f"{image.image_id}, {image.height} x {image.width}"
            )
        if mask.area_px != rle.area(mask.rle) or mask.box_xyxy != rle.box_xyxy(mask.rle):
            raise ValueError(f"mask {mask.mask_id}: area {mask.area_px} or box {mask.box_xyxy} is not that of its runs")


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


class _Checked:
    """Stream that hashes the bytes read from it, to check them against the record of a part, and its erasures."""

    def __init__(self, stream: BinaryIO, name: str, listed: Sequence[ErasedObject]) -> None:
        self.name, self._stream, self._nbytes, self._listed = name, stream, 0, listed
        self._digests = [ZeroedDigest(ranges) for ranges in [(), *(each.ranges for each in listed)]]

    def read(self, nbytes: int) -> bytes:
        data = self._stream.read(nbytes)
        for digest in self._digests:
            digest.update(data)
        self._nbytes += len(data)
        return data

    def finish(self, part: Part) -> None:
        while self.read(1 << 20):
            pass
        found = [digest.hexdigest() for digest in self._digests]
        if self._nbytes != part.nbytes or not is_expected(found, part, self._listed):
            raise Corrupt(f"{self.name}: not the bytes that were committed; run `gigamask verify`")
