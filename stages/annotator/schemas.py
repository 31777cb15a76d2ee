"""Types of the HTTP interface that several routes share. Ids of images are texts: JavaScript loses 63-bit integers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from storage import rle
from storage.rle import Rle
from storage.workspace.fold import TaskMask, TaskState
from storage.workspace.masks import MAX_MASK_CHARACTERS, check_mask, mask_to_json
from storage.workspace.records import Lease, Round, RoundProgress
from storage.workspace.withdrawals import WITHDRAWALS

MAX_ID = 2**63 - 1


def _check_image_id(text: str) -> str:
    if int(text) > MAX_ID:
        raise ValueError("the id of an image is a whole number below 2**63")
    return text


_Id = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,19}$"), AfterValidator(_check_image_id)]
ImageId = Annotated[_Id, Path(description="Id of an image, as a text of digits.")]
TaskId = Annotated[int, Path(ge=1, le=2**53, description="Id of a task.")]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
"""Text of a name or token; a database cannot store NUL."""
LongText = Annotated[str, StringConstraints(max_length=20_000, pattern=r"^[^\x00]*$")]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class Body(BaseModel):
    """Base of what a client sends: unknown fields are refused, so that a misspelled one is not lost."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class View(BaseModel):
    """Base of what the server answers; the OpenAPI document shows the notes under the fields."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class MaskBody(Body):
    """A mask in COCO's compressed form."""

    size: Annotated[list[Annotated[int, Field(ge=1, le=2**31)]], Field(min_length=2, max_length=2)] = Field(
        description="Height and width, in pixels."
    )
    counts: Annotated[str, StringConstraints(min_length=1, max_length=MAX_MASK_CHARACTERS)] = Field(
        description="Run lengths as COCO's compressed string."
    )

    def checked(self, image_hw: tuple[int, int]) -> Rle:
        """Read the mask, and check that it is of an image of this size and not empty.

        Raises:
            ValueError: The runs describe no mask, or one of another size, or an empty one.
        """
        return check_mask(self.model_dump(), image_hw)


class MaskView(View):
    """A mask in COCO's compressed form."""

    size: list[int] = Field(description="Height and width, in pixels.")
    counts: str = Field(description="Run lengths as COCO's compressed string.")
    bbox: list[float] = Field(description="Box around the mask: x, y, width, height in pixels.")
    area: int = Field(description="Number of pixels.")

    @classmethod
    def of(cls, mask: Rle) -> MaskView:
        """Write a mask."""
        return cls(**mask_to_json(mask), bbox=rle.box_xywh(mask), area=rle.area(mask))


class Done(View):
    """Answer of a route that has nothing to tell."""

    done: bool = True
    """True."""


class RoundView(View):
    """A round, with how far it is."""

    round_id: str
    """Id of the round."""
    stage: str
    """Stage of the engine: assisted_manual or semi_automatic."""
    name: str
    """Name for people; empty for none."""
    state: str
    """State of the round: open, paused, closing, closed or cancelled."""
    guidelines: str
    """Text that annotators are shown."""
    priority: int
    """Priority among open rounds; tasks of higher priorities are given out first."""
    settings: dict[str, Any]
    """Settings: the model, how images were chosen, what prefilled them."""
    created_by: str
    """Account that opened the round, or `command line`."""
    created_at: datetime
    """Time of opening."""
    closed_at: datetime | None
    """Time of closing or cancelling; null before."""
    plan_id: str = Field(description="Plan of the round's masks; empty until it is closed.")
    tasks: int
    """Number of images."""
    slots: int = Field(description="Number of tasks, each counted once for every annotator who is to see it.")
    done: int
    """Number of slots that hold a submission."""
    leased: int
    """Number of slots that an annotator holds now."""
    free: int
    """Number of slots that wait for an answer and that nobody holds."""
    claimable: int
    """Number of free slots that somebody can take; the others were skipped or answered by everybody."""
    skips: int
    """Number of times that an annotator skipped a task."""
    open_branches: int = Field(description="Number of lines of late work that nobody has merged or dismissed.")

    @classmethod
    def of(cls, found: Round, progress: RoundProgress) -> RoundView:
        """Write a round."""
        settings = {name: value for name, value in found.settings.items() if name != WITHDRAWALS}  # for leads alone
        return cls(**{**vars(found), **vars(progress), "settings": settings})


class LeaseView(View):
    """The right to work on a task for a while."""

    token: str = Field(description="Secret that every write carries.")
    task_id: int
    """Id of the task."""
    round_id: str
    """Id of the round."""
    image_id: str
    """Id of the task's image."""
    height: int
    """Height of the image, in pixels."""
    width: int
    """Width of the image, in pixels."""
    granted_at: datetime
    """Time of the claim."""
    expires_at: datetime
    """End of the lease, unless a heartbeat or a write extends it."""
    revision: int = Field(description="Revision of the annotator's line, on which the next operation is made.")
    reason: str = Field(description="Why a reviewer sent the task back; empty for a task that was not sent back.")
    fixes: int | None = Field(description="Submission that the holder fixes as a reviewer; null for a claimed task.")
    is_reopened: bool = Field(description="Whether the holder has submitted the task; that counts until the next time.")
    image_url: str
    """Path of the image."""
    model_id: str = Field(description="Model that answers prompts in this task's round.")
    is_ready: bool = Field(description="Whether the image is encoded, so that a first click is answered at once.")

    @classmethod
    def of(cls, lease: Lease, model_id: str, *, is_ready: bool) -> LeaseView:
        """Write a lease."""
        task = lease.task
        return cls(
            token=lease.token,
            task_id=task.task_id,
            round_id=task.round_id,
            image_id=str(task.image_id),
            height=task.height,
            width=task.width,
            granted_at=lease.granted_at,
            expires_at=lease.expires_at,
            revision=lease.revision,
            reason=lease.reason,
            fixes=lease.fixes,
            is_reopened=lease.is_reopened,
            image_url=f"/api/images/{task.image_id}",
            model_id=model_id,
            is_ready=is_ready,
        )


class TaskMaskView(View):
    """One mask of a task."""

    mask: str = Field(description="Name of the mask, unique within the task.")
    rle: MaskView
    """Pixels of the mask."""
    origin: str
    """Way in which the mask came about: made, prefill_accepted or prefill_edited."""
    decided: bool
    """Whether the annotator accepted the prefilled mask in so many words; true for masks that were made or edited."""
    model_id: str
    """Model version that answered the annotator's prompts, or prefilled; empty where no model did."""
    predicted_iou: float | None
    """The model's own estimate of the mask's IoU, in [0, 1]; null without one."""
    stability_score: float | None
    """Stability of the mask, in [0, 1]; null for a mask without a score."""
    clicks: int
    """Number of clicks over all operations on the mask."""
    strokes: int
    """Number of strokes of brush and eraser over all operations on the mask."""
    edits: int
    """Number of operations that changed the mask after its first appearance."""
    source: str
    """Mask of the dataset that this one is, as `<image_id>/<mask_id>`; empty for any other."""
    author: str = Field(description="Annotator whose mask a reviewer found; empty for the line's own annotator.")
    fixed_by: str = Field(description="Reviewer who last changed the author's mask; empty for none.")

    @classmethod
    def of(cls, mask: TaskMask) -> TaskMaskView:
        """Write a mask of a task."""
        fields = {name: getattr(mask, name) for name in cls.model_fields if name != "rle"}
        return cls(**fields, rle=MaskView.of(mask.rle))


class TaskStateView(View):
    """State of one annotator's line on a task: the fold of its operations."""

    task_id: int
    """Id of the task."""
    annotator: str
    """Annotator whose line it is."""
    branch: str = Field(description="Name of the branch; empty for the main line.")
    revision: int
    """Revision of the line."""
    can_undo: bool
    """Whether there is something to undo."""
    can_redo: bool
    """Whether there is something to redo."""
    ignored: int = Field(description="Number of operations that did not fit the state they met.")
    masks: list[TaskMaskView]
    """Masks on the image."""
    rejected: list[TaskMaskView]
    """Prefilled masks that the annotator rejected or removed."""

    @classmethod
    def of(cls, task_id: int, annotator: str, branch: str, state: TaskState) -> TaskStateView:
        """Write the state of a line."""
        return cls(
            task_id=task_id,
            annotator=annotator,
            branch=branch,
            revision=state.revision,
            can_undo=state.can_undo,
            can_redo=state.can_redo,
            ignored=state.ignored,
            masks=[TaskMaskView.of(mask) for mask in state.masks],
            rejected=[TaskMaskView.of(mask) for mask in state.rejected],
        )
