"""Lineage in both directions: what a mask, a model or a snapshot was made from, and what was made from it.

photograph + model + person -> mask -> round -> snapshot -> model -> mask ...
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stages.promoted import PROMOTED
from stages.training.round_source import rounds_in
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.records import image_key
from storage.tables.sql import one_of
from storage.tables.withdrawals import withdrawn_masks


@dataclass(frozen=True, kw_only=True)
class Link:
    """One thing that something was made from, or that was made from it."""

    kind: str
    """model, snapshot, round, annotator, image, masks, plan, code, decision, evaluation or withdrawal."""
    id: str
    """Id of the thing, or its number where it has no id."""
    detail: str = ""
    """Facts about it, for people; empty for none."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Both directions of one thing's lineage."""

    kind: str
    """mask, model or snapshot."""
    id: str
    made_from: tuple[Link, ...]
    made_into: tuple[Link, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the lineage as JSON values."""
        return asdict(self)


def find_lineage(dataset: Dataset, name: str) -> Lineage:
    """Find the lineage of a model, a snapshot or a mask.

    Args:
        dataset: The dataset.
        name: Id of a model version, `promoted`, id of a snapshot, or a mask as `<image_id>/<mask_id>` or `<mask_id>`.

    Raises:
        NotFound: There is no such thing in the dataset.
    """
    if name == PROMOTED:
        newest = dataset.promotions.newest()
        if newest is None:
            raise NotFound(f"{dataset.uri}: no model was promoted yet; `gigamask models promote` promotes one")
        return _of_model(dataset, newest.promoted)
    if name in dataset.models.ids():
        return _of_model(dataset, name)
    if name in {each.snapshot_id for each in dataset.snapshots()}:
        return _of_snapshot(dataset, name)
    if all(part.isdecimal() for part in name.split("/")) and name.count("/") <= 1:
        return _of_mask(dataset, name)
    raise NotFound(
        f"{dataset.uri}: {name!r} is no model, snapshot or mask; expected the id of a model (`gigamask models "
        "history`), of a snapshot, or IMAGE_ID/MASK_ID as in the table masks"
    )


def _of_model(dataset: Dataset, model_id: str) -> Lineage:
    card = dataset.models.card(model_id)
    training = _training(card)
    made_from = []
    if card.get("parent"):
        made_from.append(Link(kind="model", id=str(card["parent"])))
    if training.get("snapshot"):
        steps = training.get("steps")
        made_from.append(Link(kind="snapshot", id=str(training["snapshot"]), detail=f"{steps} training steps"))
    rounds = [str(each) for each in training.get("rounds", ())]
    made_from += [link for round_id in rounds for link in _round(dataset, round_id)]
    if training.get("code"):
        made_from.append(Link(kind="code", id=str(training["code"])))
    made_into = [Link(kind="model", id=child) for child, other in _cards(dataset) if other.get("parent") == model_id]
    made_into += list(_decisions(dataset, model_id))
    sql = f"SELECT stage, round_id, count(*) AS masks FROM masks WHERE model_id IN {one_of([model_id])} GROUP BY 1, 2"
    for row in dataset.query(f"{sql} ORDER BY 1, 2").to_pylist():
        where = f" in round {row['round_id']}" if row["round_id"] else ""
        made_into.append(Link(kind="masks", id=str(row["masks"]), detail=f"{row['stage']}{where}"))
    return Lineage(kind="model", id=model_id, made_from=tuple(made_from), made_into=tuple(made_into))


def _of_snapshot(dataset: Dataset, snapshot: str) -> Lineage:
    made_from = [link for round_id in rounds_in(dataset, snapshot) for link in _round(dataset, round_id)]
    sql = "SELECT model_id, stage, count(*) AS masks FROM masks WHERE model_id <> '' GROUP BY 1, 2 ORDER BY 1, 2"
    for row in dataset.query(sql, snapshot).to_pylist():
        made_from.append(Link(kind="model", id=row["model_id"], detail=f"{row['masks']} masks, {row['stage']}"))
    (row,) = dataset.query("SELECT count(*) AS images FROM images", snapshot).to_pylist()
    made_from.append(Link(kind="images", id=str(row["images"])))
    made_into = [
        Link(kind="model", id=model_id, detail=f"trained {_training(card).get('steps')} steps")
        for model_id, card in _cards(dataset)
        if _training(card).get("snapshot") == snapshot
    ]
    for generation in dataset.promotions.history():
        described: Any = generation.evidence.get("evaluation_set", {})
        if str(described.get("place", "")).endswith(snapshot):
            made_into.append(Link(kind="evaluation", id=str(generation.number), detail=generation.decision.value))
    return Lineage(kind="snapshot", id=snapshot, made_from=tuple(made_from), made_into=tuple(made_into))


def _of_mask(dataset: Dataset, name: str) -> Lineage:
    row, reason = _find_mask(dataset, name)
    (image,) = dataset.query(f"SELECT source FROM images WHERE image_id = {row['image_id']}").to_pylist()
    made_from = [Link(kind="image", id=image_key(row["image_id"]), detail=image["source"])]
    if row["model_id"]:
        made_from.append(Link(kind="model", id=row["model_id"], detail="answered the prompts or made the mask"))
    if row["round_id"]:
        made_from.append(Link(kind="round", id=row["round_id"], detail=_how(dataset, row)))
        made_from.append(Link(kind="annotator", id=row["annotator_id"]))
    made_from.append(Link(kind="plan", id=row["plan"], detail=f"shard {row['shard']}, {row['stage']}"))

    # Snapshots that hold it, and the models that were trained on it
    exact = f"mask_id = {row['mask_id']} AND image_id = {row['image_id']}"
    holding = [
        each.snapshot_id
        for each in dataset.snapshots()
        if dataset.query(f"SELECT mask_id FROM masks WHERE {exact}", each.snapshot_id).num_rows
    ]
    made_into = [] if reason is None else [Link(kind="withdrawal", id=str(row["mask_id"]), detail=reason)]
    made_into += [Link(kind="snapshot", id=each) for each in holding]
    made_into += [
        Link(kind="model", id=model_id, detail="trained on it")
        for model_id, card in _cards(dataset)
        if _has_trained_on(_training(card), row, holding)
    ]
    mask = f"{row['image_id']}/{row['mask_id']}"
    return Lineage(kind="mask", id=mask, made_from=tuple(made_from), made_into=tuple(made_into))


def _find_mask(dataset: Dataset, name: str) -> tuple[Mapping[str, Any], str | None]:
    """Find a mask, or what is known of one that was withdrawn, with the reason; None for a mask that is there.

    Raises:
        NotFound: No mask or several masks have the name.
    """
    image_id, _, mask_id = name.rpartition("/")
    where = f"mask_id = {mask_id}" + (f" AND image_id = {image_id}" if image_id else "")
    rows = dataset.query(f"SELECT * FROM masks WHERE {where}").to_pylist()
    gone = []
    if not rows:
        withdrawn = withdrawn_masks(dataset.store, None).to_pylist()
        gone = [each for each in withdrawn if str(each["mask_id"]) == mask_id.lstrip("0")]
        gone = [each for each in gone if not image_id or str(each["image_id"]) == image_id.lstrip("0")]
    if len(rows) + len(gone) != 1:
        count = len(rows) + len(gone)
        raise NotFound(f"{dataset.uri}: {count} masks are called {name}, expected one; give IMAGE_ID/MASK_ID")
    return (rows[0], None) if rows else (_describe_withdrawn(dataset, gone[0]), gone[0]["reason"])


def _describe_withdrawn(dataset: Dataset, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in what the tables still know of a withdrawn mask: of an annotator's its annotation, else its shard."""
    known = {"model_id": "", "round_id": "", "annotator_id": "", "stage": "fully_automatic"}
    here = f"plan IN {one_of([row['plan']])} AND shard IN {one_of([row['shard']])}"
    exact = f"mask_id = {row['mask_id']} AND image_id = {row['image_id']}"
    sql = f"SELECT {', '.join(known)} FROM annotations WHERE {exact} AND in_masks AND {here}"
    found = dataset.query(sql).to_pylist()
    if not found:
        found = dataset.query(f"SELECT model_id FROM shards WHERE {here}").to_pylist()
    return {**row, **known, **(found[0] if found else {})}


def _has_trained_on(training: Mapping[str, Any], row: Mapping[str, Any], snapshots: list[str]) -> bool:
    """Whether a training could draw a mask: it is in the snapshot and its rounds, and its image was not held out."""
    data = training.get("data", {})
    if training.get("snapshot") not in snapshots or row["image_id"] % data.get("held_out_every", 5) == 0:
        return False
    if data.get("rounds"):
        drawn = [*data.get("replayed_rounds", ()), *(data["rounds"] if data.get("replay_fraction", 0.5) < 1 else ())]
        return row["round_id"] in drawn
    return not data.get("model_ids") or row["model_id"] in data["model_ids"]


def _round(dataset: Dataset, round_id: str) -> Iterator[Link]:
    sql = (
        "SELECT annotator_id, count(*) AS masks, min(stage) AS stage FROM annotations WHERE in_masks AND round_id IN "
        f"{one_of([round_id])} GROUP BY 1 ORDER BY 1"
    )
    rows = dataset.query(sql).to_pylist()
    stage = rows[0]["stage"] if rows else "no masks left"
    yield Link(kind="round", id=round_id, detail=f"{stage}, {sum(row['masks'] for row in rows)} masks")
    for row in rows:
        yield Link(kind="annotator", id=row["annotator_id"], detail=f"{row['masks']} masks in round {round_id}")


def _how(dataset: Dataset, row: Mapping[str, Any]) -> str:
    sql = f"SELECT * FROM annotations WHERE mask_id = {row['mask_id']} AND image_id = {row['image_id']} AND in_masks"
    found = dataset.query(sql).to_pylist()
    if not found:
        return ""
    simulated = "simulated " if found[0]["simulated"] else ""
    return f"{found[0]['origin']}, {found[0]['clicks']} clicks, {found[0]['active_s']:.1f} {simulated}seconds"


def _decisions(dataset: Dataset, model_id: str) -> Iterator[Link]:
    for generation in dataset.promotions.history():
        if generation.model_id == model_id:
            detail = f"{generation.decision} by {generation.made_by}: {generation.reason}"
            yield Link(kind="decision", id=str(generation.number), detail=detail)


def _cards(dataset: Dataset) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for model_id in dataset.models.ids():
        yield model_id, dataset.models.card(model_id)


def _training(card: Mapping[str, Any]) -> Mapping[str, Any]:
    training: Mapping[str, Any] = card.get("training", {})
    return training
