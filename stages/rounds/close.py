"""Close a round: its answers become masks of the dataset, once, however often and wherever this is called.

freeze -> plan -> a shard for each 256 images -> fold -> closed

The shards are mask shards. Where annotators edited or rejected masks that the dataset holds, they are amendments: the
fold that adds the new masks also removes the old ones, so readers see the old ones or the new ones, never both.

The state of the round and the commit records remember each step. So a call after a crash goes on where the other one
stopped, and two calls at the same time meet at the same plan and the same records.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stages.rounds.answers import ChosenSubmission, choose_submissions, read_answers
from stages.rounds.collect import collect
from stages.rounds.shards import fold_shards, locate, plan_shards
from stages.rounds.standing import read_standing
from stages.rounds.withdrawal import apply_withdrawals
from storage.dataset import Dataset
from storage.errors import InvalidInput
from storage.protocol.inputs import MaskKey, PlanKind, image_inputs, withdrawn_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, Reject, image_key
from storage.workspace.records import SHOW_NOTES, Round
from storage.workspace.sharing import OtherIsClosing
from storage.workspace.unfinished import UnfinishedWork
from storage.workspace.workspace import Workspace

MAX_IMAGES = 256
"""Most images in one shard."""


class UnansweredRound(InvalidInput):
    """Refusal to close a round that nobody answered, and that somebody still can answer."""


class UnfinishedRound(InvalidInput):
    """Refusal to close a round that people are still at work on.

    Attributes:
        unfinished: Work that closing would leave out.
    """

    def __init__(self, round_id: str, unfinished: UnfinishedWork) -> None:
        super().__init__(
            f"round {round_id} is unfinished: {unfinished}; have the work submitted or handed back, or close the round "
            "without it (--yes, over HTTP discard_unfinished)"
        )
        self.unfinished = unfinished


@dataclass(frozen=True, kw_only=True)
class ClosedRound:
    """Result of closing a round."""

    __pydantic_config__ = SHOW_NOTES

    round_id: str
    """Id of the round."""
    plan_id: str
    """Id of the plan whose shards hold the masks; empty for a round without submissions."""
    images: int
    """Number of images with a submission."""
    masks: int
    """Number of masks that were stored."""
    annotations: int
    """Number of rows in the table `annotations`."""
    withdrawn: int
    """Number of masks of the dataset that annotators replaced or rejected, and that were withdrawn."""
    rejects: int
    """Number of images that the dataset no longer holds, so that their answers could not be stored."""


def close_round(
    dataset: Dataset,
    workspace: Workspace,
    round_id: str,
    *,
    discard_unfinished: bool = False,
    actor: str = "command line",
    before_step: Callable[[str], None] = lambda step: None,
) -> ClosedRound:
    """Close a round, and return what its masks became.

    Args:
        dataset: The dataset whose images the round is about.
        workspace: The workspace of the round.
        round_id: The round.
        discard_unfinished: Whether to close although people hold tasks or have drafted masks that they did not submit;
            this work stays in the workspace alone.
        actor: Name of the user who closes the round, for the audit log.
        before_step: Function that is called with the name of each step before the step; tests interrupt closing in it.

    Raises:
        NotFound: There is no such round.
        UnansweredRound: Nobody answered the round.
        UnfinishedRound: People are at work on it, and their work is not to be discarded.
        ValueError: The round is cancelled, or is about another dataset.
        StoreError: The dataset or the workspace cannot be read or written, or rows of replaced masks are lost.
    """
    before_step("freeze")

    def check(unfinished: UnfinishedWork) -> None:
        check_finished(round_id, unfinished, discard_unfinished=discard_unfinished)

    try:
        frozen = workspace.rounds.begin_closing(round_id, actor=actor, check=check)
    except OtherIsClosing as error:
        close_round(dataset, workspace, error.other, actor=actor, before_step=before_step)
        return close_round(
            dataset, workspace, round_id, discard_unfinished=discard_unfinished, actor=actor, before_step=before_step
        )
    chosen = choose_submissions(workspace, round_id)

    before_step("plan")
    plan = _plan(dataset, workspace, frozen, chosen)
    if plan is None:
        workspace.rounds.end_closing(round_id, actor=actor)
        return _empty(round_id)

    for shard in dataset.missing(plan):
        before_step(f"write {shard.name}")
        _write_shard(dataset, workspace, plan, shard, chosen)
    before_step("fold")
    fold_shards(dataset, plan, round_id)
    apply_withdrawals(dataset, workspace, frozen, plan, before_step)

    before_step("end")
    workspace.rounds.end_closing(round_id, actor=actor)
    return _result(dataset, plan, round_id)


def check_finished(round_id: str, unfinished: UnfinishedWork, *, discard_unfinished: bool) -> None:
    """Check that a round can be closed. Answers that are merely still wanted do not keep it open.

    Raises:
        UnansweredRound: Nobody answered the round.
        UnfinishedRound: People are at work on it, and their work is not to be discarded.
    """
    if not unfinished.answers and unfinished.held + unfinished.claimable:
        raise UnansweredRound(
            f"round {round_id} has no answer, so that closing it would take nothing into the dataset; to end it, "
            f"cancel it: gigamask round cancel {round_id}"
        )
    if unfinished.loses_work and not discard_unfinished:
        raise UnfinishedRound(round_id, unfinished)


def _plan(dataset: Dataset, workspace: Workspace, frozen: Round, chosen: Sequence[ChosenSubmission]) -> Plan | None:
    """Return the plan of the round: the one that it has, or a new one; None for a round without submissions."""
    if frozen.plan_id:
        return dataset.plan(frozen.plan_id)
    wanted = list(dict.fromkeys(each.task.image_id for each in chosen))
    if not wanted:
        return None
    dataset.fold()
    places = locate(dataset, wanted)
    if not places:
        raise InvalidInput(f"round {frozen.round_id}: none of its images is in {dataset.uri}; name the round's dataset")
    lost = [image_key(image_id) for image_id in wanted if image_id not in places]
    settings: dict[str, object] = {"stage": frozen.stage, "round_id": frozen.round_id, "lost_images": lost}
    replaced = _replaced(dataset, workspace, frozen.round_id, chosen)
    shards = plan_shards(places, replaced, max_images=MAX_IMAGES)
    kind = PlanKind.MASKS
    if any(withdrawn_inputs(shard.inputs) for shard in shards):
        kind, settings = PlanKind.AMENDMENTS, {**settings, "reason": f"replaced or rejected in {frozen.round_id}"}
    plan_id = workspace.rounds.set_plan(frozen.round_id, lambda: dataset.new_plan(kind, shards, settings).plan_id)
    return dataset.plan(plan_id)


def _replaced(
    dataset: Dataset, workspace: Workspace, round_id: str, chosen: Sequence[ChosenSubmission]
) -> Mapping[int, set[MaskKey]]:
    """Find the masks of the dataset that annotators edited or rejected, by image id."""
    found: dict[int, set[MaskKey]] = {}
    kept = [each for each in chosen if each.kept]
    for start in range(0, len(kept), MAX_IMAGES):
        answers = [answer for answer in read_answers(workspace, kept[start : start + MAX_IMAGES]) if answer.given]
        standing = read_standing(dataset, workspace, round_id, answers)
        for answer in answers:
            found.setdefault(answer.task.image_id, set()).update(standing.replaced_by(answer))
    return found


def _write_shard(
    dataset: Dataset, workspace: Workspace, plan: Plan, shard: PlannedShard, chosen: Sequence[ChosenSubmission]
) -> None:
    """Write and commit the masks and annotations of one shard's images."""
    images: dict[int, ImageRecord] = {
        image.image_id: image for some in image_inputs(shard.inputs) for image, _ in dataset.read_images(some)
    }
    answers = list(read_answers(workspace, [each for each in chosen if each.task.image_id in images]))
    standing = read_standing(dataset, workspace, str(plan.settings["round_id"]), answers)
    content, annotations = collect(answers, images, plan, shard, standing)
    stats = {
        "answers": len(answers),
        "annotators": len({answer.annotator for answer in answers}),
        "active_s": sum(answer.time.total_s for answer in answers),
    }
    rejects = _lost_images(plan) if shard.name == plan.shards[0].name else []
    dataset.write_annotated_masks(plan, shard, content, annotations, rejects, stats)


def _lost_images(plan: Plan) -> list[Reject]:
    lost = plan.settings["lost_images"]
    assert isinstance(lost, list)
    detail = "the dataset no longer holds the image; its answers stay in the workspace"
    stage = str(plan.settings["stage"])
    return [Reject(source=key, source_sha256="", reason="image_gone", detail=detail, stage=stage) for key in lost]


def _result(dataset: Dataset, plan: Plan, round_id: str) -> ClosedRound:
    commits = dataset.commits(plan)
    return ClosedRound(
        round_id=round_id,
        plan_id=plan.plan_id,
        images=sum(commit.images for commit in commits),
        masks=sum(commit.masks for commit in commits),
        annotations=sum(part.masks for commit in commits for part in commit.annotations()),
        withdrawn=sum(part.masks for commit in commits for part in commit.withdrawn()),
        rejects=sum(len(commit.rejects) for commit in commits),
    )


def _empty(round_id: str) -> ClosedRound:
    return ClosedRound(round_id=round_id, plan_id="", images=0, masks=0, annotations=0, withdrawn=0, rejects=0)
