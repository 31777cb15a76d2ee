"""Records of the workspace: what its methods take and return. Times are UTC, by the database server's clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from storage.rle import Rle

SHOW_NOTES: Mapping[str, bool] = {"use_attribute_docstrings": True}
"""Settings by which pydantic tells the notes under the fields of a dataclass, as in the HTTP interface's document."""


class Role(StrEnum):
    """Role of a user; each role may do all that the roles before it may."""

    ANNOTATOR = "annotator"
    REVIEWER = "reviewer"
    LEAD = "lead"


class RoundState(StrEnum):
    """State of a round."""

    OPEN = "open"
    PAUSED = "paused"
    CLOSING = "closing"
    CLOSED = "closed"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    """Kind of an operation."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"
    ACCEPT = "accept"
    REJECT = "reject"
    MERGE = "merge"
    SPLIT = "split"
    UNDO = "undo"
    REDO = "redo"
    ACTIVITY = "activity"
    NOTE = "note"
    FIX = "fix"


PASSIVE = frozenset({Kind.ACTIVITY, Kind.NOTE})
"""Kinds of operations that change no mask; they never conflict, and leave the revision as it is."""


class Origin(StrEnum):
    """Way in which a mask came about."""

    MADE = "made"
    PREFILL_ACCEPTED = "prefill_accepted"
    PREFILL_EDITED = "prefill_edited"


@dataclass(frozen=True, kw_only=True)
class User:
    """Account of a person or of a simulated annotator."""

    __pydantic_config__ = SHOW_NOTES

    name: str
    """Name of the account, unique."""
    role: Role
    """Role, which says what the account may do."""
    has_password: bool
    """Whether a password opens the account; False for the one user of a laptop and for simulated annotators."""
    disabled: bool
    """Whether the account is closed: it can neither log in nor claim tasks."""
    paused: bool
    """Whether the user gets no new tasks for now; tasks that the user holds can still be finished."""
    created_at: datetime
    """Time at which the account was made."""


@dataclass(frozen=True, kw_only=True)
class GivenMask:
    """Mask that a task begins with: a prefilled mask, or a gold mask that is never shown."""

    mask: str
    """Name of the mask, unique within its task."""
    rle: Rle
    """Pixels of the mask."""
    model_id: str = ""
    """Id of the model version that made the mask; empty where no model did."""
    predicted_iou: float | None = None
    """The model's own estimate of the mask's IoU, in [0, 1]; None for a mask without an estimate."""
    stability_score: float | None = None
    """Stability of the mask, in [0, 1]; None for a mask without a score."""
    source: str = ""
    """Mask of the dataset that this one is, as `<image_id>/<mask_id>`; empty for a mask that is not in the dataset."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Image that a round is to ask annotators about."""

    image_id: int
    height: int
    """Height of the stored image, in pixels."""
    width: int
    """Width of the stored image, in pixels."""
    priority: int = 0
    """Priority within the round; higher priorities are given out first."""
    overlap: int = 1
    """Number of annotators who see the image, each without the others' masks."""
    prefill: tuple[GivenMask, ...] = ()
    """Masks that the annotator finds on the image."""
    gold: tuple[GivenMask, ...] = ()
    """Known good masks, which annotators never see; not empty makes the task a gold task."""


@dataclass(frozen=True, kw_only=True)
class RoundSpec:
    """Round to open."""

    stage: str
    """Stage of the engine: assisted_manual or semi_automatic."""
    tasks: tuple[TaskSpec, ...]
    """Images in the order in which they are to be given out."""
    name: str = ""
    """Name for people; empty for none."""
    guidelines: str = ""
    """Text that annotators are shown."""
    priority: int = 0
    """Priority among open rounds; tasks of higher priorities are given out first."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the round as JSON values: the model, how images were chosen, what prefilled them."""


@dataclass(frozen=True, kw_only=True)
class ClientRequest:
    """Request that is answered once, however often its client sends it."""

    request_id: str
    """UUID that the client made, in lower case; the client sends a request again under the same id."""
    content: Mapping[str, Any]
    """Fields of the request, as JSON values; the same id with another content is refused."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of fields that are left out, so that leaving one out and giving its default are the same content."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Round of annotation."""

    round_id: str
    stage: str
    name: str
    state: RoundState
    guidelines: str
    priority: int
    settings: Mapping[str, Any]
    created_by: str
    created_at: datetime
    closed_at: datetime | None
    """Time of closing or cancelling; None before."""
    plan_id: str
    """Id of the plan whose shards hold the round's masks; empty until the round is closed, or where it has none."""


@dataclass(frozen=True, kw_only=True)
class RoundProgress:
    """Numbers of a round's tasks and slots. A task with an overlap of three has three slots."""

    __pydantic_config__ = SHOW_NOTES

    round_id: str
    """Id of the round."""
    tasks: int
    """Number of images."""
    slots: int
    """Number of answers that the round wants."""
    done: int
    """Number of slots that hold a submission."""
    leased: int
    """Number of slots that an annotator holds now."""
    free: int
    """Number of slots that wait for an answer and that nobody holds."""
    claimable: int
    """Number of free slots that somebody with an account can take. The others were skipped or answered by everybody, or
    are more than there are people; all are claimable while there is no account."""
    skips: int
    """Number of times that an annotator skipped a task."""
    open_branches: int
    """Number of lines of late work that nobody has merged or dismissed."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One image of one round."""

    task_id: int
    round_id: str
    image_id: int
    height: int
    width: int
    priority: int
    gold: bool
    """Whether the task is compared with known masks; never told to annotators."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Right of one annotator to work on a task for a while."""

    token: str
    """Secret that every write carries."""
    task: Task
    annotator: str
    granted_at: datetime
    expires_at: datetime
    """End of the lease, unless a heartbeat or a write extends it."""
    revision: int
    """Revision of the annotator's line: 0 for a task that the annotator sees for the first time."""
    reason: str
    """Reason why a reviewer sent the task back; empty for a task that was not sent back."""
    fixes: int | None
    """Submission that the holder fixes as a reviewer; None for a task that was claimed."""
    is_reopened: bool
    """Whether the holder has submitted the task before; that submission counts until the next one."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One action of an annotator, as the client sends it."""

    op_id: str
    """UUID of version 7 that the client makes; sending an operation twice is harmless."""
    session: str
    """Name of the page or program that made the operation, unique for each time that it is opened."""
    sequence: int
    """Number of the operation within its session, from 0."""
    base_revision: int
    """Revision of the line that the operation was made on."""
    kind: Kind
    payload: Mapping[str, Any]
    """Content, as JSON values; fold.py describes it for each kind."""
    client_time: datetime
    """Time of the action by the client's clock, which may be wrong."""


@dataclass(frozen=True, kw_only=True)
class StoredOperation(Operation):
    """Operation as the workspace holds it."""

    number: int
    """Order in which operations were stored."""
    task_id: int
    annotator: str
    token: str
    """Token of the lease that the operation was sent with."""
    branch: str
    """Name of the branch; empty for the annotator's main line."""
    revision: int
    """Revision of the line after the operation."""
    server_time: datetime


@dataclass(frozen=True, kw_only=True)
class AppendResult:
    """Result of storing operations."""

    __pydantic_config__ = SHOW_NOTES

    stored: tuple[str, ...]
    """Ids of the operations that were new."""
    known: tuple[str, ...]
    """Ids of the operations that were stored before."""
    revision: int
    """Revision of the annotator's main line."""
    branch: str
    """Name of the branch that took late work; empty if all operations went to the main line."""
    reason: str
    """Reason why a branch was needed; empty without one."""
    expires_at: datetime | None
    """New end of the lease; None for a lease that has ended."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Line of late work: operations that came with a stale token or a stale revision."""

    __pydantic_config__ = SHOW_NOTES

    branch: str
    """Name of the branch, unique."""
    task_id: int
    """Task that was worked on."""
    annotator: str
    """Annotator who did the work."""
    session: str
    """Name of the page or program that sent the operations."""
    reason: str
    """Reason why the operations could not join the annotator's main line."""
    fork_revision: int
    """Revision of the main line that the branch continues."""
    revision: int
    """Revision of the branch, counted on from where it began."""
    state: str
    """State: open, merged or dismissed."""
    created_at: datetime
    """Time at which the first of the operations came."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Finished work of one annotator on one task: the main line up to a revision."""

    __pydantic_config__ = SHOW_NOTES

    submission_id: int
    """Id of the submission."""
    task_id: int
    """Task that was worked on."""
    annotator: str
    """Annotator who did the work."""
    revision: int
    """Revision of the main line that was submitted."""
    submitted_at: datetime
    """Time of submitting."""
    state: str
    """State: submitted, accepted, sent_back or withdrawn (by a lead, or by the annotator's next submission)."""
    masks: int
    """Number of masks."""
    fixes: int | None
    """Submission that this one takes the place of, as a reviewer's fix; None for an annotator's own work."""


COUNTED = ("submitted", "accepted")
"""States of the submissions that count; work that was sent back or withdrawn does not."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Answer of a reviewer to one question about a submission."""

    __pydantic_config__ = SHOW_NOTES

    verdict_id: int
    """Id of the verdict."""
    submission_id: int
    """Submission that the verdict is about."""
    mask: str
    """Name of the mask; empty for a verdict about the whole image."""
    reviewer: str
    """Reviewer who answered."""
    question: str
    """Question: mask_good or nothing_missing."""
    answer: str
    """Answer: yes, no or unsure."""
    note: str
    """Remark of the reviewer; empty for none."""
    created_at: datetime
    """Time of the answer."""


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """Entry of the audit log: who did what to what."""

    __pydantic_config__ = SHOW_NOTES

    number: int
    """Place in the log, from 1."""
    at: datetime
    """Time of the act."""
    actor: str
    """Account that acted, or `command line`."""
    action: str
    """What was done."""
    subject: str
    """What it was done to."""
    details: Mapping[str, Any]
    """Further facts, by the kind of the act."""
