"""What closing a round would leave out: tasks that are held or were not answered, and masks that were only drafted."""

from dataclasses import dataclass

from sqlalchemy import Connection, and_, distinct, false, func, select

from storage.workspace.columns import now
from storage.workspace.counts import count_progress
from storage.workspace.lines import state_of
from storage.workspace.records import COUNTED, SHOW_NOTES, Origin
from storage.workspace.schema import ASSIGNMENTS, SLOTS, SUBMISSIONS, TASKS


@dataclass(frozen=True, kw_only=True)
class UnfinishedWork:
    """Work of a round that closing it now would leave out of the dataset."""

    __pydantic_config__ = SHOW_NOTES

    answers: int
    """Number of submissions that count; without any, closing would take nothing into the dataset."""
    claimable: int
    """Number of answers that somebody with an account can still give, besides those of tasks that are held."""
    held: int
    """Number of tasks that annotators hold, or reviewers fix, now."""
    free: int
    """Number of answers that are wanted and that nobody is at work on."""
    drafted_tasks: int
    """Number of tasks with masks that were drafted, and neither submitted nor skipped."""
    drafted_masks: int
    """Number of these masks, prefilled ones that were accepted or rejected included."""

    @property
    def loses_work(self) -> bool:
        """Whether somebody is at work, or has drafted masks."""
        return bool(self.held or self.drafted_masks)

    def __str__(self) -> str:
        parts = (
            (self.held, f"{_many(self.held, 'task')} held now"),
            (self.free, f"{_many(self.free, 'answer')} still wanted"),
            (
                self.drafted_masks,
                f"{_many(self.drafted_masks, 'mask')} on {_many(self.drafted_tasks, 'task')} drafted and not submitted",
            ),
        )
        return ", ".join(text for count, text in parts if count) or "nothing"


def read_unfinished(connection: Connection, round_id: str) -> UnfinishedWork:
    """Count what closing a round now would leave out."""
    # Slots and answers
    is_held = func.coalesce(and_(SLOTS.c.token.is_not(None), SLOTS.c.expires_at > now()), false())
    held, free = func.count().filter(is_held), func.count().filter(~SLOTS.c.done, ~is_held)
    slots = select(held.label("held"), free.label("free"))
    counts = connection.execute(slots.where(SLOTS.c.round_id == round_id)).one()
    answers = select(func.count()).select_from(SUBMISSIONS).join(TASKS, TASKS.c.task_id == SUBMISSIONS.c.task_id)
    counted = answers.where(TASKS.c.round_id == round_id, SUBMISSIONS.c.state.in_(COUNTED))

    # Drafts on tasks that still want an answer
    wanted = select(distinct(SLOTS.c.task_id)).where(SLOTS.c.round_id == round_id, ~SLOTS.c.done)
    begun = select(ASSIGNMENTS.c.task_id, ASSIGNMENTS.c.annotator).where(
        ASSIGNMENTS.c.task_id.in_(wanted),
        ASSIGNMENTS.c.state.in_(("working", "sent_back")),
        ASSIGNMENTS.c.revision > 0,
    )
    drafts = {
        (row.task_id, row.annotator): _drafted_masks(connection, row.task_id, row.annotator)
        for row in connection.execute(begun)
    }
    return UnfinishedWork(
        claimable=count_progress(connection, round_id).claimable,
        answers=connection.execute(counted).scalar_one(),
        held=counts.held,
        free=counts.free,
        drafted_tasks=len({task_id for (task_id, _), masks in drafts.items() if masks}),
        drafted_masks=sum(drafts.values()),
    )


def _drafted_masks(connection: Connection, task_id: int, annotator: str) -> int:
    """Count the masks of a line that are its annotator's doing."""
    state = state_of(connection, task_id, annotator)
    own = [mask for mask in state.masks if mask.decided or mask.origin is not Origin.PREFILL_ACCEPTED]
    return len(own) + len(state.rejected)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
