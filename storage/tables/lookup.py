"""Look-ups of one mask, of one image's masks, and of the images that a dataset already has."""

from collections.abc import Collection, Sequence

import pyarrow as pa

from storage.errors import NotFound, StoreError
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, list_commits, newest_generations, read_commits
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.records import MaskRecord
from storage.tables import contents
from storage.tables.fold_log import DoneFold, folded_generations, table_rows
from storage.tables.query import query_own
from storage.tables.samples import read_masks
from storage.tables.sql import is_shard

_MAX_SHARDS_NAMED = 100
"""Most shards that a condition names, at 0.15 ms of planning each; beyond that it names the image's id alone."""


def read_mask(store: ObjectStore, done: DoneFold, image_id: int, mask_id: int) -> MaskRecord:
    """Read one mask: find its row in the table `masks`, then read only that mask's bytes.

    Raises:
        NotFound: The fold has no such mask.
        Corrupt: The stored bytes are damaged.
    """
    where = f"{_where_image(store, done, image_id)} AND mask_id = {int(mask_id)}"
    rows = query_own(store, done, f"SELECT * FROM masks WHERE {where}").to_pylist()
    if not rows:
        raise NotFound(f"{store.uri}: no mask {mask_id} of image {image_id} in fold {done.number}")
    (mask,) = read_masks(store, rows[:1])
    return mask


def masks_of_image(store: ObjectStore, done: DoneFold, image_id: int) -> pa.Table:
    """Read the rows of one image in the table `masks`, ordered by part and ordinal.

    For an unknown image the result has no rows.
    """
    where = _where_image(store, done, image_id)
    return query_own(store, done, f"SELECT * FROM masks WHERE {where} ORDER BY part, ordinal")


def known_image_ids(store: ObjectStore, done: DoneFold) -> dict[int, bytes]:
    """Map the image_id of every committed image to its source_sha256, as 32 bytes.

    Images in commit records that are not folded yet are included.
    """
    # Images of the tables
    columns = ["image_id", "source_sha256"]
    tables = [table_rows(store, done, "images", columns)]

    # Images of records that are not folded yet
    folded = folded_generations(store, done)
    names = newest_generations(list_commits(store, kind=PlanKind.IMAGES))
    fresh = [name for name in names if folded.get((name.plan_id, name.shard)) != name.generation]
    return _digests(tables) | image_ids_of(store, fresh)


def image_ids_of(store: ObjectStore, shards: Sequence[ShardAddress]) -> dict[int, bytes]:
    """Map the image_id of each image of the given shards to its source_sha256, as 32 bytes.

    Shards whose table rows are lost are left out; `verify` names such shards.
    """
    commits = read_commits(store, shards)
    readable = contents.have_rows(store, commits)
    parts = [part for commit in commits if commit.address in readable for part in commit.rows()]
    return _digests([contents.read_rows(store, part) for part in parts])


def image_ids_in(store: ObjectStore, shard: Commit) -> list[int]:
    """Read the ids of an image shard's images, in the order of their places.

    Raises:
        NotFound: The table rows of the shard are lost.
        Corrupt: The table rows of the shard are damaged.
    """
    ids: list[int] = []
    for part in shard.rows():
        ids += contents.read_rows(store, part)["image_id"].to_pylist()
    return ids


def given_up(store: ObjectStore, done: DoneFold, named: Collection[ShardAddress]) -> set[ShardAddress]:
    """Return the addresses of the records that gave up a shard, among the addresses of all records.

    The table `shards` knows this of the records that are in it; the others are read.
    """
    try:
        rows = table_rows(store, done, "shards", ["plan", "shard", "generation", "attempt"]).to_pylist()
    except StoreError:  # records tell the same, slowly
        rows = []
    attempts = {
        ShardAddress(plan_id=row["plan"], shard=row["shard"], generation=row["generation"]): row["attempt"] or ""
        for row in rows
    }
    unknown = sorted(set(named) - attempts.keys())
    attempts |= {record.address: record.attempt_id for record in read_commits(store, unknown)}
    return {address for address in named if not attempts[address].startswith(f"g{address.generation}-")}


def _digests(tables: Sequence[pa.Table]) -> dict[int, bytes]:
    """Map image_id to the bytes of source_sha256, over all rows."""
    known: dict[int, bytes] = {}
    for batch in (batch for table in tables for batch in table.to_batches()):
        digests = map(bytes.fromhex, batch.column("source_sha256").to_pylist())
        known.update(zip(batch.column("image_id").to_pylist(), digests, strict=True))
    return known


def _where_image(store: ObjectStore, done: DoneFold, image_id: int) -> str:
    """Return the condition for an image's rows of `masks`.

    It names the shards that can hold them, if these are known: a shard's rows lie together, while image ids are hashes
    and lie anywhere.
    """
    image = f"SELECT concat(plan, '/', shard, '.g') AS home FROM images WHERE image_id = {int(image_id)}"
    can_hold = "s.masks > 0 AND (strpos(s.inputs, i.home) > 0 OR s.inputs = '')"
    made_from = f"SELECT s.plan, s.shard FROM shards s, ({image}) i WHERE {can_hold}"
    shards = [f"({is_shard(row['plan'], row['shard'])})" for row in query_own(store, done, made_from).to_pylist()]
    named = f" AND ({' OR '.join(shards)})" if 0 < len(shards) <= _MAX_SHARDS_NAMED else ""
    return f"image_id = {int(image_id)}{named}"
