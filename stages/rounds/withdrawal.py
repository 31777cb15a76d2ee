"""Withdrawals from a closed round: the dataset becomes as if a person had not submitted in it.

changed images -> plan -> a shard for each 256 images -> fold

Of each image whose stored answer was that person's, the masks are withdrawn. What another person answered takes their
place, by the rules of closing. Masks of the dataset that the withdrawn answer had replaced or rejected come back as new
masks with the same pixels, stage, model and maker, unless the other answer replaces them, too, or another round made
something of them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from stages.rounds.answers import Answer, ChosenSubmission, choose_submissions, read_answers
from stages.rounds.collect import REJECTED, mask_record, masks_of, place_of_mask
from stages.rounds.shards import fold_shards, locate, plan_shards
from stages.rounds.standing import Standing, StandingMask, read_standing
from storage import rle
from storage.dataset import Dataset
from storage.protocol.commits import Commit, list_commits, newest_generations
from storage.protocol.inputs import MaskKey, PlanKind, image_inputs, withdrawn_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, mask_id_of
from storage.tables.columns import ANNOTATIONS
from storage.tables.contents import read_masks, read_rows
from storage.workspace.fold import TaskMask
from storage.workspace.records import GivenMask, Round
from storage.workspace.withdrawals import Withdrawal, withdrawals_of
from storage.workspace.workspace import Workspace

MAX_IMAGES = 256
"""Most images in one shard."""
_Ids = dict[tuple[int, int], dict[str, int]]
"""Ids of the masks of answers by name; an answer is known by the ids of its submission and of its fix."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One withdrawal: the round, its plan and those of its earlier withdrawals, and which answers count."""

    round_id: str
    plans: Sequence[Plan]
    chosen: Mapping[int, ChosenSubmission | None]
    """Submission that is to be stored now, by the id of each image where that changes; None where none is left."""


@dataclass(frozen=True, kw_only=True)
class _Change:
    """What a withdrawal changes about one image."""

    out: Collection[MaskKey]
    """Masks to withdraw."""
    answer: Answer | None
    """Answer that counts now."""
    masks: Sequence[tuple[TaskMask, int | None]]
    """Masks of this answer to store, and the ids that their rows in `annotations` name; None for a new id."""
    back: Sequence[MaskRecord]
    """Masks that come back, as they were."""


def apply_withdrawals(
    dataset: Dataset, workspace: Workspace, frozen: Round, plan: Plan, before_step: Callable[[str], None]
) -> None:
    """Bring the dataset to where the withdrawals from a round have it, one after the other; each is made once."""
    plans, names = [plan], list[str]()
    for each in withdrawals_of(frozen):
        before_step(f"withdraw {each.annotator}")
        chosen = _changed_images(workspace, frozen.round_id, names, [*names, each.annotator])
        step = _Step(round_id=frozen.round_id, plans=tuple(plans), chosen=chosen)
        made = _plan(dataset, workspace, frozen, each, step)
        names.append(each.annotator)
        if made is not None:
            for shard in dataset.missing(made):
                before_step(f"write {shard.name} of withdrawal")
                _write_shard(dataset, workspace, made, shard, step)
            before_step(f"fold withdrawal of {each.annotator}")
            fold_shards(dataset, made, frozen.round_id)
            plans.append(made)


def _changed_images(
    workspace: Workspace, round_id: str, before: Collection[str], after: Collection[str]
) -> dict[int, ChosenSubmission | None]:
    """Find the images whose stored answer is another one without further annotators, and that answer."""
    old, new = (
        {each.task.image_id: each for each in choose_submissions(workspace, round_id, without=names) if each.kept}
        for names in (before, after)
    )
    return {image_id: new.get(image_id) for image_id, each in old.items() if each != new.get(image_id)}


def _plan(dataset: Dataset, workspace: Workspace, frozen: Round, each: Withdrawal, step: _Step) -> Plan | None:
    """Return the plan of a withdrawal: the one that it has, or a new one; None where nothing changes."""
    plan_id = each.plan_id
    if plan_id is None:
        dataset.fold()
        changes = _read_changes(dataset, workspace, step, list(step.chosen))
        changed = [image_id for image_id, change in changes.items() if change.out or change.masks or change.back]
        out = {image_id: changes[image_id].out for image_id in changed}
        shards = plan_shards(locate(dataset, changed), out, max_images=MAX_IMAGES)
        kind = PlanKind.AMENDMENTS if any(withdrawn_inputs(shard.inputs) for shard in shards) else PlanKind.MASKS
        about = {"stage": frozen.stage, "withdrawn_round": frozen.round_id, "withdrawn_annotator": each.annotator}

        def store() -> str:
            return dataset.new_plan(kind, shards, {**about, "reason": each.reason}).plan_id if shards else ""

        plan_id = workspace.rounds.set_withdrawal_plan(frozen.round_id, each.annotator, store)
    return dataset.plan(plan_id) if plan_id else None


def _write_shard(dataset: Dataset, workspace: Workspace, plan: Plan, shard: PlannedShard, step: _Step) -> None:
    """Write and commit what a withdrawal puts in the place of masks of one shard's images."""
    images: dict[int, ImageRecord] = {
        image.image_id: image for some in image_inputs(shard.inputs) for image, _ in dataset.read_images(some)
    }
    content = []
    for image_id, change in _read_changes(dataset, workspace, step, list(images)).items():
        masks = list[MaskRecord]()

        def new_id(image_id: int = image_id, masks: list[MaskRecord] = masks) -> int:
            return mask_id_of(plan.home, shard.name, shard.generation, image_id, len(masks))

        for mask in change.back:
            made_by = replace(mask.provenance, plan_id=plan.plan_id, config_hash=plan.settings_hash)
            masks.append(replace(mask, mask_id=new_id(), provenance=made_by))
        for made, mask_id in change.masks:
            assert change.answer is not None
            own = new_id() if mask_id is None else mask_id
            masks.append(mask_record(made, own, images[image_id], change.answer, plan))
        content.append((images[image_id], masks))
    dataset.write_annotated_masks(plan, shard, content, ANNOTATIONS.empty_table())


def _read_changes(dataset: Dataset, workspace: Workspace, step: _Step, image_ids: Sequence[int]) -> dict[int, _Change]:
    """Read what a withdrawal changes about images: their masks are to be as if the other answer had been closed."""
    if not image_ids:
        return {}
    listed = ", ".join(map(str, image_ids))
    sql = f"SELECT image_id, mask_id FROM masks WHERE round_id = '{step.round_id}' AND image_id IN ({listed})"
    stored: dict[int, set[MaskKey]] = {image_id: set() for image_id in image_ids}
    for row in dataset.query(sql).to_pylist():
        stored[row["image_id"]].add(MaskKey(**row))

    # What stood before the round was closed: what others made, and what the round took away
    at_close = [each for each in choose_submissions(workspace, step.round_id) if each.task.image_id in stored]
    before = list(read_answers(workspace, at_close))
    taken = _taken_masks(dataset, step, stored)
    now = read_standing(dataset, workspace, step.round_id, before, with_own=True)
    then = now.with_masks({image_id: [_standing(mask) for mask in masks] for image_id, masks in taken.items()})

    # The answers that count now, closed again
    ids = _ids_of_rows(dataset, step.plans[0], before)
    chosen = [each for image_id in image_ids if (each := step.chosen[image_id]) is not None]
    answers = {answer.task.image_id: answer for answer in read_answers(workspace, chosen)}
    changes = {}
    for image_id in image_ids:
        answer, gone = answers.get(image_id), {_key(mask): mask for mask in taken.get(image_id, ())}
        replaced = then.replaced_by(answer) if answer else set()
        back = [mask for key, mask in gone.items() if key not in replaced and not _is_overtaken(now, mask)]
        changes[image_id] = _Change(
            out=stored[image_id] | (replaced - set(gone)),
            answer=answer,
            masks=_masks_to_store(answer, then, ids) if answer else (),
            back=back,
        )
    return changes


def _masks_to_store(answer: Answer, then: Standing, ids: _Ids) -> list[tuple[TaskMask, int | None]]:
    """List the masks of an answer that closing would store, and the ids that their rows in `annotations` name."""
    names = ids.get(_name(answer.chosen), {})
    return [
        (mask, names.get(mask.mask))
        for mask, origin in masks_of(answer)
        if origin != REJECTED and place_of_mask(answer, mask, origin, then)[1]
    ]


def _taken_masks(dataset: Dataset, step: _Step, image_ids: Collection[int]) -> dict[int, list[MaskRecord]]:
    """Read the masks of others that the round took away and that have not come back, by image id."""
    # What came back before, by its pixels and provenance, and where the others were stored
    back: Counter[tuple[int, str, Provenance]] = Counter()
    wanted: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for plan in step.plans:
        for commit in dataset.commits(plan):
            rows = [row for part in commit.withdrawn() for row in read_rows(dataset.store, part).to_pylist()]
            for row in (row for row in rows if row["image_id"] in image_ids):
                wanted.setdefault((row["plan"], row["shard"]), set()).add((row["image_id"], row["mask_id"]))
            others = _others(dataset, commit, step.round_id) if plan is not step.plans[0] else []
            back.update(map(_content, others))

    # Each that came back is one less
    found: dict[int, list[MaskRecord]] = {}
    homes = sorted({home for home, _ in wanted})
    for address in newest_generations(each for home in homes for each in list_commits(dataset.store, home)):
        pairs = wanted.get((address.plan_id, address.shard), set())
        masks = _others(dataset, dataset.commit_of(address), step.round_id) if pairs else []
        for mask in (mask for mask in masks if (mask.image_id, mask.mask_id) in pairs):
            back[_content(mask)] -= 1
            if back[_content(mask)] < 0:
                found.setdefault(mask.image_id, []).append(mask)
    return found


def _others(dataset: Dataset, commit: Commit, round_id: str) -> list[MaskRecord]:
    """Read the masks of a shard that a round did not make, withdrawn ones, too."""
    return [
        mask for _, masks in read_masks(dataset.store, commit) for mask in masks if mask.provenance.round_id != round_id
    ]


def _ids_of_rows(dataset: Dataset, plan: Plan, before: Sequence[Answer]) -> _Ids:
    """Find the ids that the rows of `annotations` name for the masks of answers when the round was closed."""
    by_task: dict[int, list[int]] = {}
    new: set[int] = set()
    for commit in dataset.commits(plan):
        for row in (row for part in commit.annotations() for row in read_rows(dataset.store, part).to_pylist()):
            own = by_task.setdefault(row["task_id"], [])
            new.add(mask_id_of(plan.home, commit.shard, commit.generation, row["image_id"], len(own)))
            own.append(row["mask_id"])
    ids: _Ids = {}
    for answer in before:
        rows, masks = by_task.get(answer.task.task_id, []), list(masks_of(answer))
        named, by_task[answer.task.task_id] = rows[: len(masks)], rows[len(masks) :]
        pairs = zip(masks, named, strict=False)  # those of an image that is gone have no rows
        ids[_name(answer.chosen)] = {mask.mask: mask_id for (mask, _), mask_id in pairs if mask_id in new}
    return ids


def _name(chosen: ChosenSubmission) -> tuple[int, int]:
    """Return the ids of a submission and of its fix, 0 without one."""
    return chosen.submission.submission_id, chosen.fix.submission_id if chosen.fix else 0


def _content(mask: MaskRecord) -> tuple[int, str, Provenance]:
    """Return what a mask has in common with the one that came back in its place."""
    return mask.image_id, rle.to_coco(mask.rle), replace(mask.provenance, plan_id="", config_hash="")


def _key(mask: MaskRecord) -> MaskKey:
    return MaskKey(image_id=mask.image_id, mask_id=mask.mask_id)


def _standing(mask: MaskRecord) -> StandingMask:
    return StandingMask(key=_key(mask), round_id=mask.provenance.round_id, pixels=rle.to_coco(mask.rle))


def _is_overtaken(now: Standing, mask: MaskRecord) -> bool:
    """Tell whether what another round made of a mask, or of what the round made of it, stands."""
    return bool(now.made_of(mask.image_id, GivenMask(mask="", rle=mask.rle, source=str(_key(mask)))))
