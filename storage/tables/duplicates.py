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
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from storage.errors import Corrupt, NotFound
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, read_commit
from storage.protocol.inputs import Input, PlanKind, ShardAddress, image_inputs, image_shard, inputs_from_json
from storage.protocol.plans import read_plan
from storage.records import DUPLICATE, Stage, image_key
from storage.tables import contents
from storage.tables.fold_log import DoneFold, table_rows
from storage.tables.query import query_own
from storage.tables.sql import are_shards, is_shard, one_of, quoted

Duplicates = Mapping[str, frozenset[int]]
"""Image ids that stay out of the tables, by the lineage of the shard that holds the copies."""

_MAX_IDS_NAMED = 2048
"""Most image ids that a SQL condition names; for more ids the whole column is read."""


def duplicates_in(store: ObjectStore, done: DoneFold) -> Duplicates:
    """Read the copies that the folds up to `done` left out."""
    where = f"stage = '{Stage.FOLD}' AND reason = '{DUPLICATE}'"
    rows = query_own(store, done, f"SELECT plan, shard, source FROM rejects WHERE {where}").to_pylist()
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
    """Find the images that shards hold in the tables, or masked with some settings, and that these commits lack."""
    lost: set[int] = set()
    for table, columns in (("images", ["image_id"]), ("masks", ["image_id", "config_hash"])):
        own = {(commit.plan_id, commit.shard): commit for commit in commits if commit.kind.table == table}
        kept = {place: _distinct(store, commit, columns) for place, commit in own.items()}
        sql = f"SELECT DISTINCT plan, shard, {', '.join(columns)} FROM {table} WHERE {are_shards(own)}"
        for row in query_own(store, done, sql).to_pylist() if own else []:
            if tuple(row[column] for column in columns) not in kept[row["plan"], row["shard"]]:
                lost.add(row["image_id"])
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
        rows = query_own(
            store, done, f"SELECT image_id, plan, shard FROM images WHERE image_id IN ({named})"
        ).to_pylist()
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
        lineage, sources = commit.address.lineage, _image_lineages(commit.inputs)
        own = _Masked(address=commit.address, made_by=commit.made_by)
        same = settings.of_shard(own)
        rivals = {
            each for source in sources for each in earlier[source] if not same.isdisjoint(settings.of_shard(each))
        }
        suspects = set[int]().union(*(known.get(source, frozenset()) for source in sources))
        if rivals or suspects:
            out = {**known, **copies}
            for rival in rivals:
                suspects |= _clashes(store, done, commit, rival, settings) - out.get(rival.address.lineage, frozenset())
            copies[lineage] = frozenset(suspects.intersection(_image_ids(store, commit).tolist()))
        back = known.get(lineage, frozenset()) - copies.get(lineage, frozenset())
        if back:  # the image has another owner, and masks made from the one before may be there
            masked = _masked_with(store, done, settings.of(commit.plan_id), back, leaving)
            copies[lineage] = copies.get(lineage, frozenset()) | masked
        for source in sources:
            earlier[source].add(own)
    return copies


@dataclass(frozen=True, kw_only=True)
class _Masked:
    """A mask shard in the tables."""

    address: ShardAddress
    made_by: str
    """Id of the plan that made its newest generation; a redo may have other settings than the shard's home."""


def _masked_before(
    store: ObjectStore, done: DoneFold, commits: Sequence[Commit], settings: "_Settings"
) -> defaultdict[str, set[_Masked]]:
    """Map each image shard of `commits` to the folded mask shards that were made from it with settings of `commits`.

    Shards that `commits` replace are left out.
    """
    own = [_Masked(address=commit.address, made_by=commit.made_by) for commit in commits]
    wanted = set[str]().union(*(settings.of_shard(each) for each in own))
    leaving = {each.address.lineage for each in own}
    kind = quoted(PlanKind.MASKS)
    redone = query_own(
        store, done, f"SELECT DISTINCT plan, made_by FROM shards WHERE kind = {kind} AND generation > 0"
    ).to_pylist()
    homes = query_own(store, done, f"SELECT DISTINCT plan FROM shards WHERE kind = {kind}")["plan"].to_pylist()
    same = {home for home in homes if settings.of(home) in wanted}
    same |= {row["plan"] for row in redone if settings.of(row["made_by"]) in wanted}
    named = one_of(sorted({source for commit in commits for source in _image_lineages(commit.inputs)}))
    several = "strpos(substr(inputs, strpos(inputs, '/') + 1), '/') > 0"
    sources = f"(split_part(inputs, '.g', 1) IN {named} OR {several})"
    where = f"kind = {kind} AND plan IN {one_of(sorted(same))} AND {sources}"
    sql = f"SELECT plan, shard, generation, made_by, inputs FROM shards WHERE {where}"
    earlier: defaultdict[str, set[_Masked]] = defaultdict(set)
    for row in query_own(store, done, sql).to_pylist():
        address = ShardAddress(plan_id=row["plan"], shard=row["shard"], generation=row["generation"])
        if address.lineage not in leaving:
            for source in _image_lineages(inputs_from_json(PlanKind.MASKS, row["inputs"].split())):
                earlier[source].add(_Masked(address=address, made_by=row["made_by"]))
    return earlier


def _clashes(store: ObjectStore, done: DoneFold, commit: Commit, rival: _Masked, settings: "_Settings") -> set[int]:
    """Find the images of which a rival has masks that count in place of those of a commit.

    Shards of the same home settings are alternatives as a whole. Otherwise a redo was made with the settings of other
    shards, and only masks of the same `config_hash` clash: masks that a redo inherited have another one.
    """
    theirs = _masked_by(store, done, rival.address)
    if settings.of(commit.plan_id) == settings.of(rival.address.plan_id):
        return {image_id for image_id, _ in theirs}
    return {image_id for image_id, _ in theirs & _distinct(store, commit, ["image_id", "config_hash"])}


def _masked_by(store: ObjectStore, done: DoneFold, rival: ShardAddress) -> set[tuple[Any, ...]]:
    """Collect (image_id, config_hash) of the masks that a shard holds, withdrawn masks included."""
    try:
        return _distinct(store, read_commit(store, rival), ["image_id", "config_hash"])
    except (NotFound, Corrupt):  # lost after it was folded
        sql = f"SELECT DISTINCT image_id, config_hash FROM masks WHERE {is_shard(rival.plan_id, rival.shard)}"
        return {(row["image_id"], row["config_hash"]) for row in query_own(store, done, sql).to_pylist()}


def _masked_with(
    store: ObjectStore, done: DoneFold, settings_hash: str, image_ids: Iterable[int], leaving: Collection[str]
) -> frozenset[int]:
    """Select the images that shards other than `leaving` masked with these settings, from whichever image shard."""
    named = ", ".join(map(str, sorted(image_ids)))
    same = f"starts_with(config_hash, {quoted(settings_hash)})"
    sql = f"SELECT DISTINCT image_id, plan, shard FROM masks WHERE image_id IN ({named}) AND {same}"
    rows = query_own(store, done, sql).to_pylist()
    return frozenset(row["image_id"] for row in rows if f"{row['plan']}/{row['shard']}" not in leaving)


class _Settings:
    """The settings of mask shards; plans that are lost have settings of their own."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._found: dict[str, str] = {}

    def of(self, plan_or_home: str) -> str:
        """Return the beginning of the hash of the settings of a plan, or of the plans that share a home."""
        if plan_or_home not in self._found:
            _, by, settings_hash = plan_or_home.partition("-by-")
            if not by:
                settings_hash = plan_or_home
                with suppress(NotFound, Corrupt):
                    settings_hash = read_plan(self._store, plan_or_home).settings_hash[:16]
            self._found[plan_or_home] = settings_hash
        return self._found[plan_or_home]

    def of_shard(self, shard: "_Masked") -> set[str]:
        """Return the settings of a shard's home and, for a redo, those with which its newest generation was made."""
        home = self.of(shard.address.plan_id)
        return {home, self.of(shard.made_by)} if shard.address.generation else {home}


def _image_lineages(inputs: Iterable[Input]) -> list[str]:
    return sorted({image_shard(images).lineage for images in image_inputs(inputs)})


def _image_ids(store: ObjectStore, commit: Commit) -> np.ndarray:
    """Read the ids of the images in the rows of a shard, each once."""
    parts = [contents.read_rows(store, part)["image_id"].to_numpy() for part in commit.rows()]
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))


def _distinct(store: ObjectStore, commit: Commit, columns: Sequence[str]) -> set[tuple[Any, ...]]:
    """Read the distinct values of some columns in the rows of a shard."""
    tables = (contents.read_rows(store, part).select(columns) for part in commit.rows())
    return {
        values for table in tables for values in zip(*(table[column].to_pylist() for column in columns), strict=True)
    }
