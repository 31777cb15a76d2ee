"""Copies that stay out of the tables: each image has one owner, and each image is masked once with the same settings.

Two plans can store the same photo twice, for example when two machines ingest the same folder under two mount points.
The first record in the order of the folds then owns the image. Every later copy stays out of `images`, and the masks of
a copy stay out of `masks`. Likewise, where two mask shards of the same settings hold masks of the same image, the shard
that was folded first counts. Each copy is a row of `rejects` with the reason `duplicate` and the stage `fold`.

An owner stays the owner as long as its newest generation has the image. Amendments are never kept out: they take the
place of masks that the same fold removes.

The process that plans a fold decides, and `folds/<n>.json` records the decision. So whoever applies or repeats the fold
leaves out the same copies.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa

from storage.errors import Corrupt, NotFound, StoreError
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, read_commit
from storage.protocol.inputs import Input, PlanKind, ShardAddress, image_inputs, image_shard, inputs_from_json
from storage.protocol.plans import read_plan
from storage.records import DUPLICATE, Stage, image_key
from storage.tables import contents
from storage.tables.fold_log import DoneFold, table_rows
from storage.tables.query import query
from storage.tables.sql import are_shards, is_shard, one_of, quoted

Duplicates = Mapping[str, frozenset[int]]
"""Image ids that stay out of the tables, by the lineage of the shard that holds the copies."""

_MAX_IDS_NAMED = 2048
"""Most image ids that a SQL condition names; for more ids the whole column is read."""


def duplicates_in(store: ObjectStore, done: DoneFold) -> Duplicates:
    """Read the copies that the folds up to `done` left out."""
    where = f"stage = '{Stage.FOLD}' AND reason = '{DUPLICATE}'"
    rows = query(store, done, f"SELECT plan, shard, source FROM rejects WHERE {where}").to_pylist()
    found: defaultdict[str, set[int]] = defaultdict(set)
    for row in rows:
        found[f"{row['plan']}/{row['shard']}"].add(int(row["source"], 16))
    return {lineage: frozenset(ids) for lineage, ids in found.items()}


def find_duplicates(
    store: ObjectStore, done: DoneFold, commits: Sequence[Commit], known: Duplicates | None = None
) -> Duplicates:
    """Decide which images of the commits stay out of the tables, if the commits are folded in this order after `done`.

    Args:
        store: The store of the dataset.
        done: The fold before.
        commits: Commit records of the next fold, with readable table rows.
        known: Copies that earlier folds left out; None reads them from the tables of `done`.
    """
    images = [commit for commit in commits if commit.kind is PlanKind.IMAGES]
    masks = [commit for commit in commits if commit.kind is PlanKind.MASKS]
    left_out = _copies_of_images(store, done, images) if images else {}
    if masks:
        earlier = duplicates_in(store, done) if known is None else known
        left_out |= _copies_of_masks(store, done, masks, {**earlier, **left_out})
    return {lineage: ids for lineage, ids in left_out.items() if ids}


def without_images(rows: pa.Table, image_ids: Collection[int]) -> pa.Table:
    """Remove the rows of the given images; the other rows keep their order."""
    if not image_ids or not rows.num_rows:
        return rows
    keep = ~np.isin(rows["image_id"].to_numpy(), np.fromiter(image_ids, np.int64, len(image_ids)))
    return rows.filter(pa.array(keep))


def keys_of(copies: Iterable[int]) -> tuple[str, ...]:
    """Return the keys of images in ascending order, as a fold records them."""
    return tuple(image_key(image_id) for image_id in sorted(copies))


def ids_of(keys: Iterable[str]) -> frozenset[int]:
    """Return the image ids of keys that a fold records."""
    return frozenset(int(key, 16) for key in keys)


def lost_images(store: ObjectStore, done: DoneFold, commits: Sequence[Commit]) -> set[int]:
    """Find the images that shards hold in the tables, or whose masks they hold, and that these new commits lack."""
    lost: set[int] = set()
    for table in ("images", "masks"):
        own = {(commit.plan_id, commit.shard): commit for commit in commits if commit.kind.table == table}
        kept = {place: set(_image_ids(store, commit).tolist()) for place, commit in own.items()}
        sql = f"SELECT DISTINCT plan, shard, image_id FROM {table} WHERE {are_shards(own)}"
        rows = query(store, done, sql).to_pylist() if own else []
        lost |= {row["image_id"] for row in rows if row["image_id"] not in kept[row["plan"], row["shard"]]}
    return lost


def _copies_of_images(store: ObjectStore, done: DoneFold, commits: Sequence[Commit]) -> dict[str, frozenset[int]]:
    """Find the images that the tables, or a commit before, hold in another shard.

    An image that the tables hold stays where it is, if the commit that replaces the shard still has it.
    """
    ids = {commit.address.lineage: set(_image_ids(store, commit).tolist()) for commit in commits}
    owners: dict[int, str] = {}
    for image_id, lineage in _owned(store, done, set[int]().union(*ids.values())):
        if lineage not in ids:
            owners[image_id] = lineage
        elif image_id in ids[lineage]:
            owners.setdefault(image_id, lineage)
    return {
        lineage: frozenset(image_id for image_id in own if owners.setdefault(image_id, lineage) != lineage)
        for lineage, own in ids.items()
    }


def _owned(store: ObjectStore, done: DoneFold, image_ids: Collection[int]) -> list[tuple[int, str]]:
    """Find the images that the tables hold, each with the lineage of its shard."""
    wanted = np.unique(np.fromiter(image_ids, np.int64, len(image_ids)))
    if len(wanted) > _MAX_IDS_NAMED:
        column = table_rows(store, done, "images", ["image_id"])["image_id"].to_numpy()
        wanted = np.intersect1d(wanted, column)
    held: list[tuple[int, str]] = []
    for start in range(0, len(wanted), _MAX_IDS_NAMED):
        named = ", ".join(map(str, wanted[start : start + _MAX_IDS_NAMED]))
        rows = query(store, done, f"SELECT image_id, plan, shard FROM images WHERE image_id IN ({named})").to_pylist()
        held += [(row["image_id"], f"{row['plan']}/{row['shard']}") for row in rows]
    return held


def _copies_of_masks(
    store: ObjectStore, done: DoneFold, commits: Sequence[Commit], known: Duplicates
) -> dict[str, frozenset[int]]:
    """Find the images whose masks were made from a copy, or were made with the same settings before."""
    settings = _Settings(store)
    leaving = {commit.address.lineage for commit in commits}
    earlier = _masked_before(store, done, commits, settings)
    copies: dict[str, frozenset[int]] = {}
    for commit in commits:
        sources = _image_lineages(commit.inputs)
        homes = [(settings.of(commit.plan_id), source) for source in sources]
        rivals = {rival for home in homes for rival in earlier[home]}
        suspects = set[int]().union(*(known.get(source, frozenset()) for source in sources))
        if rivals or suspects:
            suspects = suspects.union(*(_masked_by(store, done, rival, {**known, **copies}) for rival in rivals))
            copies[commit.address.lineage] = frozenset(suspects.intersection(_image_ids(store, commit).tolist()))
        back = known.get(commit.address.lineage, frozenset()) - copies.get(commit.address.lineage, frozenset())
        if back:  # the image has another owner, and masks made from the one before may be there
            masked = _masked_with(store, done, settings.of(commit.plan_id), back, leaving)
            copies[commit.address.lineage] = copies.get(commit.address.lineage, frozenset()) | masked
        for home in homes:
            earlier[home].add(commit.address)
    return copies


def _masked_before(
    store: ObjectStore, done: DoneFold, commits: Sequence[Commit], settings: "_Settings"
) -> defaultdict[tuple[str, str], set[ShardAddress]]:
    """Map settings and image shard to the folded mask shards that were made with these settings from this image shard.

    The settings and image shards of `commits` alone must be mapped; shards that `commits` replace are not.
    """
    wanted = {settings.of(commit.plan_id) for commit in commits}
    leaving = {commit.address.lineage for commit in commits}
    kind = quoted(PlanKind.MASKS)
    homes = query(store, done, f"SELECT DISTINCT plan FROM shards WHERE kind = {kind}")["plan"].to_pylist()
    same = one_of(home for home in homes if settings.of(home) in wanted)
    named = one_of(sorted({source for commit in commits for source in _image_lineages(commit.inputs)}))
    several = "strpos(substr(inputs, strpos(inputs, '/') + 1), '/') > 0"
    sources = f"(split_part(inputs, '.g', 1) IN {named} OR {several})"
    where = f"kind = {kind} AND plan IN {same} AND {sources}"
    sql = f"SELECT plan, shard, generation, inputs FROM shards WHERE {where}"
    earlier: defaultdict[tuple[str, str], set[ShardAddress]] = defaultdict(set)
    for row in query(store, done, sql).to_pylist():
        address = ShardAddress(plan_id=row["plan"], shard=row["shard"], generation=row["generation"])
        if address.lineage not in leaving:
            for source in _image_lineages(inputs_from_json(PlanKind.MASKS, row["inputs"].split())):
                earlier[settings.of(address.plan_id), source].add(address)
    return earlier


def _masked_by(store: ObjectStore, done: DoneFold, rival: ShardAddress, known: Duplicates) -> set[int]:
    """Collect the images whose masks a shard brings into the tables, withdrawn masks included."""
    try:
        masked = set(_image_ids(store, read_commit(store, rival)).tolist())
    except (NotFound, Corrupt):  # lost after it was folded
        where = is_shard(rival.plan_id, rival.shard)
        masked = set(query(store, done, f"SELECT image_id FROM masks WHERE {where}")["image_id"].to_pylist())
    return masked - known.get(rival.lineage, frozenset())


def _masked_with(
    store: ObjectStore, done: DoneFold, settings_hash: str, image_ids: Iterable[int], leaving: Collection[str]
) -> frozenset[int]:
    """Select the images that shards other than `leaving` masked with these settings, from whichever image shard."""
    named = ", ".join(map(str, sorted(image_ids)))
    same = f"starts_with(config_hash, {quoted(settings_hash)})"
    sql = f"SELECT DISTINCT image_id, plan, shard FROM masks WHERE image_id IN ({named}) AND {same}"
    rows = query(store, done, sql).to_pylist()
    return frozenset(row["image_id"] for row in rows if f"{row['plan']}/{row['shard']}" not in leaving)


class _Settings:
    """The settings of mask plans, by the home of their shards; plans that cannot be read have settings of their own."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._found: dict[str, str] = {}

    def of(self, home: str) -> str:
        """Return the hash of the settings with which the shards of a home are made."""
        if home not in self._found:
            _, by, settings_hash = home.partition("-by-")
            if not by:
                settings_hash = home
                with suppress(StoreError, ValueError):
                    settings_hash = read_plan(self._store, home).settings_hash[:16]
            self._found[home] = settings_hash
        return self._found[home]


def _image_lineages(inputs: Iterable[Input]) -> list[str]:
    return sorted({image_shard(images).lineage for images in image_inputs(inputs)})


def _image_ids(store: ObjectStore, commit: Commit) -> np.ndarray:
    """Read the ids of the images in the rows of a shard, each once."""
    parts = [contents.read_rows(store, part)["image_id"].to_numpy() for part in commit.rows()]
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))
